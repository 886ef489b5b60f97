//! Orders that the ledger refuses for good.

use yoink_core::Fact;
use yoink_engine::{
    DeadLetterFilter, DeadLetterState,
    OnDeadLetter::{Park, Release},
    OrderStatus,
    delivery::{DeadLetterRefusal, DeliveryOptions, Stop},
    ledger::{LedgerFault, Step, Times},
};

use crate::shop::{
    Shop, all_delivered, customers, dead_letters, ended, options, order_id, product, start, until,
};

#[tokio::test]
async fn an_order_refused_for_good_fails_and_its_units_come_back_once() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_order(order_id(2), Times::Always);
    shop.sell(customers(3));
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    until(&delivery, "the failure is carried", || delivery.position() == 4).await;

    let letters = dead_letters(&delivery).await;
    let letter = &letters[0];
    assert_eq!(
        (letters.len(), letter.order, letter.seq, letter.state),
        (1, Some(order_id(2)), Some(2), DeadLetterState::Released)
    );
    let customer = letter.customer.as_ref().unwrap().as_str();
    assert_eq!((letter.attempts, customer, letter.quantity), (3, "customer-1", Some(2)));
    assert!(letter.error.contains("CHECK constraint failed"), "{}", letter.error);
    assert_eq!(shop.given_back(order_id(2)), (1, 1));
    let events = shop.events();
    assert!(matches!(&events[3].fact, Fact::OrderFailed { order, reason }
        if *order == order_id(2) && reason.contains("CHECK constraint failed")));
    let status = delivery.status();
    assert_eq!((status.failed_total, status.rolled_back_total, status.rollback_failed_total), (1, 1, 0));
    assert_eq!(status.dead_letters_open, 0);
    let counts = delivery.counts().await.unwrap();
    assert_eq!((counts.confirmed, counts.failed, counts.products[0].undelivered_units), (2, 0, 0));
}

#[tokio::test]
async fn killed_at_any_step_of_a_release_the_units_come_back_once() {
    for (step, calls) in [(Step::AfterCommit, 1), (Step::DeadLetterRecorded, 1), (Step::Compensated, 2)] {
        let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
        fault.refuse_order(order_id(2), Times::Always);
        fault.stop_at(step);
        shop.sell(customers(3));
        let once = DeliveryOptions { attempts_max: 1, ..options(&fault, Release) };
        let delivery = start(folder.path(), &shop, once.clone()).unwrap();
        ended(&delivery).await;
        assert_eq!(fault.stopped(), 1, "{step:?}");

        let delivery = start(folder.path(), &shop, once).unwrap();
        let released = || shop.last_seq() == 4 && delivery.position() == 4;
        until(&delivery, "the failure is carried", released).await;
        let letters = dead_letters(&delivery).await;
        assert_eq!((letters.len(), letters[0].state), (1, DeadLetterState::Released), "{step:?}");
        // Killed before that was recorded, the source is asked twice, and gives back once.
        let (given_back, asked) = shop.given_back(order_id(2));
        assert_eq!(given_back, 1, "{step:?}");
        assert!(asked <= calls, "{step:?}: asked {asked} times");
    }
}

#[tokio::test]
async fn a_release_that_finds_the_engine_closing_is_done_after_the_next_start() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_order(order_id(1), Times::Always);
    shop.sell_one("ann");
    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    until(&delivery, "it is parked", || delivery.status().dead_letters_open == 1).await;
    let id = dead_letters(&delivery).await[0].id;
    shop.close();
    // Either the thread sees first that the source is closed, or the call does.
    let _ = delivery.discard_dead_letter(id, "too late".into()).await;
    ended(&delivery).await;
    assert_eq!(shop.given_back(order_id(1)), (0, 0));

    shop.reopen();
    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    let discarded = delivery.discard_dead_letter(id, "too late".into()).await.unwrap().unwrap();
    assert_eq!(discarded.state, DeadLetterState::Discarded);
    assert_eq!(shop.given_back(order_id(1)), (1, 1));
}

