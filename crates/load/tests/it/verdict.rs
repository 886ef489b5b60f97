//! The audit must name what is wrong with a shop, and must have nothing to say about a right one.

use std::time::Duration;

use yoink_load::{Audit, AuditReport, Customers, StormError, StormOptions, StormReport};

use crate::shop::{Fault, Shop};
use crate::{options, storm};

fn storm_on(units: u64, buyers: u64, fault: Fault) -> (Shop, StormReport) {
    let shop = Shop::open(units, fault);
    let report = storm(StormOptions { buyers: Some(buyers), ..options(&shop) }).unwrap();
    (shop, report)
}

fn audit(report: &StormReport) -> &AuditReport {
    report.audit.as_ref().unwrap()
}

fn broken(report: &StormReport) -> Vec<&'static str> {
    audit(report).invariants.iter().filter(|line| !line.ok).map(|line| line.id).collect()
}

#[test]
fn an_honest_shop_sells_every_unit_and_the_verdict_is_ok() {
    let (shop, report) = storm_on(100, 300, Fault::None);
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!((report.requests, report.accepted, report.errors()), (300, 100, 0));
    assert_eq!(report.rejected["sold-out"], 200);
    assert_eq!(audit(&report).looked_up, 100);
    assert_eq!(audit(&report).orders.accepted, 100);
    assert!(report.sold_out_after.is_some() && report.last_accepted_after.is_some());
    assert!(report.rps > 0.0 && report.latency.count == 300);
    let books = shop.books.lock().unwrap();
    let customers: std::collections::HashSet<_> =
        books.orders.values().map(|(customer, _)| customer).collect();
    assert_eq!(customers.len(), 100);
}

#[test]
fn units_sold_beyond_the_stock_are_counted_even_if_the_shop_hides_them() {
    for fault in [Fault::OversellsSecretly(7), Fault::OversellsOpenly(7)] {
        let (_shop, report) = storm_on(50, 200, fault);
        assert_eq!(audit(&report).oversold, 7, "{fault:?}");
        assert!(!report.is_ok());
        assert!(broken(&report).contains(&"no-oversell"), "{fault:?}");
    }
}

#[test]
fn a_shop_that_decides_later_is_judged_by_its_decisions() {
    let (_shop, report) = storm_on(100, 300, Fault::DecidesLater(0));
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!((report.requests, report.accepted, report.orders_given()), (300, 300, 100));
    assert_eq!((audit(&report).looked_up, audit(&report).orders.rejected), (300, 200));
    let (_shop, report) = storm_on(100, 300, Fault::DecidesLater(5));
    assert_eq!(audit(&report).stuck, 5);
    assert_eq!(broken(&report), ["nothing-stuck"]);
}

#[test]
fn an_accepted_order_that_is_forgotten_is_lost() {
    let (_shop, report) = storm_on(100, 100, Fault::ForgetsOrders);
    assert_eq!(audit(&report).lost, 10);
    assert_eq!(broken(&report), ["every-acceptance-found"]);
    assert!(audit(&report).findings.iter().all(|finding| finding.detail.contains("cannot be found")));
}

#[test]
fn an_order_that_belongs_to_somebody_else_is_lost_to_its_buyer() {
    let (_shop, report) = storm_on(100, 100, Fault::MixesCustomersUp);
    assert_eq!(audit(&report).lost, 10);
    assert!(audit(&report).findings[0].detail.contains("somebody-else"));
}

#[test]
fn one_order_given_to_two_customers_is_duplicated() {
    let (_shop, report) = storm_on(100, 40, Fault::OneIdForTwo);
    assert_eq!(audit(&report).duplicated, 20);
    assert!(broken(&report).contains(&"one-order-per-key"));
}

#[test]
fn two_orders_for_one_key_are_duplicated() {
    let shop = Shop::open(100, Fault::IgnoresKeys);
    let report = storm(StormOptions { buyers: Some(10), same_key_times: Some(2), ..options(&shop) }).unwrap();
    assert_eq!(audit(&report).duplicated, 10);
    assert_eq!(broken(&report), ["one-order-per-key"]);
}

