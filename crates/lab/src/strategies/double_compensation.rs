//! `double-compensation`: the unit of a dead letter is given back, then the dead letter is removed.
//!
//! The defect: giving back adds one, however often it is done. A process that dies after it and before the dead letter
//! is removed does it again, and there is a unit more than there ever was.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Job, NewOrder, Queued, Shop, Strategy, Work, give_unit_back, insert_order};

pub(super) const ENTRY: Entry = Entry {
    name: "double-compensation",
    kind: Kind::Museum,
    line: "give a dead letter's unit back, then remove the dead letter; the process dies between the two",
    defect: Some(Defect {
        breaks: Broken::Oversold,
        also: &[],
        how: "the dead letter that outlives a crash is dealt with again, and its unit is given back a second time",
    }),
    repair: "give back and remove in one script, which does nothing if the dead letter is not there any more",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: false },
    // Refuses every third user for ever, as a foreign key does to users whom it does not know.
    schema: "ALTER TABLE orders ADD CONSTRAINT known_users CHECK (status = 'FAILED' OR hashtext(user_id) % 3 <> 0);",
    scene: &[Act::Crowd(40), Act::BuyOut(10)],
    point: Some("given-back:1:die"),
    seller: Seller::strategy(open, Shelf::Redis),
};

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        shop.fill_redis().await?;
        Ok(Arc::new(Queued::open(shop, Compensator).await?) as Arc<dyn Strategy>)
    })
}

struct Compensator;

impl Work for Compensator {
    fn compensate<'a>(&'a self, shop: &'a Shop, job: &'a Job) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            give_unit_back(shop, job).await?;
            // The defect: the dead letter is still there, and nothing in it says that its unit was given back.
            shop.points.reach("given-back", &shop.trace, &job.key).await;
            let client = shop.stores.postgres().await?;
            let attempt = &job.attempt();
            insert_order(&client, NewOrder { id: &job.order, attempt, status: "FAILED" })
                .await
                .context("cannot write the failed order")?;
            shop.trace.step(&job.key, "the order is written down as failed", "");
            Ok(())
        })
    }
}
