//! `naive`: the first generation. Read the stock, check it in the shop, write it back.
//!
//! The defect: between the read and the write of one request, others read the same number. All of them believe that
//! they sell the same unit, and the last write wins.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, NewOrder, Shop, Strategy, insert_order};

pub(super) const ENTRY: Entry = Entry {
    name: "naive",
    kind: Kind::Generation,
    line: "V1: read the stock, check it, write it back",
    defect: Some(Defect {
        breaks: Broken::Oversold,
        how: "between one buyer's read and write others read the same stock, and each sells the same unit",
    }),
    repair: "let the database decide: one UPDATE that takes a unit only where stock >= quantity",
    needs: Needs { postgres: true, redis: None, rabbit: false },
    schema: "",
    scene: &[Act::Crowd(100)],
    point: None,
    seller: Seller::Strategy(open, Shelf::Postgres),
};

struct Naive {
    shop: Arc<Shop>,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async { Ok(Arc::new(Naive { shop }) as Arc<dyn Strategy>) })
}

impl Strategy for Naive {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.sell(attempt))
    }
}

impl Naive {
    async fn sell(&self, attempt: &Attempt) -> Result<Answer> {
        let trace = &self.shop.trace;
        let client = self.shop.postgres(&attempt.key).await?;
        let row = client
            .query_one("SELECT stock FROM products WHERE id = $1", &[&attempt.product])
            .await
            .context("cannot read the stock")?;
        let stock: i32 = row.get(0);
        trace.step(&attempt.key, "reads the stock", &format!("stock = {stock}"));
        if i64::from(stock) < attempt.quantity {
            return Ok(Answer::SoldOut);
        }
        let left = stock - i32::try_from(attempt.quantity)?;
        client
            .execute("UPDATE products SET stock = $2 WHERE id = $1", &[&attempt.product, &left])
            .await
            .context("cannot write the stock")?;
        trace.takes(&attempt.key, "writes the stock", &format!("stock = {left}"), i64::from(stock));
        let order = Uuid::new_v4().to_string();
        insert_order(&client, NewOrder { id: &order, attempt, status: "CONFIRMED" })
            .await
            .context("cannot write the order")?;
        trace.step(&attempt.key, "writes the order", "");
        Ok(Answer::Bought { order })
    }
}
