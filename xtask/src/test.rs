//! `cargo xtask test`: everything that proves it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser};

use crate::lab::{self, Lab};
use crate::schemathesis::SchemathesisArgs;
use crate::steps::{Counted, Step, Steps, TestsFailed};
use crate::{drill, schemathesis, tidy};

/// Features that only tests have.
const FAULTS: &str = "yoink-server/faults,yoink-engine/faults";
/// The same, and tests that start a RabbitMQ each: that takes seconds of a core, each time.
const EVERYTHING: &str = "yoink-server/faults,yoink-engine/faults,yoink-server/broker-tests,yoink-engine/broker-tests,\
                          yoink-testkit/broker-tests";

/// What of the contract is tried on a cluster every time: what goes to Redis.
const CLUSTER_PART: [&str; 3] = ["purchase::", "orders::", "products::"];
/// What of the contract is tried every time on the rabbitmq engine: what goes through the queue.
const BROKER_PART: [&str; 3] = ["purchase::", "orders::", "products::"];
/// Tests of the contract at once on one broker, which ends whenever none of them is running.
const ON_ONE_BROKER: &str = "--test-threads=4";

/// Kills at each labelled step of the redis engine, and with `--long`.
const REDIS_KILLS_PER_STEP: &str = "2";
const REDIS_KILLS_PER_STEP_LONG: &str = "20";

/// Seconds for which PostgreSQL is away in the redis engine's drill, and with `--long`.
const OUTAGE: &str = "60";
const OUTAGE_LONG: &str = "300";

/// The tests of the contract. The lab has none of that name; with it, what both build on has the features that it has in
/// the whole workspace, and is not built once more.
const CONTRACT: [&str; 10] =
    ["-p", "yoink-server", "-p", "yoink-lab", "--features", FAULTS, "--no-fail-fast", "--test", "it", "--"];

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
    /// Do what takes some minutes more, too: the tests that start a RabbitMQ each, the whole contract on a cluster and on
    /// RabbitMQ with and without the lock, the drill of the rabbitmq engine, the lab's report in a browser, many more
    /// kills at the labelled steps of the redis engine and an outage of its PostgreSQL for five minutes, and a build of
    /// the product without failpoints for schemathesis
    #[arg(long)]
    pub(crate) long: bool,
}

/// Does all steps, prints the table, and fails if one failed. `also`: what the tests need, and can wait for, and reading
/// the code does not.
///
/// # Errors
/// Only what keeps the steps from being done at all.
pub(crate) fn run(args: &TestArgs, also: Option<Step<'_>>) -> Result<ExitCode> {
    let mut steps = Steps::default();
    let also = also.map(|step| ("", vec![step]));
    steps.run_beside(also.into_iter().chain([("", reading())]).collect());
    steps.run("tests", tests);
    let binary = Mutex::new(None);
    steps.run_beside(on_servers(args, &binary));
    let binary = binary.into_inner().unwrap_or_default();
    if let Some(binary) = binary {
        steps.run_beside(drills(args, &binary));
    }
    writeln!(std::io::stdout().lock(), "\n{}", steps.table())?;
    Ok(if steps.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is seen without running anything.
fn reading() -> Vec<Step<'static>> {
    let lints = |features: &'static [&'static str]| -> Box<dyn FnOnce() -> Result<Counted> + Send> {
        let words =
            [&["clippy", "--workspace", "--all-targets", "--quiet"], features, &["--", "-D", "warnings"]];
        Box::new(move || cargo(&words.concat(), "workspace without warnings"))
    };
    vec![
        ("format", Box::new(|| cargo(&["fmt", "--all", "--check"], "workspace formatted"))),
        ("tidy", Box::new(|| Ok(Counted::of(1, tidy::run()?)))),
        ("lints", lints(&[])),
        ("lints, faults", lints(&["--features", EVERYTHING])),
    ]
}

