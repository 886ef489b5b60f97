//! What each step of a purchase costs, step by step, against what it may cost. `cargo xtask bench --profile` prints it.
//!
//! Every step is timed alone, in a loop, and the best of several rounds counts: it is the one least disturbed by what
//! else the machine does. Steps that are shared by a batch are divided by its size.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderValue;
use serde::Serialize;
use yoink_core::{
    Command, Currency, CustomerId, Decision, Event, IdempotencyKey, Inventory, Money, NewProduct, OrderId,
    ProductId, Purchase, STOCK_UNITS_MAX, Timestamp, Window,
};
use yoink_engine::embedded::log::{Log, LogFile};
use yoink_engine::{Durability, Engine, Options, OrderStatus, PurchaseRequest, Purchased, Replayed};

use crate::api::purchase::{self, Terms};

const ROUNDS: usize = 7;
/// Orders per commit at 64 connections, about.
const BATCH_SMALL: u64 = 32;
/// Orders per commit at 1,000 connections, about.
const BATCH_LARGE: u64 = 512;

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What is done.
    pub name: &'static str,
    /// Nanoseconds per purchase.
    pub measured_ns: u64,
    /// Nanoseconds per purchase that it may take on the machine that the goals were set on.
    pub budget_ns: u64,
}

/// Measures every step. `folder` is for the log and must not exist.
///
/// # Errors
/// The engine or the log cannot be opened there.
pub fn measure(folder: &Path) -> anyhow::Result<Vec<Step>> {
    std::fs::create_dir_all(folder)?;
    let step = |name, budget_ns, measured_ns| Step { name, measured_ns, budget_ns };
    let (decide, stage) = decide_and_stage(folder)?;
    Ok(vec![
        step("parse the body, the ids and the key", 1_000, parse()),
        step("refuse early: sold out, from the storefront", 300, refuse(folder)?),
        step("to the writer and back, 64 in flight, nothing to write", 4_000, hand_off(folder)?),
        step("decide and apply", 1_500, decide),
        step("encode and stage", 300, stage),
        step("commit, shared by 32", 10_000, commit(folder, "small", BATCH_SMALL)?),
        step("commit, shared by 512", 2_000, commit(folder, "large", BATCH_LARGE)?),
        step("render the 202", 1_000, render()),
    ])
}

/// Nanoseconds per call, the best of several rounds.
fn best(calls: u64, mut round: impl FnMut()) -> u64 {
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        round();
        begun.elapsed().as_nanos() / u128::from(calls)
    });
    rounds.min().and_then(|ns| u64::try_from(ns).ok()).unwrap_or(u64::MAX)
}

