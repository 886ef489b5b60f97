//! Epochs, credits, adjustments, and the picture that Redis is filled with.

use std::collections::HashSet;

use tokio::task::JoinHandle;
use uuid::Uuid;
use yoink_engine::postgres::{
    AdjustmentOutcome, CreditKind, Delivered, EndKind, Ended, Grant, LoadedWithdrawal, Postgres,
    SaleSnapshot, SaleState, Way, WithdrawalEnd,
};

use super::common::restock;
use super::server::Database;
use super::{LATER, NOW, counted, deliver, grant, on_sale, order};

#[tokio::test]
async fn sealing_gives_the_rest_to_the_next_epoch_with_everything_on_its_way() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    deliver(&ledger, product, 1, &[grant(1, "ann", 4), grant(2, "bob", 1)]).await;
    ledger.end_order(order(1), EndKind::Cancelled, "changed my mind", NOW).await.unwrap();
    assert_eq!(ledger.credits_waiting(10).await.unwrap().len(), 1);

    assert_eq!(ledger.seal(product, 1, 1).await.unwrap(), 2);
    assert_eq!(ledger.seal(product, 1, 1).await.unwrap(), 2, "sealing twice is sealing once");
    let row = ledger.product_numbered(product).await.unwrap().unwrap();
    assert_eq!((row.epoch, row.state, row.units, row.sold), (2, SaleState::Loading, 9, 0));
    assert_eq!(row.figures().conservation_error_units(), 0);
    assert_eq!((row.figures().available, row.figures().sold), (9, 1));
    assert!(ledger.credits_waiting(10).await.unwrap().is_empty(), "they are in the rest");
    assert!(ledger.credit(Uuid::from_bytes(order(1).0)).await.unwrap().is_none());

    // What comes late meets a sealed epoch.
    assert_eq!(deliver(&ledger, product, 1, &[grant(3, "cid", 1)]).await, [Delivered::Revoked]);
    assert_eq!(deliver(&ledger, product, 2, &[grant(4, "dan", 9)]).await, [Delivered::Confirmed]);
    assert!(!ledger.set_open(product, 1).await.unwrap());
    assert!(ledger.set_open(product, 2).await.unwrap());

    // Units of the old epoch come back into the new one.
    ledger.end_order(order(2), EndKind::Cancelled, "changed my mind", NOW).await.unwrap();
    let credits = ledger.credits_waiting(10).await.unwrap();
    assert_eq!((credits[0].epoch, credits[0].units, credits[0].customer.as_deref()), (2, 1, Some("bob")));
    assert!(!ledger.mark_credit_applied(credits[0].id, 1).await.unwrap(), "that is another epoch");
    assert!(ledger.mark_credit_applied(credits[0].id, 2).await.unwrap());
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_units, counts.revoked, counts.units - counts.sold), (9, 1, 1));
}

#[tokio::test]
async fn what_a_worker_carries_after_its_epoch_was_sealed_is_told_apart_and_not_written() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    let carry = async |epoch, grants: &[_]| {
        let carried = ledger.deliver(Way::Carry, (product, epoch), (LATER, NOW), grants).await.unwrap();
        carried.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>()
    };
    let (known, sealed) = (Delivered::Known, Delivered::Sealed);
    let grants = [grant(1, "ann", 4), grant(2, "bob", 1)];
    assert_eq!(carry(1, &grants[..1]).await, [Delivered::Confirmed]);
    assert_eq!(ledger.seal(product, 1, 1).await.unwrap(), 2);
    for _ in 0..2 {
        assert_eq!(carry(1, &grants).await, [known, sealed]);
    }
    assert!(ledger.order(order(2)).await.unwrap().is_none(), "it may still get a unit of the next epoch");
    let again = Grant { number: 1, ..grant(2, "bob", 1) };
    assert_eq!(carry(2, &[again]).await, [Delivered::Confirmed]);
    assert_eq!(carry(1, &grants).await, [known; 2]);
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_units, counts.revoked, counts.units - counts.sold), (5, 0, 5));
}

#[tokio::test]
async fn one_loader_at_a_time() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert!(ledger.become_loader(product, one, 60.0).await.unwrap());
    assert!(!ledger.become_loader(product, other, 60.0).await.unwrap());
    assert!(ledger.become_loader(product, one, 0.0).await.unwrap(), "and again");
    assert!(ledger.become_loader(product, other, 60.0).await.unwrap(), "the time was over");
    assert_eq!(ledger.product_numbered(product).await.unwrap().unwrap().loader, Some(other));
}

