//! What is done to the shop, and how it is mended.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use yoink_testkit::{Mode, Proxy, RedisServer};

use super::plan::{EDGES_OF_OUTAGE, SECONDS};
use super::stage::{CLAIM_AFTER, RedisStage, WORKERS};
use crate::drill::shop::buyer::Loss;
use crate::drill::shop::processes::{NODES, Role};
use crate::drill::shop::rounds::{self, Stage as _};
use crate::drill::shop::strikes::{self, cut_during};
use crate::drill::shop::tally::Tallies;

/// Every step. The engine has the same list: a test compares the two, because the drill looks at it from outside.
pub(super) const LABELS: [&str; 6] =
    ["worker.read", "worker.committed", "loader.closed", "loader.drained", "loader.sealed", "loader.opened"];

/// Where connections are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    BuyersToNodes,
    NodesToRedis,
    NodesToPostgres,
    WorkersToRedis,
    WorkersToPostgres,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9.
    RedisKill,
    /// kill -9 of the postmaster.
    PostgresKill,
    /// kill -9 of a worker.
    WorkerKill,
    /// kill -9 of a node.
    NodeKill,
    /// A worker stands still for longer than others wait before they take its entries over.
    WorkerPause,
    /// `FLUSHALL`.
    Flush,
    /// kill -9, and the end of the append-only file is lost.
    Truncation,
    /// Redis dies, and a replica that lags behind is what clients find.
    Failover,
    /// PostgreSQL is away for this long, and so many connections are cut meanwhile on each edge that is in use.
    Outage(Duration, usize),
    /// A connection is cut at a chosen byte.
    Cut(Edge),
    /// A worker kills itself at a labelled step.
    Step(&'static str),
}

impl rounds::Fault for Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::RedisKill => "redis kill -9",
            Fault::PostgresKill => "postgresql kill -9",
            Fault::WorkerKill => "worker kill -9",
            Fault::NodeKill => "api kill -9",
            Fault::WorkerPause => "worker pause",
            Fault::Flush => "FLUSHALL",
            Fault::Truncation => "aof truncation",
            Fault::Failover => "lagging failover",
            Fault::Outage(..) => "postgresql outage",
            Fault::Cut(Edge::BuyersToNodes) => "cut client - api",
            Fault::Cut(Edge::NodesToRedis) => "cut api - redis",
            Fault::Cut(Edge::NodesToPostgres) => "cut api - postgresql",
            Fault::Cut(Edge::WorkersToRedis) => "cut worker - redis",
            Fault::Cut(Edge::WorkersToPostgres) => "cut worker - postgresql",
            Fault::Step(label) => label,
        }
    }

    fn rest_after_ms(self) -> u64 {
        match self {
            Fault::RedisKill | Fault::Flush | Fault::Truncation | Fault::Failover => 1_000,
            Fault::PostgresKill => 300,
            Fault::WorkerKill | Fault::NodeKill | Fault::WorkerPause | Fault::Step(_) | Fault::Outage(..) => {
                80
            }
            Fault::Cut(_) => 10,
        }
    }

    fn seconds(self) -> &'static [Fault] {
        match self {
            Fault::Outage(..) => &[],
            _ => &SECONDS,
        }
    }

    fn cuts(self) -> usize {
        match self {
            Fault::Cut(_) => 1,
            Fault::Outage(_, cuts) => EDGES_OF_OUTAGE.len() * cuts,
            _ => 0,
        }
    }

    fn loss(all: &[Fault]) -> Loss {
        let takes = |fault: &Fault| matches!(fault, Fault::Flush | Fault::Truncation | Fault::Failover);
        match (all.iter().any(takes), all.contains(&Fault::NodeKill)) {
            (false, _) => Loss::None,
            (true, false) => Loss::Redis,
            (true, true) => Loss::RedisAndNodes,
        }
    }
}

/// What is to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Redis,
    Postgres,
    /// Gone.
    Process(Role),
    /// Stands still.
    Frozen(Role),
    AllWorkers,
}

/// Does it.
pub(super) fn strike(
    fault: Fault,
    stage: &mut RedisStage,
    tallies: &mut Tallies,
    random: &mut SmallRng,
) -> Result<Option<Broken>> {
    let worker = Role::Worker(random.random_range(0..WORKERS));
    Ok(match fault {
        Fault::RedisKill => {
            stage.redis.kill();
            Some(Broken::Redis)
        }
        Fault::PostgresKill => {
            stage.shop.postgres.kill();
            Some(Broken::Postgres)
        }
        Fault::Outage(lasting, cuts) => {
            stage.shop.postgres.kill();
            cut_during(lasting, cuts, || {
                EDGES_OF_OUTAGE.into_iter().try_for_each(|edge| {
                    tallies.add(rounds::Fault::name(Fault::Cut(edge)), Duration::ZERO);
                    cut(stage, edge, random)
                })
            })?;
            Some(Broken::Postgres)
        }
        Fault::WorkerKill => kill(stage, worker)?,
        Fault::NodeKill => kill(stage, Role::Node(random.random_range(0..NODES)))?,
        Fault::WorkerPause => {
            // Another fault may have ended it.
            let Ok(process) = stage.shop.process(worker) else { return Ok(None) };
            process.freeze();
            std::thread::sleep(CLAIM_AFTER.mul_f64(random.random_range(1.2..2.5)));
            Some(Broken::Frozen(worker))
        }
        Fault::Flush => {
            if stage.redis.pid().is_some() {
                stage.redis.command(&["FLUSHALL"])?;
            }
            None
        }
        Fault::Truncation => {
            stage.redis.kill();
            truncate(&mut stage.redis, random)?;
            Some(Broken::Redis)
        }
        Fault::Failover => {
            fail_over(stage, random)?;
            None
        }
        Fault::Cut(edge) => {
            cut(stage, edge, random)?;
            None
        }
        Fault::Step(label) => Some(die_at(stage, label, worker, random)?),
    })
}

