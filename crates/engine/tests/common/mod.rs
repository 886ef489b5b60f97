//! What the engine's tests share.
#![allow(dead_code, reason = "each test binary uses its own part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

pub mod servers;

use std::path::Path;

use yoink_core::{
    Currency, CustomerId, IdempotencyKey, MAX_PER_ORDER_DEFAULT, Money, NewProduct, ProductId,
    StockAdjustment, Window,
};
use yoink_engine::{Engine, Options, PurchaseRequest};

pub fn open(folder: &Path) -> Engine {
    Engine::open(Options::new(folder)).expect("the engine opens")
}

pub fn id(text: &str) -> ProductId {
    ProductId::parse(text).unwrap()
}

pub fn product(id_text: &str, stock: u64) -> NewProduct {
    NewProduct {
        id: Some(id(id_text)),
        name: "Flash Sale Item".into(),
        price: Money { amount: 19_999, currency: Currency::parse("EUR").unwrap() },
        stock,
        window: Window::default(),
        limit_per_customer: None,
        max_per_order: MAX_PER_ORDER_DEFAULT,
    }
}

pub fn buy(customer: &str, product: &str, quantity: u32, key: Option<&str>) -> PurchaseRequest {
    PurchaseRequest {
        customer: CustomerId::parse(customer).unwrap(),
        product: id(product),
        quantity,
        key: key.map(|key| IdempotencyKey::parse(key).unwrap()),
    }
}

pub fn restock(product: &str, delta: i64, key: &str) -> StockAdjustment {
    StockAdjustment {
        product: id(product),
        delta,
        reason: "found in the back room".into(),
        key: IdempotencyKey::parse(key).unwrap(),
    }
}

/// A runtime with two threads, as the tests of concurrency need.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
