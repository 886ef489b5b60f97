//! What is done to the shop, and how it is mended.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use yoink_testkit::ended_by;

use super::stage::{RabbitStage, WORKERS};
use super::{broker, locks};
use crate::drill::EXIT_WITHIN;
use crate::drill::shop::buyer::Loss;
use crate::drill::shop::processes::{NODES, Role};
use crate::drill::shop::rounds::{self, Fault as _, Stage as _};
use crate::drill::shop::strikes::{self, cut_during};
use crate::drill::shop::tally::Tallies;

/// Every step. The engine has the same list: a test compares the two, because the drill looks at it from outside.
pub(super) const LABELS: [&str; 7] = [
    "publisher.before-publish",
    "publisher.confirmed",
    "consumer.decoded",
    "lot.locked",
    "lot.before-decide",
    "lot.committed",
    "lot.acknowledged",
];

/// Where connections are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    BuyersToNodes,
    NodesToRabbit,
    WorkersToRabbit,
    WorkersToRedis,
    WorkersToPostgres,
}

/// Edges on which bytes pass while PostgreSQL is away.
const EDGES_WITHOUT_POSTGRES: [Edge; 2] = [Edge::BuyersToNodes, Edge::NodesToRabbit];
/// The same while Redis is.
const EDGES_WITHOUT_REDIS: [Edge; 2] = [Edge::WorkersToRabbit, Edge::WorkersToPostgres];

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9.
    BrokerKill,
    /// It stands still for some seconds.
    BrokerPause,
    /// kill -9, and everything that it had is lost.
    BrokerLoss,
    /// The queue is deleted with what is in it.
    QueueDeletion,
    /// The queue of dead letters is deleted, and then there is a new one.
    DeadQueueDeletion,
    /// What waits in the queue is thrown away.
    QueuePurge,
    /// The queue holds a few messages only, and nobody takes them for a while.
    TinyQueue,
    /// The broker has no memory left.
    MemoryAlarm,
    /// A message that is no request.
    Poison,
    /// kill -9 of a worker.
    WorkerKill,
    /// kill -9 of a node.
    NodeKill,
    /// kill -9 of the postmaster.
    PostgresKill,
    /// kill -9.
    RedisKill,
    /// A worker that has a lock stands still for longer than the lock lives.
    HolderPause,
    /// SIGTERM to a worker.
    WorkerEnd,
    /// SIGTERM to a node.
    NodeEnd,
    /// PostgreSQL is away for this long, and so many connections are cut meanwhile on each edge that is in use.
    PostgresOutage(Duration, usize),
    /// The same with Redis.
    RedisOutage(Duration, usize),
    /// A connection is cut at a chosen byte.
    Cut(Edge),
    /// A process kills itself at a labelled step.
    Step(&'static str),
}

/// Faults that go well with any other.
const SECONDS: [Fault; 6] = [
    Fault::WorkerKill,
    Fault::PostgresKill,
    Fault::RedisKill,
    Fault::WorkerEnd,
    Fault::Cut(Edge::WorkersToPostgres),
    Fault::Cut(Edge::BuyersToNodes),
];

