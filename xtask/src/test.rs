//! `cargo xtask test`: everything that proves it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser};

use crate::schemathesis::SchemathesisArgs;
use crate::steps::{Counted, Steps};
use crate::{drill, schemathesis, tidy};

/// Features that only tests have.
const FAULTS: &str = "yoink-server/faults,yoink-engine/faults";

/// What to leave out.
#[derive(Clone, Debug, Args)]
pub(crate) struct TestArgs {
    /// Leave out what needs the release build: drills and schemathesis
    #[arg(long)]
    quick: bool,
    /// Times to kill at random instants
    #[arg(long, value_name = "N", default_value_t = 200)]
    kills: u32,
    /// Times to kill at each labelled step
    #[arg(long, value_name = "N", default_value_t = 5)]
    kills_per_step: u32,
}

/// Does all steps, prints the table, and fails if one failed.
///
/// # Errors
/// Only what keeps the steps from being done at all.
pub(crate) fn run(args: &TestArgs) -> Result<ExitCode> {
    let mut steps = Steps::default();
    steps.run("format", || cargo(&["fmt", "--all", "--check"], "workspace formatted"));
    steps.run("tidy", || Ok(Counted { count: 1, words: tidy::run()? }));
    let lints = ["clippy", "--workspace", "--all-targets", "--quiet", "--"];
    steps.run("lints", || cargo(&[&lints[..], &["-D", "warnings"]].concat(), "workspace without warnings"));
    let lints = ["clippy", "--workspace", "--all-targets", "--quiet", "--features", FAULTS, "--"];
    steps.run("lints, faults", || {
        cargo(&[&lints[..], &["-D", "warnings"]].concat(), "workspace without warnings")
    });
    steps.run("tests", tests);
    if !args.quick {
        let kills = args.kills.to_string();
        steps.run("drill, random", || drilled(&["--kills", &kills]));
        let times = args.kills_per_step.to_string();
        steps.run("drill, every step", || drilled(&["--all-steps", &times]));
        steps.run("schemathesis", || schemathesis::run(&SchemathesisArgs::default()));
    }
    writeln!(std::io::stdout().lock(), "\n{}", steps.table())?;
    Ok(if steps.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo_command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(crate::root()?).stdin(Stdio::null()).env("INSTA_UPDATE", "no");
    Ok(command)
}

fn cargo(arguments: &[&str], words: &str) -> Result<Counted> {
    let status = cargo_command(arguments)?.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(Counted { count: 1, words: words.to_owned() })
}

/// All tests of the workspace, with nextest where it is installed, and the examples in the documentation.
fn tests() -> Result<Counted> {
    let has_nextest = cargo_command(&["nextest", "--version"])?
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let features = ["--workspace", "--features", FAULTS, "--no-fail-fast"];
    if !has_nextest {
        return count_tests(&[&["test"], &features[..]].concat());
    }
    let count = count_tests(&[&["nextest", "run"], &features[..]].concat())?.count;
    let documentation = count_tests(&["test", "--doc", "--workspace", "--features", FAULTS])?.count;
    Ok(Counted { count: count.saturating_add(documentation), words: "tests".to_owned() })
}

/// Runs tests, shows what they say, and counts those that passed.
fn count_tests(arguments: &[&str]) -> Result<Counted> {
    let mut command = cargo_command(arguments)?;
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run cargo")?;
    let stderr = child.stderr.take().map(|stderr| std::thread::spawn(move || pass_on(stderr)));
    let stdout = child.stdout.take().map_or(0, pass_on);
    let count = stderr.map_or(0, |reader| reader.join().unwrap_or_default()).saturating_add(stdout);
    if !child.wait()?.success() {
        bail!("cargo {} failed; {count} tests passed", arguments.join(" "));
    }
    if count == 0 {
        bail!("cargo {} ran no test at all", arguments.join(" "));
    }
    Ok(Counted { count, words: "tests".to_owned() })
}

fn pass_on(pipe: impl std::io::Read) -> u64 {
    let mut count = 0_u64;
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        count = count.saturating_add(passed_in(&line));
        writeln!(std::io::stderr().lock(), "{line}").ok();
    }
    count
}

/// Tests that a summary line of either runner says have passed.
fn passed_in(line: &str) -> u64 {
    let is_summary = line.starts_with("test result:") || line.trim_start().starts_with("Summary [");
    let words: Vec<_> = line.split([' ', ';', ',']).filter(|word| !word.is_empty()).collect();
    let number = words.windows(2).find_map(|pair| match pair {
        [number, "passed"] => number.parse().ok(),
        _ => None,
    });
    if is_summary { number.unwrap_or(0) } else { 0 }
}

fn drilled(arguments: &[&str]) -> Result<Counted> {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        drill: drill::DrillArgs,
    }
    let line = Line::try_parse_from(["drill"].iter().chain(arguments))?;
    let report = drill::run(&line.drill)?;
    let words = format!("kills, {} purchases compared", report.purchases);
    Ok(Counted { count: report.kills.into(), words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_understood() {
        assert_eq!(passed_in("test result: ok. 13 passed; 0 failed; 0 ignored; 0 measured"), 13);
        assert_eq!(
            passed_in("     Summary [   1.203s] 48 tests run: 47 passed (1 slow), 1 failed, 0 skipped"),
            47
        );
        assert_eq!(passed_in("the log says 12 passed"), 0);
    }
}
