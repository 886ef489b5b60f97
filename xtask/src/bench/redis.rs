//! The redis engine: API, Redis, PostgreSQL, worker and load on the same machine.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use yoink_testkit::{Postgres, RedisServer};

use super::pairs::{Answer, Run, wrk};
use super::results::median;
use super::server::Server;
use crate::say::say;

/// Rows of the plain `COPY`.
const COPY_ROWS: u32 = 200_000;
/// Longer than this nobody waits for the ledger after a storm.
const DRAIN_MAX: Duration = Duration::from_secs(60);
const CONNECTIONS: [u32; 2] = [64, 1_000];

/// What one storm showed.
struct Storm {
    run: Run,
    /// Orders that the ledger took, per second, while buyers were buying.
    persisted_per_s: f64,
    /// From the end of the storm until the ledger had every order.
    drained_s: f64,
    /// Orders per second over the whole time.
    drain_rate_per_s: f64,
}

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
                storm.run.requests_per_s, storm.persisted_per_s, storm.drained_s
            ));
            storms.push(storm);
            sold_out.push(servers.sold_out(&binaries, connections, seconds)?);
        }
        results.storms.push((connections, storms));
        results.sold_out.push((connections, sold_out));
    }
    Ok(results)
}

struct Servers {
    redis: RedisServer,
    postgres: Postgres,
    database: String,
}

impl Servers {
    fn start() -> Result<Self> {
        let redis = RedisServer::start().context("cannot start Redis; run `cargo xtask setup`")?;
        let postgres = Postgres::start().context("cannot start PostgreSQL; run `cargo xtask setup`")?;
        let database = postgres.create_database("bench")?;
        Ok(Self { redis, postgres, database })
    }

    fn engine(&self, binaries: &Path) -> Result<Server> {
        Server::yoink_on_redis(binaries, &self.redis.url(), &self.database)
    }

    fn reference(&self, binaries: &Path, seconds: u32) -> Result<Value> {
        Server::migrate(binaries, &self.database)?;
        let program = binaries.join("examples").join("redis_reference");
        let output = Command::new(&program)
            .args([&self.redis.url(), &self.database, &seconds.to_string(), &COPY_ROWS.to_string()])
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        if !output.status.success() {
            bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("redis_reference printed no JSON")
    }

    fn orders(&self) -> Result<f64> {
        let mut session = self.postgres.session("bench")?;
        let count = session.value("SELECT count(*) FROM orders")?;
        count.and_then(|count| count.parse().ok()).context("PostgreSQL counted no number")
    }

    fn storm(&self, binaries: &Path, connections: u32, seconds: u32) -> Result<Storm> {
        let server = self.engine(binaries)?;
        let before = self.orders()?;
        let begun = Instant::now();
        let run = wrk(&server, Answer::Accepted, connections, seconds)?;
        let (bought_s, during) = (begun.elapsed().as_secs_f64(), self.orders()? - before);
        let accepted = run.requests;
        let draining = Instant::now();
        loop {
            let persisted = self.orders()? - before;
            if persisted >= accepted {
                break;
            }
            if draining.elapsed() > DRAIN_MAX {
                bail!("the ledger has {persisted} of {accepted} orders {DRAIN_MAX:?} after the storm");
            }
            thread::sleep(Duration::from_millis(20));
        }
        let drained_s = draining.elapsed().as_secs_f64();
        Ok(Storm {
            run,
            persisted_per_s: during / bought_s,
            drained_s,
            drain_rate_per_s: (accepted - during).max(0.0) / drained_s,
        })
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
                figure(|storm| storm.persisted_per_s),
                figure(|storm| storm.drained_s),
                figure(|storm| storm.drain_rate_per_s),
            );
        }
        let copied = self.reference("copy_rows_per_s");
        let fastest = self
            .storms
            .iter()
            .flat_map(|(_, storms)| storms.iter().map(|storm| storm.drain_rate_per_s))
            .filter(|rate| rate.is_finite())
            .fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "\nPersisting after the storm reached {fastest:.0}/s, {:.2} of a plain `COPY` ({copied:.0} rows/s). Sold \
             out: {}.",
            fastest / copied,
            self.sold_out
                .iter()
                .map(|(connections, runs)| format!(
                    "{:.0}/s at {connections} connections",
                    median(runs.iter().map(|run| run.requests_per_s))
                ))
                .collect::<Vec<_>>()
                .join(", ")
        );
        text
    }

    pub(super) fn json(&self) -> Value {
        let storm = |storm: &Storm| {
            json!({
                "accepted_per_s": storm.run.requests_per_s,
                "p50_ms": storm.run.p50_ms,
                "p99_ms": storm.run.p99_ms,
                "persisted_per_s": storm.persisted_per_s,
                "drained_s": storm.drained_s,
                "persisted_per_s_after": storm.drain_rate_per_s,
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
