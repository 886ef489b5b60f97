//! `row-lock`: read the stock and lock its row until the order is committed.
//!
//! Correct: whoever reads the stock is alone with it until the end of the transaction. Everybody else waits, those who
//! will be told no as well.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;

use super::atomic_sql::write_order_and_commit;
use crate::catalogue::{Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, Shop, Strategy};

pub(super) const ENTRY: Entry = Entry {
    name: "row-lock",
    kind: Kind::Generation,
    line: "SELECT … FOR UPDATE, check the stock, write it back, in one transaction",
    defect: None,
    repair: "nobody else can read the stock between its read and its write: the row is locked until the commit",
    needs: Needs { postgres: true, redis: None, rabbit: false },
    schema: "",
    scene: &[Act::Crowd(100)],
    point: None,
    seller: Seller::strategy(open, Shelf::Postgres),
};

struct RowLock {
    shop: Arc<Shop>,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async { Ok(Arc::new(RowLock { shop }) as Arc<dyn Strategy>) })
}

impl Strategy for RowLock {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.sell(attempt))
    }
}

impl RowLock {
    async fn sell(&self, attempt: &Attempt) -> Result<Answer> {
        let trace = &self.shop.trace;
        if attempt.quantity < 1 {
            return Ok(Answer::Invalid);
        }
        let mut client = self.shop.postgres(&attempt.key).await?;
        let transaction = client.transaction().await.context("cannot begin")?;
        let row = transaction
            .query_one("SELECT stock FROM products WHERE id = $1 FOR UPDATE", &[&attempt.product])
            .await
            .context("cannot lock the stock")?;
        let stock: i32 = row.get(0);
        trace.step(&attempt.key, "locks and reads the stock", &format!("stock = {stock}"));
        if i64::from(stock) < attempt.quantity {
            transaction.rollback().await.context("cannot undo")?;
            return Ok(Answer::SoldOut);
        }
        let left = stock - i32::try_from(attempt.quantity)?;
        transaction
            .execute("UPDATE products SET stock = $2 WHERE id = $1", &[&attempt.product, &left])
            .await
            .context("cannot write the stock")?;
        let detail = format!("stock {stock} -> {left}");
        trace.takes(&attempt.key, "writes the stock under the lock", &detail, i64::from(stock));
        write_order_and_commit(&self.shop, transaction, attempt).await
    }
}
