//! `crash-before-enqueue`: take the unit in Redis, then put the order into the queue.
//!
//! The defect: those are two steps. A process that dies between them leaves a unit that nobody has and nobody sells.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, PlainWork, Queued, Shop, Strategy};

pub(super) const ENTRY: Entry = Entry {
    name: "crash-before-enqueue",
    kind: Kind::Museum,
    line: "take the unit, then queue the order; the process dies between the two",
    defect: Some(Defect {
        breaks: Broken::Stuck,
        also: &[],
        how: "a process that dies after it took a unit and before it queued the order leaves the unit to nobody",
    }),
    repair: "take the unit and queue the order in one script, so that there is no between",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: false },
    schema: "",
    scene: &[Act::Crowd(100)],
    point: Some("taken:5:die"),
    seller: Seller::strategy(open, Shelf::Redis),
};

struct CrashBeforeEnqueue {
    queued: Queued,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        shop.fill_redis().await?;
        let queued = Queued::open(shop, PlainWork).await?;
        Ok(Arc::new(CrashBeforeEnqueue { queued }) as Arc<dyn Strategy>)
    })
}

impl Strategy for CrashBeforeEnqueue {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.sell(attempt))
    }

    fn backlog(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.queued.backlog())
    }
}

impl CrashBeforeEnqueue {
    async fn sell(&self, attempt: &Attempt) -> Result<Answer> {
        let shop = &self.queued.shop;
        if shop.take_in_redis(attempt).await?.is_none() {
            return Ok(Answer::SoldOut);
        }
        // The defect: only this process knows here that the unit is under way.
        shop.points.reach("taken", &shop.trace, &attempt.key).await;
        self.queued.queue(attempt).await
    }
}
