//! What the clocks say, against servers whose speed is known.

use std::time::Duration;

use yoink_load::{Arrivals, Audit, Stage, StormOptions};

use crate::shop::{Fault, Shop};
use crate::{options, storm};

const PLENTY: u64 = 1_000_000;

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

#[test]
fn a_server_of_known_latency_is_measured_as_such() {
    let shop = Shop::with_latency(PLENTY, Fault::None, ms(20));
    let report = storm(StormOptions {
        requests: Some(200),
        concurrency: Some(10),
        audit: Audit::Skip,
        ..options(&shop)
    })
    .unwrap();
    assert!(report.latency.p50_us >= 20_000, "{:?}", report.latency);
    assert!(report.latency.p50_us < 60_000, "{:?}", report.latency);
    // Ten at a time, 20 ms each: no more than 500 a second are possible.
    assert!(report.rps <= 500.0 && report.rps > 100.0, "{}", report.rps);
}

#[test]
fn an_open_loop_shows_a_stall_that_a_closed_loop_would_hide() {
    let stalls = Fault::Stalls { period: ms(1_000), stall: ms(500) };
    let shop = Shop::open(PLENTY, stalls);
    let open = storm(StormOptions {
        stages: vec![Stage::steady(400.0, ms(2_000))],
        audit: Audit::Skip,
        ..options(&shop)
    })
    .unwrap();
    assert_eq!(open.requests + open.skipped, 800);
    // Half of all arrivals fall into a stall and wait 250 ms on average.
    assert!(open.latency.p90_us > 250_000, "{:?}", open.latency);
    assert!(open.latency.p99_us > 400_000, "{:?}", open.latency);
    let shop = Shop::open(PLENTY, stalls);
    let closed = storm(StormOptions {
        duration: Some(ms(2_000)),
        concurrency: Some(4),
        audit: Audit::Skip,
        ..options(&shop)
    })
    .unwrap();
    assert!(closed.latency.p99_us < 100_000, "a closed loop hides it: {:?}", closed.latency);
}

#[test]
fn an_open_loop_keeps_its_schedule_and_reports_its_own_lateness() {
    let shop = Shop::with_latency(PLENTY, Fault::None, ms(5));
    let report = storm(StormOptions {
        stages: vec![Stage::steady(100.0, ms(500))],
        audit: Audit::Skip,
        ..options(&shop)
    })
    .unwrap();
    let lateness = report.lateness.unwrap();
    assert_eq!((report.requests, lateness.count), (50, 50));
    assert!(lateness.p50_us < 5_000, "{lateness:?}");
    assert!(report.latency.p50_us >= 5_000, "{:?}", report.latency);
    assert!(report.elapsed >= ms(490), "{:?}", report.elapsed);
}

#[test]
fn arrivals_without_a_free_connection_are_counted_as_skipped() {
    let shop = Shop::with_latency(PLENTY, Fault::None, ms(100));
    let report = storm(StormOptions {
        stages: vec![Stage::steady(200.0, ms(500))],
        concurrency: Some(2),
        ..options(&shop)
    })
    .unwrap();
    assert_eq!(report.requests + report.skipped, 100);
    assert!(report.skipped >= 80, "{}", report.skipped);
    assert_eq!(report.to_json()["skipped"], report.skipped);
    assert_eq!(shop.books.lock().unwrap().purchases, report.requests);
}

#[test]
fn random_arrivals_and_two_threads_reach_the_server_all() {
    let shop = Shop::open(PLENTY, Fault::None);
    let report = storm(StormOptions {
        stages: vec![Stage::ramp(0.0, 1_000.0, ms(500)), Stage::steady(1_000.0, ms(300))],
        arrivals: Arrivals::Random,
        threads: Some(2),
        seed: Some(11),
        ..options(&shop)
    })
    .unwrap();
    assert!((450..650).contains(&(report.requests + report.skipped)), "{}", report.requests);
    assert_eq!(report.accepted, report.requests);
    assert!(report.is_ok(), "{:?}", report.problems());
}

#[test]
fn a_time_out_is_an_error_and_the_audit_finds_the_order_behind_it() {
    let shop = Shop::open(PLENTY, Fault::Stalls { period: ms(900), stall: ms(300) });
    let report = storm(StormOptions {
        duration: Some(ms(900)),
        concurrency: Some(4),
        think_time: ms(5),
        timeout: ms(100),
        ..options(&shop)
    })
    .unwrap();
    let timeouts = report.failures["timeout"];
    assert!(timeouts >= 4, "{:?}", report.failures);
    assert!(report.latency.max_us >= 100_000);
    let audit = report.audit.as_ref().unwrap();
    assert_eq!((audit.resolution.asked, audit.resolution.accepted), (timeouts, timeouts));
    assert!(report.is_ok(), "{:?}", report.problems());
}

#[test]
fn a_benchmark_without_audit_needs_no_product_and_stops_in_time() {
    let shop = Shop::open(PLENTY, Fault::None);
    let report = storm(StormOptions {
        product: "unknown".to_owned(),
        duration: Some(ms(500)),
        concurrency: Some(16),
        threads: Some(2),
        audit: Audit::Skip,
        ..options(&shop)
    })
    .unwrap();
    assert!(report.is_ok(), "{:?}", report.problems());
    assert!(report.elapsed >= ms(490) && report.elapsed < ms(3_000), "{:?}", report.elapsed);
    assert_eq!(shop.books.lock().unwrap().orders.len() as u64, report.accepted);
    assert!(report.audit.is_none());
}

#[test]
fn thought_between_purchases_slows_a_buyer_down() {
    let shop = Shop::open(PLENTY, Fault::None);
    let report = storm(StormOptions {
        duration: Some(ms(600)),
        concurrency: Some(2),
        think_time: ms(50),
        audit: Audit::Skip,
        ..options(&shop)
    })
    .unwrap();
    assert!((4..80).contains(&report.requests), "{}", report.requests);
}
