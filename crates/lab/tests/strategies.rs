//! Every strategy on stores of its own, with a small crowd: the wrong ones show their defect, the right ones none.

#![cfg(test)]

mod common;

use serde_json::Value;
use yoink_testkit::{Postgres, RedisServer};

use common::{figure, has_timeline, lab, small};

/// Runs a strategy by the real program and gives its result. The run has to end as the catalogue says. What is broken has
/// a timeline.
fn run(name: &str) -> Value {
    let told = small(&["explain", name, "--json"]).stdout;
    let explained: Value = serde_json::from_slice(&told).unwrap();
    let result = explained["result"].clone();
    assert_eq!(has_timeline(&explained), result["ok"] == false, "{explained:#}");
    assert_eq!((result["strategy"].as_str(), result["stocked"].as_u64()), (Some(name), Some(20)));
    assert!(result["took_s"].as_f64().unwrap() < 30.0, "{result:#}");
    result
}

/// Runs a strategy that has no defect: everything is zero, and every unit is sold.
fn breaks_nothing(name: &str) {
    let result = run(name);
    for zero in ["oversold", "lost", "duplicated", "mismatched", "phantom", "stuck"] {
        assert_eq!(figure(&result, zero), 0, "{zero}: {result:#}");
    }
    assert_eq!((result["ok"].as_bool(), figure(&result, "sold")), (Some(true), 20), "{result:#}");
}

/// Runs a strategy with a defect: its figure is not zero, and those of `zeros` are. Nobody gets what he did not ask for.
fn breaks(name: &str, broken: &str, zeros: &[&str]) -> Value {
    let result = run(name);
    assert!(figure(&result, broken) > 0, "{broken}: {result:#}");
    assert_eq!(result["ok"], false, "{result:#}");
    for zero in zeros.iter().chain(&["phantom"]) {
        assert_eq!(figure(&result, zero), 0, "{zero}: {result:#}");
    }
    // Only one shop makes an order's id after it has told the buyer one.
    let mismatched = if name == "commit-then-die" { figure(&result, "accepted") } else { 0 };
    assert_eq!(figure(&result, "mismatched"), mismatched, "{result:#}");
    result
}

#[test]
fn atomic_sql_breaks_nothing() {
    breaks_nothing("atomic-sql");
}

#[test]
fn row_lock_breaks_nothing() {
    breaks_nothing("row-lock");
}

#[test]
fn redis_sync_leaves_units_to_nobody() {
    let result = breaks("redis-sync", "stuck", &["oversold", "lost", "duplicated"]);
    assert_eq!(figure(&result, "connections"), 2, "{result:#}");
    // Each of them went with a request that got no connection.
    assert_eq!(figure(&result, "database_errors"), figure(&result, "stuck"), "{result:#}");
}

#[test]
fn redis_queue_loses_what_it_promised_while_the_database_was_down() {
    let result = breaks("redis-queue", "lost", &["oversold", "duplicated", "stuck"]);
    assert_eq!(figure(&result, "connections"), 10, "{result:#}");
    assert!(figure(&result, "database_errors") >= 3 * figure(&result, "lost"), "{result:#}");
}

#[test]
fn crash_before_enqueue_leaves_units_to_nobody() {
    breaks("crash-before-enqueue", "stuck", &["oversold", "lost", "duplicated"]);
}

#[test]
fn ttl_reseed_sells_what_is_queued_again() {
    breaks("ttl-reseed", "oversold", &["lost", "duplicated", "stuck"]);
}

#[test]
fn double_compensation_makes_a_unit() {
    let result = breaks("double-compensation", "oversold", &["lost", "duplicated", "stuck"]);
    assert_eq!(figure(&result, "oversold"), 1, "one dead letter was dealt with twice: {result:#}");
    assert_eq!(figure(&result, "database_errors"), 0, "a refusal is an answer: {result:#}");
}

#[test]
fn commit_then_die_writes_an_order_twice() {
    let result = breaks("commit-then-die", "duplicated", &["lost", "stuck"]);
    assert_eq!(figure(&result, "duplicated"), 1, "one job was done twice: {result:#}");
}

#[test]
fn unknown_commit_sells_a_unit_twice() {
    let result = breaks("unknown-commit", "oversold", &["lost", "duplicated", "stuck"]);
    assert_eq!(figure(&result, "oversold"), 1, "one answer was lost: {result:#}");
}

#[test]
fn check_then_store_key_sells_to_both_clicks() {
    breaks("check-then-store-key", "duplicated", &["oversold", "lost", "stuck"]);
}

#[test]
fn negative_quantity_makes_units() {
    let result = breaks("negative-quantity", "oversold", &["lost", "duplicated", "stuck"]);
    assert_eq!(figure(&result, "oversold"), 5, "{result:#}");
}

#[test]
fn everysec_forgets_what_it_said_yes_to() {
    breaks("everysec", "lost", &["duplicated", "stuck"]);
}

#[test]
fn a_given_postgresql_has_no_database_more_afterwards_and_is_never_shut_down() {
    let (postgres, redis) = (Postgres::start().unwrap(), RedisServer::start().unwrap());
    let mut session = postgres.session("postgres").unwrap();
    let mut ask = |sql: &str| session.value(sql).unwrap().unwrap();
    let databases = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
    let (before, begun) = (ask(databases), ask("SELECT pg_postmaster_start_time()"));
    let newest = "SELECT max(oid::bigint) FROM pg_database";
    let oid = ask(newest);
    let (postgres_url, redis_url) = (postgres.url(), redis.url());
    let given = ["--postgres", &postgres_url, "--redis", &redis_url];
    // The second shuts PostgreSQL down, and the third cuts the power of a Redis that is set up for it.
    let strategies = ["run", "naive", "ack-on-error", "everysec", "--buyers", "100", "--units", "10"];
    lab(&[&strategies[..], &given].concat(), 0);
    assert_eq!(ask(databases), before);
    assert_eq!(ask("SELECT pg_postmaster_start_time()"), begun);
    drop(session);

    // It was used all the same: a new database gets a number, and those between were the lab's.
    postgres.create_database("next").unwrap();
    let mut session = postgres.session("postgres").unwrap();
    let next = session.value(newest).unwrap().unwrap();
    let (oid, next): (u64, u64) = (oid.parse().unwrap(), next.parse().unwrap());
    assert!(next > oid + 1, "the lab has made no database on the server that it was given");
}
