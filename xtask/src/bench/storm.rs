//! What benchmarks of engines on servers share: servers that must start, and a ledger that takes in what was bought.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use yoink_testkit::{Postgres, ServerError};

use super::pairs::{Answer, Run, wrk};
use super::results::median;
use super::server::Server;

/// The database of a benchmark.
const DATABASE: &str = "bench";
/// Connections of buyers.
pub(super) const CONNECTIONS: [u32; 2] = [64, 1_000];

/// A server that was started, or what to do about it.
pub(super) fn started<T>(name: &str, started: Result<T, ServerError>) -> Result<T> {
    started.with_context(|| format!("cannot start {name}; run `cargo xtask setup`"))
}

/// A PostgreSQL, and a database in it.
pub(super) struct Ledger {
    postgres: Postgres,
    pub(super) url: String,
}

/// What one storm showed.
pub(super) struct Storm {
    pub(super) run: Run,
    /// Orders that the ledger took, per second, while buyers were buying.
    pub(super) taken_per_s: f64,
    /// Orders that it did not have at the end of the storm.
    pub(super) left: f64,
    /// From the end of the storm until the ledger had every order.
    pub(super) drained_s: f64,
}

impl Ledger {
    pub(super) fn start() -> Result<Self> {
        let postgres = started("PostgreSQL", Postgres::start())?;
        let url = postgres.create_database(DATABASE)?;
        Ok(Self { postgres, url })
    }

    fn orders(&self) -> Result<f64> {
        let mut session = self.postgres.session(DATABASE)?;
        let count = session.value("SELECT count(*) FROM orders")?;
        count.and_then(|count| count.parse().ok()).context("PostgreSQL counted no number")
    }

    /// Lets buyers buy, and waits until the ledger has every order. Nobody waits longer than `drain_max`.
    pub(super) fn storm(
        &self,
        server: &Server,
        (connections, seconds): (u32, u32),
        drain_max: Duration,
    ) -> Result<Storm> {
        let before = self.orders()?;
        let begun = Instant::now();
        let run = wrk(server, Answer::Accepted, connections, seconds)?;
        let (bought_s, during) = (begun.elapsed().as_secs_f64(), self.orders()? - before);
        let draining = Instant::now();
        loop {
            let taken = self.orders()? - before;
            if taken >= run.requests {
                break;
            }
            if draining.elapsed() > drain_max {
                let bought = run.requests;
                bail!("the ledger has {taken} of {bought} orders {drain_max:?} after the storm");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Storm {
            taken_per_s: during / bought_s,
            left: (run.requests - during).max(0.0),
            drained_s: draining.elapsed().as_secs_f64(),
            run,
        })
    }
}

/// What those got who came when nothing was left, in words.
pub(super) fn sold_out_rates(sold_out: &[(u32, Vec<Run>)]) -> String {
    let rows = sold_out.iter().map(|(connections, runs)| {
        let rate = median(runs.iter().map(|run| run.requests_per_s));
        format!("{rate:.0}/s at {connections} connections")
    });
    rows.collect::<Vec<_>>().join(", ")
}
