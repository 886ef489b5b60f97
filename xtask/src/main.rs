//! Project chores. `cargo xtask test` is everything that proves Yoink; `cargo xtask --help` lists the rest.

mod bench;
mod breaks;
mod drill;
mod lab;
mod say;
mod schemathesis;
mod setup;
mod steps;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use say::say;

#[derive(Debug, Parser)]
#[command(about = "Chores of the Yoink project", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Install what the tests need on Debian, where it is missing
    Setup(setup::SetupArgs),
    /// Everything that proves it: style, lints, house rules, tests, drills, schemathesis
    Test(test::TestArgs),
    /// Setup and test; what needs nothing installed is done meanwhile
    Ci(test::TestArgs),
    /// Check the house rules
    Tidy,
    /// Kill the server under load, again and again, and judge what is left
    Drill(Box<drill::DrillArgs>),
    /// Try the server against its OpenAPI document
    Schemathesis(schemathesis::SchemathesisArgs),
    /// Break each promise by hand, in a copy, and demand that a test fails
    Breaks(breaks::BreaksArgs),
    /// Run every strategy of the lab twenty times, and write the table to benchmarks/RESULTS.md
    LabProof(lab::ProofArgs),
    /// Run the generations, and write docs/case-study.md with what was measured
    CaseStudy,
    /// Send the older system's buyers to each generation, and a spike to the product too, with a real k6
    K6,
    /// Measure, as ratios to a reference, and write benchmarks/RESULTS.md
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().chore) {
        Ok(code) => code,
        Err(error) => {
            say(format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<ExitCode> {
    match chore {
        Chore::Setup(args) => setup::run(args).map(|()| ExitCode::SUCCESS),
        Chore::Test(args) => test::run(&args, None),
        Chore::Ci(args) => {
            let missing = setup::SetupArgs { long: args.long };
            let setup = || setup::run(missing).map(|()| steps::Counted::of(1, "machine has what is needed"));
            test::run(&args, Some(("setup", Box::new(setup))))
        }
        Chore::Tidy => tidy::run().map(|counted| {
            say(format!("tidy: {counted}"));
            ExitCode::SUCCESS
        }),
        Chore::Drill(args) => drill::run(&args).map(|report| {
            say(format!(
                "drill: ok: {} {}, {} purchases compared, 0 findings",
                report.count, report.what, report.purchases
            ));
            ExitCode::SUCCESS
        }),
        Chore::Breaks(args) => breaks::run(&args).map(|counted| done("breaks", &counted)),
        Chore::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Chore::LabProof(args) => lab::proof(&args).map(|counted| done("lab-proof", &counted)),
        Chore::CaseStudy => lab::case_study().map(|counted| done("case-study", &counted)),
        Chore::K6 => lab::k6(&lab::Lab::build()?).map(|counted| done("k6", &counted)),
        Chore::Schemathesis(args) => schemathesis::run(&args).map(|counted| done("schemathesis", &counted)),
    }
}

fn done(chore: &str, counted: &steps::Counted) -> ExitCode {
    say(format!("{chore}: ok: {} {}", counted.count, counted.words));
    ExitCode::SUCCESS
}

/// The root of the workspace.
fn root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).context("xtask is not in a workspace")
}

/// Where cargo puts what it builds.
fn target_folder() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(root()?.join("target")),
    }
}
