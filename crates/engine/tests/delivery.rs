//! Delivery against a real ledger file and a log in memory: whatever fails, and wherever it is killed, each order ends
//! up in the ledger once or its units come back once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

#[path = "delivery/dead_letters.rs"]
mod dead_letters;
#[path = "delivery/outage.rs"]
mod outage;
#[path = "delivery/random.rs"]
mod random;
#[path = "delivery/shop.rs"]
mod shop;

use std::time::Duration;

use shop::{Shop, all_delivered, customers, ended, look, options, order_id, product, start, until};
use yoink_core::Timestamp;
use yoink_engine::{
    OnDeadLetter::{Park, Release},
    OpenError, OrderStatus,
    delivery::{DeliveryEnd, Stop},
    ledger::{CommitFault, LedgerFault, MovementKind, Step, Times},
};

#[tokio::test]
async fn a_thousand_orders_are_in_the_ledger_once() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    shop.create_product(10_000);
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    shop.sell(customers(1_000));
    all_delivered(&delivery, &shop).await;

    let counts = delivery.counts().await.unwrap();
    assert_eq!((counts.position, counts.confirmed, counts.duplicates), (1_001, 1_000, 0));
    assert_eq!((counts.products[0].live_orders, counts.products[0].live_units), (1_000, 2_000));
    let status = delivery.status();
    assert_eq!((status.confirmed_total, status.failed_total), (1_000, 0));
    assert_eq!((status.last_error, status.oldest_undelivered_at), (None, None));
    assert!(status.write_duration.counts.iter().sum::<u64>() > 0);
}

#[tokio::test]
async fn an_order_is_exported_as_it_was_accepted() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    shop.create_product(100);
    let (order, seq) = shop.sell_one("ann");
    let (cancelled, _) = shop.sell_one("bob");
    shop.cancel(cancelled);
    shop.adjust(-7);
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    all_delivered(&delivery, &shop).await;

    let orders = delivery.export_orders(0, 100).await.unwrap();
    assert_eq!(orders.len(), 2);
    let row = &orders[0];
    assert_eq!(
        (row.id, row.seq, row.status, row.customer.as_str()),
        (order, seq, OrderStatus::Confirmed, "ann")
    );
    assert_eq!((row.product, row.quantity, row.unit_price.amount), (product(), 2, 19_999));
    assert_eq!((row.accepted_at, row.ended_at, &row.reason), (Timestamp(2_000_000), None, &None));
    assert_eq!((orders[1].status, orders[1].ended_at), (OrderStatus::Cancelled, Some(Timestamp(4_000_000))));
    assert_eq!(orders[1].reason.as_deref(), Some("changed my mind"));
    assert_eq!(delivery.export_orders(seq, 100).await.unwrap(), orders[1..]);

    let movements = delivery.export_movements(0, 100).await.unwrap();
    let seen: Vec<_> = movements.iter().map(|row| (row.seq, row.kind, row.units, row.order)).collect();
    let expected = [
        (1, MovementKind::Created, 100, None),
        (2, MovementKind::Sold, -2, Some(order)),
        (3, MovementKind::Sold, -2, Some(cancelled)),
        (4, MovementKind::Returned, 2, Some(cancelled)),
        (5, MovementKind::Withdrawn, -7, None),
    ];
    assert_eq!(seen, expected);
    assert_eq!(delivery.export_movements(3, 1).await.unwrap(), movements[3..4]);
}

#[tokio::test]
async fn killed_before_anybody_is_told_of_a_commit_delivery_goes_on_where_the_file_says() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    shop.sell(customers(1_500));
    fault.stop_at(Step::AfterCommit);
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    ended(&delivery).await;
    assert_eq!((delivery.position(), look(folder.path(), "SELECT position FROM meta")), (0, 1_000));

    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    all_delivered(&delivery, &shop).await;
    let counts = delivery.counts().await.unwrap();
    assert_eq!((counts.confirmed, counts.duplicates, fault.stopped()), (1_500, 0, 1));
}

