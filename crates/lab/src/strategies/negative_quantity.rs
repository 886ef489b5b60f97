//! `negative-quantity`: one correct UPDATE, and nobody checks the quantity.
//!
//! The defect: there are always more than −5 units, and taking −5 adds 5. The crowd then buys units that do not exist.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;

use super::atomic_sql::buy_in_one_transaction;
use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, Shop, Strategy};

pub(super) const ENTRY: Entry = Entry {
    name: "negative-quantity",
    kind: Kind::Museum,
    line: "a quantity of -5 passes the check of the stock, and adds 5 units",
    defect: Some(Defect {
        breaks: Broken::Oversold,
        also: &[],
        how: "stock >= -5 is always true, and stock - -5 is more than before: one request makes 5 units",
    }),
    repair: "refuse quantities below 1 at the door, and again in the database by a CHECK",
    needs: Needs { postgres: true, redis: None, rabbit: false },
    schema: "",
    scene: &[Act::Hostile(-5), Act::Crowd(100)],
    point: None,
    seller: Seller::strategy(open, Shelf::Postgres),
};

struct NegativeQuantity {
    shop: Arc<Shop>,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async { Ok(Arc::new(NegativeQuantity { shop }) as Arc<dyn Strategy>) })
}

impl Strategy for NegativeQuantity {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        // The defect is what is missing here: `atomic-sql` sells by the same statements, and asks first.
        Box::pin(buy_in_one_transaction(&self.shop, attempt))
    }
}