fn parse() -> u64 {
    let body =
        Bytes::from_static(br#"{"customer_id":"customer-184223","product_id":"sneaker-42","quantity":1}"#);
    let mut headers = HeaderMap::new();
    headers.insert("idempotency-key", HeaderValue::from_static("0d6f0e4a-4f1b-4b53-9d3c-1f2a3b4c5d6e"));
    best(100_000, || {
        for _ in 0..100_000 {
            black_box(purchase::parse_for_anyone(black_box(&headers), black_box(&body)).ok());
        }
    })
}

fn render() -> u64 {
    let request = request(1);
    let purchased = Purchased {
        order: OrderId([7; 16]),
        seq: 184_223,
        accepted_at: Timestamp(1_767_607_200_123_456),
        unit_price: price(),
        replayed: Replayed::No,
        status: OrderStatus::Accepted,
    };
    let terms = Terms { durability: Durability::Fsync, wait: None };
    best(100_000, || {
        for _ in 0..100_000 {
            black_box(purchase::render(black_box(&request), black_box(&purchased), terms, HeaderMap::new()));
        }
    })
}

fn refuse(folder: &Path) -> anyhow::Result<u64> {
    let engine = Engine::open(Options::new(folder.join("refuse")))?;
    runtime()?.block_on(engine.create_product(NewProduct { stock: 0, ..product() }))?;
    let (request, now) = (request(1), engine.now());
    Ok(best(100_000, || {
        for _ in 0..100_000 {
            black_box(engine.storefront().refuse_early(black_box(now), black_box(&request)));
        }
    }))
}

fn hand_off(folder: &Path) -> anyhow::Result<u64> {
    const IN_FLIGHT: u64 = 64;
    const CALLS: u64 = 200;
    let engine = Engine::open(Options::new(folder.join("hand-off")))?;
    let runtime = runtime()?;
    let local = tokio::task::LocalSet::new();
    let (engine, driver) = engine.with_own_lane();
    local.spawn_local(driver.run());
    Ok(best(IN_FLIGHT * CALLS, || {
        local.block_on(&runtime, async {
            let callers: Vec<_> = (0..IN_FLIGHT)
                .map(|_| {
                    let engine = engine.clone();
                    tokio::task::spawn_local(async move {
                        for _ in 0..CALLS {
                            black_box(engine.order(OrderId([9; 16])).await.ok());
                        }
                    })
                })
                .collect();
            for caller in callers {
                let _ = caller.await;
            }
        });
    }))
}

fn decide_and_stage(folder: &Path) -> anyhow::Result<(u64, u64)> {
    const ORDERS: u64 = 50_000;
    let (mut inventory, mut number) = (opened(), 0);
    let mut events = Vec::new();
    let decide = best(ORDERS, || {
        events.clear();
        for _ in 0..ORDERS {
            number += 1;
            events.push(next(&mut inventory, number));
        }
    });
    let mut log = open_log(folder, "stage")?;
    let stage = best(ORDERS, || events.iter().for_each(|event| log.stage(black_box(event))));
    Ok((decide, stage))
}

fn commit(folder: &Path, name: &str, batch: u64) -> anyhow::Result<u64> {
    let mut log = open_log(folder, name)?;
    let (mut inventory, mut number) = (opened(), 0);
    let commits = 100;
    let mut failed = None;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut spent = 0;
        for _ in 0..commits {
            for _ in 0..batch {
                number += 1;
                log.stage(&next(&mut inventory, number));
            }
            let begun = Instant::now();
            failed = failed.or(log.commit().err());
            spent += begun.elapsed().as_nanos();
        }
        rounds.push(spent / u128::from(batch * commits));
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(rounds.into_iter().min().and_then(|ns| u64::try_from(ns).ok()).unwrap_or(u64::MAX)),
    }
}

fn open_log(folder: &Path, name: &str) -> anyhow::Result<Log> {
    let file = LogFile { path: folder.join(format!("{name}.db")), vfs: None };
    Ok(Log::open(&file, Durability::Fsync)?)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn opened() -> Inventory {
    let mut inventory = Inventory::new();
    apply(&mut inventory, &Command::CreateProduct(product()));
    inventory
}

fn next(inventory: &mut Inventory, number: u64) -> Event {
    let PurchaseRequest { customer, product, quantity, key } = request(number);
    let order = OrderId(u128::from(number).to_be_bytes());
    apply(inventory, &Command::Purchase(Purchase { order, customer, product, quantity, key }))
}

fn apply(inventory: &mut Inventory, command: &Command) -> Event {
    match inventory.decide(Timestamp(0), command) {
        Decision::Accept(event) => {
            inventory.apply(&event);
            event
        }
        other => unreachable!("there is enough for everybody: {other:?}"),
    }
}

fn request(number: u64) -> PurchaseRequest {
    let parsed = CustomerId::parse(&format!("customer-{number}")).and_then(|customer| {
        Ok(PurchaseRequest {
            customer,
            product: ProductId::parse("sneaker-42")?,
            quantity: 1,
            key: Some(IdempotencyKey::parse(&format!("0d6f0e4a-4f1b-4b53-{number:017}"))?),
        })
    });
    parsed.unwrap_or_else(|error| unreachable!("these are ids: {error}"))
}

fn product() -> NewProduct {
    NewProduct {
        id: ProductId::parse("sneaker-42").ok(),
        name: "Sneaker".into(),
        price: price(),
        stock: STOCK_UNITS_MAX,
        window: Window::default(),
        limit_per_customer: Some(2),
        max_per_order: 10,
    }
}

fn price() -> Money {
    let currency = Currency::parse("EUR").unwrap_or_else(|| unreachable!("three capital letters"));
    Money { amount: 19_999, currency }
}