/// What runs the tests' build against servers, and mostly waits for them; beside it, what the drills need is built.
fn on_servers<'a>(
    args: &'a TestArgs,
    binary: &'a Mutex<Option<PathBuf>>,
) -> Vec<(&'static str, Vec<Step<'a>>)> {
    let part = |part: &'static [&'static str]| if args.long { &[][..] } else { part };
    let mut tests: Vec<Step<'a>> = vec![
        ("k6", Box::new(|| lab::k6(&Lab::built_by_tests()?))),
        ("contract, redis", Box::new(|| contract("redis", &[]))),
        ("contract, redis cluster", Box::new(move || contract("redis-cluster", part(&CLUSTER_PART)))),
        ("contract, rabbitmq", Box::new(move || contract_on_broker("rabbitmq", part(&BROKER_PART)))),
    ];
    if args.long {
        tests.push(("tests, rabbitmq", Box::new(broker_tests)));
        tests.push(("report in a browser", Box::new(|| lab::browser(&Lab::built_by_tests()?))));
        tests.push((
            "contract, rabbitmq without lock",
            Box::new(|| contract_on_broker("rabbitmq-no-lock", &[])),
        ));
    }
    tests.push(("documentation", Box::new(documentation_tests)));
    let mut beside = vec![("", tests)];
    if !args.quick {
        let build = || {
            let built = drill::build()?;
            if let Ok(mut binary) = binary.lock() {
                *binary = Some(built);
            }
            Ok(Counted::of(1, "binary to be killed"))
        };
        beside.push(("", vec![("build, faults", Box::new(build))]));
    }
    beside
}

/// What needs a build like the product's. The drills of engines on servers mostly wait (for servers to start, for workers to be taken
/// for dead, for outages to pass), so the rest is done beside them.
fn drills<'a>(args: &'a TestArgs, binary: &'a Path) -> Vec<(&'static str, Vec<Step<'a>>)> {
    let (kills_per_step, outage) = match args.long {
        true => (REDIS_KILLS_PER_STEP_LONG, OUTAGE_LONG),
        false => (REDIS_KILLS_PER_STEP, OUTAGE),
    };
    let redis = |name: &'static str, part: &'static str| -> Step<'a> {
        let words =
            ["--engine", "redis", "--kills-per-step", kills_per_step, "--outage", outage, "--part", part];
        (name, Box::new(move || drilled(binary, &words)))
    };
    let (one, two) = (redis("drill, redis 1", "1/2"), redis("drill, redis 2", "2/2"));
    let rabbitmq: Step<'a> =
        ("drill, rabbitmq", Box::new(move || drilled(binary, &["--engine", "rabbitmq"])));
    let random: Step<'a> =
        ("drill, random", Box::new(move || drilled(binary, &["--kills", &args.kills.to_string()])));
    let every_step: Step<'a> = (
        "drill, every step",
        Box::new(move || drilled(binary, &["--all-steps", &args.kills_per_step.to_string()])),
    );
    // A release build takes minutes, so the product is built apart from the binary to be killed only if there is time.
    let tried = (!args.long).then(|| binary.to_path_buf());
    let schemathesis: Step<'a> =
        ("schemathesis", Box::new(|| schemathesis::run(&SchemathesisArgs { binary: tried })));
    // Rows that take about as long as each other.
    let mut beside = vec![
        ("redis 1", vec![one]),
        ("redis 2, random", vec![two, random]),
        ("", vec![every_step, schemathesis]),
    ];
    if args.long {
        beside.push(("rabbitmq", vec![rabbitmq]));
    }
    beside
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
    Ok(Counted::of(1, words))
}

/// All tests of the workspace, with nextest where it is installed.
fn tests() -> Result<Counted> {
    let features = ["--workspace", "--features", FAULTS, "--no-fail-fast"];
    if has_nextest()? {
        let at_once = tests_at_once();
        return count_tests(&[&["nextest", "run", "--test-threads", &at_once], &features[..]].concat());
    }
    count_tests(&[&["test", "--all-targets"], &features[..]].concat())
}

/// Many tests wait for servers most of the time: one more at once than there are cores.
fn tests_at_once() -> String {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() + 1).to_string()
}

/// The HTTP contract's tests once more, on another engine: all, or those whose names contain one of `part`.
fn contract(engine: &str, part: &[&str]) -> Result<Counted> {
    let runner: &[&str] = if has_nextest()? { &["nextest", "run"] } else { &["test"] };
    count_tests_on(Some(engine), &[runner, &CONTRACT[..], part].concat())
}

