//! Redis loses what it had, all of it or a part: it is filled anew, and what nodes accepted comes back.

use std::thread::sleep;
use std::time::{Duration, Instant};

use yoink_core::{Money, NewProduct, ProductChange};
use yoink_engine::{Engine, OrderStatus, Replayed};
use yoink_testkit::{Mode, Proxy, RedisServer};

use crate::common;
use crate::shop::{Bought, SHOE, Shop, insist, request, rounds};

const STOCK: u64 = 20_000;
/// As in `crash.rs`.
const SELLING_WITHIN: Duration = Duration::from_secs(6);

/// Plays a loss some times, with a crowd at two nodes, and gives the nodes and what was promised.
fn lose(shop: &mut Shop, times: usize, mut loss: impl FnMut(&mut Shop, usize)) -> (Engine, Vec<Bought>) {
    let first = shop.open_with_shoes(STOCK, |_| ());
    let second = shop.open(|_| ());
    let crowd = shop.crowd(&[&first, &second], 8);
    let mut bought = Vec::new();
    for time in 0..times {
        crowd.wait_for(60);
        loss(shop, time);
        let took = shop.wait_until_selling(&first, &mut bought);
        assert!(took < SELLING_WITHIN, "selling again after {took:?}");
    }
    crowd.wait_for(20);
    bought.extend(shop.disperse(crowd));
    // The second node's offers are part of what is on its way.
    shop.reconcile(&second);
    (first, bought)
}

#[test]
fn an_emptied_redis_is_filled_from_the_ledger_and_the_nodes() {
    let mut shop = Shop::start();
    let (engine, mut bought) = lose(&mut shop, rounds(3), |shop, _| drop(shop.redis(&["FLUSHALL"])));
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "the nodes had all that was lost");
}

#[test]
fn every_single_key_of_a_sale_may_be_deleted() {
    let mut shop = Shop::start();
    let keys = ["sale", "buyers", "grants"];
    let (engine, mut bought) = lose(&mut shop, rounds(2) * keys.len(), |shop, time| {
        let key = shop.key(keys[time % keys.len()]);
        shop.redis(&["DEL", &key]);
    });
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "the nodes had all that was lost");
}

#[test]
fn a_log_of_redis_that_was_cut_short_is_noticed() {
    let mut shop = Shop::start();
    let (engine, mut bought) = lose(&mut shop, rounds(3), |shop, time| {
        shop.redis.kill();
        let bytes = std::fs::metadata(shop.redis.aof().unwrap()).unwrap().len();
        shop.redis.truncate_aof((3_000 * (time as u64 + 1)).min(bytes)).unwrap();
        shop.redis.restart().unwrap();
    });
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "the nodes had all that was lost");
}

#[test]
fn a_replica_that_lags_behind_may_be_promoted() {
    let mut shop = Shop::start();
    // Those that were primaries go on running, as they do where a network is cut in two.
    let mut replicas: Vec<RedisServer> = Vec::new();
    let (engine, mut bought) = lose(&mut shop, rounds(2), |shop, _| {
        let primary = replicas.last().map_or(shop.redis.address(), RedisServer::address);
        let link = Proxy::start(primary).unwrap();
        let mut replica = RedisServer::builder().replica_of(link.address()).start().unwrap();
        replica.wait_in_sync().unwrap();
        link.set(Mode::BlackHole).unwrap();
        sleep(Duration::from_millis(150));
        shop.redis_edge.retarget(replica.address());
        replica.promote().unwrap();
        shop.redis_edge.cut_all();
        replicas.push(replica);
    });
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "the nodes had all that was lost");
}

#[test]
fn what_redis_and_its_node_lose_together_is_gone_and_its_units_are_sold() {
    let shop = Shop::start();
    let stock = 200;
    let engine = shop.open_with_shoes(stock, |_| ());
    let mut bought = vec![shop.run(insist(&engine, "in-the-ledger", 1)).unwrap()];
    shop.reconcile(&engine);
    engine.close_blocking(Duration::ZERO);
    // Nobody carries orders to the ledger.
    let engine = shop.open(|options| options.workers = 0);
    let lost: Vec<Bought> =
        (0..20).map(|number| shop.run(insist(&engine, &format!("lost-{number}"), 2)).unwrap()).collect();
    assert_eq!(shop.count("SELECT count(*) FROM orders"), 1, "the ledger has none of them");
    engine.close_blocking(Duration::ZERO);
    shop.redis(&["FLUSHALL"]);
    let engine = shop.open(|_| ());
    let took = shop.wait_until_selling(&engine, &mut bought);
    assert!(took < SELLING_WITHIN, "selling again after {took:?}");
    for unit in &lost {
        assert_eq!(
            shop.run(engine.order(unit.order)).unwrap(),
            None,
            "{unit:?} is gone, and nobody says otherwise"
        );
    }
    // Its key buys it anew, as the first time.
    let again = shop.run(engine.purchase(request("lost-0", 2, &lost[0].key))).unwrap();
    assert_eq!((again.order, again.replayed), (lost[0].order, Replayed::No));
    bought.push(lost[0].clone());
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, 0, "what was in the ledger stays");
}

