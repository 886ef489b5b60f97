//! Faults that every engine on servers can have.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use yoink_testkit::{Mode, Proxy};

use super::processes::{Role, Shop};

/// A step must be reached within this time.
const REACHED_WITHIN: Duration = Duration::from_secs(15);
/// Waiting for bytes that would be cut takes at most this long.
const CUT_WITHIN: Duration = Duration::from_millis(400);
/// So many times in a row no byte may come.
const MISSES_MAX: u32 = 40;

/// Cuts one connection at a byte: at one of the next `bytes` of requests or of replies.
pub(in crate::drill) fn cut(
    proxy: &Proxy,
    (requests, replies): (u64, u64),
    random: &mut SmallRng,
) -> Result<()> {
    for _ in 0..MISSES_MAX {
        let mode = match random.random_range(0..2_u32) {
            0 => Mode::CutRequestAfter(random.random_range(0..requests)),
            _ => Mode::CutReplyAfter(random.random_range(0..replies)),
        };
        proxy.set(mode)?;
        let until = Instant::now() + CUT_WITHIN;
        while proxy.mode() != Mode::Pass && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(500));
        }
        if proxy.mode() == Mode::Pass {
            return Ok(());
        }
        proxy.set(Mode::Pass)?;
    }
    bail!("no bytes pass any more: nothing could be cut")
}

/// Cuts by `cut` `count` times, spread over the whole time of an outage.
pub(in crate::drill) fn cut_during(
    lasting: Duration,
    count: usize,
    mut cut: impl FnMut() -> Result<()>,
) -> Result<()> {
    let begun = Instant::now();
    for number in 0..count {
        cut()?;
        let until = lasting.mul_f64((number + 1) as f64 / count as f64);
        std::thread::sleep(until.saturating_sub(begun.elapsed()));
    }
    std::thread::sleep(lasting.saturating_sub(begun.elapsed()));
    Ok(())
}

/// Starts `victim` so that it kills itself at the `hits`-th pass of a step, does `then`, and waits until it has.
pub(in crate::drill) fn die_at<S>(
    stage: &mut S,
    shop: fn(&mut S) -> &mut Shop,
    (label, hits): (&'static str, u32),
    victim: Role,
    then: impl FnOnce(&mut S) -> Result<()>,
) -> Result<()> {
    shop(stage).kill(victim)?;
    shop(stage).start(victim, Some(&format!("{label}:{hits}")))?;
    then(stage)?;
    let process = shop(stage).process(victim)?;
    let status = process.wait_exit(REACHED_WITHIN);
    let output = process.output();
    let status =
        status.with_context(|| format!("{label} was not passed {hits} times; it wrote:\n{output}"))?;
    ensure!(status.signal() == Some(9), "{label}: the process ended by itself; it wrote:\n{output}");
    shop(stage).kill(victim)
}
