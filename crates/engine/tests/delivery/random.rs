//! Random faults, kills, cancellations and operators, against what must be true at the end whatever happened.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use yoink_core::{Fact, OrderId};
use yoink_engine::{
    DeadLetterState,
    OnDeadLetter::{Park, Release},
    OrderStatus,
    delivery::{Delivery, DeliveryOptions, Stop},
    ledger::{CommitFault, LedgerFault, Step, Times},
};

use crate::shop::{Shop, all_delivered, dead_letters, options, start};

/// One run: so many steps, each of which sells, cancels, breaks something, repairs it, or restarts delivery.
const STEPS: usize = 60;
const RUNS: u64 = 20;

#[tokio::test]
async fn whatever_fails_and_is_killed_each_order_is_in_the_ledger_once_or_its_units_are_back_once() {
    let first_seed: u64 = rand::random();
    for seed in first_seed..first_seed.saturating_add(RUNS) {
        println!("seed {seed}");
        run(SmallRng::seed_from_u64(seed)).await;
    }
}

async fn run(mut random: SmallRng) {
    let (folder, shop, fault) = (tempfile::tempdir().unwrap(), Shop::default(), LedgerFault::default());
    let on_dead_letter = if random.random() { Park } else { Release };
    let small = DeliveryOptions { batch_orders_max: 7, ..options(&fault, on_dead_letter) };
    let mut delivery = start(folder.path(), &shop, small.clone()).unwrap();
    let mut orders = Vec::new();
    for _ in 0..STEPS {
        if !delivery.status().running || random.random_ratio(1, 10) {
            delivery.stop(Stop::Now);
            delivery = start(folder.path(), &shop, small.clone()).unwrap();
        }
        step(&mut random, &shop, &fault, &delivery, &mut orders).await;
    }
    fault.clear();
    if !delivery.status().running {
        delivery.stop(Stop::Now);
        delivery = start(folder.path(), &shop, small).unwrap();
    }
    delivery.resume().await.unwrap();
    settle(&delivery, &shop).await;
    check(&delivery, &shop).await;
}

async fn step(
    random: &mut SmallRng,
    shop: &Shop,
    fault: &LedgerFault,
    delivery: &Delivery,
    orders: &mut Vec<OrderId>,
) {
    let times = Times::Count(random.random_range(1..5));
    match random.random_range(0..13) {
        0..=3 => {
            let names = ["ann", "bad"];
            let count = random.random_range(1..20);
            let customers: Vec<_> = (0..count).map(|_| names[random.random_range(0..2)].to_owned()).collect();
            orders.extend(shop.sell(customers).into_iter().map(|(order, _)| order));
        }
        4 if !orders.is_empty() => shop.cancel(orders[random.random_range(0..orders.len())]),
        5 => fault.refuse_customers("bad", times),
        6 => fault.refuse_all(times),
        7 => fault.break_commit(CommitFault::Done, times),
        8 => fault.break_commit(CommitFault::Undone, times),
        9 => {
            let steps = [Step::AfterCommit, Step::DeadLetterRecorded, Step::Compensated];
            fault.stop_at(steps[random.random_range(0..steps.len())]);
        }
        10 => fault.break_read_after_commit(times),
        11 => {
            // A call may fail while the ledger is down; what matters is what is true at the end.
            let id = random.random_range(1..10);
            let _ = match random.random() {
                true => delivery.retry_dead_letter(id).await,
                false => delivery.discard_dead_letter(id, "by chance".into()).await,
            };
        }
        _ => {
            let _ = match random.random() {
                true => delivery.pause().await,
                false => delivery.resume().await,
            };
        }
    }
}

/// An operator discards what is parked; then everything comes to rest.
async fn settle(delivery: &Delivery, shop: &Shop) {
    loop {
        all_delivered(delivery, shop).await;
        let open =
            dead_letters(delivery).await.into_iter().find(|letter| letter.state == DeadLetterState::Parked);
        match open {
            Some(letter) => drop(delivery.discard_dead_letter(letter.id, "settled".into()).await.unwrap()),
            None if delivery.status().dead_letters_open == 0 && delivery.position() == shop.last_seq() => {
                return;
            }
            None => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    }
}

async fn check(delivery: &Delivery, shop: &Shop) {
    let mut expected = HashMap::new();
    for event in shop.events() {
        match event.fact {
            Fact::OrderAccepted(accepted) => drop(expected.insert(accepted.order, OrderStatus::Confirmed)),
            Fact::OrderCancelled { order, .. } => drop(expected.insert(order, OrderStatus::Cancelled)),
            Fact::OrderFailed { order, .. } => drop(expected.insert(order, OrderStatus::Failed)),
            _ => {}
        }
    }
    let rows = delivery.export_orders(0, 4_096).await.unwrap();
    let letters = dead_letters(delivery).await;
    for (order, status) in &expected {
        let found: Vec<_> = rows.iter().filter(|row| row.id == *order).collect();
        let is_dead = letters
            .iter()
            .any(|letter| letter.order == Some(*order) && letter.state != DeadLetterState::Retried);
        match found.as_slice() {
            [row] => assert_eq!(row.status, *status, "{order}"),
            [] => assert!(is_dead && *status != OrderStatus::Confirmed, "{order} is {status:?} and nowhere"),
            _ => panic!("{order} is in the ledger {} times", found.len()),
        }
        let seq = rows.iter().find(|row| row.id == *order).map(|row| row.seq);
        assert!(
            seq.is_none_or(|seq| delivery.is_confirmed(seq)),
            "{order} is in the ledger and not confirmed"
        );
    }
    let given_back = expected.values().filter(|status| **status != OrderStatus::Confirmed).count();
    let counts = delivery.counts().await.unwrap();
    assert_eq!(counts.confirmed, (expected.len() - given_back) as u64);
    assert_eq!((counts.duplicates, counts.retrying, counts.dead_letters_open), (0, 0, 0));
}