/// The same in one process, whatever is installed: a broker takes seconds to start, so all tests share one.
fn contract_on_broker(engine: &str, part: &[&str]) -> Result<Counted> {
    count_tests_on(Some(engine), &[&["test"], &CONTRACT[..], part, &[ON_ONE_BROKER]].concat())
}

/// Tests that start a RabbitMQ each, two at a time.
fn broker_tests() -> Result<Counted> {
    let which = ["-p", "yoink-testkit", "-p", "yoink-engine", "-p", "yoink-server", "--features", EVERYTHING];
    let tests = ["--no-fail-fast", "--test", "rabbit", "--test", "cli", "--", "--test-threads=2"];
    count_tests(&[&["test"], &which[..], &tests[..]].concat())
}

/// The examples in the documentation, which nextest does not run.
fn documentation_tests() -> Result<Counted> {
    count_tests(&["test", "--doc", "--workspace", "--features", FAULTS])
}

fn has_nextest() -> Result<bool> {
    let mut command = cargo_command(&["nextest", "--version"])?;
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(status.is_ok_and(|status| status.success()))
}

/// Runs tests, shows what they say, and counts.
fn count_tests(arguments: &[&str]) -> Result<Counted> {
    count_tests_on(None, arguments)
}

/// The same, with the engine that tests of the contract are to open.
fn count_tests_on(engine: Option<&str>, arguments: &[&str]) -> Result<Counted> {
    let mut command = cargo_command(arguments)?;
    if let Some(engine) = engine {
        command.env("YOINK_TEST_ENGINE", engine);
    }
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run cargo")?;
    let stderr = child.stderr.take().map(|stderr| std::thread::spawn(move || pass_on(stderr)));
    let stdout = child.stdout.take().map(pass_on).unwrap_or_default();
    let stderr = stderr.and_then(|reader| reader.join().ok()).unwrap_or_default();
    let passed = stdout.passed.saturating_add(stderr.passed);
    let failed = stdout.failed.saturating_add(stderr.failed);
    if !child.wait()?.success() || failed > 0 {
        let failure = TestsFailed { passed, failed };
        return Err(anyhow::Error::new(failure).context(format!("cargo {}", arguments.join(" "))));
    }
    if passed == 0 {
        bail!("cargo {} ran no test at all", arguments.join(" "));
    }
    Ok(Counted::tests(passed))
}

/// What summary lines say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
}

fn pass_on(pipe: impl std::io::Read) -> Sum {
    let mut sum = Sum::default();
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        let line_sum = sum_in(&line);
        sum.passed = sum.passed.saturating_add(line_sum.passed);
        sum.failed = sum.failed.saturating_add(line_sum.failed);
        writeln!(std::io::stderr().lock(), "{line}").ok();
    }
    sum
}

/// Tests that a summary line of either runner says have passed and failed.
fn sum_in(line: &str) -> Sum {
    if !(line.starts_with("test result:") || line.trim_start().starts_with("Summary [")) {
        return Sum::default();
    }
    let words: Vec<_> = line.split([' ', ';', ',']).filter(|word| !word.is_empty()).collect();
    let number_before = |wanted: &str| {
        words.windows(2).find_map(|pair| match pair {
            [number, word] if *word == wanted => number.parse().ok(),
            _ => None,
        })
    };
    Sum { passed: number_before("passed").unwrap_or(0), failed: number_before("failed").unwrap_or(0) }
}

fn drilled(binary: &Path, arguments: &[&str]) -> Result<Counted> {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        drill: drill::DrillArgs,
    }
    let mut line = Line::try_parse_from(["drill"].iter().chain(arguments))?;
    line.drill.binary = Some(binary.to_path_buf());
    let report = drill::run(&line.drill)?;
    Ok(Counted::of(report.count, format!("{}, {} purchases compared", report.what, report.purchases)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_understood() {
        let sum = |passed, failed| Sum { passed, failed };
        assert_eq!(sum_in("test result: ok. 13 passed; 0 failed; 0 ignored; 0 measured"), sum(13, 0));
        let nextest = "     Summary [   1.203s] 48 tests run: 47 passed (1 slow), 1 failed, 0 skipped";
        assert_eq!(sum_in(nextest), sum(47, 1));
        assert_eq!(sum_in("the log says 12 passed"), sum(0, 0));
    }
}
