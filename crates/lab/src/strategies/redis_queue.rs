//! `redis-queue`: the fourth generation. A script takes the unit in Redis, the order goes into a queue, the buyer is
//! told 202, and a worker writes the order.
//!
//! The defect: a job that failed three times is given up and its unit sold again, although its buyer was told yes. The
//! tries come at once, after one second and after two more (`attempts: 3`, exponential from 1 s), and a database that is
//! shut down is away for longer than that.
//!
//! As in that generation: the script, three tries with these pauses, one transaction for the order and the stock in
//! PostgreSQL, and the unit given back in Redis when a job is given up. Different: the queue is the lab's own, on lists of
//! Redis, instead of a job library's, and a job that was given up leaves no order at all.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, Job, Queued, Shop, Strategy, Work, write_order_and_stock};

pub(super) const ENTRY: Entry = Entry {
    name: "redis-queue",
    kind: Kind::Generation,
    line: "V4: a script takes the unit in Redis, and a worker writes the order from a queue",
    defect: Some(Defect {
        breaks: Broken::Lost,
        also: &[],
        how: "while the database is down for five seconds, every job fails at once, after 1 s and after 2 s more, and is \
              cancelled, though its buyer was told yes",
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
        // The third try comes three seconds after the first.
        Act::Wait(Duration::from_secs(5)),
        Act::PostgresUp,
        Act::Crowd(60),
    ],
    point: None,
    seller: Seller::strategy(open, Shelf::Redis),
};

struct RedisQueue {
    queued: Queued,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        shop.fill_redis().await?;
        let queued = Queued::open(shop, BackingOff).await?;
        Ok(Arc::new(RedisQueue { queued }) as Arc<dyn Strategy>)
    })
}

/// Jobs that are worked on at once.
const WORKERS: usize = 10;
/// The pause after the first try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// After three tries the job becomes a dead letter, and its unit is given back.
struct BackingOff;

impl Work for BackingOff {
    fn workers(&self) -> usize {
        WORKERS
    }

    fn pause_after(&self, tries: u32) -> Duration {
        FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(8))
    }

    fn write<'a>(&'a self, shop: &'a Shop, job: &'a Job) -> BoxFuture<'a, Result<()>> {
        Box::pin(write_order_and_stock(shop, job))
    }
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
