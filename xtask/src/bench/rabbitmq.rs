//! The rabbitmq engine: API, three workers, RabbitMQ, PostgreSQL, Redis and load on the same machine.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use yoink_testkit::{RabbitServer, RedisServer};

use super::pairs::{Answer, Run, wrk};
use super::results::median;
use super::server::{Server, Worker};
use super::storm::{CONNECTIONS, Ledger, Storm, sold_out_rates, started};
use crate::say::say;

/// Longer than this nobody waits for the decisions after a storm.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// As many as the system that this engine takes after.
const WORKERS: usize = 3;

/// Everything that was measured.
pub(super) struct RabbitResults {
    /// By connections.
    storms: Vec<(u32, Vec<Storm>)>,
    sold_out: Vec<(u32, Vec<Run>)>,
}

pub(super) fn measure(seconds: u32, runs: u32) -> Result<RabbitResults> {
    let binaries = crate::target_folder()?.join("release");
    let mut results = RabbitResults { storms: Vec::new(), sold_out: Vec::new() };
    for connections in CONNECTIONS {
        let (mut storms, mut sold_out) = (Vec::new(), Vec::new());
        for run in 1..=runs {
            let servers = Servers::start()?;
            let storm = servers.storm(&binaries, connections, seconds)?;
            say(format!(
                "rabbitmq engine, {connections:>5} connections, run {run} of {runs}: {:.0}/s queued, {:.0}/s decided \
                 meanwhile, {:.0}/s after, drained in {:.1} s",
                storm.run.requests_per_s,
                storm.taken_per_s,
                drain_rate_per_s(&storm).unwrap_or(f64::NAN),
                storm.drained_s
            ));
            storms.push(storm);
            sold_out.push(servers.sold_out(&binaries, connections, seconds)?);
        }
        results.storms.push((connections, storms));
        results.sold_out.push((connections, sold_out));
    }
    Ok(results)
}

/// Requests that were decided per second after a storm; none if next to nothing was left: a rate over that says nothing.
fn drain_rate_per_s(storm: &Storm) -> Option<f64> {
    (storm.left > 2_000.0).then_some(storm.left / storm.drained_s)
}

struct Servers {
    rabbit: RabbitServer,
    redis: RedisServer,
    ledger: Ledger,
}

impl Servers {
    fn start() -> Result<Self> {
        Ok(Self {
            rabbit: started("RabbitMQ", RabbitServer::start())?,
            redis: started("Redis", RedisServer::start())?,
            ledger: Ledger::start()?,
        })
    }

    /// One node that only queues, and the workers, each a process.
    fn engine(&self, binaries: &Path) -> Result<(Server, Vec<Worker>)> {
        Server::migrate(binaries, &self.ledger.url)?;
        let (amqp, redis) = (self.rabbit.url(), self.redis.url());
        let urls = ["--amqp", &amqp, "--redis", &redis, "--postgres", &self.ledger.url];
        let workers = (0..WORKERS).map(|_| Worker::on_rabbitmq(binaries, &urls)).collect::<Result<_>>()?;
        Ok((Server::yoink_on_rabbitmq(binaries, &urls)?, workers))
    }

    fn storm(&self, binaries: &Path, connections: u32, seconds: u32) -> Result<Storm> {
        let (server, _workers) = self.engine(binaries)?;
        self.ledger.storm(&server, (connections, seconds), DRAIN_MAX)
    }

    fn sold_out(&self, binaries: &Path, connections: u32, seconds: u32) -> Result<Run> {
        let (server, _workers) = self.engine(binaries)?;
        wrk(&server, Answer::SoldOut, connections, seconds)
    }
}

impl RabbitResults {
    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "## HTTP, rabbitmq engine\n\nOne API node, {WORKERS} worker processes, RabbitMQ (a quorum queue, publisher \
             confirms), PostgreSQL, Redis and wrk on the\nsame cores. The system that this engine takes after, on the \
             same cores: 3,970/s accepted without confirms, 370 to 720/s\nprocessed.\n\n\
             | connections | queued /s | goal | p50 | p99 | decided /s under load | decided /s after | goal | drained after |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for (connections, storms) in &self.storms {
            let figure = |of: fn(&Storm) -> f64| median(storms.iter().map(of));
            let rates: Vec<f64> = storms.iter().filter_map(drain_rate_per_s).collect();
            let after = match rates.is_empty() {
                true => "nothing was left".to_owned(),
                false => format!("{:.0}", median(rates.into_iter())),
            };
            let _ = writeln!(
                text,
                "| {connections} | {:.0} | ≥ 12,000 | {:.1} ms | {:.1} ms | {:.0} | {after} | ≥ 7,000 | {:.1} s |",
                figure(|storm| storm.run.requests_per_s),
                figure(|storm| storm.run.p50_ms),
                figure(|storm| storm.run.p99_ms),
                figure(|storm| storm.taken_per_s),
                figure(|storm| storm.drained_s),
            );
        }
        let _ = writeln!(text, "\nSold out, refused by the hint: {}.", sold_out_rates(&self.sold_out));
        text
    }

    pub(super) fn json(&self) -> Value {
        let storm = |storm: &Storm| {
            json!({
                "queued_per_s": storm.run.requests_per_s,
                "p50_ms": storm.run.p50_ms,
                "p99_ms": storm.run.p99_ms,
                "decided_per_s": storm.taken_per_s,
                "drained_s": storm.drained_s,
                "decided_per_s_after": drain_rate_per_s(storm),
            })
        };
        let rows: Vec<Value> = self
            .storms
            .iter()
            .map(|(connections, storms)| {
                json!({"connections": connections, "runs": storms.iter().map(storm).collect::<Vec<_>>()})
            })
            .collect();
        json!({"rabbitmq": rows})
    }
}
