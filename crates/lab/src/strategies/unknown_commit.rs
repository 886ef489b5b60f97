//! `unknown-commit`: an error at COMMIT is taken for a failure, and the unit is given back.
//!
//! The defect: when the answer to COMMIT is lost, nobody knows whether the order is written. Here it is, and its unit
//! is sold to somebody else as well.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, NewOrder, Shop, Strategy, give_back, insert_order};

pub(super) const ENTRY: Entry = Entry {
    name: "unknown-commit",
    kind: Kind::Museum,
    line: "the answer to COMMIT is lost, and taken for a failure",
    defect: Some(Defect {
        breaks: Broken::Oversold,
        also: &[],
        how: "the order was committed, only the answer was lost: its unit is given back and sold a second time",
    }),
    repair: "after a lost answer ask again under the order's id, and give back only what is known to have failed",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: false },
    schema: "",
    scene: &[Act::Crowd(60), Act::BuyOut(10)],
    point: Some("committed:3:cut"),
    seller: Seller::strategy(open, Shelf::Redis),
};

struct UnknownCommit {
    shop: Arc<Shop>,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        shop.fill_redis().await?;
        Ok(Arc::new(UnknownCommit { shop }) as Arc<dyn Strategy>)
    })
}

impl Strategy for UnknownCommit {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.sell(attempt))
    }
}

impl UnknownCommit {
    async fn sell(&self, attempt: &Attempt) -> Result<Answer> {
        let shop = &self.shop;
        if shop.take_in_redis(attempt).await?.is_none() {
            return Ok(Answer::SoldOut);
        }
        match self.write(attempt).await {
            Ok(order) => Ok(Answer::Bought { order }),
            // The defect: an error does not say that nothing was written.
            Err(error) => {
                shop.trace.database_error(&attempt.key, &format!("{error:#}"));
                let stock = give_back(&mut shop.stores.redis()?, &attempt.product, attempt.quantity).await?;
                let detail = format!("stock {} -> {stock}", stock.saturating_sub(attempt.quantity));
                shop.trace.gives_back(
                    &attempt.key,
                    "takes that for a failure and gives the unit back",
                    &detail,
                );
                Err(error)
            }
        }
    }

    async fn write(&self, attempt: &Attempt) -> Result<String> {
        let mut client = self.shop.stores.postgres().await?;
        let transaction = client.transaction().await.context("cannot begin")?;
        let order = Uuid::new_v4().to_string();
        let new = NewOrder { id: &order, attempt, status: "CONFIRMED" };
        insert_order(&transaction, new).await.context("cannot write the order")?;
        self.shop.trace.step(&attempt.key, "writes the order and sends COMMIT", "");
        transaction.commit().await.context("cannot commit")?;
        let is_lost = self.shop.points.reach("committed", &self.shop.trace, &attempt.key).await;
        ensure!(!is_lost, "no answer to COMMIT");
        self.shop.trace.step(&attempt.key, "is told that it has committed", "");
        Ok(order)
    }
}
