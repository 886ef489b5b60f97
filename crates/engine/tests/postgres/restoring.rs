//! A ledger that was restored to an earlier state: epochs and orders that it does not know.

use yoink_engine::OrderStatus;
use yoink_engine::postgres::{Delivered, EndKind, Ended, Grant, Standing, Way};

use super::server::Database;
use super::{LATER, NOW, counted, deliver, grant, on_sale, order};

fn outcomes<T>(told: Vec<(T, Delivered)>) -> Vec<Delivered> {
    told.into_iter().map(|(_, outcome)| outcome).collect()
}

#[tokio::test]
async fn grants_of_an_epoch_or_product_that_the_ledger_never_heard_of_are_not_written() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    deliver(&ledger, product, 1, &[grant(1, "ann", 4)]).await;
    let carried = ledger
        .deliver(Way::Carry, (product, 5), (LATER, NOW), &[grant(1, "ann", 4), grant(2, "bob", 1)])
        .await;
    assert_eq!(outcomes(carried.unwrap()), [Delivered::Known, Delivered::Sealed]);
    assert!(ledger.order(order(2)).await.unwrap().is_none(), "it is neither kept nor revoked");
    let carried = ledger.deliver(Way::Carry, (product + 1, 1), (LATER, NOW), &[grant(3, "cid", 1)]).await;
    assert_eq!(outcomes(carried.unwrap()), [Delivered::Sealed], "that product may come back");
    // The epochs in between never were.
    assert_eq!(ledger.seal(product, 1, 5).await.unwrap(), 6);
    assert_eq!(ledger.seal(product, 1, 5).await.unwrap(), 6, "sealing twice is sealing once");
    let row = ledger.product_numbered(product).await.unwrap().unwrap();
    assert_eq!((row.epoch, row.units, row.sold), (6, 6, 0));
    counted(&ledger).await;
}

#[tokio::test]
async fn what_is_brought_back_takes_units_of_the_epoch_that_is_not_opened_yet() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    deliver(&ledger, product, 1, &[grant(1, "ann", 4)]).await;
    let rescue = async |epoch, grants: &[Grant]| {
        outcomes(ledger.deliver(Way::Rescue, (product, epoch), (LATER, NOW), grants).await.unwrap())
    };
    let lost = [grant(1, "ann", 4), grant(2, "bob", 5), grant(3, "cid", 2)];
    assert_eq!(rescue(1, &lost).await, [Delivered::Sealed; 3], "it is on sale");
    ledger.seal(product, 1, 1).await.unwrap();
    assert_eq!(rescue(1, &lost).await, [Delivered::Sealed; 3], "another one is");
    let (known, taken, revoked) = (Delivered::Known, Delivered::Confirmed, Delivered::Revoked);
    assert_eq!(rescue(2, &lost).await, [known, taken, revoked], "one unit is left");
    assert_eq!(rescue(2, &lost).await, [known; 3], "doing it again does nothing");
    ledger.set_open(product, 2).await.unwrap();
    assert_eq!(rescue(2, &lost).await, [Delivered::Sealed; 3]);
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_units, counts.revoked, counts.units - counts.sold), (9, 1, 1));
}

#[tokio::test]
async fn an_order_that_had_ended_is_brought_back_without_a_unit() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 4).await;
    deliver(&ledger, product, 1, &[grant(1, "ann", 4)]).await;
    ledger.seal(product, 1, 1).await.unwrap();
    for outcome in [Delivered::Revoked, Delivered::Known] {
        let told = ledger
            .deliver(Way::RescueEnded, (product, 2), (LATER, NOW), &[grant(2, "bob", 3)])
            .await
            .unwrap();
        assert_eq!(outcomes(told), [outcome]);
    }
    let found = ledger.order(order(2)).await.unwrap().unwrap();
    assert_eq!((found.status, found.ended_at), (OrderStatus::Cancelled, Some(NOW)));
    assert_eq!(
        ledger.end_order(order(2), EndKind::Cancelled, "once more", NOW).await.unwrap(),
        Ended::Again,
        "no unit comes back"
    );
    let standing = ledger.standing(&[1, 2, 3].map(order)).await.unwrap();
    let of = |number| standing.get(&order(number)).copied();
    assert_eq!([of(1), of(2), of(3)], [Some(Standing::Live), Some(Standing::Ended), None]);
    let counts = counted(&ledger).await;
    assert_eq!((counts.cancelled, counts.revoked, counts.live_units), (1, 0, 4));
}