#[tokio::test]
async fn carrying_the_same_events_again_changes_nothing() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    shop.create_product(100);
    shop.sell(customers(100));
    shop.cancel(order_id(5));
    shop.adjust(20);
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    all_delivered(&delivery, &shop).await;
    let before =
        (delivery.export_orders(0, 1_000).await.unwrap(), delivery.export_movements(0, 1_000).await.unwrap());
    delivery.stop(Stop::Now);

    let ledger = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    ledger.execute("UPDATE meta SET position = 0", []).unwrap();
    drop(ledger);
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    all_delivered(&delivery, &shop).await;
    let after =
        (delivery.export_orders(0, 1_000).await.unwrap(), delivery.export_movements(0, 1_000).await.unwrap());
    assert_eq!(after, before);
    assert_eq!(delivery.status().confirmed_total, 0);
}

#[tokio::test]
async fn one_bad_order_among_a_thousand_holds_up_nobody_and_is_not_confirmed() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_order(order_id(500), Times::Always);
    shop.sell(customers(1_000));
    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    let (others, bad) = (delivery.until_confirmed(1_000), 500);
    tokio::time::timeout(Duration::from_secs(30), others).await.unwrap();
    assert!(delivery.is_confirmed(499) && delivery.is_confirmed(501));
    assert!(!delivery.is_confirmed(bad), "refused, and yet confirmed");
    until(&delivery, "it is a dead letter", || delivery.status().dead_letters_open == 1).await;
    assert!(!delivery.is_confirmed(bad), "a dead letter, and yet confirmed");

    let counts = delivery.counts().await.unwrap();
    assert_eq!((counts.confirmed, counts.retrying, counts.dead_letters_open), (999, 0, 1));
    let counted = &counts.products[0];
    assert_eq!((counted.live_units, counted.undelivered_orders, counted.undelivered_units), (1_998, 1, 2));
    delivery.stop(Stop::Now);
    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    assert!(!delivery.is_confirmed(bad) && delivery.is_confirmed(501), "forgotten by a restart");
}

#[tokio::test]
async fn an_order_refused_twice_is_delivered_by_the_third_attempt() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_order(order_id(2), Times::Count(2));
    shop.sell(customers(3));
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    tokio::time::timeout(Duration::from_secs(30), delivery.until_confirmed(2)).await.unwrap();
    let counts = delivery.counts().await.unwrap();
    assert_eq!((counts.confirmed, counts.retrying, counts.dead_letters_open), (3, 0, 0));
    assert_eq!(shop.given_back(order_id(2)), (0, 0));
}

