//! Random streams of commands, played step by step by the core and by the redis engine on real servers. After each step
//! the answer, what happened, the order and every product must be the same; after each stream, every order.
//!
//! `YOINK_STREAMS=number` plays more streams, `YOINK_SEED=number` begins with that one. What the two say differently by
//! design is in one place, with its reasons: `streams/reference.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;
#[path = "../../core/tests/properties/generator.rs"]
#[allow(dead_code, reason = "the core's own test uses the rest of it")]
mod core_generator;
#[path = "streams/generator.rs"]
mod generator;
#[path = "streams/reference.rs"]
mod reference;
#[path = "streams/shop.rs"]
mod shop;

use std::time::Duration;

use shop::{Coverage, Shop};
use yoink_core::Rejection;
use yoink_engine::Engine;
use yoink_engine::postgres::migrate;
use yoink_engine::redis::RedisOptions;
use yoink_testkit::{Postgres, RedisCluster};

/// Streams that are played unless `YOINK_STREAMS` says otherwise.
const STREAMS: u64 = 20;
const STREAMS_ON_CLUSTER: u64 = 3;
const STEPS: usize = 150;

fn play_stream(engine: Engine, seed: u64) -> Result<Coverage, String> {
    // One thread: what is asked in one turn is pushed before anything is sent.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (engine, driver) = engine.with_own_lane();
    runtime.spawn(driver.run());
    let mut shop = Shop::new(engine.clone(), seed);
    let played = runtime.block_on(shop.play(STEPS));
    engine.close_blocking(Duration::ZERO);
    played.map(|()| shop.coverage)
}

/// Plays streams, each on a new engine, and says how to repeat one that fails. Gives what was seen, as text.
fn play_streams(test: &str, first_seed: u64, usual: u64, open: impl Fn() -> Engine) -> String {
    let streams = std::env::var("YOINK_STREAMS")
        .map_or(usual, |text| text.parse().expect("YOINK_STREAMS is a whole number"));
    let mut total = Coverage::new();
    for seed in (0..streams).map(|stream| first_seed.wrapping_add(stream)) {
        match play_stream(open(), seed) {
            Ok(coverage) => {
                coverage.into_iter().for_each(|(name, count)| *total.entry(name).or_default() += count)
            }
            Err(what) => panic!(
                "{what}\nto repeat: YOINK_SEED={seed} YOINK_STREAMS=1 cargo test -p yoink-engine --features faults \
                 --test streams {test}"
            ),
        }
    }
    if streams >= STREAMS {
        for name in expected_coverage() {
            assert!(total.contains_key(name), "{name} was never hit: the test shows too little");
        }
    }
    format!("{streams} streams: {total:#?}")
}

/// Everything that so many streams must have led to.
fn expected_coverage() -> impl Iterator<Item = &'static str> {
    let others = [
        "bought",
        "bought before",
        "ended",
        "ended before",
        "product",
        "adjusted",
        "adjusted before",
        "together",
        "refused early",
    ];
    // No command can break the law of conservation.
    let rejections = Rejection::NAMES.into_iter().filter(|name| *name != "conservation-broken");
    rejections.chain(others)
}

#[test]
fn the_redis_engine_says_at_every_step_what_the_core_says() {
    let servers = common::servers::Servers::start();
    let test = "the_redis_engine_says_at_every_step_what_the_core_says";
    let seed = core_generator::seed();
    eprintln!("the first stream: YOINK_SEED={seed}");
    let seen = play_streams(test, seed, STREAMS, || servers.open_engine(|_| ()));
    eprintln!("{seen}");
}

#[test]
fn so_it_does_on_a_cluster() {
    let (cluster, postgres) = (RedisCluster::start().unwrap(), Postgres::start().unwrap());
    let databases = std::cell::Cell::new(0);
    let seed = core_generator::seed();
    eprintln!("the first stream: YOINK_SEED={seed}");
    let seen = play_streams("so_it_does_on_a_cluster", seed, STREAMS_ON_CLUSTER, || {
        for node in cluster.nodes() {
            node.command(&["FLUSHALL"]).unwrap();
        }
        databases.set(databases.get() + 1);
        let ledger = postgres.create_database(&format!("yoink_{}", databases.get())).unwrap();
        common::runtime().block_on(migrate(&ledger)).unwrap();
        Engine::open_redis(RedisOptions::new(cluster.urls().join(","), ledger)).unwrap()
    });
    eprintln!("{seen}");
}
