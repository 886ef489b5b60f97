//! A shop: a process of its own that sells by one strategy, over HTTP.

mod broker;
mod http;
mod jobs;
mod lock;
mod parts;
mod points;
mod queued;
mod stores;
mod trace;
mod worker;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use deadpool_postgres::Object;
use futures_util::future::BoxFuture;
use redis::AsyncCommands as _;

pub use broker::{Confirms, Message, Messages, Queue};
pub use http::serve;
pub(crate) use http::{read_attempt, sell};
pub use jobs::{Job, Jobs, Taken};
pub use lock::{Lock, PATIENCE};
pub use parts::{
    NewOrder, decrement, give_back, insert_order, insert_order_and_lower_stock, read_check_write, stock_key,
    take_units,
};
pub use points::Points;
pub use queued::Queued;
pub use stores::{Addresses, Amqp, CONNECTIONS, PoolCounts, Stores};
pub use trace::{Event, EventKind, Trace, TraceReader, read_trace};
pub use worker::{PlainWork, Work, give_unit_back, write_order, write_order_and_stock};

/// What a buyer asks for.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Who buys.
    pub user: String,
    /// What is bought.
    pub product: String,
    /// Units; nobody has checked them.
    pub quantity: i64,
    /// The header `idempotency-key`.
    pub key: String,
}

/// What a buyer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The order is written: 201.
    Bought {
        /// Its id.
        order: String,
    },
    /// The order will be written: 202.
    Accepted {
        /// Its id, if there is one already.
        order: String,
    },
    /// Too few units are left: 409.
    SoldOut,
    /// Nobody can buy so many units: 400.
    Invalid,
}

/// One way of selling. What it answers as an error, buyers see as status 500.
pub trait Strategy: Send + Sync {
    /// Sells, or does not.
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>>;

    /// What was accepted and is not in the books yet.
    fn backlog(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async { Ok(0) })
    }
}

/// What a strategy has to work with.
pub struct Shop {
    /// The servers.
    pub stores: Stores,
    /// Where every step is written down.
    pub trace: Trace,
    /// Where the lab interferes.
    pub points: Points,
    /// A name that no other run has: queues are called after it.
    pub run: String,
}

impl Shop {
    /// Opens the stores.
    ///
    /// # Errors
    /// One of them cannot be reached, or the trace cannot be written.
    pub async fn open(
        addresses: &Addresses,
        run: String,
        trace: Trace,
        point: Option<&str>,
    ) -> Result<Arc<Shop>> {
        let points = point.map_or_else(|| Ok(Points::default()), Points::parse)?;
        let stores = Stores::open(addresses).await.context("cannot open the shop")?;
        Ok(Arc::new(Shop { stores, trace, points, run }))
    }

    /// Puts every product's stock of PostgreSQL into Redis, where there is none yet.
    ///
    /// # Errors
    /// PostgreSQL or Redis cannot be used.
    pub async fn fill_redis(&self) -> Result<()> {
        let mut redis = self.stores.redis()?;
        let client = self.stores.postgres().await?;
        for row in
            client.query("SELECT id, stock FROM products", &[]).await.context("cannot read the stock")?
        {
            let (product, stock): (String, i32) = (row.get(0), row.get(1));
            let _: bool = redis.set_nx(stock_key(&product), stock).await.context("cannot fill Redis")?;
        }
        Ok(())
    }

    /// A connection to PostgreSQL for the request `key`. That there is none is written down.
    ///
    /// # Errors
    /// As [`Stores::postgres`].
    pub async fn postgres(&self, key: &str) -> Result<Object> {
        self.stores
            .postgres()
            .await
            .inspect_err(|error| self.trace.database_error(key, &format!("{error:#}")))
    }

    /// Takes the attempt's units in Redis, if there are enough: gives the count before. What happens is written down.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn take_in_redis(&self, attempt: &Attempt) -> Result<Option<i64>> {
        let stock = decrement(&mut self.stores.redis()?, &attempt.product, attempt.quantity, None).await?;
        self.write_down_taking(attempt, stock);
        Ok(stock)
    }

    /// Writes down what came of taking units in Redis, where the count stood at `stock` if there were enough.
    fn write_down_taking(&self, attempt: &Attempt, stock: Option<i64>) {
        match stock {
            Some(stock) => {
                let detail = format!("stock {stock} -> {}", stock.saturating_sub(attempt.quantity));
                self.trace.takes(&attempt.key, "takes a unit in Redis", &detail, stock);
            }
            None => self.trace.step(&attempt.key, "finds too few units in Redis", ""),
        }
    }
}