#[tokio::test]
async fn an_outage_makes_no_dead_letter_and_loses_nothing() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    shop.sell(customers(100));
    fault.refuse_all(Times::Always);
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    shop.sell(customers(2_400));
    // Far more failures than an order would be allowed.
    let begun = std::time::Instant::now();
    let is_down = || delivery.status().last_error.is_some() && begun.elapsed() > Duration::from_millis(1_500);
    while !is_down() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = delivery.status();
    assert_eq!((status.position, status.retrying, status.dead_letters_open), (0, 0, 0));
    assert_eq!(status.oldest_undelivered_at, Some(Timestamp(1_000_000)));
    assert!(status.last_error.unwrap().contains("the fault switch is on"));

    fault.clear();
    all_delivered(&delivery, &shop).await;
    let counts = delivery.counts().await.unwrap();
    assert_eq!((counts.confirmed, counts.duplicates), (2_500, 0));
    assert_eq!((delivery.status().failed_total, delivery.status().last_error), (0, None));
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_is_run_again_whether_it_was_done_or_not() {
    for outcome in [CommitFault::Done, CommitFault::Undone] {
        let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
        shop.sell(customers(2_500));
        // In the first batch: run twice on the same connection, its row would be there and it would wait all the same.
        fault.refuse_order(order_id(500), Times::Count(1));
        fault.break_commit(outcome, Times::Count(5));
        let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
        all_delivered(&delivery, &shop).await;
        let counts = delivery.counts().await.unwrap();
        assert_eq!((counts.confirmed, counts.duplicates, counts.retrying), (2_500, 0, 0), "{outcome:?}");
        assert!(delivery.is_confirmed(500), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_order_cancelled_while_it_waits_becomes_a_cancelled_row_and_never_a_live_one() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_customers("ann", Times::Always);
    let (order, seq) = shop.sell_one("ann");
    let waits_long = yoink_engine::delivery::DeliveryOptions {
        backoff_base: Duration::from_secs(3_600),
        backoff_max: Duration::from_secs(3_600),
        ..options(&fault, Release)
    };
    let delivery = start(folder.path(), &shop, waits_long).unwrap();
    until(&delivery, "it was refused", || delivery.position() == seq).await;
    shop.cancel(order);
    until(&delivery, "the cancellation is carried", || delivery.position() == shop.last_seq()).await;
    assert_eq!(delivery.stop(Stop::Now).retrying, 1);

    // The restart waits no longer than its own limit.
    fault.clear();
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    all_delivered(&delivery, &shop).await;
    let orders = delivery.export_orders(0, 10).await.unwrap();
    assert_eq!((orders.len(), orders[0].status), (1, OrderStatus::Cancelled));
    assert_eq!(delivery.status().confirmed_total, 0);
    assert_eq!(shop.given_back(order), (1, 0));
}

#[tokio::test]
async fn a_pause_is_remembered_by_the_next_start() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    assert!(delivery.pause().await.unwrap().paused);
    shop.sell(customers(10));
    assert_eq!(delivery.stop(Stop::AfterDraining(Duration::from_secs(30))).position, 0);

    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    assert!(delivery.status().paused);
    assert_eq!(delivery.counts().await.unwrap().confirmed, 0);
    assert!(!delivery.resume().await.unwrap().paused);
    all_delivered(&delivery, &shop).await;
    assert_eq!(delivery.counts().await.unwrap().confirmed, 10);
}

#[tokio::test]
async fn draining_delivers_up_to_the_last_event_and_gives_units_back_first() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_order(order_id(3_000), Times::Always);
    let once = yoink_engine::delivery::DeliveryOptions { attempts_max: 1, ..options(&fault, Release) };
    let delivery = start(folder.path(), &shop, once).unwrap();
    shop.sell(customers(5_000));
    let stopped = delivery.stop(Stop::AfterDraining(Duration::from_secs(30)));
    assert_eq!((stopped.position, shop.last_seq()), (5_001, 5_001));
    assert_eq!(shop.given_back(order_id(3_000)), (1, 1));
    assert!(delivery.counts().await.is_err(), "a stopped delivery answered");
    assert_eq!(delivery.stop(Stop::Now), stopped);
}

#[tokio::test]
async fn a_drain_is_not_over_while_events_cannot_be_read() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    shop.make_unreadable(20);
    shop.sell(customers(10));
    let stopped = delivery.stop(Stop::AfterDraining(Duration::from_secs(30)));
    assert_eq!(stopped.position, 10, "the drain ended although the log had not been read");
}

#[tokio::test]
async fn delivery_goes_on_behind_a_loss_that_was_accepted_and_remembers_it() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    shop.sell(customers(3));
    shop.accept_loss(500);
    all_delivered(&delivery, &shop).await;
    delivery.stop(Stop::Now);
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    assert_eq!(delivery.position(), 500);
    let (_, seq) = shop.sell_one("late");
    all_delivered(&delivery, &shop).await;
    assert_eq!(seq, 501);
    assert!(delivery.is_confirmed(501));
    assert_eq!(delivery.export_orders(0, 10).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_drain_ends_in_time_although_the_ledger_is_down() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_all(Times::Always);
    shop.sell(customers(10));
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    let begun = std::time::Instant::now();
    let stopped = delivery.stop(Stop::AfterDraining(Duration::from_millis(200)));
    assert_eq!(stopped.position, 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
}

#[tokio::test]
async fn delivery_ends_when_its_source_does_and_says_so() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    assert_eq!(delivery.status().ended, None);
    shop.close();
    ended(&delivery).await;
    assert!(delivery.pause().await.is_err());
    assert_eq!(delivery.status().ended, Some(DeliveryEnd::SourceClosed));
}

#[tokio::test]
async fn delivery_that_was_told_to_stop_says_so() {
    for stop in [Stop::Now, Stop::AfterDraining(Duration::from_secs(30))] {
        let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
        let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
        delivery.stop(stop);
        let status = delivery.status();
        assert_eq!((status.running, status.ended), (false, Some(DeliveryEnd::Asked)), "{stop:?}");
    }
}

