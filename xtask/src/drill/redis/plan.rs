//! What is done how often, in which order, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;

use super::fault::{Edge, Fault, LABELS};

/// How often.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "With --engine redis")]
pub(crate) struct RedisArgs {
    /// kill -9 of Redis
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) redis_kills: usize,
    /// kill -9 of PostgreSQL
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(super) postgres_kills: usize,
    /// kill -9 of a worker
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) worker_kills: usize,
    /// kill -9 of a node
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) api_kills: usize,
    /// A worker stands still for longer than others wait for it
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(super) worker_pauses: usize,
    /// FLUSHALL
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(super) flushes: usize,
    /// kill -9 of Redis, and the end of its append-only file is lost
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(super) truncations: usize,
    /// Redis dies, and a replica that lags behind takes its place
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(super) failovers: usize,
    /// How long PostgreSQL is away once; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) outage: u64,
    /// Connections cut at a chosen byte, over all edges
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(super) cuts: usize,
    /// Kills at each labelled step
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(super) kills_per_step: usize,
    /// Only this kind: its name as in the table, or the beginning of it
    #[arg(long, value_name = "KIND")]
    pub(super) only: Option<String>,
    /// Two faults at once, each time
    #[arg(long)]
    pub(super) overlap: bool,
    /// How long a buyer rests between purchases, on average
    #[arg(long, value_name = "MS", default_value_t = 15)]
    pub(super) pause_ms: u64,
}

/// One crowd: what is done while it buys, one after the other, before everything is mended and judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) faults: Vec<Fault>,
}

/// Where connections are cut.
const EDGES: [Edge; 4] =
    [Edge::BuyersToNodes, Edge::NodesToRedis, Edge::WorkersToRedis, Edge::WorkersToPostgres];

/// Edges on which bytes pass while PostgreSQL is away.
pub(super) const EDGES_OF_OUTAGE: [Edge; 2] = [Edge::BuyersToNodes, Edge::NodesToRedis];

/// The rounds of a drill, in an order of chance.
pub(super) fn plan(args: &RedisArgs, random: &mut SmallRng) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for (fault, count, at_once) in kinds(args) {
        if args.only.as_deref().is_some_and(|only| !fault.name().starts_with(only)) {
            continue;
        }
        let mut left = count;
        while left > 0 {
            let some = left.min(at_once);
            rounds.push(Round { faults: vec![fault; some] });
            left -= some;
        }
    }
    if rounds.is_empty() {
        bail!("nothing is to be done; the kinds are the names in the table of a whole drill");
    }
    rounds.shuffle(random);
    Ok(rounds)
}

/// Each kind: how often, and how often in one round.
fn kinds(args: &RedisArgs) -> Vec<(Fault, usize, usize)> {
    let outage = Duration::from_secs(args.outage);
    let mut kinds = vec![
        (Fault::RedisKill, args.redis_kills, 5),
        (Fault::PostgresKill, args.postgres_kills, 5),
        (Fault::WorkerKill, args.worker_kills, 10),
        (Fault::NodeKill, args.api_kills, 10),
        (Fault::WorkerPause, args.worker_pauses, 6),
        (Fault::Flush, args.flushes, 2),
        (Fault::Truncation, args.truncations, 2),
        (Fault::Failover, args.failovers, 1),
        (Fault::Outage(outage), usize::from(args.outage > 0), 1),
    ];
    let cuts = args.cuts.div_ceil(4);
    for edge in EDGES {
        // The outage makes its own on some edges.
        let apart = if EDGES_OF_OUTAGE.contains(&edge) && args.outage > 0 { cuts / 2 } else { cuts };
        kinds.push((Fault::Cut(edge), apart, 70));
    }
    kinds.extend(LABELS.map(|label| (Fault::Step(label), args.kills_per_step, 1)));
    kinds
}

/// A fault that goes well with any other.
pub(super) fn second(random: &mut SmallRng) -> Fault {
    const SECONDS: [Fault; 7] = [
        Fault::RedisKill,
        Fault::PostgresKill,
        Fault::WorkerKill,
        Fault::NodeKill,
        Fault::Flush,
        Fault::Truncation,
        Fault::WorkerPause,
    ];
    SECONDS.get(random.random_range(0..SECONDS.len())).copied().unwrap_or(Fault::RedisKill)
}

/// How often something was done, and how long that and mending it took.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    took: Duration,
    judging: Duration,
    slowest: Duration,
}

/// What was done so far.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    by_name: BTreeMap<&'static str, Tally>,
}

