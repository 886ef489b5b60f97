//! `check-then-store-key`: look the idempotency key up, sell, then store the key.
//!
//! The defect: a second click comes while the first is still selling. It finds no key either, and buys again.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;

use super::atomic_sql::buy_in_one_transaction;
use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, Shop, Strategy};

pub(super) const ENTRY: Entry = Entry {
    name: "check-then-store-key",
    kind: Kind::Museum,
    line: "the idempotency key is looked up before the purchase and stored after it",
    defect: Some(Defect {
        breaks: Broken::Duplicated,
        also: &[],
        how: "the second of two clicks looks the key up before the first has stored it, and both buy",
    }),
    repair: "write the key in the transaction that buys, under a unique index: the second click fails there",
    needs: Needs { postgres: true, redis: None, rabbit: false },
    schema: "CREATE TABLE keys (key text PRIMARY KEY, order_id text NOT NULL);",
    // The first buyers are so few that there are units for both of their clicks.
    scene: &[Act::DoubleClicks(4), Act::Crowd(96)],
    point: Some("bought:1:pause:2000"),
    seller: Seller::strategy(open, Shelf::Postgres),
};

struct CheckThenStoreKey {
    shop: Arc<Shop>,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async { Ok(Arc::new(CheckThenStoreKey { shop }) as Arc<dyn Strategy>) })
}

impl Strategy for CheckThenStoreKey {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.sell(attempt))
    }
}

impl CheckThenStoreKey {
    async fn sell(&self, attempt: &Attempt) -> Result<Answer> {
        let trace = &self.shop.trace;
        if attempt.quantity < 1 {
            return Ok(Answer::Invalid);
        }
        if let Some(order) = self.look_up(attempt).await? {
            trace.step(&attempt.key, "finds its key, and answers as the first time", "");
            return Ok(Answer::Bought { order });
        }
        trace.step(&attempt.key, "finds no key", "");
        // The defect: until the key is stored, every click of this buyer comes as far as here.
        let answer = buy_in_one_transaction(&self.shop, attempt).await?;
        if let Answer::Bought { order } = &answer {
            self.shop.points.reach("bought", trace, &attempt.key).await;
            self.store(attempt, order).await?;
        }
        Ok(answer)
    }

    async fn look_up(&self, attempt: &Attempt) -> Result<Option<String>> {
        let client = self.shop.postgres(&attempt.key).await?;
        let row = client.query_opt("SELECT order_id FROM keys WHERE key = $1", &[&attempt.key]).await;
        Ok(row.context("cannot look the key up")?.map(|row| row.get(0)))
    }

    async fn store(&self, attempt: &Attempt, order: &str) -> Result<()> {
        let client = self.shop.postgres(&attempt.key).await?;
        let statement = "INSERT INTO keys (key, order_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let stored =
            client.execute(statement, &[&attempt.key, &order]).await.context("cannot store the key")?;
        let detail = if stored == 0 { "it is there already" } else { "" };
        self.shop.trace.step(&attempt.key, "stores its key", detail);
        Ok(())
    }
}