#[tokio::test]
async fn restocks_and_withdrawals_are_made_once() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    let asked = restock("1", 5, "k1");
    let AdjustmentOutcome::Done(done) = ledger.adjust_stock(&asked, NOW).await.unwrap() else {
        panic!("a restock is done at once")
    };
    let again = ledger.adjust_stock(&asked, NOW).await.unwrap();
    assert_eq!(again, AdjustmentOutcome::Again(done));
    let credits = ledger.credits_waiting(10).await.unwrap();
    assert_eq!(
        (credits[0].id, credits[0].units, credits[0].kind),
        (done.adjustment, 5, CreditKind::Restocked)
    );
    let other = ledger.adjust_stock(&restock("1", 6, "k1"), NOW).await.unwrap();
    assert_eq!(other, AdjustmentOutcome::KeyReused);
    let large = ledger.adjust_stock(&restock("1", 1_000_000_000, "k2"), NOW).await.unwrap();
    assert_eq!(large, AdjustmentOutcome::TooLarge);
    let nowhere = ledger.adjust_stock(&restock("2", 1, "k3"), NOW).await.unwrap();
    assert_eq!(nowhere, AdjustmentOutcome::NotFound);

    let begun = withdraw(&ledger, 3, "k4").await;
    assert_eq!(withdraw(&ledger, 3, "k4").await, begun, "asking again begins nothing new");
    let waiting = ledger.withdrawals_waiting(LATER).await.unwrap();
    assert_eq!((waiting.len(), waiting[0].units, waiting[0].adjustment), (1, 3, begun));
    assert!(ledger.withdrawals_waiting(NOW).await.unwrap().is_empty());
    // Redis is filled anew before its units were taken.
    ledger.seal(product, 1, 1).await.unwrap();
    let moved = ledger.finish_withdrawal(begun, 1, NOW).await.unwrap();
    assert_eq!(moved, WithdrawalEnd::Elsewhere);
    let WithdrawalEnd::Done(seq) = ledger.finish_withdrawal(begun, 2, NOW).await.unwrap() else {
        panic!("it is done")
    };
    assert_eq!(ledger.finish_withdrawal(begun, 2, NOW).await.unwrap(), WithdrawalEnd::Done(seq));
    assert_eq!(ledger.finish_withdrawal(begun, 1, NOW).await.unwrap(), WithdrawalEnd::Done(seq));
    let snapshot = ledger.sale_snapshot(product, 2).await.unwrap().unwrap();
    assert_eq!((snapshot.withdrawals.len(), snapshot.withdrawals[0].units), (1, 3));
    drop(snapshot);
    // Whoever began it, too, and heard nothing, must not take its units from the next epoch once more.
    ledger.seal(product, 2, 2).await.unwrap();
    let next = ledger.sale_snapshot(product, 3).await.unwrap().unwrap();
    assert_eq!(next.withdrawals, [LoadedWithdrawal { adjustment: begun, units: 3 }]);
    drop(next);

    let refused = withdraw(&ledger, 99, "k5").await;
    assert_eq!(ledger.refuse_withdrawal(refused, 3, NOW).await.unwrap(), WithdrawalEnd::Refused);
    assert_eq!(ledger.refuse_withdrawal(refused, 3, NOW).await.unwrap(), WithdrawalEnd::Refused);
    let counts = counted(&ledger).await;
    assert_eq!((counts.stocked, counts.withheld, counts.units), (15, 3, 12));
}

async fn withdraw(ledger: &Postgres, units: i64, key: &str) -> Uuid {
    match ledger.adjust_stock(&restock("1", -units, key), NOW).await.unwrap() {
        AdjustmentOutcome::Withdraw(begun) => begun.adjustment,
        other => panic!("a withdrawal begins: {other:?}"),
    }
}

