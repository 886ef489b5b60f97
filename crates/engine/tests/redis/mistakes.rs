//! Five mistakes that others make, made on purpose: the audit names each of them.

use std::time::{Duration, Instant};

use yoink_engine::redis::Mistakes;
use yoink_engine::{Confirmed, Engine, Reconciliation};

use crate::shop::{Shop, insist};

fn buy(shop: &Shop, engine: &Engine, orders: usize) {
    for number in 0..orders {
        shop.run(insist(engine, &format!("customer-{number}"), 1)).unwrap();
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reconciles, and gives the names of the invariants that do not hold.
fn broken(shop: &Shop, engine: &Engine) -> (Reconciliation, Vec<&'static str>) {
    let reconciliation = shop.run(engine.reconcile()).unwrap();
    assert!(!reconciliation.ok, "the mistake was not noticed: {reconciliation:#?}");
    let broken = reconciliation.invariants.iter().filter(|invariant| !invariant.ok);
    let names = broken.map(|invariant| invariant.id).collect();
    (reconciliation, names)
}

#[test]
fn acknowledging_before_the_ledger_has_committed_is_caught() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(100, |options| options.mistakes = Mistakes::ack_before_commit());
    buy(&shop, &engine, 5);
    let grants = shop.key("grants");
    wait_until("the acknowledgement", || shop.redis(&["XLEN", &grants]).integer() == Some(0));
    let (reconciliation, names) = broken(&shop, &engine);
    assert_eq!((names, reconciliation.lost), (vec!["redis-equals-ledger"], 5));
}

#[test]
fn a_compensation_without_a_mark_is_caught() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(100, |options| options.mistakes = Mistakes::no_mark());
    let unit = shop.run(insist(&engine, "customer", 2)).unwrap();
    shop.run(engine.cancel(unit.order, "changed my mind".into())).unwrap();
    let (reconciliation, names) = broken(&shop, &engine);
    assert_eq!(names, ["redis-equals-ledger"]);
    assert!(reconciliation.oversold >= 2, "{reconciliation:#?}");
}

#[test]
fn a_stock_that_expires_and_is_taken_from_the_ledger_again_is_caught() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(100, |options| options.mistakes = Mistakes::reseed());
    shop.run(engine.delivery().pause()).unwrap();
    buy(&shop, &engine, 5);
    let sale = shop.key("sale");
    let available = || shop.redis(&["HGET", &sale, "available"]).text();
    assert_eq!(available().as_deref(), Some("95"));
    shop.redis(&["PEXPIRE", &sale, "1"]);
    wait_until("the reseeding", || available().as_deref() == Some("100"));
    let (reconciliation, names) = broken(&shop, &engine);
    assert_eq!((names, reconciliation.oversold), (vec!["redis-equals-ledger"], 5));
}

#[test]
fn a_ledger_without_its_guard_is_caught() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(5, |_| ());
    let source = shop.sql("SELECT pg_get_functiondef('deliver'::regproc)")[0][0].clone().unwrap();
    let without = source.replace("l.id) > room", "l.id) > room + 1000000");
    assert_ne!(source, without, "the guard was not found");
    shop.sql(&without);
    shop.sql("ALTER TABLE allocations DROP CONSTRAINT never_oversold");
    let edit =
        "redis.call('HINCRBY', KEYS[1], 'available', 10) redis.call('HINCRBY', KEYS[1], 'credited', 10)";
    shop.redis(&["EVAL", edit, "1", &shop.key("sale")]);
    buy(&shop, &engine, 15);
    assert_eq!(shop.run(engine.wait_delivered(0, Duration::from_secs(10))), Confirmed::Yes);
    let (reconciliation, names) = broken(&shop, &engine);
    assert!(names.contains(&"ledger-adds-up"), "{reconciliation:#?}");
    assert_eq!(reconciliation.oversold, 10, "{reconciliation:#?}");
}

#[test]
fn taking_and_enqueuing_in_two_steps_is_caught() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(100, |_| ());
    engine.close_blocking(Duration::ZERO);
    // Without workers, so that nobody mends it before it is looked at.
    let engine = shop.open(|options| {
        options.mistakes = Mistakes::two_steps();
        options.workers = 0;
    });
    buy(&shop, &engine, 3);
    let (reconciliation, names) = broken(&shop, &engine);
    assert_eq!((names, reconciliation.lost), (vec!["redis-equals-ledger"], 3));
}
