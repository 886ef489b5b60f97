//! What is done how often.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use super::fault::{Edge, Fault, LABELS};
use crate::drill::shop::rounds::Fault as _;

/// How often.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "With --engine rabbitmq")]
pub(crate) struct RabbitArgs {
    /// How often a kind is done: its name as in the table, or the beginning of it. May be given several times
    #[arg(long, value_name = "KIND=N", value_parser = count)]
    count: Vec<(String, usize)>,
    /// How long PostgreSQL is away once
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    postgres_outage: u64,
    /// How long Redis is away once
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    redis_outage: u64,
}

fn count(text: &str) -> Result<(String, usize), String> {
    let (kind, count) = text.split_once('=').ok_or("it should look like KIND=N")?;
    Ok((kind.to_owned(), count.parse().map_err(|_| format!("{count:?} is no number"))?))
}

/// Connections that are cut on each edge that is in use while PostgreSQL is away.
const CUTS_WITHOUT_POSTGRES: usize = 100;
/// The same while Redis is away.
const CUTS_WITHOUT_REDIS: usize = 40;

/// Each kind: how often, and how often in one round.
///
/// # Errors
/// A count is given for what is no kind.
pub(super) fn kinds(args: &RabbitArgs) -> Result<Vec<(Fault, usize, usize)>> {
    let away = |seconds| Duration::from_secs(seconds);
    let mut kinds = vec![
        (Fault::BrokerKill, 15, 5),
        (Fault::BrokerPause, 3, 3),
        (Fault::BrokerLoss, 1, 1),
        (Fault::QueueDeletion, 2, 1),
        (Fault::DeadQueueDeletion, 4, 4),
        (Fault::QueuePurge, 2, 2),
        (Fault::TinyQueue, 4, 4),
        (Fault::MemoryAlarm, 5, 5),
        (Fault::Poison, 40, 40),
        (Fault::WorkerKill, 100, 25),
        (Fault::NodeKill, 20, 10),
        (Fault::PostgresKill, 10, 5),
        (Fault::RedisKill, 10, 10),
        (Fault::HolderPause, 20, 10),
        (Fault::WorkerEnd, 25, 25),
        (Fault::NodeEnd, 25, 25),
        (Fault::PostgresOutage(away(args.postgres_outage), CUTS_WITHOUT_POSTGRES), 1, 1),
        (Fault::RedisOutage(away(args.redis_outage), CUTS_WITHOUT_REDIS), 1, 1),
        (Fault::Cut(Edge::BuyersToNodes), 40, 40),
        (Fault::Cut(Edge::NodesToRabbit), 30, 30),
        (Fault::Cut(Edge::WorkersToRabbit), 30, 30),
        (Fault::Cut(Edge::WorkersToRedis), 60, 60),
        (Fault::Cut(Edge::WorkersToPostgres), 60, 60),
    ];
    kinds.extend(LABELS.map(|label| (Fault::Step(label), 3, 3)));
    for (kind, count) in &args.count {
        let named: Vec<_> = kinds.iter_mut().filter(|(fault, ..)| fault.name().starts_with(kind)).collect();
        ensure!(
            !named.is_empty(),
            "{kind:?} is no kind; the kinds are the names in the table of a whole drill"
        );
        named.into_iter().for_each(|(_, times, _)| *times = *count);
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RabbitArgs,
    }

    fn planned(line: &[&str]) -> Result<Vec<(Fault, usize, usize)>> {
        kinds(&Line::try_parse_from([&["drill"], line].concat()).unwrap().args)
    }

    #[test]
    fn everything_is_planned_often_enough() {
        let kinds = planned(&[]).unwrap();
        let times = |name: &str| -> usize {
            kinds.iter().filter(|(fault, ..)| fault.name().starts_with(name)).map(|(_, times, _)| times).sum()
        };
        for (name, least) in [
            ("rabbitmq kill -9", 15),
            ("worker kill -9", 100),
            ("lock holder pause", 20),
            ("postgresql outage", 1),
            ("redis outage", 1),
            ("poison", 20),
            ("tiny queue", 3),
            ("memory alarm", 3),
            ("queue deleted", 2),
            ("dead-letter queue deleted", 4),
            ("api kill -9", 20),
            ("postgresql kill -9", 10),
        ] {
            assert!(times(name) >= least, "{name}: {}", times(name));
        }
        assert!(times("worker SIGTERM") + times("api SIGTERM") >= 50);
        let cuts: usize = kinds.iter().map(|(fault, times, _)| times * fault.cuts()).sum();
        assert!(cuts >= 500, "{cuts}");
        assert!(LABELS.iter().all(|label| times(label) >= 2));
    }

    #[test]
    fn more_or_less_of_a_kind_can_be_asked_for() {
        let kinds = planned(&["--count", "lot.=9", "--count", "poison=0"]).unwrap();
        let times = |name: &str| kinds.iter().find(|(fault, ..)| fault.name() == name).map(|found| found.1);
        assert_eq!((times("lot.locked"), times("poison message")), (Some(9), Some(0)));
        assert!(planned(&["--count", "nothing=1"]).is_err());
        assert!(Line::try_parse_from(["drill", "--count", "poison"]).is_err());
    }
}
