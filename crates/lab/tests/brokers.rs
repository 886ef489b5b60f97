//! Strategies on brokers and locks, and Yoink's engines: each is run by the real program with a small crowd, and shows
//! what it must. Who is not named here is not run here.

#![cfg(test)]

mod common;

use std::time::Duration;

use serde_json::Value;
use yoink_lab::shop::{Addresses, Lock, Shop, Trace};
use yoink_testkit::RedisServer;

use common::{figure, has_timeline, lab, small};

const FIGURES: [&str; 6] = ["oversold", "lost", "duplicated", "mismatched", "phantom", "stuck"];

/// Runs strategies one after the other, and gives what came of each as a report has it. What is broken has a timeline.
fn run(names: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    small(&[&["report"], names, &["--out", folder.path().to_str().unwrap()]].concat());
    let report = std::fs::read(folder.path().join("report.json")).unwrap();
    let outcomes: Vec<Value> = serde_json::from_slice(&report).unwrap();
    for outcome in &outcomes {
        assert_eq!(has_timeline(outcome), outcome["ok"] == false, "{outcome:#}");
    }
    let strategies: Vec<&str> = outcomes.iter().filter_map(|outcome| outcome["strategy"].as_str()).collect();
    assert_eq!(strategies, names);
    outcomes
}

/// It breaks this, and nothing else.
fn assert_breaks_only(outcome: &Value, broken: &str) {
    for name in FIGURES {
        assert_eq!(figure(outcome, name) > 0, name == broken, "{name}: {outcome}");
    }
}

/// Every unit is sold once, although it was killed and buyers clicked twice.
fn assert_is_right(outcome: &Value) {
    for name in FIGURES {
        assert_eq!(figure(outcome, name), 0, "{name}: {outcome}");
    }
    assert_eq!((figure(outcome, "sold"), figure(outcome, "available")), (20, 0), "{outcome}");
    assert_eq!((&outcome["as_expected"], &outcome["connections"]), (&true.into(), &Value::Null), "{outcome}");
}

#[test]
fn a_lock_that_a_twin_can_open_oversells() {
    let outcome = &run(&["lock-by-user"])[0];
    assert!(figure(outcome, "oversold") > 0, "{outcome}");
    // Two twins may get in at once, so one request may become two orders. Who was told yes has one.
    for name in ["lost", "mismatched", "phantom"] {
        assert_eq!(figure(outcome, name), 0, "{name}: {outcome}");
    }
}

#[test]
fn a_lock_that_expires_oversells() {
    assert_breaks_only(&run(&["lock-expires"])[0], "oversold");
}

#[test]
fn the_embedded_engine_is_killed_and_every_number_adds_up() {
    assert_is_right(&run(&["embedded"])[0]);
}

#[test]
fn the_redis_engine_is_killed_and_every_number_adds_up() {
    assert_is_right(&run(&["redis"])[0]);
}

/// In one go, because a RabbitMQ takes long to start.
#[test]
fn workers_that_acknowledge_too_much_lose_orders_and_the_rabbitmq_engine_loses_none() {
    let outcomes = run(&["broker-lock", "ack-on-error", "rabbitmq"]);
    assert_breaks_only(&outcomes[0], "lost");
    assert_breaks_only(&outcomes[1], "lost");
    for outcome in &outcomes[..2] {
        assert!(figure(outcome, "database_errors") >= figure(outcome, "lost"), "{outcome}");
    }
    assert_is_right(&outcomes[2]);
}

#[tokio::test]
async fn a_lock_is_one_holders_until_its_life_is_over() {
    let redis = RedisServer::start().unwrap();
    let addresses = Addresses { redis: Some(redis.url()), ..Addresses::default() };
    let shop = Shop::open(&addresses, "run".to_owned(), Trace::nowhere(), None).await.unwrap();
    let mut lock = Lock::of(&shop, "p", Duration::from_secs(60)).unwrap();
    assert!(lock.take("a").await.unwrap());
    assert!(!lock.take("b").await.unwrap(), "another has it");
    assert!(!lock.release("b").await.unwrap(), "it is another's");
    assert!(lock.release("a").await.unwrap());
    assert!(!lock.release("a").await.unwrap(), "it is open");
    let mut short = Lock::of(&shop, "p", Duration::from_millis(50)).unwrap();
    assert!(short.take("c").await.unwrap());
    assert!(lock.wait("d").await.unwrap(), "it opens by itself");
    assert!(!short.release("c").await.unwrap(), "it is another's now");
}

#[test]
fn an_engine_without_its_program_says_what_to_do() {
    let output = lab(&["run", "embedded", "--yoink", "/nowhere/yoink", "--json"], 2);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(complained.contains("cannot start /nowhere/yoink"), "{complained}");
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((results.as_array().unwrap().len(), &results[0]["strategy"]), (1, &"embedded".into()));
    assert!(results[0]["error"].as_str().unwrap().contains("cannot start /nowhere/yoink"), "{results}");
}

#[test]
fn which_program_sells_for_an_engine_is_said() {
    let output = small(&["run", "embedded", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.contains("the engines are ")).unwrap_or_default();
    assert!(line.contains("yoink (yoink ") && line.contains(" minutes ago)"), "{said}");
}
