//! Brokers that lose what they confirmed.

use std::time::Duration;

use yoink_engine::{CallError, Confirmed};

use crate::shop::{Asked, Shop, occupy, processed, request, until};

#[test]
fn what_the_broker_loses_is_queued_again_by_whoever_sent_it() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    let mut asked = shop.crowd(&[&edge], "purged", 20);
    assert!(shop.rabbit.purge(&shop.queue()).unwrap() > 0);
    let worker = shop.open(|_| {});
    assert_eq!(shop.judge(&[&edge, &worker], &asked).confirmed, 20);
    assert!(processed(&edge).requeued >= 20);

    worker.close_blocking(Duration::from_secs(5));
    asked.extend(shop.crowd(&[&edge], "deleted", 10));
    assert!(shop.rabbit.delete_queue(&shop.queue()).unwrap() > 0);
    let worker = shop.open(|_| {});
    assert_eq!(shop.judge(&[&edge, &worker], &asked).confirmed, 30);
}

#[test]
fn what_was_confirmed_is_in_a_queue_that_syncs_and_outlives_a_killed_broker() {
    let mut shop = Shop::start();
    let edge = shop.open(|options| (options.amqp, options.workers) = (shop.rabbit.url(), 0));
    shop.stock(&edge, 100, None);
    shop.wait_publishing(&edge);
    let words = ["list_queues", "--quiet", "--no-table-headers", "name", "type", "durable"];
    let queues = shop.rabbit.ctl(&words).unwrap();
    for queue in [shop.queue(), shop.named("dead")] {
        let line = format!("{queue}\tquorum\ttrue");
        assert!(queues.lines().any(|found| found == line), "{line:?}: {queues}");
    }
    // How RabbitMQ writes what a quorum queue has confirmed.
    let sync = "maps:get(wal_sync_method, ra_system:fetch(quorum_queues))";
    assert!(["datasync", "sync"].contains(&shop.rabbit.eval(sync).unwrap().as_str()));
    shop.rabbit.sync_declarations().unwrap();
    let asked = shop.crowd(&[&edge], "kept", 20);
    shop.rabbit.kill();
    // Nobody is left who could queue them again.
    edge.close_blocking(Duration::from_secs(5));
    shop.rabbit.restart().unwrap();
    let worker = shop.open(|_| {});
    assert_eq!(shop.judge(&[&worker], &asked).confirmed, 20);
}

#[test]
fn what_a_dead_node_cannot_queue_again_is_named() {
    let shop = Shop::start();
    let (worker, edge) = (shop.open(|options| options.workers = 0), shop.open_edge());
    shop.stock(&edge, 100, None);
    let asked = shop.crowd(&[&edge], "lost", 7);
    assert_eq!((asked.len(), shop.run(edge.wait_delivered(0, Duration::ZERO))), (7, Confirmed::NotYet));
    edge.close_blocking(Duration::from_secs(5));
    assert!(shop.rabbit.purge(&shop.queue()).unwrap() > 0);
    let mut last = None;
    until("the loss is noticed", || {
        let reconciliation = shop.reconcile(&worker);
        let is_noticed = reconciliation.lost == 7;
        last = Some(reconciliation);
        is_noticed
    });
    let reconciliation = last.unwrap();
    assert!(!reconciliation.ok);
    let broken: Vec<_> = reconciliation.invariants.iter().filter(|invariant| !invariant.ok).collect();
    let [invariant] = broken.as_slice() else { panic!("{broken:?}") };
    assert_eq!(invariant.id, "queue-lost-nothing");
    assert!(invariant.detail.contains("[1,8)"), "{}", invariant.detail);
}

