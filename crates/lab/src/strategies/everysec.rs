//! `everysec`: nothing is wrong with the shop, but its Redis writes its log to the disk once a second.
//!
//! The defect: Redis says yes before it has written. When the power fails, the last second is undone: units that were
//! taken are for sale again, jobs that were queued are gone, and orders that were already written stand there as well.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Job, Queued, Shop, Strategy, Work, write_order};

pub(super) const ENTRY: Entry = Entry {
    name: "everysec",
    kind: Kind::Museum,
    line: "Redis with appendfsync everysec loses its power in the middle of the sale",
    defect: Some(Defect {
        breaks: Broken::Lost,
        also: &[Broken::Oversold],
        how: "the last second of Redis is undone: queued orders are gone though their buyers were told yes, \
              and the units of written ones are sold again",
    }),
    repair: "appendfsync always, so that Redis has written what it says yes to",
    needs: Needs { postgres: true, redis: Some(&["appendfsync everysec"]), rabbit: false },
    schema: "",
    scene: &[
        // What was written when the shop opened is on the disk by now.
        Act::Wait(Duration::from_millis(1_500)),
        Act::RedisMark,
        Act::Crowd(5),
        Act::RedisPowerCut,
        Act::Crowd(75),
        Act::BuyOut(10),
    ],
    // A worker that is held up: the queue still has jobs when the power fails.
    point: Some("worker:3:pause:4000"),
    seller: Seller::strategy(open, Shelf::Redis),
};

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        shop.fill_redis().await?;
        Ok(Arc::new(Queued::open(shop, HeldUp).await?) as Arc<dyn Strategy>)
    })
}

struct HeldUp;

impl Work for HeldUp {
    fn write<'a>(&'a self, shop: &'a Shop, job: &'a Job) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            shop.points.reach("worker", &shop.trace, &job.key).await;
            write_order(shop, job).await
        })
    }
}