#[test]
fn an_order_that_another_node_knew_outlives_redis_and_the_node_that_accepted_it() {
    let shop = Shop::start();
    let stock = 50;
    let first = shop.open_with_shoes(stock, |_| ());
    let second = shop.open(|_| ());
    [&first, &second].into_iter().for_each(|node| shop.pause_delivery(node));
    let mut bought = Vec::new();
    for number in 0..10 {
        let unit = shop.run(insist(&first, &format!("twice-{number}"), 1)).unwrap();
        let again = shop.run(second.purchase(request(&unit.customer, 1, &unit.key))).unwrap();
        assert_eq!((again.order, again.replayed), (unit.order, Replayed::Yes));
        bought.push(unit);
    }
    let is_accepted = |unit: &Bought| {
        let found = shop.run(second.order(unit.order)).unwrap();
        assert_eq!(found.map(|order| order.status), Some(OrderStatus::Accepted), "{unit:?}");
    };
    bought.iter().for_each(is_accepted);
    first.close_blocking(Duration::ZERO);
    shop.redis(&["FLUSHALL"]);
    let promised = bought.len();
    let took = shop.wait_until_selling(&second, &mut bought);
    assert!(took < SELLING_WITHIN, "selling again after {took:?}");
    bought.iter().take(promised).for_each(is_accepted);
    shop.run(second.delivery().resume()).unwrap();
    let kept = shop.close_the_books(&second, stock, &mut bought);
    assert_eq!(kept.ended, 0, "the second node had told their buyers, too");
}

