//! `commit-then-die`: the worker commits the order, then tells the queue that the job is done.
//!
//! The defect: a worker that dies between the two finds the job in the queue again. Nothing in the order says which job
//! it came from, because its id is made when it is written. It is not the id that the buyer was told either, so the audit
//! also finds that every order is another than its buyer was told of; and the second order is for a unit more than was
//! taken.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Job, NewOrder, Queued, Shop, Strategy, Work, insert_order};

pub(super) const ENTRY: Entry = Entry {
    name: "commit-then-die",
    kind: Kind::Museum,
    line: "the worker commits the order and dies before it acknowledges the job",
    defect: Some(Defect {
        breaks: Broken::Duplicated,
        also: &[Broken::Oversold, Broken::Mismatched],
        how: "the job that was never acknowledged is done again, and writes a second order under another id; and no order \
              has the id that its buyer was told",
    }),
    repair: "make the order's id before the job is queued, and let the database refuse the second one",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: false },
    schema: "",
    scene: &[Act::Crowd(100)],
    point: Some("committed:3:die"),
    seller: Seller::strategy(open, Shelf::Redis),
};

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        shop.fill_redis().await?;
        Ok(Arc::new(Queued::open(shop, RandomIds).await?) as Arc<dyn Strategy>)
    })
}

struct RandomIds;

impl Work for RandomIds {
    fn write<'a>(&'a self, shop: &'a Shop, job: &'a Job) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let client = shop.stores.postgres().await?;
            // The defect: another try is another id.
            let (id, attempt) = (Uuid::new_v4().to_string(), &job.attempt());
            insert_order(&client, NewOrder { id: &id, attempt, status: "CONFIRMED" })
                .await
                .context("cannot write the order")?;
            shop.trace.step(&job.key, "the worker commits the order", &format!("order {id:.8}"));
            shop.points.reach("committed", &shop.trace, &job.key).await;
            Ok(())
        })
    }
}