#[tokio::test]
async fn of_two_who_end_a_withdrawal_at_once_the_second_is_told_what_the_first_did() {
    let (database, ledger) = Database::with_ledger(3).await;
    on_sale(&ledger, "1", 10).await;
    for (key, first_takes, second_takes) in
        [("k1", false, true), ("k2", false, false), ("k3", true, false), ("k4", true, true)]
    {
        let begun = withdraw(&ledger, 1, key).await;
        let mut other = database.session().await;
        // Both have seen that it is there before either may change it.
        let lock = other.transaction().await.unwrap();
        lock.execute("SELECT FROM products FOR UPDATE", &[]).await.unwrap();
        let first = end(&ledger, begun, first_takes);
        database.wait_for_locked(1).await;
        let second = end(&ledger, begun, second_takes);
        database.wait_for_locked(2).await;
        lock.rollback().await.unwrap();
        let ends = (first.await.unwrap(), second.await.unwrap());
        match first_takes {
            false => assert_eq!(ends, (WithdrawalEnd::Refused, WithdrawalEnd::Refused), "{key}"),
            true => {
                assert!(matches!(ends.0, WithdrawalEnd::Done(_)), "{key}: {ends:?}");
                assert_eq!(ends.0, ends.1, "{key}");
            }
        }
    }
    let counts = counted(&ledger).await;
    assert_eq!((counts.stocked, counts.withheld, counts.units), (10, 2, 8));
}

/// Ends a withdrawal, as somebody who took its units from Redis or found too few.
fn end(ledger: &Postgres, adjustment: Uuid, taken: bool) -> JoinHandle<WithdrawalEnd> {
    let ledger = ledger.clone();
    tokio::spawn(async move {
        match taken {
            true => ledger.finish_withdrawal(adjustment, 1, NOW).await.unwrap(),
            false => ledger.refuse_withdrawal(adjustment, 1, NOW).await.unwrap(),
        }
    })
}

#[tokio::test]
async fn a_snapshot_is_one_picture_while_orders_are_cancelled() {
    let (_database, ledger) = Database::with_ledger(6).await;
    let product = on_sale(&ledger, "1", 1_000).await;
    let grants: Vec<_> = (1..=600).map(|number| grant(number, &format!("c{number}"), 1)).collect();
    deliver(&ledger, product, 1, &grants).await;
    assert!(ledger.sale_snapshot(product, 2).await.unwrap().is_none(), "that epoch is not on sale");
    let cancelling: Vec<_> = (0..3_i64)
        .map(|worker| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                for number in (1..=300).filter(|number| number % 3 == worker) {
                    let ended = ledger.end_order(order(number), EndKind::Cancelled, "no", NOW).await;
                    assert_eq!(ended.unwrap(), Ended::Now);
                }
            })
        })
        .collect();
    let mut pictures = 0;
    while !cancelling.iter().all(tokio::task::JoinHandle::is_finished) || pictures == 0 {
        let snapshot = ledger.sale_snapshot(product, 1).await.unwrap().unwrap();
        check_picture(snapshot).await;
        pictures += 1;
    }
    for worker in cancelling {
        worker.await.unwrap();
    }
    check_picture(ledger.sale_snapshot(product, 1).await.unwrap().unwrap()).await;
    assert_eq!(counted(&ledger).await.returned_units, 300);
}

/// Units that came back and orders that ended are those of the same instant, and each order is there once.
async fn check_picture(mut snapshot: SaleSnapshot) {
    let (mut seen, mut ended) = (HashSet::new(), HashSet::new());
    loop {
        let page = snapshot.next_page(100).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 100);
        for loaded in page {
            assert!(seen.insert(loaded.order));
            if loaded.has_ended {
                ended.insert(Uuid::from_bytes(loaded.order.0));
            }
        }
    }
    assert_eq!(seen.len(), 600);
    let credited: HashSet<Uuid> = snapshot.credits.iter().map(|credit| credit.id).collect();
    assert_eq!(ended, credited);
    assert_eq!(snapshot.product.units, 1_000 + ended.len() as u64);
    assert_eq!(snapshot.product.sold, 600);
    snapshot.finish().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_is_dropped_leaves_no_transaction_behind() {
    let (database, ledger) = Database::with_ledger(1).await;
    let product = on_sale(&ledger, "1", 10).await;
    let other = database.session().await;
    for number in 1..=3 {
        let mut snapshot = ledger.sale_snapshot(product, 1).await.unwrap().unwrap();
        snapshot.next_page(1).await.unwrap();
        drop(snapshot);
        let delivered = deliver(&ledger, product, 1, &[grant(number, "ann", 1)]).await;
        assert_eq!(delivered, [Delivered::Confirmed]);
        let seen: i64 = other.query_one("SELECT count(*) FROM orders", &[]).await.unwrap().get(0);
        assert_eq!(seen, number, "it is committed, and others see it");
    }
}