impl rounds::Fault for Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::BrokerKill => "rabbitmq kill -9",
            Fault::BrokerPause => "rabbitmq pause",
            Fault::BrokerLoss => "rabbitmq data lost",
            Fault::QueueDeletion => "queue deleted",
            Fault::DeadQueueDeletion => "dead-letter queue deleted",
            Fault::QueuePurge => "queue purged",
            Fault::TinyQueue => "tiny queue",
            Fault::MemoryAlarm => "memory alarm",
            Fault::Poison => "poison message",
            Fault::WorkerKill => "worker kill -9",
            Fault::NodeKill => "api kill -9",
            Fault::PostgresKill => "postgresql kill -9",
            Fault::RedisKill => "redis kill -9",
            Fault::HolderPause => "lock holder pause",
            Fault::WorkerEnd => "worker SIGTERM",
            Fault::NodeEnd => "api SIGTERM",
            Fault::PostgresOutage(..) => "postgresql outage",
            Fault::RedisOutage(..) => "redis outage",
            Fault::Cut(Edge::BuyersToNodes) => "cut client - api",
            Fault::Cut(Edge::NodesToRabbit) => "cut api - rabbitmq",
            Fault::Cut(Edge::WorkersToRabbit) => "cut worker - rabbitmq",
            Fault::Cut(Edge::WorkersToRedis) => "cut worker - redis",
            Fault::Cut(Edge::WorkersToPostgres) => "cut worker - postgresql",
            Fault::Step(label) => label,
        }
    }

    fn rest_after_ms(self) -> u64 {
        match self {
            Fault::BrokerKill | Fault::BrokerPause | Fault::BrokerLoss | Fault::MemoryAlarm => 1_000,
            Fault::QueueDeletion | Fault::QueuePurge | Fault::TinyQueue => 1_000,
            Fault::PostgresKill | Fault::HolderPause => 300,
            Fault::DeadQueueDeletion
            | Fault::Poison
            | Fault::RedisKill
            | Fault::WorkerEnd
            | Fault::NodeEnd => 100,
            Fault::WorkerKill | Fault::NodeKill | Fault::Step(_) => 80,
            Fault::PostgresOutage(..) | Fault::RedisOutage(..) => 80,
            Fault::Cut(Edge::NodesToRabbit | Edge::WorkersToRabbit) => 200,
            Fault::Cut(_) => 10,
        }
    }

    fn seconds(self) -> &'static [Fault] {
        match self {
            // These need the others as they are.
            Fault::PostgresOutage(..) | Fault::RedisOutage(..) | Fault::HolderPause | Fault::TinyQueue => &[],
            _ => &SECONDS,
        }
    }

    /// What nodes queued they queue again if it is lost. So a drill never loses a node together with what is in the
    /// queue.
    fn cuts(self) -> usize {
        match self {
            Fault::Cut(_) => 1,
            Fault::PostgresOutage(_, cuts) => EDGES_WITHOUT_POSTGRES.len() * cuts,
            Fault::RedisOutage(_, cuts) => EDGES_WITHOUT_REDIS.len() * cuts,
            _ => 0,
        }
    }

    fn loss(_: &[Fault]) -> Loss {
        Loss::None
    }
}

/// What is to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Broker,
    Redis,
    Postgres,
    /// Gone.
    Process(Role),
    /// Stands still.
    Frozen(Role),
}

/// Does it.
pub(super) fn strike(
    fault: Fault,
    stage: &mut RabbitStage,
    tallies: &mut Tallies,
    random: &mut SmallRng,
) -> Result<Option<Broken>> {
    let worker = Role::Worker(random.random_range(0..WORKERS));
    let node = Role::Node(random.random_range(0..NODES));
    Ok(match fault {
        Fault::BrokerKill
        | Fault::BrokerPause
        | Fault::BrokerLoss
        | Fault::QueueDeletion
        | Fault::DeadQueueDeletion
        | Fault::QueuePurge
        | Fault::TinyQueue
        | Fault::MemoryAlarm
        | Fault::Poison => broker::strike(fault, stage, random)?,
        Fault::WorkerKill => kill(stage, worker)?,
        Fault::NodeKill => kill(stage, node)?,
        Fault::PostgresKill => {
            stage.shop.postgres.kill();
            Some(Broken::Postgres)
        }
        Fault::RedisKill => {
            stage.redis.kill();
            Some(Broken::Redis)
        }
        Fault::HolderPause => Some(Broken::Frozen(locks::stop_holder(stage, random)?)),
        Fault::WorkerEnd => end(stage, worker)?,
        Fault::NodeEnd => end(stage, node)?,
        Fault::PostgresOutage(lasting, cuts) => {
            stage.shop.postgres.kill();
            cut_all_during(lasting, cuts, EDGES_WITHOUT_POSTGRES, stage, tallies, random)?;
            Some(Broken::Postgres)
        }
        Fault::RedisOutage(lasting, cuts) => {
            stage.redis.kill();
            cut_all_during(lasting, cuts, EDGES_WITHOUT_REDIS, stage, tallies, random)?;
            Some(Broken::Redis)
        }
        Fault::Cut(edge) => {
            cut(stage, edge, random)?;
            None
        }
        Fault::Step(label) => {
            let victim = if label.starts_with("publisher.") { node } else { worker };
            let hits = random.random_range(1..=6);
            strikes::die_at(stage, RabbitStage::shop, (label, hits), victim, |_| Ok(()))?;
            Some(Broken::Process(victim))
        }
    })
}

