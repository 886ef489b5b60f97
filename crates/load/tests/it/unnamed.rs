//! `POST /purchase` names no order. What it accepts must be found all the same, by customer.

use std::time::Duration;

use yoink_load::{AuditReport, Customers, Preset, Route, StormOptions, StormReport};

use crate::shop::{Fault, Shop};
use crate::{options, storm};

/// Twenty purchases of one customer, of which a right shop accepts five.
fn anti_bot(shop: &Shop) -> StormOptions {
    StormOptions { preset: Some(Preset::AntiBot), audit_patience: Duration::from_millis(50), ..options(shop) }
}

fn storm_on(fault: Fault) -> StormReport {
    storm(anti_bot(&Shop::open(100, fault))).unwrap()
}

fn audit(report: &StormReport) -> &AuditReport {
    report.audit.as_ref().unwrap()
}

fn broken(report: &StormReport) -> Vec<&'static str> {
    audit(report).invariants.iter().filter(|line| !line.ok).map(|line| line.id).collect()
}

#[test]
fn what_an_honest_shop_accepts_is_found_by_customer_on_several_pages() {
    let report = storm_on(Fault::LimitsPurchases);
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!((report.accepted, audit(&report).without_id, audit(&report).orders.accepted), (5, 5, 5));
    let line = audit(&report).invariants.iter().find(|line| line.id == "every-acceptance-found").unwrap();
    assert!(line.detail.contains("5 acceptances without an order id by customer"), "{}", line.detail);
}

#[test]
fn a_shop_that_says_yes_and_stores_nothing_has_lost_every_order() {
    let report = storm_on(Fault::StoresNothing);
    assert_eq!((report.accepted, audit(&report).lost, audit(&report).unverified), (5, 5, 0));
    assert_eq!(broken(&report), ["every-acceptance-found", "every-acceptance-sold"]);
    assert!(!report.is_ok());
    let detail = &audit(&report).findings[0].detail;
    assert!(detail.contains("and 0 orders of 1 of product 1 are listed"), "{detail}");
}

#[test]
fn every_customer_of_a_crowd_is_looked_up() {
    for (fault, lost) in
        [(Fault::LimitsPurchases, 0), (Fault::StoresNothing, 5), (Fault::DoublesEveryThird, 1)]
    {
        let shop = Shop::open(100, fault);
        let report = storm(StormOptions {
            route: Some(Route::CompatPurchase),
            preset: None,
            buyers: Some(20),
            customers: Some(Customers::PerPurchase),
            ..anti_bot(&shop)
        })
        .unwrap();
        assert_eq!((audit(&report).lost, report.is_ok()), (lost, lost == 0), "{fault:?}");
    }
}

#[test]
fn an_order_of_another_quantity_is_not_what_was_accepted() {
    let report = storm_on(Fault::DoublesEveryThird);
    assert_eq!(audit(&report).lost, 1);
    assert_eq!(broken(&report), ["every-acceptance-found"]);
}

#[test]
fn orders_whose_units_were_never_sold_are_named() {
    let report = storm_on(Fault::SellsWithoutCounting);
    assert_eq!(audit(&report).lost, 0);
    assert_eq!(broken(&report), ["no-oversell", "every-acceptance-sold"]);
}

#[test]
fn a_list_that_cannot_be_read_leaves_the_acceptances_unverified_and_never_an_ok() {
    for status in [401, 403, 404, 500] {
        let report = storm_on(Fault::HidesLists(status));
        assert_eq!((audit(&report).lost, audit(&report).unverified), (0, 5), "{status}");
        assert_eq!(broken(&report), ["every-acceptance-found"], "{status}");
        let detail = &audit(&report).findings[0].detail;
        assert!(detail.contains("GET /v1/orders") && detail.contains(&status.to_string()), "{detail}");
    }
}

#[test]
fn an_order_that_was_cancelled_since_is_found_and_its_units_are_back() {
    let report = storm_on(Fault::CancelsAll);
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!(audit(&report).orders.cancelled, 5);
}

#[test]
fn a_list_that_is_behind_is_waited_for() {
    let shop = Shop::open(100, Fault::ListsLate(2));
    let report = storm(StormOptions { audit_patience: Duration::from_secs(60), ..anti_bot(&shop) }).unwrap();
    assert!(report.is_ok(), "{:?}", report.problems());
    assert!(shop.books.lock().unwrap().lists > 2);
}

#[test]
fn a_purchase_that_is_sent_twice_is_one_order() {
    let shop = Shop::open(100, Fault::None);
    let report = storm(StormOptions {
        route: Some(Route::CompatPurchase),
        preset: None,
        buyers: Some(3),
        same_key_times: Some(2),
        ..anti_bot(&shop)
    })
    .unwrap();
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!((report.accepted, audit(&report).without_id, audit(&report).after.sold), (6, 3, 3));
}

#[test]
fn the_same_seed_again_is_told_and_no_false_alarm() {
    let shop = Shop::open(100, Fault::None);
    let with_seed = || StormOptions {
        route: Some(Route::CompatPurchase),
        preset: None,
        buyers: Some(10),
        seed: Some(42),
        ..anti_bot(&shop)
    };
    let first = storm(with_seed()).unwrap();
    assert!(first.is_ok() && first.notes.is_empty(), "{:?} {:?}", first.problems(), first.notes);
    let again = storm(with_seed()).unwrap();
    assert!(again.is_ok(), "{:?}", again.problems());
    assert!(again.notes.iter().any(|note| note.contains("seed 42")), "{:?}", again.notes);
    assert_eq!(shop.books.lock().unwrap().sold, 10);
}