/// Mends what a fault left broken.
pub(super) fn mend(broken: Broken, stage: &mut RedisStage) -> Result<()> {
    match broken {
        Broken::Redis => Ok(stage.redis.restart()?),
        Broken::Postgres => Ok(stage.shop.postgres.restart()?),
        Broken::Process(role) => stage.shop.start(role, None),
        Broken::Frozen(role) => {
            if let Ok(process) = stage.shop.process(role) {
                process.thaw();
            }
            Ok(())
        }
        Broken::AllWorkers => (0..WORKERS).try_for_each(|index| {
            stage.shop.kill(Role::Worker(index))?;
            stage.shop.start(Role::Worker(index), None)
        }),
    }
}

fn kill(stage: &mut RedisStage, role: Role) -> Result<Option<Broken>> {
    stage.shop.kill(role)?;
    Ok(Some(Broken::Process(role)))
}

/// Takes some bytes off the end: often a part of the last entries, sometimes a good deal.
fn truncate(redis: &mut RedisServer, random: &mut SmallRng) -> Result<()> {
    let length = std::fs::metadata(redis.aof()?)?.len();
    let most = if random.random_range(0..2_u32) == 0 { 400 } else { 60_000 };
    if length > 0 {
        redis.truncate_aof(random.random_range(1..=length.min(most)))?;
    }
    Ok(())
}

/// Makes a replica, lets it fall behind, and puts it in its primary's place.
fn fail_over(stage: &mut RedisStage, random: &mut SmallRng) -> Result<()> {
    let link = Proxy::start(stage.redis.address())?;
    let mut replica = RedisServer::builder().replica_of(link.address()).start()?;
    replica.wait_in_sync()?;
    link.set(Mode::BlackHole)?;
    std::thread::sleep(Duration::from_millis(random.random_range(20..300)));
    stage.redis.kill();
    replica.promote()?;
    for proxy in [&stage.nodes_to_redis, &stage.workers_to_redis] {
        proxy.retarget(replica.address());
        proxy.cut_all();
    }
    stage.redis = replica;
    Ok(())
}

/// Cuts one connection at a byte.
fn cut(stage: &RedisStage, edge: Edge, random: &mut SmallRng) -> Result<()> {
    let (proxy, bytes) = match edge {
        Edge::BuyersToNodes => {
            let node = random.random_range(0..NODES);
            (stage.shop.to_nodes.get(node).context("there is no such node")?, 700)
        }
        Edge::NodesToRedis => (&stage.nodes_to_redis, 900),
        Edge::NodesToPostgres => (&stage.nodes_to_postgres, 3_000),
        Edge::WorkersToRedis => (&stage.workers_to_redis, 900),
        Edge::WorkersToPostgres => (&stage.workers_to_postgres, 3_000),
    };
    strikes::cut(proxy, (bytes, bytes), random).with_context(|| format!("{edge:?}"))
}

/// Lets a worker kill itself at a step. At a loader's step it is the only one, and Redis comes back as another.
fn die_at(
    stage: &mut RedisStage,
    label: &'static str,
    worker: Role,
    random: &mut SmallRng,
) -> Result<Broken> {
    if !label.starts_with("loader.") {
        let hits = random.random_range(1..=6);
        strikes::die_at(stage, RedisStage::shop, (label, hits), worker, |_| Ok(()))?;
        return Ok(Broken::Process(worker));
    }
    (0..WORKERS).try_for_each(|index| stage.shop.kill(Role::Worker(index)))?;
    let hits = random.random_range(1..=3);
    strikes::die_at(stage, RedisStage::shop, (label, hits), Role::Worker(0), |stage| {
        stage.redis.kill();
        Ok(stage.redis.restart()?)
    })?;
    Ok(Broken::AllWorkers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_those_of_the_engine() {
        let source = include_str!("../../../../crates/engine/src/failpoint.rs");
        let list = source.split_once("REDIS_LABELS").and_then(|(_, rest)| rest.split_once("];")).unwrap().0;
        let labels: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(labels, LABELS);
    }

    #[test]
    fn orders_may_vanish_only_where_redis_and_nodes_are_lost() {
        use rounds::Fault as _;
        assert_eq!(Fault::loss(&[Fault::RedisKill, Fault::NodeKill]), Loss::None);
        assert_eq!(Fault::loss(&[Fault::Flush]), Loss::Redis);
        assert_eq!(Fault::loss(&[Fault::Truncation, Fault::NodeKill]), Loss::RedisAndNodes);
    }
}
