//! `atomic-sql`: the second generation. One transaction takes the units and writes the order.
//!
//! Correct: the database locks the product's row at the UPDATE, and looks at the stock again once it has the lock. It
//! is slow, because all buyers of a product wait for each other's commits on that one row.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalogue::{Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, NewOrder, Shop, Strategy, insert_order, take_units};

pub(super) const ENTRY: Entry = Entry {
    name: "atomic-sql",
    kind: Kind::Generation,
    line: "V2: one UPDATE where stock >= quantity, and the order in the same transaction",
    defect: None,
    repair: "the check and the write are one statement, and the unit and its order are one transaction",
    needs: Needs { postgres: true, redis: None, rabbit: false },
    schema: "",
    scene: &[Act::Crowd(100)],
    point: None,
    seller: Seller::strategy(open, Shelf::Postgres),
};

struct AtomicSql {
    shop: Arc<Shop>,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async { Ok(Arc::new(AtomicSql { shop }) as Arc<dyn Strategy>) })
}

impl Strategy for AtomicSql {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move {
            if attempt.quantity < 1 {
                return Ok(Answer::Invalid);
            }
            buy_in_one_transaction(&self.shop, attempt).await
        })
    }
}

/// Takes the units and writes the order, both or neither. Nobody has checked the quantity here.
pub(super) async fn buy_in_one_transaction(shop: &Shop, attempt: &Attempt) -> Result<Answer> {
    let mut client = shop.postgres(&attempt.key).await?;
    let transaction = client.transaction().await.context("cannot begin")?;
    let Some(stock) = take_units(&transaction, attempt).await? else {
        transaction.rollback().await.context("cannot undo")?;
        shop.trace.step(&attempt.key, "finds too few units", "the UPDATE changed no row");
        return Ok(Answer::SoldOut);
    };
    let detail = format!("stock {stock} -> {}", stock.saturating_sub(attempt.quantity));
    match attempt.quantity {
        1.. => shop.trace.takes(
            &attempt.key,
            "takes a unit by one UPDATE, and has the row's lock",
            &detail,
            stock,
        ),
        // It takes no unit, so it shares none with whoever buys at the same count.
        _ => shop.trace.step(&attempt.key, "takes less than one unit by one UPDATE", &detail),
    }
    write_order_and_commit(shop, transaction, attempt).await
}

/// Writes the order in the transaction that took its units, and commits both.
pub(super) async fn write_order_and_commit(
    shop: &Shop,
    transaction: deadpool_postgres::Transaction<'_>,
    attempt: &Attempt,
) -> Result<Answer> {
    let order = Uuid::new_v4().to_string();
    let new = NewOrder { id: &order, attempt, status: "CONFIRMED" };
    insert_order(&transaction, new).await.context("cannot write the order")?;
    shop.trace.step(&attempt.key, "writes the order", "");
    transaction.commit().await.context("cannot commit")?;
    shop.trace.step(&attempt.key, "has committed unit and order", "");
    Ok(Answer::Bought { order })
}