#[test]
fn units_kept_back_from_willing_buyers_are_stuck() {
    let (_shop, report) = storm_on(100, 300, Fault::KeepsBack(3));
    assert_eq!(audit(&report).stuck, 3);
    assert_eq!(broken(&report), ["nothing-stuck"]);
}

#[test]
fn units_left_because_too_few_came_are_not_stuck() {
    let (_shop, report) = storm_on(100, 30, Fault::None);
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!(audit(&report).after.available, 70);
}

#[test]
fn units_too_few_for_one_purchase_are_not_stuck() {
    let shop = Shop::open(10, Fault::None);
    let report = storm(StormOptions { buyers: Some(20), quantity: 3, ..options(&shop) }).unwrap();
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!((report.accepted, audit(&report).after.available), (3, 1));
}

#[test]
fn stock_that_does_not_add_up_is_named() {
    let (_shop, report) = storm_on(100, 10, Fault::LosesUnits(1));
    assert_eq!(broken(&report), ["units-add-up"]);
}

#[test]
fn dropped_connections_are_asked_about_again_with_the_same_key() {
    let (shop, report) = storm_on(100, 50, Fault::DropsAfterAccepting);
    assert_eq!(report.failures["closed"], 10);
    assert_eq!(audit(&report).resolution.asked, 10);
    assert_eq!(audit(&report).resolution.accepted, 10);
    assert_eq!((report.accepted, report.orders_given(), audit(&report).looked_up), (40, 50, 50));
    assert!(report.is_ok(), "{:?}", report.problems());
    // Fifty first tries and ten questions: nothing was repeated behind anybody's back.
    assert_eq!(shop.books.lock().unwrap().purchases, 60);
}

#[test]
fn an_unknown_outcome_is_asked_about_again_too() {
    let (_shop, report) = storm_on(100, 50, Fault::UnknownAfterAccepting);
    assert_eq!((report.failures["outcome-unknown"], report.unavailable), (10, 10));
    assert_eq!(audit(&report).resolution.accepted, 10);
    assert!(report.is_ok(), "{:?}", report.problems());
}

#[test]
fn the_same_seed_again_gets_replays_and_no_false_alarm() {
    let shop = Shop::open(100, Fault::None);
    let with_seed = || StormOptions { buyers: Some(40), seed: Some(42), ..options(&shop) };
    storm(with_seed()).unwrap();
    let again = storm(with_seed()).unwrap();
    assert_eq!((again.accepted, again.replayed), (40, 40));
    assert!(again.is_ok(), "{:?}", again.problems());
    assert_eq!(shop.books.lock().unwrap().sold, 40);
}

#[test]
fn a_shop_that_answers_nothing_useful_fails_without_an_audit_too() {
    let shop = Shop::open(100, Fault::Breaks);
    let report = storm(StormOptions { buyers: Some(5), audit: Audit::Skip, ..options(&shop) }).unwrap();
    assert_eq!(report.failures["server-error"], 5);
    assert!(!report.is_ok());
}

#[test]
fn connections_are_kept_and_reopened_when_the_server_closes_them() {
    let shop = Shop::open(1_000, Fault::None);
    let with = |shop: &Shop| StormOptions {
        requests: Some(200),
        concurrency: Some(8),
        audit: Audit::Skip,
        ..options(shop)
    };
    storm(with(&shop)).unwrap();
    // Eight buyers and the one that looks first whether anybody is there.
    assert_eq!(shop.books.lock().unwrap().connections, 9);
    let shop = Shop::open(1_000, Fault::ClosesConnections);
    let report = storm(with(&shop)).unwrap();
    assert_eq!((report.accepted, report.errors()), (200, 0));
    assert!(shop.books.lock().unwrap().connections >= 200);
}

#[test]
fn warm_up_sells_nothing_and_is_not_counted() {
    let shop = Shop::open(100, Fault::None);
    let report = storm(StormOptions {
        buyers: Some(10),
        concurrency: Some(3),
        warm_up_requests: Some(25),
        ..options(&shop)
    })
    .unwrap();
    let books = shop.books.lock().unwrap();
    assert_eq!((books.time_requests, books.purchases), (25, 10));
    assert_eq!((report.requests, report.latency.count), (10, 10));
}

