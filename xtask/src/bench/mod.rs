//! `cargo xtask bench`: how fast, as ratios to a reference that runs side by side in the same minute.
//!
//! Machines differ and drift, so a figure alone says little. Every pair runs the reference and Yoink in turn, and what
//! counts is the median of their ratios.

mod engine;
mod pairs;
mod profile;
mod rabbitmq;
mod redis;
mod results;
mod server;
mod storm;

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::say::say;

pub(crate) use results::{median, write as write_part};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Seconds that wrk runs for each figure
    #[arg(long, default_value_t = 6)]
    seconds: u32,
    /// Pairs of reference and Yoink per row
    #[arg(long, default_value_t = 3)]
    pairs: u32,
    /// Orders for the figures of the engine alone
    #[arg(long, default_value_t = 1_000_000)]
    orders: u64,
    /// Measure only what each step of a purchase costs, against its budget
    #[arg(long)]
    profile: bool,
    /// Which engine
    #[arg(long, default_value = "embedded", value_parser = ["embedded", "redis", "rabbitmq"])]
    engine: String,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Leave benchmarks/RESULTS.md as it is
    #[arg(long)]
    dry_run: bool,
}

/// Measures everything, writes benchmarks/RESULTS.md, and prints what it wrote.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    if args.seconds == 0 || args.pairs == 0 || args.orders == 0 {
        bail!("--seconds, --pairs and --orders must be at least 1");
    }
    if args.profile {
        return profile::run(args.json);
    }
    need_wrk()?;
    build()?;
    rest()?;
    let (markdown, json) = match args.engine.as_str() {
        "redis" => {
            let results = redis::measure(args.seconds, args.pairs)?;
            (results.markdown(), results.json().to_string())
        }
        "rabbitmq" => {
            let results = rabbitmq::measure(args.seconds, args.pairs)?;
            (results.markdown(), results.json().to_string())
        }
        _ => {
            let folder = crate::target_folder()?.join("bench");
            let rows = pairs::measure(&folder, args.seconds, args.pairs)?;
            let engine = engine::measure(&folder, args.orders)?;
            let results = results::Results { rows, engine, seconds: args.seconds, pairs: args.pairs };
            (results.markdown(), results.json())
        }
    };
    if !args.dry_run {
        results::write(&args.engine, &markdown)?;
    }
    let text = if args.json { json } else { markdown };
    use std::io::Write as _;
    writeln!(std::io::stdout().lock(), "{text}").context("cannot print the results")
}

fn need_wrk() -> Result<()> {
    match Command::new("wrk").arg("-v").output() {
        Ok(_) => Ok(()),
        Err(_) => bail!("wrk is not installed; run `cargo xtask setup`"),
    }
}

/// Lets the disks come to rest: what a build left to be written makes the first commits slow.
fn rest() -> Result<()> {
    say("waiting until what was built is on disk ...");
    let status = Command::new("sync").status().context("cannot run sync")?;
    if status.success() { Ok(()) } else { bail!("sync failed") }
}

fn build() -> Result<()> {
    say("building (release) ...");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "-p", "yoink-server", "-p", "yoink-reference"])
        .status()
        .and_then(|server| {
            let engine = Command::new(env!("CARGO"))
                .args([
                    "build",
                    "--quiet",
                    "--release",
                    "-p",
                    "yoink-engine",
                    "--example",
                    "measure",
                    "--example",
                    "redis_reference",
                ])
                .status()?;
            Ok(server.success() && engine.success())
        })
        .context("cannot run cargo")?;
    if status { Ok(()) } else { bail!("the build failed") }
}
