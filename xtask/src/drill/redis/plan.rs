//! What is done how often.

use std::time::Duration;

use clap::Args;

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
}

/// Where connections are cut.
const EDGES: [Edge; 5] = [
    Edge::BuyersToNodes,
    Edge::NodesToRedis,
    Edge::NodesToPostgres,
    Edge::WorkersToRedis,
    Edge::WorkersToPostgres,
];

/// Edges on which bytes pass while PostgreSQL is away.
pub(super) const EDGES_OF_OUTAGE: [Edge; 2] = [Edge::BuyersToNodes, Edge::NodesToRedis];

/// Each kind: how often, and how often in one round.
pub(super) fn kinds(args: &RedisArgs) -> Vec<(Fault, usize, usize)> {
    let outage = Fault::Outage(Duration::from_secs(args.outage), args.cuts / (2 * EDGES.len()));
    let mut kinds = vec![
        (Fault::RedisKill, args.redis_kills, 5),
        (Fault::PostgresKill, args.postgres_kills, 5),
        (Fault::WorkerKill, args.worker_kills, 10),
        (Fault::NodeKill, args.api_kills, 10),
        (Fault::WorkerPause, args.worker_pauses, 6),
        (Fault::Flush, args.flushes, 2),
        (Fault::Truncation, args.truncations, 2),
        (Fault::Failover, args.failovers, 1),
        (outage, usize::from(args.outage > 0), 1),
    ];
    let cuts = args.cuts.div_ceil(EDGES.len());
    for edge in EDGES {
        // The outage makes its own on some edges.
        let apart = if EDGES_OF_OUTAGE.contains(&edge) && args.outage > 0 { cuts / 2 } else { cuts };
        kinds.push((Fault::Cut(edge), apart, 70));
    }
    kinds.extend(LABELS.map(|label| (Fault::Step(label), args.kills_per_step, 1)));
    kinds
}

/// Faults that go well with any other.
pub(super) const SECONDS: [Fault; 7] = [
    Fault::RedisKill,
    Fault::PostgresKill,
    Fault::WorkerKill,
    Fault::NodeKill,
    Fault::Flush,
    Fault::Truncation,
    Fault::WorkerPause,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::shop::rounds::{self, plan};
    use clap::Parser;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RedisArgs,
    }

    fn planned(line: &[&str], only: Option<&str>) -> Vec<Fault> {
        let args = Line::try_parse_from([&["drill"], line].concat()).unwrap().args;
        let rounds =
            plan(kinds(&args), (only, "1/1".parse().unwrap()), &mut SmallRng::seed_from_u64(7)).unwrap();
        rounds.into_iter().flat_map(|round| round.faults).collect()
    }

    #[test]
    fn everything_is_planned_as_often_as_asked_for() {
        let faults = planned(&[], None);
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
            (Fault::Outage(Duration::from_secs(60), 100), 1),
        ] {
            assert_eq!(count(fault), least, "{fault:?}");
        }
        assert!(LABELS.iter().all(|label| count(Fault::Step(label)) == 2));
        assert_eq!(faults.iter().map(|fault| rounds::Fault::cuts(*fault)).sum::<usize>(), 1_000);
        for edge in [Edge::NodesToPostgres, Edge::WorkersToRedis, Edge::WorkersToPostgres] {
            assert_eq!(count(Fault::Cut(edge)), 200, "{edge:?}");
        }
    }

    #[test]
    fn one_kind_alone_can_be_asked_for() {
        let faults = planned(&["--flushes", "3"], Some("FLUSHALL"));
        assert_eq!(faults, vec![Fault::Flush; 3]);
    }
}
