//! How the redis engine and its servers are, for those who watch it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::future::join;
use yoink_core::ProductId;

use super::RedisEngine;
use crate::CallError;
use crate::figures::{DURATION_BOUNDS_SECONDS, Histogram, HistogramFigures};
use crate::node::Ping;
use crate::postgres::Connections;

/// What Redis is asked to do again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Deciding purchases.
    Purchase,
    /// Looking at a sale.
    Look,
    /// Reading what waits for the ledger.
    Read,
    /// Forgetting what the ledger has.
    Settle,
    /// Giving units back.
    Credit,
}

impl Command {
    const NAMES: [&'static str; 5] = ["purchase", "look", "read", "settle", "credit"];
}

/// What the parts of a node count for those who watch it.
pub(crate) struct Gauges {
    commands: [Histogram; Command::NAMES.len()],
    credits_waiting: AtomicU64,
    rebuilds: AtomicU64,
    rescued: AtomicU64,
}

impl Gauges {
    pub(crate) fn new() -> Self {
        Self {
            commands: std::array::from_fn(|_| Histogram::new(&DURATION_BOUNDS_SECONDS)),
            credits_waiting: AtomicU64::new(0),
            rebuilds: AtomicU64::new(0),
            rescued: AtomicU64::new(0),
        }
    }

    /// Redis has answered, or not, and the time for it began at `begun`.
    pub(crate) fn asked(&self, command: Command, begun: Instant) {
        if let Some(histogram) = self.commands.get(command as usize) {
            histogram.observe(begun.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn note_credits_waiting(&self, credits: u64) {
        self.credits_waiting.store(credits, Ordering::Relaxed);
    }

    /// Redis was filled anew with a product.
    pub(crate) fn rebuilt(&self) {
        self.rebuilds.fetch_add(1, Ordering::Relaxed);
    }

    /// So many orders, which a restored ledger did not have any more, were written to it.
    pub(crate) fn rescued(&self, orders: u64) {
        self.rescued.fetch_add(orders, Ordering::Relaxed);
    }
}

/// One product in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaleStatus {
    /// Which product.
    pub product: ProductId,
    /// The epoch that is sold from; one more each time Redis is filled anew.
    pub epoch: i32,
    /// Whether Redis sells it, or would if it is paused or its window is closed.
    pub is_selling: bool,
}

/// How the redis engine is. Costs nothing: no server is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisStatus {
    /// The products, in order of creation.
    pub sales: Vec<SaleStatus>,
    /// Whether the settings of the servers keep what is promised, or less was promised.
    pub may_sell: bool,
    /// Connections to PostgreSQL.
    pub connections: Connections,
    /// Units given back that Redis is not known to have, in credits.
    pub credits_waiting: u64,
    /// How often this process filled Redis anew with a product.
    pub rebuilds: u64,
    /// How many orders this process has written to a ledger that was restored to an earlier state and did not have them.
    pub rescued: u64,
    /// How long Redis took to answer, in seconds, by what it was asked.
    pub commands: Vec<(&'static str, HistogramFigures)>,
}

impl RedisEngine {
    pub(crate) fn status(&self) -> RedisStatus {
        let shared = self.shared();
        let sales = shared.node.catalogue.all().into_iter().map(|listed| SaleStatus {
            product: listed.row.id,
            epoch: listed.epoch(),
            is_selling: listed.is_selling(),
        });
        let gauges = &shared.gauges;
        let histograms = gauges.commands.iter().map(Histogram::figures);
        RedisStatus {
            sales: sales.collect(),
            may_sell: shared.node.may_sell(),
            connections: self.postgres().connections(),
            credits_waiting: gauges.credits_waiting.load(Ordering::Relaxed),
            rebuilds: gauges.rebuilds.load(Ordering::Relaxed),
            rescued: gauges.rescued.load(Ordering::Relaxed),
            commands: Command::NAMES.into_iter().zip(histograms).collect(),
        }
    }

    /// Asks every server that is known for a sign of life.
    pub(crate) async fn ping(&self) -> Result<[Ping; 2], CallError> {
        self.desk()
            .in_background_with(self, |engine| async move {
                let (redis, postgres) = join(engine.ping_redis(), engine.desk().ping()).await;
                Ok([redis, postgres])
            })
            .await
    }

    async fn ping_redis(&self) -> Ping {
        let begun = Instant::now();
        let servers = self.servers().all().await;
        let mut is_well = !servers.is_empty();
        for server in servers {
            let Ok(server) = server else {
                is_well = false;
                continue;
            };
            let pong: redis::RedisResult<String> =
                redis::cmd("PING").query_async(&mut server.connection.clone()).await;
            is_well &= pong.is_ok();
        }
        Ping { server: "redis", is_well, took: begun.elapsed() }
    }
}
