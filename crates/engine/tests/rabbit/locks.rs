//! Locks that are somebody else's, are lost, and change hands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use yoink_engine::Engine;
use yoink_testkit::SqlSession;

use crate::shop::{Asked, Became, PATIENCE, Shop, deciding, occupy, processed, until};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn a_lock_that_is_somebody_elses_is_waited_for_with_everything_in_hand() {
    let shop = Shop::start();
    let (worker, edge) = (shop.open(|options| options.lock_life = LONG), shop.open_edge());
    shop.stock(&edge, 100, None);
    let mut asked = shop.crowd(&[&edge], "first", 5);
    shop.judge(&[&edge], &asked);
    let connections = shop.rabbit_edge.counts().connections;

    shop.redis.command(&["SET", &shop.lock(), "somebody", "PX", "600000"]).unwrap();
    asked.extend(shop.crowd(&[&edge], "second", 20));
    shop.wait_in_hand();
    until("the worker found the lock taken", || processed(&worker).locked == 1);
    assert_eq!(shop.count("SELECT count(*) FROM orders"), 5, "nothing is decided meanwhile");
    shop.redis.command(&["DEL", &shop.lock()]).unwrap();
    assert_eq!(shop.judge(&[&edge, &worker], &asked), Became { confirmed: 25, rejected: 0, ended: 0 });
    assert_eq!(processed(&worker).locked, 1, "waiting once counts once");
    assert_eq!(shop.rabbit_edge.counts().connections, connections, "nothing was handed out anew");
}

#[test]
fn a_lock_that_nobody_gives_back_keeps_no_buyer_waiting_for_ever() {
    let shop = Shop::start();
    let (worker, edge) = (shop.open(|options| options.lock_life = Duration::from_secs(1)), shop.open_edge());
    shop.stock(&edge, 100, None);
    // Without an end, as somebody who did not read the manual leaves one.
    shop.redis.command(&["SET", &shop.lock(), "somebody"]).unwrap();
    let asked = shop.crowd(&[&edge], "one", 20);
    assert_eq!(shop.judge(&[&edge, &worker], &asked), Became { confirmed: 20, rejected: 0, ended: 0 });
    assert_eq!(processed(&worker).locked, 1, "it was waited for once");
    let value = shop.redis.command(&["GET", &shop.lock()]).unwrap();
    assert_eq!(value.text().as_deref(), Some("somebody"), "it is not theirs to take");
}

#[test]
fn a_lock_that_somebody_else_took_meanwhile_is_left_to_him() {
    let shop = Shop::start();
    let worker = shop.open(|_| {});
    shop.stock(&worker, 100, None);
    let row = occupy(&shop);
    let asked = shop.crowd(&[&worker], "one", 1);
    until("it is being decided", || deciding(&shop) == 1);
    shop.redis.command(&["SET", &shop.lock(), "somebody", "PX", "600000"]).unwrap();
    drop(row);
    assert_eq!(shop.judge(&[&worker], &asked).confirmed, 1);
    worker.close_blocking(Duration::from_secs(5));
    let value = shop.redis.command(&["GET", &shop.lock()]).unwrap();
    assert_eq!(value.text().as_deref(), Some("somebody"));
}

/// The robot's request fails at once, and those of others take a while.
const DAWDLER: &str = "
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.customer = 'robot-0' THEN
            RAISE EXCEPTION 'not yet';
        END IF;
        PERFORM pg_sleep(0.2);
        RETURN NEW;
    END $$;
    CREATE TRIGGER dawdle BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION dawdle()";

#[test]
fn who_works_longer_than_the_lock_lives_keeps_it() {
    let shop = Shop::start();
    let life = Duration::from_secs(1);
    let (worker, edge) = (shop.open(|options| options.lock_life = life), shop.open_edge());
    shop.stock(&edge, 100, None);
    shop.sql(DAWDLER);
    let row = occupy(&shop);
    let mut asked = shop.crowd(&[&edge], "first", 1);
    until("it is being decided", || deciding(&shop) == 1);
    // Because of the robot, all of these are decided one by one.
    asked.extend(shop.crowd(&[&edge], "robot", 1));
    asked.extend(shop.crowd(&[&edge], "later", 20));
    shop.wait_in_hand();
    drop(row);
    let decided = || shop.count("SELECT count(*) FROM orders");
    until("they are decided one by one", || decided() > 1);
    let holder = || shop.redis.command(&["GET", &shop.lock()]).unwrap().text();
    let (first, begun) = (holder(), Instant::now());
    assert!(first.is_some());
    while decided() < 19 {
        assert_eq!(holder(), first, "after {:?}", begun.elapsed());
    }
    assert!(begun.elapsed() > life * 2, "it worked for {:?} only", begun.elapsed());
    shop.sql("DROP TRIGGER dawdle ON orders");
    assert_eq!(shop.judge(&[&edge, &worker], &asked), Became { confirmed: 22, rejected: 0, ended: 0 });
    until("it was given back", || holder().is_none());
}