#[tokio::test]
async fn a_parked_order_keeps_its_units_and_is_delivered_by_a_retry_when_the_fault_is_gone() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_customers("bad", Times::Always);
    let (order, seq) = shop.sell_one("bad-1");
    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    until(&delivery, "it is parked", || delivery.status().dead_letters_open == 1).await;
    let parked = dead_letters(&delivery).await.remove(0);
    assert_eq!((parked.state, parked.attempts, shop.given_back(order)), (DeadLetterState::Parked, 3, (0, 0)));

    // Too early: it fails again, under the same number.
    let retried = delivery.retry_dead_letter(parked.id).await.unwrap().unwrap();
    assert_eq!(retried.state, DeadLetterState::Retried);
    until(&delivery, "it is parked again", || delivery.status().failed_total == 2).await;
    let again = dead_letters(&delivery).await;
    assert_eq!((again.len(), again[0].id), (1, parked.id));
    assert_eq!((again[0].state, again[0].attempts), (DeadLetterState::Parked, 6));
    assert!(!delivery.is_confirmed(seq));

    fault.clear();
    delivery.retry_dead_letter(parked.id).await.unwrap().unwrap();
    until(&delivery, "it is confirmed", || delivery.is_confirmed(seq)).await;
    // Doing it twice does it once.
    assert_eq!(delivery.retry_dead_letter(parked.id).await.unwrap().unwrap().state, DeadLetterState::Retried);
    let refused = delivery.discard_dead_letter(parked.id, "no".into()).await.unwrap();
    assert_eq!(refused, Err(DeadLetterRefusal::AlreadyRetried));
    let counts = delivery.counts().await.unwrap();
    assert_eq!((counts.confirmed, counts.retrying, counts.dead_letters_open), (1, 0, 0));
    assert_eq!(counts.products[0].undelivered_units, 0);
    assert_eq!(shop.given_back(order), (0, 0));
}

#[tokio::test]
async fn a_retry_survives_a_restart() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_customers("bad", Times::Always);
    let (_, seq) = shop.sell_one("bad-1");
    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    until(&delivery, "it is parked", || delivery.status().dead_letters_open == 1).await;
    // While delivery is paused nothing is tried, but an operator is obeyed.
    delivery.pause().await.unwrap();
    fault.clear();
    delivery.retry_dead_letter(1).await.unwrap().unwrap();
    assert_eq!(delivery.stop(Stop::Now).retrying, 1);

    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    assert!(!delivery.is_confirmed(seq));
    delivery.resume().await.unwrap();
    until(&delivery, "it is confirmed", || delivery.is_confirmed(seq)).await;
}

#[tokio::test]
async fn a_discarded_order_gives_its_units_back_once_and_keeps_the_reason() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_customers("bad", Times::Always);
    let (order, _) = shop.sell_one("bad-1");
    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    until(&delivery, "it is parked", || delivery.status().dead_letters_open == 1).await;
    for _ in 0..2 {
        let discarded =
            delivery.discard_dead_letter(1, "the customer is a robot".into()).await.unwrap().unwrap();
        assert_eq!(discarded.state, DeadLetterState::Discarded);
        assert_eq!(discarded.reason.as_deref(), Some("the customer is a robot"));
    }
    assert_eq!(shop.given_back(order), (1, 1));
    assert!(
        matches!(&shop.events()[1].fact, Fact::OrderFailed { reason, .. } if &**reason == "the customer is a robot")
    );
    let refused = delivery.retry_dead_letter(1).await.unwrap();
    assert_eq!(refused, Err(DeadLetterRefusal::AlreadyDiscarded));
    assert_eq!(delivery.status().dead_letters_open, 0);
}

#[tokio::test]
async fn a_released_dead_letter_cannot_be_retried_and_can_be_archived() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_customers("bad", Times::Always);
    let (order, _) = shop.sell_one("bad-1");
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    until(&delivery, "the failure is carried", || delivery.position() == 2).await;
    let refused = delivery.retry_dead_letter(1).await.unwrap();
    assert_eq!(refused, Err(DeadLetterRefusal::AlreadyReleased));
    let archived = delivery.discard_dead_letter(1, "seen".into()).await.unwrap().unwrap();
    assert_eq!((archived.state, archived.reason.as_deref()), (DeadLetterState::Discarded, Some("seen")));
    assert_eq!(shop.given_back(order), (1, 1));
    assert_eq!(delivery.retry_dead_letter(7).await.unwrap(), Err(DeadLetterRefusal::NotFound));
    assert_eq!(delivery.discard_dead_letter(7, "x".into()).await.unwrap(), Err(DeadLetterRefusal::NotFound));
    assert_eq!(delivery.dead_letter(7).await.unwrap(), None);
}