#[test]
fn buyers_take_turns_or_are_one_if_asked() {
    for (customers, expected) in [(Customers::PerBuyer, 4), (Customers::One, 1), (Customers::PerPurchase, 20)]
    {
        let shop = Shop::open(100, Fault::None);
        storm(StormOptions {
            buyers: Some(4),
            requests: Some(20),
            customers: Some(customers),
            ..options(&shop)
        })
        .unwrap();
        let books = shop.books.lock().unwrap();
        let names: std::collections::HashSet<_> = books.orders.values().map(|(name, _)| name).collect();
        assert_eq!((names.len(), books.orders.len()), (expected, 20), "{customers:?}");
    }
}

#[test]
fn the_key_is_sent_with_every_purchase_and_look_up() {
    let shop = Shop::open(10, Fault::None);
    storm(StormOptions { buyers: Some(2), key: Some("secret".to_owned()), ..options(&shop) }).unwrap();
    let books = shop.books.lock().unwrap();
    // Two purchases, two look-ups, the product before and after.
    assert_eq!(books.authorizations, vec!["Bearer secret"; 6]);
}

#[test]
fn nobody_there_is_an_error_that_says_what_to_do() {
    let address = Shop::open(1, Fault::None).address;
    let error =
        storm(StormOptions { target: format!("http://{address}"), ..StormOptions::default() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot reach http://{address}: connection refused. Is yoink running? Start it with `yoink` in another \
             terminal."
        )
    );
}

#[test]
fn a_product_that_does_not_exist_is_an_error_that_names_it() {
    let shop = Shop::open(1, Fault::None);
    let error = storm(StormOptions { product: "nope".to_owned(), ..options(&shop) }).unwrap_err();
    assert!(
        matches!(error, StormError::NoProduct { .. }) && error.to_string().contains("\"nope\""),
        "{error}"
    );
    assert_eq!(shop.books.lock().unwrap().purchases, 0);
}

#[test]
fn contradicting_options_are_refused_before_anything_is_sent() {
    let shop = Shop::open(1, Fault::None);
    let base = || options(&shop);
    let minute = Some(Duration::from_secs(60));
    for (options, word) in [
        (StormOptions { requests: Some(1), duration: minute, ..base() }, "not both"),
        (StormOptions { buyers: Some(0), ..base() }, "buyers must be at least 1"),
        (StormOptions { concurrency: Some(5_000), ..base() }, "5000 connections"),
        (
            StormOptions {
                concurrency: Some(90_000_000),
                connections_max: 90_000_000,
                buyers: Some(90_000_000),
                ..base()
            },
            "ulimit -n",
        ),
        (StormOptions { key: Some("a\nb".to_owned()), ..base() }, "API key"),
    ] {
        let error = storm(options).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(shop.books.lock().unwrap().purchases, 0);
}

#[test]
fn a_record_of_another_quantity_is_asked_about_with_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("record.jsonl");
    let shop = Shop::open(100, Fault::DropsAfterAccepting);
    let by_three =
        StormOptions { buyers: Some(10), quantity: 3, record_path: Some(path.clone()), ..options(&shop) };
    storm(by_three).unwrap();
    let audit = crate::block_on(yoink_load::audit_record(&options(&shop), &path)).unwrap();
    assert!(audit.is_ok(), "{audit:?}");
    assert_eq!((audit.looked_up, audit.after.sold), (10, 30));
}

#[test]
fn a_server_that_goes_away_leaves_purchases_unresolved_or_unsent_and_never_an_ok() {
    let shop = Shop::open(1_000_000, Fault::None);
    let with = StormOptions {
        duration: Some(Duration::from_millis(600)),
        concurrency: Some(4),
        think_time: Duration::from_millis(5),
        audit: Audit::Skip,
        asserts: vec!["errors==0".parse().unwrap()],
        ..options(&shop)
    };
    let closing = std::thread::spawn(move || {
        while shop.books.lock().unwrap().purchases < 20 {
            std::thread::yield_now();
        }
        drop(shop);
    });
    let report = storm(with).unwrap();
    closing.join().unwrap();
    assert!(report.failures["connect"] > 0, "{:?}", report.failures);
    // Four buyers who pause 20 ms after each failure: at most 4 × 30 within 600 ms, not thousands.
    assert!(report.failures["connect"] < 200, "{:?}", report.failures);
    assert!(!report.is_ok());
}
