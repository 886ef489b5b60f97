//! More people than units, and several workers.

use std::time::Duration;

use yoink_core::Rejection;
use yoink_engine::{Confirmed, Engine, OrderStatus, RabbitOptions};

use crate::shop::{Became, Shop, ask, processed, request};

/// 200 people and 100 units at three nodes that all have a worker.
fn rush(shop: &Shop, change: impl Fn(&mut RabbitOptions)) -> Vec<Engine> {
    let engines: Vec<Engine> = (0..3).map(|_| shop.open(&change)).collect();
    let nodes: Vec<&Engine> = engines.iter().collect();
    shop.stock(nodes[0], 100, None);
    let asked = shop.crowd(&nodes, "rush", 200);
    let became = shop.judge(&nodes, &asked);
    assert_eq!((became.confirmed, became.rejected), (100, asked.len() - 100), "{became:?}");
    let counted = nodes.iter().map(|engine| processed(engine));
    let counted = counted.fold((0, 0), |sum, one| (sum.0 + one.confirmed, sum.1 + one.rejected));
    assert_eq!(counted, (100, asked.len() as u64 - 100), "each was decided once");
    engines
}

#[test]
fn of_200_people_100_get_a_unit_whoever_decides() {
    let shop = Shop::start();
    let engines = rush(&shop, |_| {});
    engines.iter().for_each(|engine| engine.close_blocking(Duration::from_secs(5)));
    let locks = shop.redis.command(&["EXISTS", &shop.lock()]).unwrap();
    assert_eq!(locks.integer(), Some(0), "no lock is left");
}

#[test]
fn they_do_without_a_lock_too() {
    let shop = Shop::start();
    let engines = rush(&shop, |options| options.lock = false);
    let locked: u64 = engines.iter().map(|engine| processed(engine).locked).sum();
    assert_eq!(locked, 0);
}

#[test]
fn they_do_while_redis_hangs_or_is_gone() {
    let mut shop = Shop::start();
    shop.redis.stop().unwrap();
    let engines = rush(&shop, |_| {});
    shop.redis.cont();
    shop.redis.kill();
    let more = shop.run(ask(&engines[0], "late", "key"));
    assert!(more.is_none(), "it is known that nothing is left");
}

#[test]
fn nobody_gets_more_than_his_limit_whoever_decides() {
    let shop = Shop::start();
    let engines: Vec<Engine> = (0..3).map(|_| shop.open(|options| options.lock = false)).collect();
    let nodes: Vec<&Engine> = engines.iter().collect();
    shop.stock(nodes[0], 100, Some(3));
    let keys: Vec<String> = (0..30).map(|number| format!("key-{number}")).collect();
    let each = keys.iter().enumerate().map(|(number, key)| ask(nodes[number % 3], "ann", key));
    let asked: Vec<_> = shop.run(futures_util::future::join_all(each)).into_iter().flatten().collect();
    assert_eq!(shop.judge(&nodes, &asked), Became { confirmed: 3, rejected: 27, ended: 0 });

    let purchased = shop.run(nodes[0].purchase(request("ann", "one-more"))).unwrap();
    let told = shop.run(nodes[0].wait_confirmed(&purchased, Duration::from_secs(30)));
    let Confirmed::Rejected(Rejection::LimitReached { limit, used, existing }) = told else {
        panic!("{told:?}")
    };
    assert_eq!((limit, used, existing.len()), (3, 3, 3));
}

#[test]
fn a_cancelled_unit_is_somebody_elses() {
    let shop = Shop::start();
    let engine = shop.open(|_| {});
    shop.stock(&engine, 1, None);
    shop.wait_publishing(&engine);
    let buy = |customer: &str| {
        let purchased = shop.run(engine.purchase(request(customer, "key"))).unwrap();
        (purchased.order, shop.run(engine.wait_confirmed(&purchased, Duration::from_secs(30))))
    };
    // Both are queued before anything is decided, so that nobody is refused early.
    let row = crate::shop::occupy(&shop);
    let (ann, bob) = (request("ann", "key"), request("bob", "key"));
    let ann = shop.run(engine.purchase(ann)).unwrap();
    let bob = shop.run(engine.purchase(bob)).unwrap();
    drop(row);
    assert_eq!(shop.run(engine.wait_confirmed(&ann, Duration::from_secs(30))), Confirmed::Yes);
    let told = shop.run(engine.wait_confirmed(&bob, Duration::from_secs(30)));
    assert_eq!(told, Confirmed::Rejected(Rejection::SoldOut { available: 0 }));

    shop.run(engine.cancel(ann.order, "changed my mind".into())).unwrap();
    let (cid, told) = buy("cid");
    assert_eq!(told, Confirmed::Yes);
    let status = |order| shop.run(engine.order(order)).unwrap().unwrap().status;
    assert_eq!(status(ann.order), OrderStatus::Cancelled);
    assert_eq!(status(bob.order), OrderStatus::Rejected, "a no stays a no");
    assert_eq!(status(cid), OrderStatus::Confirmed);
    assert!(shop.reconcile(&engine).ok);
}