/// Waits until something is so; `what` says what is wrong if it does not become so.
fn within(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_order_in_a_workers_hand_when_redis_is_emptied_is_offered_again() {
    let shop = Shop::start();
    let stock = 50;
    // Nobody takes an entry over from a worker that has it in hand.
    let claim_after = Duration::from_secs(60);
    let first = shop.open_with_shoes(stock, |options| options.claim_after = claim_after);
    let mut bought = vec![shop.run(insist(&first, "in-the-ledger", 1)).unwrap()];
    shop.reconcile(&first);
    // What the worker tells the ledger from now on is on its way, and arrives when the epoch is sealed.
    shop.postgres_edge.set(Mode::BlackHole).unwrap();
    for number in 0..5 {
        bought.push(shop.run(insist(&first, &format!("held-{number}"), 2)).unwrap());
    }
    let grants = shop.key("grants");
    within("the worker has read nothing", || {
        shop.redis(&["XPENDING", &grants, "workers"]).items()[0].integer() != Some(0)
    });
    shop.redis(&["FLUSHALL"]);
    let (redis, postgres) = (shop.redis.url(), shop.postgres_url());
    let second = shop.open(|options| {
        options.claim_after = claim_after;
        (options.redis, options.postgres) = (redis, postgres);
    });
    shop.wait_until_selling(&second, &mut bought);
    assert_eq!(shop.count("SELECT count(*) FROM allocations WHERE sealed"), 1);
    assert_eq!(shop.count("SELECT count(*) FROM orders WHERE customer LIKE 'held%'"), 0, "they are held");
    shop.postgres_edge.set(Mode::Pass).unwrap();
    shop.reconcile(&first);
    let kept = shop.close_the_books(&second, stock, &mut bought);
    assert_eq!(kept.ended, 0, "there is a unit for each, and their node knows them");
}

#[test]
fn an_entry_that_is_left_in_the_stream_of_a_sealed_epoch_is_offered_to_the_next() {
    let shop = Shop::start();
    let stock = 10;
    let engine = shop.open_with_shoes(stock, |_| ());
    // The loader has carried what it found in the stream, and waits to seal the epoch.
    let mut session = shop.postgres.session("shop").unwrap();
    session.query("BEGIN; SELECT FROM allocations FOR UPDATE").unwrap();
    shop.redis(&["FLUSHALL"]);
    let sealing =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%seal($1%'";
    within("nobody seals", || shop.count(sealing) > 0);
    let grants = shop.key("grants");
    let late = "00000001aaaa8aaa8aaaaaaaaaaaaaaa|7|2|1767607200123456|19999|EUR|late";
    shop.redis(&["XADD", &grants, "*", "v1", late]);
    session.query("COMMIT").unwrap();
    within("it is no order", || shop.count("SELECT count(*) FROM orders") == 1);
    let kept = "SELECT count(*) FROM orders WHERE customer = 'late' AND epoch = 2 AND status = 'confirmed'";
    assert_eq!(shop.count(kept), 1, "the next epoch had units for it");
    within("its stream stays", || shop.redis(&["EXISTS", &grants]).integer() == Some(0));
    assert!(shop.run(insist(&engine, "rest", 8)).is_some());
    assert!(shop.run(insist(&engine, "nobody", 1)).is_none());
    shop.reconcile(&engine);
}

#[test]
fn a_stream_that_a_loader_left_when_it_died_is_buried_by_the_next() {
    let shop = Shop::start();
    let stock = 10;
    let engine = shop.open_with_shoes(stock, |_| ());
    let grants = shop.key("grants");
    // The loader has sealed the epoch, and waits to read what Redis is to be filled with.
    let mut session = shop.postgres.session("shop").unwrap();
    session.query("BEGIN; LOCK TABLE adjustments IN ACCESS EXCLUSIVE MODE").unwrap();
    shop.redis(&["FLUSHALL"]);
    let filling = "SELECT count(*) FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND query LIKE '%-delta AS units FROM adjustments%'";
    within("nobody fills Redis", || shop.count(filling) > 0);
    let late = "00000001aaaa8aaa8aaaaaaaaaaaaaaa|7|2|1767607200123456|19999|EUR|late";
    shop.redis(&["XADD", &grants, "*", "v1", late]);
    engine.close_blocking(Duration::ZERO);
    session.query("ROLLBACK").unwrap();
    let engine = shop.open(|_| ());
    within("its stream stays", || shop.redis(&["EXISTS", &grants]).integer() == Some(0));
    let kept = "SELECT count(*) FROM orders WHERE customer = 'late' AND epoch = 2 AND status = 'confirmed'";
    assert_eq!(shop.count(kept), 1, "the epoch on sale had units for it");
    assert!(shop.run(insist(&engine, "rest", 8)).is_some());
    assert!(shop.run(insist(&engine, "nobody", 1)).is_none());
    shop.reconcile(&engine);
}

#[test]
fn an_order_that_was_asked_for_again_with_another_quantity_is_not_revoked_by_the_first() {
    let shop = Shop::start();
    let stock = 10;
    let url = shop.redis.url();
    // Goes on while the first node is cut off from Redis.
    let second = shop.open_with_shoes(stock, |options| options.redis = url);
    let first = shop.open(|options| options.workers = 0);
    shop.pause_delivery(&second);
    let early = shop.run(insist(&first, "undecided", 2)).unwrap();
    shop.redis_edge.set(Mode::Refuse).unwrap();
    shop.redis_edge.cut_all();
    shop.redis(&["FLUSHALL"]);
    let later = shop.run(insist(&second, "undecided", 3)).expect("nobody there knows of the first");
    assert_eq!(later.order, early.order);
    let calls = |what: &str| {
        let commands = first.redis_status().unwrap().commands;
        commands.into_iter().find(|(name, _)| *name == what).unwrap().1.counts.iter().sum::<u64>()
    };
    let before = calls("purchase");
    shop.redis_edge.set(Mode::Pass).unwrap();
    within("it is not offered", || calls("purchase") > before);
    // No look begins before the one that offers it has ended.
    let looks = calls("look");
    within("nobody looks at Redis", || calls("look") > looks + 2);
    shop.run(second.delivery().resume()).unwrap();
    shop.reconcile(&first);
    let mut bought = vec![later];
    let kept = shop.close_the_books(&second, stock, &mut bought);
    assert_eq!(kept.ended, 0, "the order of that id is the second one");
}

#[test]
fn an_order_is_not_revoked_by_figures_that_somebody_broke() {
    let shop = Shop::start();
    let stock = 10;
    let (redis, postgres) = (shop.redis.url(), shop.postgres_url());
    let mender =
        || shop.open(|options| (options.redis, options.postgres) = (redis.clone(), postgres.clone()));
    let second = mender();
    // Fills nothing, and offers what it accepted.
    let first = shop.open(|options| options.workers = 0);
    let shoe = NewProduct { max_per_order: 1_000, ..common::product(SHOE, stock) };
    shop.run(first.create_product(shoe)).unwrap();
    shop.pause_delivery(&second);
    let mut bought = vec![shop.run(insist(&first, "early", 2)).unwrap()];
    shop.redis_edge.set(Mode::Refuse).unwrap();
    shop.redis_edge.cut_all();
    shop.redis(&["FLUSHALL"]);
    shop.wait_until_selling(&second, &mut bought);
    second.close_blocking(Duration::ZERO);
    shop.redis(&["HSET", &shop.key("sale"), "available", "many"]);
    let offers = || {
        let commands = first.redis_status().unwrap().commands;
        commands.into_iter().find(|(name, _)| *name == "purchase").unwrap().1.counts.iter().sum::<u64>()
    };
    let before = offers();
    shop.redis_edge.set(Mode::Pass).unwrap();
    // The answer to the first is heeded when the second is sent.
    within("it is not offered again", || offers() >= before + 2);
    let third = mender();
    shop.wait_until_selling(&third, &mut bought);
    shop.run(third.delivery().resume()).unwrap();
    shop.reconcile(&first);
    let kept = shop.close_the_books(&third, stock, &mut bought);
    assert_eq!(kept.ended, 0, "there is a unit for each");
}

#[test]
fn an_order_that_comes_back_keeps_its_price_and_its_time() {
    let shop = Shop::start();
    let stock = 10;
    let engine = shop.open_with_shoes(stock, |_| ());
    shop.run(engine.delivery().pause()).unwrap();
    let early = shop.run(engine.purchase(request("early", 2, "key-early"))).unwrap();
    let id = common::id(SHOE);
    let dear = Money { amount: 2 * early.unit_price.amount, ..early.unit_price };
    let change = ProductChange { price: Some(dear), ..ProductChange::default() };
    shop.run(engine.change_product(id, change)).unwrap();
    shop.redis(&["FLUSHALL"]);
    let mut bought =
        vec![Bought { customer: "early".into(), key: "key-early".into(), quantity: 2, order: early.order }];
    let took = shop.wait_until_selling(&engine, &mut bought);
    assert!(took < SELLING_WITHIN, "selling again after {took:?}");
    shop.run(engine.delivery().resume()).unwrap();
    shop.reconcile(&engine);
    let terms = |order| {
        let view = shop.run(engine.order(order)).unwrap().unwrap();
        (view.status, view.unit_price, view.accepted_at)
    };
    assert_eq!(terms(early.order), (OrderStatus::Confirmed, early.unit_price, early.accepted_at));
    assert_eq!(terms(bought[1].order).1, dear, "who comes later pays what it costs then");
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, 0);
}

#[test]
fn an_epoch_that_the_ledger_does_not_know_to_be_open_is_not_sold_from() {
    let shop = Shop::start();
    let stock = 10;
    shop.open_with_shoes(stock, |_| ()).close_blocking(Duration::ZERO);
    // As if its loader had died after it filled Redis and before it told the ledger.
    let sale = shop.key("sale");
    shop.redis(&["HSET", &sale, "state", "offers"]);
    shop.sql("UPDATE products SET state = 'loading'");
    let seller = shop.open(|options| options.workers = 0);
    let state = || shop.redis(&["HGET", &sale, "state"]).text();
    let begun = Instant::now();
    // Longer than a loader that lives needs.
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(state().as_deref(), Some("offers"), "after {:?}", begun.elapsed());
        sleep(Duration::from_millis(20));
    }
    let mender = shop.open(|_| ());
    let mut bought = Vec::new();
    let took = shop.wait_until_selling(&seller, &mut bought);
    assert!(took < SELLING_WITHIN, "selling after {took:?}");
    assert_eq!(shop.count("SELECT count(*) FROM products WHERE state = 'open' AND epoch = 1"), 1);
    shop.close_the_books(&mender, stock, &mut bought);
}