/// Mends what a fault left broken.
pub(super) fn mend(broken: Broken, stage: &mut RabbitStage) -> Result<()> {
    match broken {
        Broken::Broker => Ok(stage.rabbit.restart()?),
        Broken::Redis => Ok(stage.redis.restart()?),
        Broken::Postgres => Ok(stage.shop.postgres.restart()?),
        Broken::Process(role) => stage.shop.start(role, None),
        Broken::Frozen(role) => {
            stage.shop.process(role)?.thaw();
            Ok(())
        }
    }
}

fn kill(stage: &mut RabbitStage, role: Role) -> Result<Option<Broken>> {
    stage.shop.kill(role)?;
    Ok(Some(Broken::Process(role)))
}

/// Ends a process as a process manager does.
fn end(stage: &mut RabbitStage, role: Role) -> Result<Option<Broken>> {
    // Another fault may have ended it.
    let Ok(process) = stage.shop.process(role) else { return Ok(None) };
    process.terminate();
    let Some(status) = process.wait_exit(EXIT_WITHIN) else {
        bail!(
            "{role:?} still runs {} s after SIGTERM; it wrote:\n{}",
            EXIT_WITHIN.as_secs(),
            process.output()
        )
    };
    let output = process.output();
    ensure!(status.success(), "SIGTERM ended {role:?} with {}; it wrote:\n{output}", ended_by(status));
    kill(stage, role)
}

/// Cuts connections on some edges `count` times each, spread over the whole time of an outage.
fn cut_all_during(
    lasting: Duration,
    count: usize,
    edges: [Edge; 2],
    stage: &RabbitStage,
    tallies: &mut Tallies,
    random: &mut SmallRng,
) -> Result<()> {
    cut_during(lasting, count, || {
        edges.into_iter().try_for_each(|edge| {
            tallies.add(Fault::Cut(edge).name(), Duration::ZERO);
            cut(stage, edge, random)
        })
    })
}

/// Cuts one connection at a byte.
fn cut(stage: &RabbitStage, edge: Edge, random: &mut SmallRng) -> Result<()> {
    let (proxy, bytes) = match edge {
        Edge::BuyersToNodes => {
            let node = random.random_range(0..NODES);
            (stage.shop.to_nodes.get(node).context("there is no such node")?, (700, 700))
        }
        // A confirm is much smaller than a message, and so is an acknowledgement. Sometimes it is cut while it begins.
        Edge::NodesToRabbit => (&stage.nodes_to_rabbit, (2_000, 500)),
        Edge::WorkersToRabbit => (&stage.workers_to_rabbit, (300, 2_000)),
        Edge::WorkersToRedis => (&stage.workers_to_redis, (900, 100)),
        Edge::WorkersToPostgres => (&stage.workers_to_postgres, (3_000, 1_000)),
    };
    strikes::cut(proxy, bytes, random).with_context(|| format!("{edge:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_those_of_the_engine() {
        let source = include_str!("../../../../crates/engine/src/failpoint.rs");
        let list = source.split_once("RABBIT_LABELS").and_then(|(_, rest)| rest.split_once("];")).unwrap().0;
        let labels: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(labels, LABELS);
    }
}