#[tokio::test]
async fn a_dead_letter_whose_order_was_cancelled_gives_nothing_back_a_second_time() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_customers("bad", Times::Always);
    let orders = shop.sell(["bad-1".to_owned(), "bad-2".to_owned()]);
    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    until(&delivery, "both are parked", || delivery.status().dead_letters_open == 2).await;
    for (order, _) in &orders {
        shop.cancel(*order);
    }
    until(&delivery, "the cancellations are carried", || delivery.position() == 4).await;
    assert_eq!(delivery.counts().await.unwrap().products, []);

    // Chance decides which of them was parked first.
    let letters = dead_letters(&delivery).await;
    let id = |order| letters.iter().find(|letter| letter.order == Some(order)).unwrap().id;
    delivery.discard_dead_letter(id(orders[0].0), "gone".into()).await.unwrap().unwrap();
    assert_eq!(shop.given_back(orders[0].0), (1, 0));
    fault.clear();
    delivery.retry_dead_letter(id(orders[1].0)).await.unwrap().unwrap();
    all_delivered(&delivery, &shop).await;
    let rows = delivery.export_orders(0, 10).await.unwrap();
    assert_eq!((rows.len(), rows[0].id, rows[0].status), (1, orders[1].0, OrderStatus::Cancelled));
    assert_eq!(shop.given_back(orders[1].0), (1, 0));
}

#[tokio::test]
async fn a_rebuilt_ledger_finds_failed_orders_again_and_gives_nothing_back_twice() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_customers("bad", Times::Always);
    shop.sell(customers(10));
    let (order, _) = shop.sell_one("bad-1");
    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    until(&delivery, "the failure is carried", || delivery.position() == 12).await;
    delivery.stop(Stop::Now);
    std::fs::remove_file(folder.path().join("ledger.db")).unwrap();

    let delivery = start(folder.path(), &shop, options(&fault, Release)).unwrap();
    all_delivered(&delivery, &shop).await;
    until(&delivery, "it is settled", || delivery.status().failed_total == 1).await;
    delivery.stop(Stop::AfterDraining(std::time::Duration::from_secs(30)));
    assert_eq!(shop.given_back(order).0, 1);
    assert_eq!(shop.last_seq(), 12);
}

#[tokio::test]
async fn dead_letters_are_listed_by_product_error_state_and_page() {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    fault.refuse_customers("bad", Times::Always);
    shop.sell((0..5).map(|number| format!("bad-{number}")));
    let delivery = start(folder.path(), &shop, options(&fault, Park)).unwrap();
    until(&delivery, "all are parked", || delivery.status().dead_letters_open == 5).await;
    delivery.discard_dead_letter(3, "one less".into()).await.unwrap().unwrap();

    let all = DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() };
    let list = async |filter: DeadLetterFilter| -> Vec<i64> {
        delivery.dead_letters(filter).await.unwrap().into_iter().map(|letter| letter.id).collect()
    };
    assert_eq!(list(all.clone()).await, [1, 2, 3, 4, 5]);
    assert_eq!(list(DeadLetterFilter { after: 1, limit: 2, ..all.clone() }).await, [2, 3]);
    assert_eq!(
        list(DeadLetterFilter { state: Some(DeadLetterState::Parked), ..all.clone() }).await,
        [1, 2, 4, 5]
    );
    assert_eq!(list(DeadLetterFilter { product: Some(product()), ..all.clone() }).await.len(), 5);
    let other = yoink_core::ProductId::parse("2").unwrap();
    assert_eq!(list(DeadLetterFilter { product: Some(other), ..all.clone() }).await, [] as [i64; 0]);
    assert_eq!(list(DeadLetterFilter { error: Some("CHECK".to_owned()), ..all.clone() }).await.len(), 5);
    assert_eq!(list(DeadLetterFilter { error: Some("no such".to_owned()), ..all }).await, [] as [i64; 0]);
}
