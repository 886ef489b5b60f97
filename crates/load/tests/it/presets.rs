//! Each preset passes against a right shop and fails against a wrong one.

use std::time::Duration;

use yoink_load::{Preset, Stage, StormOptions, StormReport};

use crate::shop::{Fault, Shop};
use crate::{options, storm};

fn preset(shop: &Shop, preset: Preset) -> StormReport {
    storm(StormOptions { preset: Some(preset), ..options(shop) }).unwrap()
}

fn failed(report: &StormReport) -> Vec<&str> {
    report.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect()
}

#[test]
fn stress_creates_its_own_product_and_sells_exactly_half() {
    let shop = Shop::open(3, Fault::None);
    let report = storm(StormOptions {
        preset: Some(Preset::Stress),
        admin_key: Some("admin".to_owned()),
        ..options(&shop)
    })
    .unwrap();
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!((report.requests, report.accepted, report.rejected["sold-out"]), (200, 100, 100));
    assert_eq!(report.product, "77");
    assert_eq!(shop.books.lock().unwrap().created_products, 1);
    assert!(report.notes.iter().any(|note| note.contains("was created with 100 units")));
}

#[test]
fn stress_without_an_admin_key_uses_what_is_there_and_says_so() {
    let shop = Shop::open(150, Fault::None);
    let report = preset(&shop, Preset::Stress);
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!(report.accepted, 150);
    assert!(report.notes.iter().any(|note| note.contains("no admin key")), "{:?}", report.notes);
}

#[test]
fn stress_fails_if_one_too_many_is_sold() {
    let shop = Shop::open(100, Fault::OversellsOpenly(1));
    let report = preset(&shop, Preset::Stress);
    assert_eq!(failed(&report).len(), 2);
    assert!(!report.is_ok());
}

#[test]
fn twenty_at_once_all_get_an_answer() {
    let shop = Shop::open(12, Fault::None);
    let report = preset(&shop, Preset::Twenty);
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!((report.requests, report.accepted), (20, 12));
}

#[test]
fn idempotency_passes_only_if_the_second_answer_is_a_replay() {
    let shop = Shop::open(10, Fault::None);
    let report = preset(&shop, Preset::Idempotency);
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!((report.requests, report.replayed, report.distinct_orders), (2, 1, Some(1)));
    let shop = Shop::open(10, Fault::IgnoresKeys);
    let report = preset(&shop, Preset::Idempotency);
    assert_eq!(
        failed(&report),
        ["one key gives one order", "every further answer says Idempotent-Replayed: true"]
    );
}

#[test]
fn anti_bot_passes_only_if_the_sixth_purchase_is_refused() {
    let shop = Shop::open(100, Fault::LimitsPurchases);
    let report = preset(&shop, Preset::AntiBot);
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!((report.requests, report.accepted, report.too_many_requests), (20, 5, 15));
    let shop = Shop::open(100, Fault::None);
    let report = preset(&shop, Preset::AntiBot);
    assert_eq!(failed(&report).len(), 2, "{:?}", report.checks);
}

#[test]
fn anti_bot_and_idempotency_create_their_own_product_if_they_can() {
    for (preset, fault) in [(Preset::AntiBot, Fault::LimitsPurchases), (Preset::Idempotency, Fault::None)] {
        // The given product is sold out, so that only a new one can show what is to be shown.
        let shop = Shop::open(0, fault);
        let admin_key = Some("admin".to_owned());
        let report = storm(StormOptions { preset: Some(preset), admin_key, ..options(&shop) }).unwrap();
        assert!(report.is_ok(), "{preset}: {:?}", report.problems());
        assert_eq!((report.product.as_str(), shop.books.lock().unwrap().created_products), ("77", 1));
        assert!(report.notes.iter().any(|note| note.contains("was created with 1000 units")));
    }
    let shop = Shop::open(10, Fault::None);
    let report = preset(&shop, Preset::Idempotency);
    assert_eq!(report.product, "1");
    assert!(report.notes.iter().any(|note| note.contains("no admin key")), "{:?}", report.notes);
}

#[test]
fn spike_fails_if_anybody_is_left_without_an_answer() {
    let spike = |fault| {
        let shop = Shop::open(10, fault);
        let stages = vec![Stage::ramp(10.0, 200.0, Duration::from_millis(300))];
        storm(StormOptions { preset: Some(Preset::Spike), stages, ..options(&shop) }).unwrap()
    };
    let report = spike(Fault::None);
    assert!(report.is_ok(), "{:?}", report.problems());
    assert_eq!(report.requests, 32);
    let report = spike(Fault::DropsAfterAccepting);
    assert_eq!(failed(&report), ["everybody gets a yes or a no"]);
}

#[test]
fn a_threshold_that_does_not_hold_fails_the_storm() {
    let shop = Shop::open(10, Fault::None);
    let with = |assertion: &str| StormOptions {
        buyers: Some(10),
        asserts: vec![assertion.parse().unwrap()],
        ..options(&shop)
    };
    let report = storm(with("p50<10s")).unwrap();
    assert!(report.is_ok() && report.assertions[0].ok, "{:?}", report.problems());
    let report = storm(with("accepted>=11")).unwrap();
    assert!(!report.is_ok());
    assert_eq!(report.to_json()["assertions"][0]["ok"], false);
}
