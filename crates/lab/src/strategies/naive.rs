//! `naive`: the first generation. Read the stock, check it in the shop, write it back.
//!
//! The defect: between the read and the write of one request, others read the same number. All of them believe that
//! they sell the same unit, and the last write wins.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, Shop, Strategy, read_check_write};

pub(super) const ENTRY: Entry = Entry {
    name: "naive",
    kind: Kind::Generation,
    line: "V1: read the stock, check it, write it back",
    defect: Some(Defect {
        breaks: Broken::Oversold,
        also: &[],
        how: "between one buyer's read and write others read the same stock, and each sells the same unit",
    }),
    repair: "let the database decide: one UPDATE that takes a unit only where stock >= quantity",
    needs: Needs { postgres: true, redis: None, rabbit: false },
    schema: "",
    scene: &[Act::Crowd(100)],
    point: None,
    seller: Seller::strategy(open, Shelf::Postgres),
};

struct Naive {
    shop: Arc<Shop>,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async { Ok(Arc::new(Naive { shop }) as Arc<dyn Strategy>) })
}

impl Strategy for Naive {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async {
            // The defect is in what this does: whoever comes between its read and its write reads the same stock.
            read_check_write(&self.shop, attempt, &Uuid::new_v4().to_string()).await
        })
    }
}
