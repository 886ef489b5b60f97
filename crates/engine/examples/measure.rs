//! Figures of the engine alone, without HTTP: `measure FOLDER ORDERS` accepts that many orders, closes, kills nothing,
//! opens again, and prints one JSON document. `cargo xtask bench` runs it; so can anybody.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measuring program, not the product"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use yoink_core::{
    Currency, CustomerId, IdempotencyKey, MAX_PER_ORDER_DEFAULT, Money, NewProduct, ProductId,
    STOCK_UNITS_MAX, Window,
};
use yoink_engine::{Confirmed, Engine, Options, PurchaseRequest};

const IN_FLIGHT: usize = 1_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("usage: measure FOLDER ORDERS");
    let orders: usize =
        arguments.next().and_then(|orders| orders.parse().ok()).expect("usage: measure FOLDER ORDERS");
    let folder = Path::new(&folder);
    let rss_before = rss_mib();
    let engine = Engine::open(Options::new(folder)).expect("the folder opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let begun = Instant::now();
    let mut waits_us = runtime.block_on(buy_all(&engine, orders));
    let seconds = begun.elapsed().as_secs_f64();
    waits_us.sort_unstable();
    let rss_after = rss_mib();

    let last = engine.last_seq();
    let confirmed = runtime.block_on(engine.wait_delivered(last, Duration::from_secs(600)));
    assert_eq!(confirmed, Confirmed::Yes);
    let ledger_seconds = begun.elapsed().as_secs_f64();
    let figures = engine.figures();
    let closing = Instant::now();
    engine.close_blocking(Duration::from_secs(60));
    let close_seconds = closing.elapsed().as_secs_f64();
    drop(engine);

    let reopened = reopen(folder);
    let _ = std::fs::remove_file(folder.join("snapshot"));
    let replayed = reopen(folder);
    println!(
        "{{\"orders\":{orders},\"orders_per_s\":{:.0},\"answer_p50_us\":{},\"answer_p99_us\":{},\"commits\":{},\
         \"commit_p50_us\":{:.0},\"commit_p99_us\":{:.0},\"rss_mib_before\":{rss_before:.0},\
         \"rss_mib_after\":{rss_after:.0},\"ledger_orders_per_s\":{:.0},\"close_s\":{close_seconds:.3},\
         \"restart_snapshot_s\":{reopened:.3},\"restart_replay_s\":{replayed:.3}}}",
        orders as f64 / seconds,
        quantile(&waits_us, 0.5),
        quantile(&waits_us, 0.99),
        figures.commit_seconds.counts.iter().sum::<u64>(),
        bucket_quantile(&figures.commit_seconds, 0.5) * 1e6,
        bucket_quantile(&figures.commit_seconds, 0.99) * 1e6,
        orders as f64 / ledger_seconds,
    );
}

fn reopen(folder: &Path) -> f64 {
    let begun = Instant::now();
    let engine = Engine::open(Options::new(folder)).expect("the folder opens again");
    let seconds = begun.elapsed().as_secs_f64();
    engine.close_blocking(Duration::ZERO);
    seconds
}

async fn buy_all(engine: &Engine, orders: usize) -> Vec<u32> {
    let product = ProductId::parse("measure").unwrap();
    engine
        .create_product(NewProduct {
            id: Some(product),
            name: "Measured".into(),
            price: Money { amount: 19_999, currency: Currency::parse("EUR").unwrap() },
            stock: STOCK_UNITS_MAX,
            window: Window::default(),
            limit_per_customer: Some(2),
            max_per_order: MAX_PER_ORDER_DEFAULT,
        })
        .await
        .expect("an empty folder");
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let (engine, driver) = engine.with_own_lane();
            tokio::task::spawn_local(driver.run());
            let lanes: Vec<_> = (0..IN_FLIGHT)
                .map(|lane| {
                    let engine = engine.clone();
                    tokio::task::spawn_local(async move {
                        let mut waits_us = Vec::new();
                        for number in (lane..orders).step_by(IN_FLIGHT) {
                            let request = PurchaseRequest {
                                customer: CustomerId::parse(&format!("customer-{number}")).unwrap(),
                                product,
                                quantity: 1,
                                key: Some(
                                    IdempotencyKey::parse(&format!("0d6f0e4a-4f1b-4b53-{number:017}"))
                                        .unwrap(),
                                ),
                            };
                            let asked = Instant::now();
                            engine.purchase(request).await.expect("there is enough for everybody");
                            waits_us.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
                        }
                        waits_us
                    })
                })
                .collect();
            let mut all = Vec::with_capacity(orders);
            for lane in lanes {
                all.extend(lane.await.unwrap());
            }
            all
        })
        .await
}

fn quantile(sorted: &[u32], quantile: f64) -> u32 {
    let index = ((sorted.len() as f64 * quantile) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(0)
}

/// The upper bound of the bucket in which the quantile lies.
fn bucket_quantile(histogram: &yoink_engine::HistogramFigures, quantile: f64) -> f64 {
    let total: u64 = histogram.counts.iter().sum();
    let mut seen = 0;
    for (count, bound) in histogram.counts.iter().zip(&histogram.bounds) {
        seen += count;
        if seen as f64 >= total as f64 * quantile {
            return *bound;
        }
    }
    f64::INFINITY
}

fn rss_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0 / (1024.0 * 1024.0)
}
