//! What is done to the shop, and how it is mended.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use yoink_testkit::{Mode, Proxy, RedisServer};

use super::buyer::Loss;
use super::stage::{CLAIM_AFTER, NODES, Role, Stage, WORKERS};

/// Every step. The engine has the same list: a test compares the two, because the drill looks at it from outside.
pub(super) const LABELS: [&str; 6] =
    ["worker.read", "worker.committed", "loader.closed", "loader.drained", "loader.sealed", "loader.opened"];

/// A step must be reached within this time.
const REACHED_WITHIN: Duration = Duration::from_secs(15);
/// Waiting for bytes that would be cut takes at most this long.
const CUT_WITHIN: Duration = Duration::from_millis(400);
/// So many times in a row no byte may come.
const MISSES_MAX: u32 = 40;

/// Where connections are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    BuyersToNodes,
    NodesToRedis,
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
    /// PostgreSQL is away for this long, and connections are cut meanwhile.
    Outage(Duration),
    /// A connection is cut at a chosen byte.
    Cut(Edge),
    /// A worker kills itself at a labelled step.
    Step(&'static str),
}

impl Fault {
    /// What it is called in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::RedisKill => "redis kill -9",
            Fault::PostgresKill => "postgresql kill -9",
            Fault::WorkerKill => "worker kill -9",
            Fault::NodeKill => "api kill -9",
            Fault::WorkerPause => "worker pause",
            Fault::Flush => "FLUSHALL",
            Fault::Truncation => "aof truncation",
            Fault::Failover => "lagging failover",
            Fault::Outage(_) => "postgresql outage",
            Fault::Cut(Edge::BuyersToNodes) => "cut client - api",
            Fault::Cut(Edge::NodesToRedis) => "cut api - redis",
            Fault::Cut(Edge::WorkersToRedis) => "cut worker - redis",
            Fault::Cut(Edge::WorkersToPostgres) => "cut worker - postgresql",
            Fault::Step(label) => label,
        }
    }

    /// What it may take away.
    pub(super) fn loss(self) -> Loss {
        match self {
            Fault::Flush | Fault::Truncation | Fault::Failover => Loss::Redis,
            _ => Loss::None,
        }
    }
}

/// What is to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Nothing,
    Redis,
    Postgres,
    /// Gone.
    Process(Role),
    /// Stands still.
    Frozen(Role),
    AllWorkers,
}

/// Does it.
pub(super) fn strike(fault: Fault, stage: &mut Stage, random: &mut SmallRng) -> Result<Broken> {
    let worker = Role::Worker(random.random_range(0..WORKERS));
    Ok(match fault {
        Fault::RedisKill => {
            stage.redis.kill();
            Broken::Redis
        }
        Fault::PostgresKill | Fault::Outage(_) => {
            stage.postgres.kill();
            Broken::Postgres
        }
        Fault::WorkerKill => kill(stage, worker)?,
        Fault::NodeKill => kill(stage, Role::Node(random.random_range(0..NODES)))?,
        Fault::WorkerPause => {
            // Another fault may have ended it.
            let Ok(process) = stage.process(worker) else { return Ok(Broken::Nothing) };
            process.freeze();
            std::thread::sleep(CLAIM_AFTER.mul_f64(random.random_range(1.2..2.5)));
            Broken::Frozen(worker)
        }
        Fault::Flush => {
            if stage.redis.pid().is_some() {
                stage.redis.command(&["FLUSHALL"])?;
            }
            Broken::Nothing
        }
        Fault::Truncation => {
            stage.redis.kill();
            truncate(&mut stage.redis, random)?;
            Broken::Redis
        }
        Fault::Failover => {
            fail_over(stage, random)?;
            Broken::Nothing
        }
        Fault::Cut(edge) => {
            cut(stage, edge, random)?;
            Broken::Nothing
        }
        Fault::Step(label) => die_at(stage, label, worker, random)?,
    })
}

/// Mends what a fault left broken.
pub(super) fn mend(broken: Broken, stage: &mut Stage) -> Result<()> {
    match broken {
        Broken::Nothing => Ok(()),
        Broken::Redis => Ok(stage.redis.restart()?),
        Broken::Postgres => Ok(stage.postgres.restart()?),
        Broken::Process(role) => stage.start(role, None),
        Broken::Frozen(role) => {
            if let Ok(process) = stage.process(role) {
                process.thaw();
            }
            Ok(())
        }
        Broken::AllWorkers => (0..WORKERS).try_for_each(|index| {
            stage.kill(Role::Worker(index))?;
            stage.start(Role::Worker(index), None)
        }),
    }
}

fn kill(stage: &mut Stage, role: Role) -> Result<Broken> {
    stage.kill(role)?;
    Ok(Broken::Process(role))
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
fn fail_over(stage: &mut Stage, random: &mut SmallRng) -> Result<()> {
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
fn cut(stage: &Stage, edge: Edge, random: &mut SmallRng) -> Result<()> {
    let (proxy, bytes) = match edge {
        Edge::BuyersToNodes => {
            (stage.to_nodes.get(random.random_range(0..NODES)).context("there is no such node")?, 700)
        }
        Edge::NodesToRedis => (&stage.nodes_to_redis, 900),
        Edge::WorkersToRedis => (&stage.workers_to_redis, 900),
        Edge::WorkersToPostgres => (&stage.workers_to_postgres, 3_000),
    };
    for _ in 0..MISSES_MAX {
        let after = random.random_range(0..bytes);
        let mode = match random.random_range(0..2_u32) {
            0 => Mode::CutRequestAfter(after),
            _ => Mode::CutReplyAfter(after),
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
    bail!("no bytes pass between {edge:?} any more: nothing could be cut")
}

/// Lets a worker kill itself at a step. At a loader's step it is the only one, and Redis comes back as another.
fn die_at(stage: &mut Stage, label: &'static str, worker: Role, random: &mut SmallRng) -> Result<Broken> {
    let is_loader = label.starts_with("loader.");
    let hits = if is_loader { random.random_range(1..=3) } else { random.random_range(1..=6_u32) };
    let (victim, broken) = if is_loader {
        (0..WORKERS).try_for_each(|index| stage.kill(Role::Worker(index)))?;
        (Role::Worker(0), Broken::AllWorkers)
    } else {
        stage.kill(worker)?;
        (worker, Broken::Process(worker))
    };
    stage.start(victim, Some(&format!("{label}:{hits}")))?;
    if is_loader {
        stage.redis.kill();
        stage.redis.restart()?;
    }
    let process = stage.process(victim)?;
    let status = process.wait_exit(REACHED_WITHIN);
    let output = process.output();
    let status =
        status.with_context(|| format!("{label} was not passed {hits} times; it wrote:\n{output}"))?;
    ensure!(status.signal() == Some(9), "{label}: the worker ended by itself; it wrote:\n{output}");
    stage.kill(victim)?;
    Ok(broken)
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
}
