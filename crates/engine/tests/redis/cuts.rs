//! Connections that are cut at a chosen byte: the request is lost, or its answer. Every purchase resolves by its key to
//! exactly one order.

use std::thread;
use std::time::{Duration, Instant};

use yoink_engine::Engine;
use yoink_engine::redis::RedisOptions;
use yoink_testkit::{Mode, Proxy};

use crate::common;
use crate::shop::{Bought, Shop, insist, rounds};

const STOCK: u64 = 20_000;
/// Nodes that are cut off at the same time, each by itself.
const NODES: usize = 4;
/// Cuts of each kind, at each node.
const CUTS_EACH: usize = 70;
/// Purchases and looks are about as long as this, in either direction.
const BYTES_MAX: u64 = 900;
/// A cut that nobody has run into after this long is given up for the next.
const CUT_WITHIN: Duration = Duration::from_millis(400);

/// The places to cut at, spread over the bytes of a request or an answer.
fn places(node: usize) -> impl Iterator<Item = u64> {
    let count = rounds(CUTS_EACH) as u64;
    (0..count).map(move |place| (place * BYTES_MAX / count + 7 * node as u64) % BYTES_MAX)
}

/// Cuts and buys, one purchase for each cut.
fn cut_and_buy(node: usize, kind: &str, edge: &Proxy, engine: &Engine, mode: fn(u64) -> Mode) -> Vec<Bought> {
    let runtime = common::runtime();
    let mut bought = Vec::new();
    for (number, place) in places(node).enumerate() {
        edge.set(mode(place)).unwrap();
        let unit = runtime.block_on(insist(engine, &format!("{kind}-{node}-{number}"), 1));
        bought.push(unit.expect("there is enough for all"));
        let begun = Instant::now();
        while edge.mode() != Mode::Pass && begun.elapsed() < CUT_WITHIN {
            thread::sleep(Duration::from_millis(1));
        }
    }
    edge.set(Mode::Pass).unwrap();
    bought
}

/// Four nodes behind proxies of their own; gives how many connections were cut.
fn cut_all(is_postgres: bool) -> u64 {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |_| ());
    let node = |node: usize| {
        let server = if is_postgres { shop.postgres.address() } else { shop.redis.address() };
        let edge = Proxy::start(server).unwrap();
        let engine = shop.open(|options: &mut RedisOptions| {
            options.claim_after = Duration::from_millis(500);
            let address = edge.address();
            match is_postgres {
                true => options.postgres = format!("postgres://postgres@{address}/shop"),
                false => options.redis = format!("redis://{address}"),
            }
        });
        let mut bought = cut_and_buy(node, "request", &edge, &engine, Mode::CutRequestAfter);
        bought.extend(cut_and_buy(node, "reply", &edge, &engine, Mode::CutReplyAfter));
        let cuts = edge.counts().cuts;
        shop.run(engine.wait_delivered(0, Duration::from_secs(20)));
        (bought, cuts)
    };
    let results: Vec<(Vec<Bought>, u64)> = thread::scope(|scope| {
        let nodes: Vec<_> = (0..NODES).map(|number| scope.spawn(move || node(number))).collect();
        nodes.into_iter().map(|node| node.join().unwrap()).collect()
    });
    let (bought, cuts): (Vec<_>, Vec<_>) = results.into_iter().unzip();
    let mut bought = bought.concat();
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0);
    cuts.iter().sum()
}

#[test]
fn a_connection_to_redis_may_be_cut_at_any_byte() {
    let cuts = cut_all(false);
    assert!(cuts >= rounds(500) as u64, "only {cuts} cuts");
}

#[test]
fn a_connection_to_postgres_may_be_cut_at_any_byte() {
    let cuts = cut_all(true);
    assert!(cuts >= rounds(500) as u64, "only {cuts} cuts");
}
