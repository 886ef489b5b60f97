//! Many nodes and one key; servers that are killed, stopped and down.

use std::thread::sleep;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use yoink_engine::Replayed;

use crate::shop::{Bought, Shop, insist, insist_with_key, request, rounds};

/// From the restart of Redis until it sells again. A person waits for 2 s; a machine that builds something else may
/// need more.
const SELLING_WITHIN: Duration = Duration::from_secs(6);

#[test]
fn one_key_at_two_nodes_is_one_order_and_one_stock_is_sold_once() {
    let shop = Shop::start();
    let (stock, keys) = (100, rounds(5));
    let first = shop.open_with_shoes(stock, |_| ());
    let second = shop.open(|_| ());
    let nodes = [&first, &second];
    let mut bought = Vec::new();
    for number in 0..keys {
        let (customer, key) = (format!("twin-{number}"), format!("twins-{number}"));
        let asked = (0..64).map(|twin| nodes[twin % 2].purchase(request(&customer, 1, &key)));
        let answers = shop.run(join_all(asked));
        let orders: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert!(orders.iter().all(|purchased| purchased.order == orders[0].order));
        let replays = orders.iter().filter(|purchased| purchased.replayed == Replayed::Yes).count();
        assert_eq!(replays, 63, "key {key}");
        bought.push(Bought { customer, key, quantity: 1, order: orders[0].order });
    }
    let names: Vec<String> = (0..500).map(|buyer| format!("buyer-{buyer}")).collect();
    let asked = names.iter().enumerate().map(|(buyer, name)| insist(nodes[buyer % 2], name, 1));
    let served: Vec<_> = shop.run(join_all(asked)).into_iter().flatten().collect();
    assert_eq!(served.len() + keys, 100, "exactly the stock is sold");
    bought.extend(served);
    let kept = shop.close_the_books(&second, stock, &mut bought);
    assert_eq!((kept.confirmed, kept.ended), (100, 0));
}

#[test]
fn a_killed_redis_loses_nothing_and_sells_again_soon() {
    let mut shop = Shop::start();
    let stock = 20_000;
    let first = shop.open_with_shoes(stock, |_| ());
    let second = shop.open(|_| ());
    let crowd = shop.crowd(&[&first, &second], 8);
    let mut bought = Vec::new();
    for _ in 0..rounds(4) {
        crowd.wait_for(60);
        shop.redis.kill();
        shop.redis.restart().unwrap();
        let took = shop.wait_until_selling(&first, &mut bought);
        assert!(took < SELLING_WITHIN, "selling again after {took:?}");
    }
    crowd.wait_for(20);
    bought.extend(shop.disperse(crowd));
    let kept = shop.close_the_books(&first, stock, &mut bought);
    assert_eq!(kept.ended, 0, "with every write on disk nothing is revoked");
}

#[test]
fn a_paused_redis_leaves_nobody_without_an_answer() {
    let mut shop = Shop::start();
    let stock = 20_000;
    let engine = shop.open_with_shoes(stock, |_| ());
    let crowd = shop.crowd(&[&engine], 8);
    for _ in 0..rounds(2) {
        crowd.wait_for(40);
        shop.redis.stop().unwrap();
        // Longer than an answer may take, and than a purchase may wait.
        sleep(Duration::from_millis(1_900));
        shop.redis.cont();
    }
    crowd.wait_for(40);
    let mut bought = shop.disperse(crowd);
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, 0);
}

#[test]
fn a_postgres_that_is_killed_or_down_cancels_nobody() {
    let mut shop = Shop::start();
    let stock = 20_000;
    let first = shop.open_with_shoes(stock, |_| ());
    let second = shop.open(|_| ());
    let crowd = shop.crowd(&[&first, &second], 8);
    for _ in 0..rounds(3) {
        crowd.wait_for(60);
        shop.postgres.kill();
        shop.postgres.restart().unwrap();
    }
    crowd.wait_for(40);
    shop.postgres.terminate().unwrap();
    let (begun, before) = (Instant::now(), crowd.accepted());
    sleep(Duration::from_secs(4));
    assert!(crowd.accepted() > before + 50, "selling goes on while the ledger is down");
    shop.postgres.restart().unwrap();
    let waited = begun.elapsed();
    let mut bought = shop.disperse(crowd);
    let healed = Instant::now();
    shop.reconcile(&first);
    let took = healed.elapsed();
    // Nobody waits as long again as the outage lasted: the pauses between attempts are bounded. (A busy machine needs a while.)
    assert!(took < Duration::from_secs(20), "an outage of {waited:?} was drained in {took:?}");
    let kept = shop.close_the_books(&first, stock, &mut bought);
    assert_eq!(kept.ended, 0, "nobody is cancelled because the ledger was down");
}

#[test]
fn a_node_that_is_closed_refuses_and_a_node_that_is_opened_goes_on() {
    let shop = Shop::start();
    let stock = 100;
    let mut engine = shop.open_with_shoes(stock, |_| ());
    let mut bought = Vec::new();
    for round in 0..rounds(4) {
        let crowd = shop.crowd(&[&engine], 4);
        crowd.wait_for(4);
        bought.extend(shop.disperse(crowd));
        engine.close_blocking(Duration::ZERO);
        let begun = Instant::now();
        let refused = shop.run(engine.purchase(request(&format!("late-{round}"), 1, "late")));
        assert!(matches!(refused, Err(yoink_engine::CallError::Closing)), "{refused:?}");
        assert!(begun.elapsed() < Duration::from_secs(1));
        engine = shop.open(|_| ());
        assert!(shop.run(engine.order(bought[0].order)).unwrap().is_some());
    }
    let first = bought[0].clone();
    let again = shop.run(insist_with_key(&engine, &first.customer, 1, &first.key)).unwrap();
    assert_eq!((again.order, again.replayed), (first.order, Replayed::Yes));
    shop.close_the_books(&engine, stock, &mut bought);
}