impl Tallies {
    /// A fault was done.
    pub(super) fn add(&mut self, fault: Fault, took: Duration) {
        let tally = self.by_name.entry(fault.name()).or_default();
        tally.count += 1;
        tally.took += took;
    }

    /// A round of this fault was judged.
    pub(super) fn judged(&mut self, fault: Fault, took: Duration) {
        let tally = self.by_name.entry(fault.name()).or_default();
        tally.judging += took;
        tally.slowest = tally.slowest.max(took);
    }

    /// All faults.
    pub(super) fn count(&self) -> u64 {
        self.by_name.values().map(|tally| tally.count).sum()
    }

    /// What was done less often than was planned: a drill that does not do what it says has shown nothing.
    pub(super) fn missing(&self, rounds: &[Round], args: &RedisArgs) -> Vec<String> {
        let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
        for fault in rounds.iter().flat_map(|round| &round.faults) {
            *wanted.entry(fault.name()).or_default() += 1;
        }
        let done = |name: &str| self.by_name.get(name).map_or(0, |tally| tally.count);
        let mut missing: Vec<String> = wanted
            .into_iter()
            .filter(|(name, count)| done(name) < *count)
            .map(|(name, count)| format!("{name} was done {} times, and not {count}", done(name)))
            .collect();
        let cuts: u64 = EDGES.into_iter().map(|edge| done(Fault::Cut(edge).name())).sum();
        if args.only.is_none() && cuts < args.cuts as u64 {
            missing.push(format!("{cuts} connections were cut, and not {}", args.cuts));
        }
        missing
    }

    /// A line for each kind.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:<26} {:>6} {:>9} {:>9} {:>10}\n",
            "fault", "times", "faults s", "judged s", "slowest s"
        );
        for (name, tally) in &self.by_name {
            let (took, judging) = (tally.took.as_secs_f64(), tally.judging.as_secs_f64());
            let slowest = tally.slowest.as_secs_f64();
            text.push_str(&format!(
                "{name:<26} {:>6} {took:>9.1} {judging:>9.1} {slowest:>10.1}\n",
                tally.count
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use rand::SeedableRng as _;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RedisArgs,
    }

    fn planned(line: &[&str]) -> Vec<Fault> {
        let args = Line::try_parse_from([&["drill"], line].concat()).unwrap().args;
        let rounds = plan(&args, &mut SmallRng::seed_from_u64(7)).unwrap();
        rounds.into_iter().flat_map(|round| round.faults).collect()
    }

    #[test]
    fn everything_is_planned_as_often_as_asked_for() {
        let faults = planned(&[]);
        let count = |fault: Fault| faults.iter().filter(|planned| **planned == fault).count();
        for (fault, least) in [
            (Fault::RedisKill, 100),
            (Fault::PostgresKill, 40),
            (Fault::WorkerKill, 100),
            (Fault::NodeKill, 100),
            (Fault::WorkerPause, 30),
            (Fault::Flush, 10),
            (Fault::Truncation, 10),
            (Fault::Failover, 5),
            (Fault::Outage(Duration::from_secs(60)), 1),
        ] {
            assert_eq!(count(fault), least, "{fault:?}");
        }
        assert!(LABELS.iter().all(|label| count(Fault::Step(label)) == 2));
        assert_eq!(count(Fault::Cut(Edge::WorkersToRedis)), 250);
    }

    #[test]
    fn what_was_not_done_is_named() {
        let args = Line::try_parse_from(["drill", "--cuts", "8"]).unwrap().args;
        let rounds = [Round { faults: vec![Fault::RedisKill; 2] }, Round { faults: vec![Fault::Flush] }];
        let mut tallies = Tallies::default();
        tallies.add(Fault::RedisKill, Duration::ZERO);
        tallies.add(Fault::Flush, Duration::ZERO);
        (0..8).for_each(|_| tallies.add(Fault::Cut(Edge::NodesToRedis), Duration::ZERO));
        assert_eq!(tallies.missing(&rounds, &args), ["redis kill -9 was done 1 times, and not 2"]);
        tallies.add(Fault::RedisKill, Duration::ZERO);
        assert_eq!(tallies.missing(&rounds, &args), Vec::<String>::new());
        let args = RedisArgs { cuts: 9, ..args };
        assert_eq!(tallies.missing(&rounds, &args), ["8 connections were cut, and not 9"]);
    }

    #[test]
    fn one_kind_alone_can_be_asked_for() {
        let faults = planned(&["--only", "FLUSHALL", "--flushes", "3"]);
        assert_eq!(faults, vec![Fault::Flush; 3]);
    }
}
