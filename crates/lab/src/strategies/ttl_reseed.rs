//! `ttl-reseed`: the stock in Redis is a cache that expires, and is filled again from PostgreSQL.
//!
//! The defect: PostgreSQL knows only the orders that the worker has written. What is still in the queue counts as
//! unsold there, and is sold a second time as soon as the key has expired.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use redis::AsyncCommands as _;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, Job, Queued, Shop, Strategy, Work, stock_key, write_order_and_stock};

/// After how many milliseconds the stock in Redis expires.
const TTL_MS: u64 = 1_000;

pub(super) const ENTRY: Entry = Entry {
    name: "ttl-reseed",
    kind: Kind::Museum,
    line: "the stock in Redis expires, and is filled again from a database that lags behind the queue",
    defect: Some(Defect {
        breaks: Broken::Oversold,
        also: &[],
        how: "what is queued and not yet written counts as unsold when the stock is filled again from PostgreSQL",
    }),
    repair: "a count that is sold from is no cache: it never expires, and is rebuilt from the orders, queued ones too",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: false },
    schema: "",
    scene: &[Act::Crowd(50), Act::Wait(Duration::from_millis(TTL_MS + 100)), Act::Crowd(50)],
    // A worker that is held up for some seconds: by a slow disk, a lock, or the crowd itself.
    point: Some("worker:3:pause:3000"),
    seller: Seller::strategy(open, Shelf::Redis),
};

struct TtlReseed {
    queued: Queued,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        let queued = Queued::open(shop, StockWriter).await?;
        Ok(Arc::new(TtlReseed { queued }) as Arc<dyn Strategy>)
    })
}

impl Strategy for TtlReseed {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move {
            self.fill_if_expired(attempt).await?;
            self.queued.take_and_queue(attempt).await
        })
    }

    fn backlog(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.queued.backlog())
    }
}

impl TtlReseed {
    async fn fill_if_expired(&self, attempt: &Attempt) -> Result<()> {
        let shop = &self.queued.shop;
        let (mut redis, key) = (shop.stores.redis()?, stock_key(&attempt.product));
        if redis.exists(&key).await.context("Redis does not answer")? {
            return Ok(());
        }
        let client = shop.postgres(&attempt.key).await?;
        let row = client
            .query_one("SELECT stock FROM products WHERE id = $1", &[&attempt.product])
            .await
            .context("cannot read the stock")?;
        let stock: i32 = row.get(0);
        // The defect: this number knows nothing of the queue.
        let is_first: bool = redis::cmd("SET")
            .arg(&key)
            .arg(stock)
            .arg("NX")
            .arg("PX")
            .arg(TTL_MS)
            .query_async(&mut redis)
            .await
            .context("cannot fill Redis")?;
        if is_first {
            let detail = format!("stock = {stock}; {} jobs are queued", self.queued.backlog().await?);
            shop.trace.step("", "no stock is in Redis: it is filled from PostgreSQL", &detail);
        }
        Ok(())
    }
}

/// A worker that keeps the stock in PostgreSQL, together with the orders.
struct StockWriter;

impl Work for StockWriter {
    fn write<'a>(&'a self, shop: &'a Shop, job: &'a Job) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            shop.points.reach("worker", &shop.trace, &job.key).await;
            write_order_and_stock(shop, job).await
        })
    }
}