/// Somebody begins to decide right after the batch with this customer's order.
const MEDDLER: &str = "
    CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE products SET fence = fence + 1 WHERE number = 1;
        RETURN NEW;
    END $$;
    CREATE TRIGGER meddle AFTER INSERT ON orders FOR EACH ROW WHEN (NEW.customer = 'first-0')
    EXECUTE FUNCTION meddle()";

#[test]
fn who_comes_with_an_old_token_decides_nothing_and_begins_anew() {
    let shop = Shop::start();
    let (worker, edge) = (shop.open(|_| {}), shop.open_edge());
    shop.stock(&edge, 30, None);
    shop.sql(MEDDLER);
    let row = occupy(&shop);
    let mut asked = shop.crowd(&[&edge], "first", 1);
    until("it is being decided", || deciding(&shop) == 1);
    asked.extend(shop.crowd(&[&edge], "second", 39));
    shop.wait_in_hand();
    // Nobody is left who could queue again what the worker would forget.
    edge.close_blocking(PATIENCE);
    drop(row);
    assert_eq!(shop.judge(&[&worker], &asked), Became { confirmed: 30, rejected: 10, ended: 0 });
    assert_eq!(processed(&worker).stale, 1);
}

/// Requests for 30 shoes.
struct InTwoHands {
    workers: [Engine; 2],
    /// While it lives no decision ends.
    row: SqlSession,
    asked: Vec<Asked>,
}

/// Two workers have 40 requests in hand, each some of them; one of the two decides, with the lock. Nobody is left who
/// could queue them again.
fn in_two_hands(shop: &Shop) -> InTwoHands {
    let workers = [(); 2].map(|()| shop.open(|options| options.lock_life = LONG));
    let edge = shop.open_edge();
    shop.stock(&edge, 30, None);
    until("both work", || workers.iter().all(|worker| worker.rabbit_status().unwrap().is_consuming));
    let row = occupy(shop);
    // One message after the other, so that both have some of them.
    let asked: Vec<_> =
        (0..40).flat_map(|number| shop.crowd(&[&edge], &format!("crowd-{number}"), 1)).collect();
    // More if it took so long that some were queued again.
    assert!(shop.wait_in_hand() >= 40);
    edge.close_blocking(PATIENCE);
    until("one decides", || deciding(shop) == 1);
    InTwoHands { workers, row, asked }
}

#[test]
fn two_who_both_hold_the_lock_sell_nothing_twice() {
    let shop = Shop::start();
    let InTwoHands { workers, row, asked } = in_two_hands(&shop);
    // The other one takes the lock, too.
    shop.redis.command(&["FLUSHALL"]).unwrap();
    until("both decide", || deciding(&shop) == 2);
    drop(row);
    assert_eq!(shop.judge(&[&workers[0]], &asked), Became { confirmed: 30, rejected: 10, ended: 0 });
}

#[test]
fn a_redis_that_is_killed_and_comes_back_under_a_lock_does_no_harm() {
    let mut shop = Shop::start();
    let InTwoHands { workers, row, asked } = in_two_hands(&shop);
    shop.redis.kill();
    until("both decide", || deciding(&shop) == 2);
    shop.redis.restart().unwrap();
    drop(row);
    assert_eq!(shop.judge(&[&workers[0]], &asked), Became { confirmed: 30, rejected: 10, ended: 0 });
}

#[test]
fn locks_that_vanish_and_change_hands_all_the_time_do_no_harm() {
    let shop = Shop::start();
    let engines: Vec<Engine> =
        (0..3).map(|_| shop.open(|options| options.lock_life = Duration::from_millis(60))).collect();
    let nodes: Vec<&Engine> = engines.iter().collect();
    shop.stock(nodes[0], 500, None);
    let (is_over, lock) = (AtomicBool::new(false), shop.lock());
    let asked = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut redis = shop.redis.client().unwrap();
            while !is_over.load(Ordering::Relaxed) {
                redis.command(&["FLUSHALL"]).unwrap();
                std::thread::sleep(Duration::from_millis(2));
                redis.command(&["SET", &lock, "somebody", "PX", "4"]).unwrap();
                std::thread::sleep(Duration::from_millis(6));
            }
        });
        let mut asked = Vec::new();
        for round in 0..8 {
            asked.extend(shop.crowd(&nodes, &format!("round-{round}"), 100));
        }
        nodes.iter().for_each(|engine| drop(shop.run(engine.wait_delivered(0, Duration::from_secs(60)))));
        is_over.store(true, Ordering::Relaxed);
        asked
    });
    let became = shop.judge(&nodes, &asked);
    assert_eq!((became.confirmed, became.rejected), (500, asked.len() - 500));
}