#[test]
fn what_waits_for_a_lock_in_the_hand_of_a_worker_is_not_lost() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    let asked = shop.crowd(&[&edge], "patient", 7);
    edge.close_blocking(Duration::from_secs(5));
    shop.sql("UPDATE publishers SET reported_at = 0");
    shop.redis.command(&["SET", &shop.lock(), "somebody", "PX", "600000"]).unwrap();
    let lock_life = Duration::from_secs(6);
    let worker = shop.open(|options| options.lock_life = lock_life);
    shop.wait_in_hand();
    until("the queue is known to be empty", || worker.rabbit_status().unwrap().queued == Some(0));
    let reconciliation = shop.reconcile(&worker);
    assert!(reconciliation.ok && reconciliation.lost == 0, "{reconciliation:#?}");
    assert_eq!(shop.judge(&[&worker], &asked).confirmed, 7);
}

/// So many are queued, and nobody is left who could queue them again.
fn orphans(shop: &Shop, count: usize) -> Vec<Asked> {
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    let asked = shop.crowd(&[&edge], "orphan", count);
    edge.close_blocking(Duration::from_secs(5));
    shop.sql("UPDATE publishers SET reported_at = 0");
    asked
}

#[test]
fn what_a_worker_holds_for_as_long_as_it_takes_is_not_lost() {
    let shop = Shop::start();
    let asked = orphans(&shop, 7);
    let auditor = shop.open_edge();
    let row = occupy(&shop);
    let worker = shop.open(|_| {});
    shop.wait_in_hand();
    until("the queue is known to be empty", || auditor.rabbit_status().unwrap().queued == Some(0));
    let reconciliation = shop.reconcile(&auditor);
    assert!(reconciliation.ok && reconciliation.lost == 0, "{reconciliation:#?}");
    drop(row);
    assert_eq!(shop.judge(&[&worker], &asked).confirmed, 7);
}

#[test]
fn what_is_among_the_dead_letters_is_not_lost() {
    let shop = Shop::start();
    let asked = orphans(&shop, 7);
    let copies = shop.copy_messages();
    shop.publish("dead-letters", "dead", &copies);
    assert_eq!(shop.rabbit.purge(&shop.queue()).unwrap(), copies.len() as u64);
    let auditor = shop.open_edge();
    until("the queue is known to be empty", || auditor.rabbit_status().unwrap().queued == Some(0));
    let reconciliation = shop.reconcile(&auditor);
    assert!(reconciliation.ok && reconciliation.lost == 0, "{reconciliation:#?}");
    let worker = shop.open(|_| {});
    assert_eq!(shop.judge(&[&worker], &asked).confirmed, 7);
}

#[test]
fn what_was_last_seen_of_the_queue_says_nothing_once_the_broker_is_away() {
    let mut shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    shop.wait_publishing(&edge);
    let queued = || edge.rabbit_status().unwrap().queued;
    until("the queue is known to be empty", || queued() == Some(0));
    shop.rabbit.pause().unwrap();
    // It waits for the broker's word, and then for another connection.
    let told = shop.run(edge.purchase(request("ann", "key")));
    assert_eq!(told, Err(CallError::OutcomeUnknown));
    until("nobody says any more that it is empty", || queued().is_none());
    shop.rabbit.resume();
    until("the queue is looked at again", || queued().is_some());
}

#[test]
fn what_a_silent_worker_may_still_have_in_hand_is_not_lost_and_later_it_is() {
    let shop = Shop::start();
    orphans(&shop, 7);
    assert!(shop.rabbit.purge(&shop.queue()).unwrap() > 0);
    let auditor = shop.open_edge();
    until("the queue is known to be empty", || auditor.rabbit_status().unwrap().queued == Some(0));
    for (minutes, lost) in [(20, 0), (22, 7)] {
        shop.sql(&format!(
            "UPDATE publishers SET in_hand = 7, in_hand_at = clock_timestamp() - interval '{minutes} minutes'
             WHERE reported_at = 0"
        ));
        let reconciliation = shop.reconcile(&auditor);
        assert_eq!(reconciliation.lost, lost, "after {minutes} minutes: {reconciliation:#?}");
    }
}