#[test]
fn an_order_that_was_revoked_is_not_accepted_again_under_its_key() {
    let shop = Shop::start();
    let stock = 10;
    let url = shop.redis.url();
    // Goes on while the first node is cut off from Redis.
    let second = shop.open_with_shoes(stock, |options| options.redis = url);
    let first = shop.open(|options| options.workers = 0);
    shop.run(second.delivery().pause()).unwrap();
    let early = shop.run(insist(&first, "early", 10)).unwrap();
    shop.redis_edge.set(Mode::Refuse).unwrap();
    shop.redis_edge.cut_all();
    shop.redis(&["FLUSHALL"]);
    shop.run(second.delivery().resume()).unwrap();
    let late = shop.run(insist(&second, "late", 10)).expect("nobody knows that they are sold");
    shop.reconcile(&second);
    shop.redis_edge.set(Mode::Pass).unwrap();
    let begun = Instant::now();
    while shop.count("SELECT count(*) FROM orders WHERE customer = 'early' AND status = 'failed'") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not revoked");
        sleep(Duration::from_millis(20));
    }
    // Now there are units for it.
    shop.run(second.cancel(late.order, "changed my mind".into())).unwrap();
    shop.reconcile(&first);
    let again = shop.run(second.purchase(request("early", 10, &early.key))).unwrap();
    assert_eq!((again.order, again.replayed), (early.order, Replayed::Yes));
    let mut bought = vec![early, late];
    let kept = shop.close_the_books(&second, stock, &mut bought);
    assert_eq!(kept.ended, 2);
}
