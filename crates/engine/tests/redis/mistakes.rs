//! Five mistakes that others make, made on purpose: the audit names each of them.

use std::ops::Range;
use std::time::{Duration, Instant};

use yoink_engine::redis::Mistakes;
use yoink_engine::{Engine, Reconciliation};

use crate::shop::{Shop, insist};

fn buy(shop: &Shop, engine: &Engine, buyers: Range<usize>) {
    for number in buyers {
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
    buy(&shop, &engine, 0..5);
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
    buy(&shop, &engine, 0..5);
    wait_until_reseeded(&shop, 100);
    let (reconciliation, names) = broken(&shop, &engine);
    assert_eq!((names, reconciliation.oversold), (vec!["redis-equals-ledger"], 5));
}

#[test]
fn a_ledger_without_its_guard_is_caught() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(5, |options| options.mistakes = Mistakes::reseed());
    let source = shop.sql("SELECT pg_get_functiondef('deliver'::regproc)")[0][0].clone().unwrap();
    let without = source.replace("s.id) > room", "s.id) > room + 1000000");
    assert_ne!(source, without, "the guard was not found");
    shop.sql(&without);
    shop.sql("ALTER TABLE allocations DROP CONSTRAINT never_oversold");
    shop.run(engine.delivery().pause()).unwrap();
    buy(&shop, &engine, 0..5);
    wait_until_reseeded(&shop, 5);
    buy(&shop, &engine, 5..10);
    shop.run(engine.delivery().resume()).unwrap();
    wait_until("the ledger", || shop.count("SELECT count(*) FROM orders WHERE status = 'confirmed'") == 10);
    let (reconciliation, names) = broken(&shop, &engine);
    assert!(names.contains(&"ledger-adds-up"), "{reconciliation:#?}");
    assert_eq!(reconciliation.oversold, 5, "{reconciliation:#?}");
}

/// Waits until the stock has expired and is `units` again.
fn wait_until_reseeded(shop: &Shop, units: u64) {
    let sale = shop.key("sale");
    let lives = || shop.redis(&["PTTL", &sale]).integer() == Some(-1);
    let available = || shop.redis(&["HGET", &sale, "available"]).text();
    wait_until("the reseeding", || lives() && available() == Some(units.to_string()));
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
    buy(&shop, &engine, 0..3);
    let (reconciliation, names) = broken(&shop, &engine);
    assert_eq!((names, reconciliation.lost), (vec!["redis-equals-ledger"], 3));
}
