//! The ledger in PostgreSQL, on a real server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "common/mod.rs"]
mod common;
#[path = "../examples/redis_reference/copy.rs"]
mod copy;
#[path = "postgres/deciding.rs"]
mod deciding;
#[path = "postgres/delivering.rs"]
mod delivering;
#[path = "postgres/listing.rs"]
mod listing;
#[path = "postgres/loading.rs"]
mod loading;
#[path = "postgres/opening.rs"]
mod opening;
#[path = "postgres/reading.rs"]
mod reading;
#[path = "postgres/restoring.rs"]
mod restoring;
#[path = "common/postgres.rs"]
mod server;
#[path = "postgres/settings.rs"]
mod settings;

use yoink_core::{OrderId, ProductId, Timestamp};
use yoink_engine::postgres::{Delivered, Grant, Postgres, ProductCounts, Way};

/// Now, as far as the tests are concerned.
const NOW: Timestamp = Timestamp(1_767_607_200_000_000);
/// When refused orders are tried again.
const LATER: Timestamp = Timestamp(NOW.0 + 1_000_000);

fn order(number: i64) -> OrderId {
    let mut id = [7; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    OrderId(id)
}

/// Grant `number`, of the order with the same number.
fn grant(number: i64, customer: &str, quantity: i32) -> Grant {
    Grant {
        order: order(number),
        number,
        customer: customer.to_owned(),
        quantity,
        price: 19_999,
        currency: "EUR".to_owned(),
        accepted_at: NOW.0 - 1_000,
    }
}

/// Puts `stock` units of a product on sale; its number.
async fn on_sale(ledger: &Postgres, id: &str, stock: u64) -> i32 {
    let number = ledger.create_product(&common::product(id, stock), NOW).await.unwrap();
    let number = number.expect("the id is free");
    assert!(ledger.set_open(number, 1).await.unwrap());
    number
}

async fn deliver(ledger: &Postgres, product: i32, epoch: i32, grants: &[Grant]) -> Vec<Delivered> {
    let delivered = ledger.deliver(Way::Deliver, (product, epoch), (LATER, NOW), grants).await.unwrap();
    delivered.into_iter().map(|(_, outcome)| outcome).collect()
}

/// The only product, counted; its units add up.
async fn counted(ledger: &Postgres) -> ProductCounts {
    let audit = ledger.audit().await.unwrap();
    assert_eq!(audit.duplicates, 0);
    for product in &audit.products {
        assert_eq!((product.oversold, product.conservation_error_units()), (0, 0), "{product:?}");
    }
    audit.products.into_iter().next().unwrap()
}

fn id(text: &str) -> ProductId {
    common::id(text)
}
