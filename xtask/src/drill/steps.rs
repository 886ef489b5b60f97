//! Kills at labelled steps: the process kills itself when it passes the step for the n-th time.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use yoink_testkit::{YoinkProcess, ended_by};

use super::buyer::PLENTY;
use super::{Drill, EXIT_WITHIN};
use crate::say::say;

/// Every step, in the order of a purchase's way. The engine has the same list: a test compares the two, because the
/// drill looks at the server from outside and is not built with it.
pub(crate) const LABELS: [&str; 19] = [
    "writer.batch-taken",
    "writer.decided",
    "writer.applied",
    "log.staged",
    "log.before-commit",
    "log.after-commit",
    "writer.before-publish",
    "writer.before-reply",
    "writer.half-replied",
    "beacon.before-write",
    "beacon.after-write",
    "snapshot.before-rename",
    "snapshot.after-rename",
    "checkpoint.before",
    "checkpoint.after",
    "delivery.before-commit",
    "delivery.after-commit",
    "delivery.dead-letter-recorded",
    "delivery.compensated",
];

/// How long buyers may buy until the step must have been passed; then SIGTERM brings the steps of closing.
const LIFE: Duration = Duration::from_millis(1_500);
/// The same, for steps that mostly lie in closing itself.
const LIFE_UNTIL_CLOSING: Duration = Duration::from_millis(300);
/// Purchases that make a snapshot worth its time when the server closes.
const FILL_PURCHASES: &str = "105000";
const TRIES_PER_KILL_MAX: u32 = 4;

/// Kills `times` times at each of `labels`; a label that is not reached fails.
pub(super) fn run(drill: &mut Drill, labels: &[&str], times: u32) -> Result<u32> {
    let mut random = SmallRng::seed_from_u64(drill.seed);
    let mut kills = 0;
    for label in labels {
        ensure!(LABELS.contains(label), "{label:?} is not a step; there are {}", LABELS.join(", "));
        for time in 1..=times {
            let mut tries = 0;
            while !kill_at(drill, label, hits_of(label, &mut random))
                .with_context(|| format!("killing at {label}, time {time}"))?
            {
                tries += 1;
                ensure!(tries < TRIES_PER_KILL_MAX, "the step {label} was never reached in {tries} lives");
            }
            kills += 1;
        }
        say(format!("drill: {label} {times} times"));
    }
    Ok(kills)
}

/// At which pass to die: anywhere where passes are many, the first where they are few.
fn hits_of(label: &str, random: &mut SmallRng) -> u32 {
    match label.split_once('.').map(|(part, _)| part) {
        Some("writer" | "log") => random.random_range(1..200),
        Some("beacon") => random.random_range(1..10),
        Some("delivery") => random.random_range(1..4),
        _ => 1,
    }
}

/// One life with the step armed. Whether the step ended it.
fn kill_at(drill: &mut Drill, label: &str, hits: u32) -> Result<bool> {
    let armed = drill.server().env("YOINK_FAILPOINT", format!("{label}:{hits}"));
    // The step may lie in the start itself: then the process is gone before it is ready.
    let mut server = armed.spawn()?;
    let ready = server.wait_ready(Duration::from_secs(30));
    if ready.is_err() {
        return died_by_kill(&mut server);
    }
    if label.starts_with("snapshot.") {
        fill(drill, &server)?;
    }
    let lies_in_closing = label.starts_with("snapshot.") || label.starts_with("checkpoint.");
    let life = if lies_in_closing { LIFE_UNTIL_CLOSING } else { LIFE };
    drill.buy_during(&mut server, |server| {
        if server.wait_exit(life).is_none() {
            server.terminate();
        }
        died_by_kill(server)
    })
}

fn died_by_kill(server: &mut YoinkProcess) -> Result<bool> {
    match server.wait_exit(EXIT_WITHIN) {
        Some(status) if status.signal() == Some(9) => Ok(true),
        Some(status) if status.success() => Ok(false),
        Some(status) => bail!("yoink ended with {}; it wrote:\n{}", ended_by(status), server.output()),
        None => bail!(
            "yoink still runs {} s after SIGTERM; it wrote:\n{}",
            EXIT_WITHIN.as_secs(),
            server.output()
        ),
    }
}

/// Makes the log long enough for a snapshot. These purchases are in no record.
fn fill(drill: &Drill, server: &YoinkProcess) -> Result<()> {
    let storm = Command::new(&drill.binary)
        .args([
            "storm",
            "--no-audit",
            "--json",
            "--buyers",
            "256",
            "--product",
            PLENTY,
            "--requests",
            FILL_PURCHASES,
        ])
        .args(["--url", &server.url()])
        .env("YOINK_ADMIN_KEY", server.admin_key())
        .output()
        .context("cannot run the storm that fills the log")?;
    // A server that reached the step meanwhile is what this is for.
    if storm.stdout.is_empty() {
        bail!("the storm that fills the log said: {}", String::from_utf8_lossy(&storm.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_those_of_the_engine() {
        let source = include_str!("../../../crates/engine/src/failpoint.rs");
        let list = source.split_once("LABELS").and_then(|(_, rest)| rest.split_once("];")).unwrap().0;
        let labels: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(labels, LABELS);
    }
}
