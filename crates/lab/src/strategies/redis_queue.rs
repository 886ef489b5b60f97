//! `redis-queue`: the fourth generation. A script takes the unit in Redis, the order goes into a queue, the buyer is
//! told 202, and a worker writes the order.
//!
//! The defect: a job that failed three times is given up and its unit sold again, although its buyer was told yes.
//! Three tries are over long before a database that was shut down is there again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, PlainWork, Queued, Shop, Strategy};

pub(super) const ENTRY: Entry = Entry {
    name: "redis-queue",
    kind: Kind::Generation,
    line: "V4: a script takes the unit in Redis, and a worker writes the order from a queue",
    defect: Some(Defect {
        breaks: Broken::Lost,
        how: "while the database is down every job fails three times and is cancelled, though its buyer was told yes",
    }),
    repair: "a yes is a promise: write it down where it survives, and try until the database is there again",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: false },
    schema: "",
    scene: &[
        // While all is well it works.
        Act::Crowd(0),
        Act::Drain,
        Act::PostgresDown,
        Act::Crowd(40),
        Act::Wait(Duration::from_secs(2)),
        Act::PostgresUp,
        Act::Crowd(60),
    ],
    point: None,
    seller: Seller::Strategy(open, Shelf::Redis),
};

struct RedisQueue {
    queued: Queued,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        shop.fill_redis().await?;
        // The worker does what workers do: after three tries the job becomes a dead letter, and its unit is given back.
        let queued = Queued::open(shop, PlainWork).await?;
        Ok(Arc::new(RedisQueue { queued }) as Arc<dyn Strategy>)
    })
}

impl Strategy for RedisQueue {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move {
            if self.queued.shop.take_in_redis(attempt).await?.is_none() {
                return Ok(Answer::SoldOut);
            }
            self.queued.queue(attempt).await
        })
    }

    fn backlog(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.queued.backlog())
    }
}
