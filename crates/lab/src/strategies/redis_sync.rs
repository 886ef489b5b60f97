//! `redis-sync`: the third generation. A script takes the unit in Redis, then the order is written at once.
//!
//! The defect: the unit is taken before anybody knows whether a connection to the database will be free. When none is,
//! the buyer is told 500, and nobody gives the unit back.
//!
//! As in that generation: the script, and one transaction for the order and the stock in PostgreSQL. Different: the pool
//! is small and impatient, two connections that are waited for during 4 ms, because the lab's crowd is small. The older
//! system had the same relation on a larger scale: far more buyers at once than connections, and a limit on the wait.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use deadpool_postgres::Pool;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, NewOrder, Shop, Strategy, insert_order_and_lower_stock};

// Few connections and little patience: what a pool looks like from each request while a crowd is at it. `how` says both.
const CONNECTIONS: usize = 2;
const PATIENCE: Duration = Duration::from_millis(4);

pub(super) const ENTRY: Entry = Entry {
    name: "redis-sync",
    kind: Kind::Generation,
    line: "V3: a script takes the unit in Redis, then the order is written in the same request",
    defect: Some(Defect {
        breaks: Broken::Stuck,
        also: &[],
        how: "with 2 connections to PostgreSQL and 4 ms of patience for one, most of a crowd gets none: those buyers are \
              told 500, and their units are never given back",
    }),
    repair: "make the unit and the order one step, or write down which units are under way and settle each of them",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: false },
    schema: "",
    scene: &[Act::Crowd(100)],
    point: None,
    seller: Seller::Strategy { open, shelf: Shelf::Redis, connections: CONNECTIONS },
};

struct RedisSync {
    shop: Arc<Shop>,
    pool: Pool,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        shop.fill_redis().await?;
        let pool = shop.stores.small_pool(CONNECTIONS, PATIENCE)?;
        Ok(Arc::new(RedisSync { shop, pool }) as Arc<dyn Strategy>)
    })
}

impl Strategy for RedisSync {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.sell(attempt))
    }
}

impl RedisSync {
    async fn sell(&self, attempt: &Attempt) -> Result<Answer> {
        if self.shop.take_in_redis(attempt).await?.is_none() {
            return Ok(Answer::SoldOut);
        }
        // The defect: whoever leaves here by an error leaves with a unit.
        let order = self
            .write(attempt)
            .await
            .inspect_err(|error| self.shop.trace.database_error(&attempt.key, &format!("{error:#}")))?;
        Ok(Answer::Bought { order })
    }

    async fn write(&self, attempt: &Attempt) -> Result<String> {
        let mut client = self.pool.get().await.context("no connection to PostgreSQL")?;
        let transaction = client.transaction().await.context("cannot begin")?;
        let order = Uuid::new_v4().to_string();
        let new = NewOrder { id: &order, attempt, status: "CONFIRMED" };
        insert_order_and_lower_stock(&transaction, new).await.context("cannot write the order")?;
        transaction.commit().await.context("cannot commit")?;
        self.shop.trace.step(&attempt.key, "writes the order, and the stock in PostgreSQL", "");
        Ok(order)
    }
}