#[test]
fn a_ledger_ahead_of_the_log_is_refused() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    shop.sell(customers(10));
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    delivery.stop(Stop::AfterDraining(Duration::from_secs(30)));

    let older = Shop::default();
    older.sell(customers(9));
    let refused = start(folder.path(), &older, options(&fault, Release));
    assert!(matches!(refused, Err(OpenError::LedgerAhead { ledger: 10, log: 9, .. })), "{refused:?}");
}

/// The files of a ledger in a folder: itself, and its write-ahead file.
fn files(folder: &std::path::Path) -> [Option<Vec<u8>>; 2] {
    ["ledger.db", "ledger.db-wal"].map(|name| std::fs::read(folder.join(name)).ok())
}

#[tokio::test]
async fn a_refused_start_changes_no_byte_of_a_killed_ledger() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    shop.sell(customers(10));
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    all_delivered(&delivery, &shop).await;
    // What a process that is killed now leaves behind.
    let killed = tempfile::tempdir().unwrap();
    for name in ["ledger.db", "ledger.db-wal"] {
        std::fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    }
    let before = files(killed.path());
    assert!(before[1].as_ref().is_some_and(|wal| !wal.is_empty()), "nothing that could be folded back");

    let older = Shop::default();
    older.sell(customers(9));
    let refused = start(killed.path(), &older, options(&fault, Release));
    assert!(matches!(refused, Err(OpenError::LedgerAhead { ledger: 10, log: 9, .. })), "{refused:?}");
    assert!(files(killed.path()) == before, "a refused start changed the ledger's files");

    // Not refused, it goes on, and folds back when it is stopped.
    let delivery = start(killed.path(), &shop, options(&fault, Release)).unwrap();
    assert_eq!(delivery.stop(Stop::Now).position, 10);
    let after = files(killed.path());
    assert!(after[1].is_none() && after[0] != before[0], "a clean stop left the write-ahead file");
}

#[tokio::test]
async fn a_stop_after_trouble_folds_the_write_ahead_file_back_too() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_all(Times::Count(3));
    shop.sell(customers(10));
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    all_delivered(&delivery, &shop).await;
    delivery.stop(Stop::Now);
    assert_eq!(files(folder.path())[1], None);
    assert_eq!(look(folder.path(), "SELECT position FROM meta"), 10);
}

#[test]
fn a_damaged_ledger_is_refused_with_advice_and_rebuilt_from_the_log_without_it() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    shop.sell(customers(1_000));
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    delivery.stop(Stop::AfterDraining(Duration::from_secs(30)));
    let path = folder.path().join("ledger.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();

    let refused = start(folder.path(), &shop, options(&fault, Release)).unwrap_err();
    assert!(matches!(refused, OpenError::LedgerDamaged { .. }), "{refused:?}");
    assert!(refused.to_string().contains("made again from the log"), "{refused}");

    std::fs::remove_file(&path).unwrap();
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    assert_eq!(delivery.stop(Stop::AfterDraining(Duration::from_secs(30))).position, 1_000);
    assert_eq!(look(folder.path(), "SELECT count(*) FROM orders WHERE status = 'confirmed'"), 1_000);
}

#[test]
fn a_file_of_a_newer_version_or_of_another_program_is_left_alone() {
    for (pragma, is_newer) in [("user_version = 3", true), ("application_id = 7", false)] {
        let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
        start(folder.path(), &shop, options(&fault, Release)).unwrap().stop(Stop::Now);
        let ledger = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
        ledger.execute_batch(&format!("PRAGMA {pragma}")).unwrap();
        drop(ledger);
        let refused = start(folder.path(), &shop, options(&fault, Release)).unwrap_err();
        assert_eq!(
            matches!(refused, OpenError::NewerFormat { found: 3, known: 2, .. }),
            is_newer,
            "{refused:?}"
        );
    }
}

#[test]
fn the_fault_switch_understands_its_setting() {
    let fault = LedgerFault::default();
    let id = order_id(1);
    fault.set(&format!("order={id}:2 customer=bad all:1 commit-done commit-undone:3")).unwrap();
    for nonsense in ["orders=1", "all:x", "commit", "order=7"] {
        assert!(fault.set(nonsense).is_err(), "{nonsense}");
    }
}
