//! Connections that are cut, servers that go away, workers that close.

use std::time::{Duration, Instant};

use yoink_core::Rejection;
use yoink_engine::{CallError, Confirmed, Engine};
use yoink_testkit::{Mode, SqlSession};

use crate::shop::{Asked, Became, PATIENCE, Shop, deciding, occupy, processed, request, until};

/// Ten people's requests, some of which a worker decides without coming to an end while the session lives.
fn ten_being_decided(shop: &Shop, edge: &Engine) -> (SqlSession, Vec<Asked>) {
    shop.stock(edge, 100, None);
    let row = occupy(shop);
    let asked = shop.crowd(&[edge], "crowd", 10);
    until("it is being decided", || deciding(shop) == 1);
    (row, asked)
}

#[test]
fn what_was_decided_and_not_acknowledged_comes_again_and_is_known() {
    let shop = Shop::start();
    let (worker, edge) = (shop.open(|_| {}), shop.open_edge());
    let (row, asked) = ten_being_decided(&shop, &edge);
    let in_hand = shop.wait_in_hand();
    assert!(shop.rabbit_edge.cut_all() >= 2, "the publisher's and the workers' connections");
    until("the broker noticed", || shop.rabbit.queue_messages(&shop.queue()).unwrap() != (0, in_hand));
    drop(row);
    assert_eq!(shop.judge(&[&edge, &worker], &asked), Became { confirmed: 10, rejected: 0, ended: 0 });
    assert_eq!(processed(&worker).confirmed, 10, "each once");
}

#[test]
fn what_a_worker_had_in_hand_and_not_committed_when_it_died_is_decided_by_another() {
    let shop = Shop::start();
    let (worker, edge) = (shop.open(|_| {}), shop.open_edge());
    let (row, asked) = ten_being_decided(&shop, &edge);
    // Nobody is left who could queue it again.
    edge.close_blocking(Duration::from_secs(5));
    worker.close_blocking(Duration::ZERO);
    shop.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
    until("its transaction is over", || deciding(&shop) == 0);
    drop(row);
    assert_eq!(shop.count("SELECT count(*) FROM orders"), 0);
    let other = shop.open(|_| {});
    assert_eq!(shop.judge(&[&other], &asked), Became { confirmed: 10, rejected: 0, ended: 0 });
}

#[test]
fn what_a_worker_holds_for_longer_than_the_broker_allows_is_decided_once() {
    let shop = Shop::start();
    // Asked for by every channel when it begins.
    let settings = [("consumer_timeout", 1_000), ("channel_tick_interval", 100)];
    for (name, ms) in settings {
        shop.rabbit.eval(&format!("ok = application:set_env(rabbit, {name}, {ms})")).unwrap();
    }
    let (worker, edge) = (shop.open(|_| {}), shop.open_edge());
    let (row, asked) = ten_being_decided(&shop, &edge);
    let connections = shop.rabbit_edge.counts().connections;
    until("the broker has lost its patience", || shop.rabbit_edge.counts().connections > connections);
    // Nobody is left who could queue it again: the broker hands it out anew.
    edge.close_blocking(PATIENCE);
    shop.wait_in_hand();
    drop(row);
    assert_eq!(shop.judge(&[&worker], &asked), Became { confirmed: 10, rejected: 0, ended: 0 });
    assert_eq!(processed(&worker).confirmed, 10, "each once");
}

#[test]
fn what_a_worker_holds_of_which_the_broker_hears_no_more_is_decided_once() {
    let shop = Shop::start();
    let amqp = format!("{}?heartbeat=1", shop.rabbit.url_at(shop.rabbit_edge.address()));
    let (worker, edge) = (shop.open(|options| options.amqp = amqp), shop.open_edge());
    let (row, asked) = ten_being_decided(&shop, &edge);
    shop.wait_in_hand();
    // Nobody is left who could queue it again.
    edge.close_blocking(PATIENCE);
    shop.rabbit_edge.set(Mode::BlackHole).unwrap();
    until("the broker has taken it back", || shop.rabbit.queue_messages(&shop.queue()).unwrap().0 > 0);
    drop(row);
    until("it is decided all the same", || shop.count("SELECT count(*) FROM orders") == 10);
    shop.rabbit_edge.set(Mode::Pass).unwrap();
    assert_eq!(shop.judge(&[&worker], &asked), Became { confirmed: 10, rejected: 0, ended: 0 });
    assert_eq!(processed(&worker).confirmed, 10, "each once");
}

#[test]
fn many_cuts_lose_nothing() {
    let shop = Shop::start();
    let engines: Vec<Engine> = (0..2).map(|_| shop.open(|_| {})).collect();
    let nodes: Vec<&Engine> = engines.iter().collect();
    shop.stock(nodes[0], 300, None);
    let mut asked = Vec::new();
    for round in 0..6 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                shop.rabbit_edge.cut_all();
            });
            asked.extend(shop.crowd(&nodes, &format!("round-{round}"), 60));
        });
    }
    let became = shop.judge(&nodes, &asked);
    assert_eq!((became.confirmed, became.rejected), (300, asked.len() - 300));
    assert!(shop.dead_letters(nodes[0]).is_empty());
}

