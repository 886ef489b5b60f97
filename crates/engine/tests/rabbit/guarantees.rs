//! What a node owes to those whom it told that their request is queued: each of these fails if one thing is left out.

use yoink_core::NewProduct;
use yoink_engine::{CallError, Engine, OrderStatus};

use crate::common;
use crate::shop::{PATIENCE, Shop, processed, request, until};

/// A node whose way to the broker can be cut; it decides nothing.
fn open_cut_off(shop: &Shop) -> Engine {
    let engine = shop.open(|options| options.workers = 0);
    shop.stock(&engine, 100, None);
    shop.wait_publishing(&engine);
    engine
}

#[test]
fn nobody_is_told_that_a_request_is_queued_before_the_broker_has_said_so() {
    let mut shop = Shop::start();
    let engine = open_cut_off(&shop);
    // It takes what is sent, and says nothing.
    shop.rabbit.pause().unwrap();
    let told = shop.run(engine.purchase(request("ann", "key")));
    assert_eq!(told, Err(CallError::OutcomeUnknown));
    shop.rabbit.resume();
    let told = shop.run(crate::shop::ask(&engine, "ann", "key"));
    let worker = shop.open(|_| {});
    assert_eq!(shop.judge(&[&engine, &worker], &[told.unwrap()]).confirmed, 1);
}

#[test]
fn what_leads_nowhere_is_not_queued() {
    let shop = Shop::start();
    let engine = open_cut_off(&shop);
    // The queue is there, and nothing leads to it.
    shop.unbind("requests", "orders");
    let told = shop.run(engine.purchase(request("ann", "key")));
    assert_eq!(told, Err(CallError::Unreachable));
    // The node makes it anew.
    let told = shop.run(crate::shop::ask(&engine, "ann", "key"));
    // Nobody is left who could queue it again: it is in the queue.
    engine.close_blocking(PATIENCE);
    let worker = shop.open(|_| {});
    assert_eq!(shop.judge(&[&worker], &[told.unwrap()]).confirmed, 1);
}

#[test]
fn what_was_sent_over_a_connection_that_ended_is_sent_again() {
    let mut shop = Shop::start();
    let engine = open_cut_off(&shop);
    shop.rabbit.pause().unwrap();
    let told = std::thread::scope(|scope| {
        let buyer = engine.clone();
        let buying = scope.spawn(move || common::runtime().block_on(buyer.purchase(request("ann", "key"))));
        until("it is on its way", || engine.figures().inbox_tickets == 1);
        assert!(shop.rabbit_edge.cut_all() > 0);
        shop.rabbit.resume();
        buying.join().unwrap()
    });
    assert_eq!(told.unwrap().status, OrderStatus::Queued);
}

#[test]
fn those_who_come_together_are_few_messages_and_each_is_acknowledged_when_all_of_it_is_decided() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 1_000, None);
    let hat = NewProduct { limit_per_customer: None, ..common::product("hat", 1_000) };
    shop.run(edge.create_product(hat)).unwrap();
    shop.wait_publishing(&edge);
    let buy = |number: usize| {
        let (edge, product) = (edge.clone(), ["shoe", "hat"][number % 2]);
        async move { edge.purchase(common::buy(&format!("buyer-{number}"), product, 1, None)).await }
    };
    let queued = shop.run(futures_util::future::join_all((0..200).map(buy)));
    assert!(queued.iter().all(Result::is_ok), "{queued:?}");
    let (messages, _) = shop.rabbit.queue_messages(&shop.queue()).unwrap();
    assert!(messages < 100, "{messages} messages for 200 requests");

    // The shoes can be decided now, and the hats cannot.
    let mut row = shop.session();
    row.query("BEGIN").unwrap();
    row.query("SELECT FROM products WHERE id = 'hat' FOR UPDATE").unwrap();
    let worker = shop.open(|_| {});
    until("the shoes are sold", || shop.count("SELECT count(*) FROM orders") == 100);
    let (ready, in_hand) = shop.rabbit.queue_messages(&shop.queue()).unwrap();
    assert!(ready == 0 && in_hand > 0, "those with hats are held: {ready}, {in_hand}");
    shop.rabbit_edge.cut_all();
    drop(row);
    until("the hats are sold, too", || shop.count("SELECT count(*) FROM orders") == 200);
    until("nothing is in the queue or in hand", || {
        shop.rabbit.queue_messages(&shop.queue()).unwrap() == (0, 0)
    });
    assert_eq!(processed(&worker).confirmed, 200, "each once");
    assert!(shop.reconcile(&edge).ok);
}
