//! The redis engine: API, Redis, PostgreSQL, worker and load on the same machine.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use yoink_testkit::RedisServer;

use super::pairs::{Answer, Run, wrk};
use super::results::median;
use super::server::Server;
use super::storm::{CONNECTIONS, Ledger, Storm, sold_out_rates, started};
use crate::say::say;

/// Rows of the plain `COPY`.
const COPY_ROWS: u32 = 200_000;
/// Longer than this nobody waits for the ledger after a storm.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Everything that was measured.
pub(super) struct RedisResults {
    /// By connections.
    storms: Vec<(u32, Vec<Storm>)>,
    sold_out: Vec<(u32, Vec<Run>)>,
    reference: Vec<Value>,
}

pub(super) fn measure(seconds: u32, runs: u32) -> Result<RedisResults> {
    let binaries = crate::target_folder()?.join("release");
    let mut results = RedisResults { storms: Vec::new(), sold_out: Vec::new(), reference: Vec::new() };
    for connections in CONNECTIONS {
        let (mut storms, mut sold_out) = (Vec::new(), Vec::new());
        for run in 1..=runs {
            let servers = Servers::start()?;
            results.reference.push(servers.reference(&binaries, seconds)?);
            let storm = servers.storm(&binaries, connections, seconds)?;
            say(format!(
                "redis engine, {connections:>5} connections, run {run} of {runs}: {:.0}/s accepted, {:.0}/s \
                 persisted meanwhile, drained in {:.1} s",
                storm.run.requests_per_s, storm.taken_per_s, storm.drained_s
            ));
            storms.push(storm);
            sold_out.push(servers.sold_out(&binaries, connections, seconds)?);
        }
        results.storms.push((connections, storms));
        results.sold_out.push((connections, sold_out));
    }
    Ok(results)
}

/// Orders that the ledger took per second after a storm.
fn drain_rate_per_s(storm: &Storm) -> f64 {
    storm.left / storm.drained_s
}

struct Servers {
    redis: RedisServer,
    ledger: Ledger,
}

impl Servers {
    fn start() -> Result<Self> {
        Ok(Self { redis: started("Redis", RedisServer::start())?, ledger: Ledger::start()? })
    }

    fn engine(&self, binaries: &Path) -> Result<Server> {
        Server::yoink_on_redis(binaries, &self.redis.url(), &self.ledger.url)
    }

    fn reference(&self, binaries: &Path, seconds: u32) -> Result<Value> {
        Server::migrate(binaries, &self.ledger.url)?;
        let program = binaries.join("examples").join("redis_reference");
        let output = Command::new(&program)
            .args([&self.redis.url(), &self.ledger.url, &seconds.to_string(), &COPY_ROWS.to_string()])
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        if !output.status.success() {
            bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("redis_reference printed no JSON")
    }

    fn storm(&self, binaries: &Path, connections: u32, seconds: u32) -> Result<Storm> {
        let server = self.engine(binaries)?;
        self.ledger.storm(&server, (connections, seconds), DRAIN_MAX)
    }

    fn sold_out(&self, binaries: &Path, connections: u32, seconds: u32) -> Result<Run> {
        wrk(&self.engine(binaries)?, Answer::SoldOut, connections, seconds)
    }
}

impl RedisResults {
    fn reference(&self, name: &str) -> f64 {
        median(self.reference.iter().map(|one| one.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN)))
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = String::from(
            "## HTTP, redis engine\n\nOne API node with one worker, Redis (`appendfsync always`), PostgreSQL and wrk \
             on the same cores. The references run\non the same servers a moment before: an empty script over the \
             same client with as many callers, and a plain `COPY`.\n\n\
             | connections | accepted /s | goal | of the empty script | p99 | goal | persisted /s under load | goal | \
             drained after | goal | persisted /s after |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for (connections, storms) in &self.storms {
            let figure = |of: fn(&Storm) -> f64| median(storms.iter().map(of));
            let accepted = figure(|storm| storm.run.requests_per_s);
            let empty = self.reference(match connections {
                64 => "empty_script_per_s_64",
                _ => "empty_script_per_s_1000",
            });
            let _ = writeln!(
                text,
                "| {connections} | {accepted:.0} | ≥ 24,000 | **{:.2}** of {empty:.0} | {:.1} ms | {} | {:.0} | \
                 ≥ 8,000 | {:.1} s | ≤ 5 s | {:.0} |",
                accepted / empty,
                figure(|storm| storm.run.p99_ms),
                if *connections == 1_000 { "≤ 100 ms" } else { "–" },
                figure(|storm| storm.taken_per_s),
                figure(|storm| storm.drained_s),
                figure(drain_rate_per_s),
            );
        }
        let copied = self.reference("copy_rows_per_s");
        let fastest = self
            .storms
            .iter()
            .flat_map(|(_, storms)| storms.iter().map(drain_rate_per_s))
            .filter(|rate| rate.is_finite())
            .fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "\nPersisting after the storm reached {fastest:.0}/s, {:.2} of a plain `COPY` ({copied:.0} rows/s). Sold \
             out: {}.",
            fastest / copied,
            sold_out_rates(&self.sold_out)
        );
        text
    }

    pub(super) fn json(&self) -> Value {
        let storm = |storm: &Storm| {
            json!({
                "accepted_per_s": storm.run.requests_per_s,
                "p50_ms": storm.run.p50_ms,
                "p99_ms": storm.run.p99_ms,
                "persisted_per_s": storm.taken_per_s,
                "drained_s": storm.drained_s,
                "persisted_per_s_after": drain_rate_per_s(storm),
            })
        };
        let rows: Vec<Value> = self
            .storms
            .iter()
            .map(|(connections, storms)| {
                json!({"connections": connections, "runs": storms.iter().map(storm).collect::<Vec<_>>()})
            })
            .collect();
        json!({"redis": rows, "reference": self.reference})
    }
}