#[test]
fn while_the_ledger_is_away_everything_is_held_and_nothing_is_handed_out_anew() {
    let mut shop = Shop::start();
    let (worker, edge) = (shop.open(|_| {}), shop.open_edge());
    shop.stock(&edge, 100, None);
    let mut asked = shop.crowd(&[&edge], "first", 5);
    shop.judge(&[&edge], &asked);
    let (connections, queue) = (shop.rabbit_edge.counts().connections, shop.queue());

    shop.postgres.kill();
    asked.extend(shop.crowd(&[&edge], "second", 30));
    let in_hand = shop.wait_in_hand();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(shop.rabbit.queue_messages(&queue).unwrap(), (0, in_hand), "all of it is held");
        std::thread::sleep(Duration::from_millis(100));
    }
    shop.postgres.restart().unwrap();
    assert_eq!(shop.judge(&[&edge, &worker], &asked), Became { confirmed: 35, rejected: 0, ended: 0 });
    assert_eq!(shop.rabbit_edge.counts().connections, connections, "no message had to be handed out anew");
}

#[test]
fn who_has_the_last_one_is_not_told_that_nothing_is_left_because_the_ledger_is_away() {
    let mut shop = Shop::start();
    let (worker, edge) = (shop.open(|_| {}), shop.open_edge());
    shop.stock(&edge, 1, None);
    let asked = shop.crowd(&[&edge], "first", 1);
    assert_eq!(shop.judge(&[&edge, &worker], &asked).confirmed, 1);
    let of = |customer: &str| shop.run(edge.purchase(request(customer, "key")));
    until("the node knows that nothing is left", || {
        matches!(of("late"), Err(CallError::Refused(Rejection::SoldOut { .. })))
    });
    assert_eq!(of("first-0").unwrap().order, asked[0].order);

    shop.postgres.kill();
    for customer in ["first-0", "late"] {
        let told = shop.run(edge.purchase(request(customer, "key")));
        assert!(matches!(told, Err(CallError::OutcomeUnknown)), "{customer}: {told:?}");
    }
}

#[test]
fn a_worker_that_closes_decides_what_it_has_in_hand() {
    let shop = Shop::start();
    let (worker, edge) = (shop.open(|_| {}), shop.open_edge());
    shop.stock(&edge, 1_000, None);
    let row = occupy(&shop);
    let asked = shop.crowd(&[&edge], "crowd", 200);
    let queue = shop.queue();
    shop.wait_in_hand();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| worker.close_blocking(Duration::from_secs(30)));
        until("it takes no more", || !worker.rabbit_status().unwrap().is_consuming);
        assert!(!closing.is_finished(), "it has something to decide");
        drop(row);
    });
    assert_eq!(shop.rabbit.queue_messages(&queue).unwrap(), (0, 0), "all of it was acknowledged");
    assert_eq!(shop.judge(&[&edge], &asked), Became { confirmed: 200, rejected: 0, ended: 0 });
    let locks = shop.redis.command(&["EXISTS", &shop.lock()]).unwrap();
    assert_eq!(locks.integer(), Some(0), "the lock was given back");
}

#[test]
fn while_delivery_is_paused_nothing_is_decided() {
    let shop = Shop::start();
    let engine = shop.open(|_| {});
    shop.stock(&engine, 10, None);
    shop.run(engine.delivery().pause()).unwrap();
    let asked = shop.crowd(&[&engine], "crowd", 10);
    // In the queue, or in the hand of a worker that had begun before.
    let held = shop.rabbit.queue_messages(&shop.queue()).unwrap();
    assert!(held.0 + held.1 > 0, "{held:?}");
    assert_eq!(shop.count("SELECT count(*) FROM orders"), 0);
    shop.run(engine.delivery().resume()).unwrap();
    assert_eq!(shop.judge(&[&engine], &asked).confirmed, 10);
}

#[test]
fn an_order_that_was_told_to_be_confirmed_is_not_told_to_be_queued_while_the_ledger_is_away() {
    let mut shop = Shop::start();
    let (worker, edge) = (shop.open(|_| {}), shop.open_edge());
    shop.stock(&edge, 10, None);
    shop.wait_publishing(&edge);
    // No report has an answer: the node does not hear what workers have seen.
    shop.sql("ALTER FUNCTION report_confirmed(uuid, text, bigint) RENAME TO nobody_reports");
    let buy = |customer: &str| shop.run(edge.purchase(request(customer, "key"))).unwrap();
    let (looked_up, waited_for) = (buy("ann"), buy("bob"));
    until("hers is looked up", || shop.run(edge.order(looked_up.order)).unwrap().unwrap().seq > 0);
    assert_eq!(shop.run(edge.wait_confirmed(&waited_for, PATIENCE)), Confirmed::Yes);
    shop.postgres.kill();
    for purchased in [looked_up, waited_for] {
        let told = shop.run(edge.order(purchased.order));
        assert!(told.is_err(), "{told:?}");
    }
    assert_eq!(edge.rabbit_status().unwrap().unseen, 2, "they are kept");
    worker.close_blocking(Duration::ZERO);
}
