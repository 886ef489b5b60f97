//! Grants become orders once, and units come back once.

use yoink_core::{Event, Fact, NewProduct, ProductChange};
use yoink_engine::postgres::{
    CreditKind, Delivered, EndKind, Ended, ErrorClass, Grant, OnRefusal, Postgres, Retried, Way,
};
use yoink_engine::{DeadLetterFilter, DeadLetterRefusal, DeadLetterState, OrderStatus};

use super::server::Database;
use super::{LATER, NOW, counted, deliver, grant, on_sale, order};

/// Refuses orders of the customer "mallory".
const PICKY: &str = "
    CREATE FUNCTION pick() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF new.customer = 'mallory' THEN
            RAISE EXCEPTION 'mallory buys nothing here' USING ERRCODE = 'check_violation';
        END IF;
        RETURN new;
    END $$;
    CREATE TRIGGER pick BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pick();";

#[tokio::test]
async fn delivering_twice_is_delivering_once() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    let grants = [grant(1, "ann", 2), grant(2, "bob", 3)];
    assert_eq!(deliver(&ledger, product, 1, &grants).await, [Delivered::Confirmed; 2]);
    assert_eq!(deliver(&ledger, product, 1, &grants).await, [Delivered::Known; 2]);
    assert_eq!(deliver(&ledger, product, 1, &[]).await, []);
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_orders, counts.live_units, counts.sold, counts.units), (2, 5, 5, 10));
    let facts = ledger.events(1, 10).await.unwrap();
    assert_eq!(facts.len(), 2, "one event each: {facts:?}");
}

#[tokio::test]
async fn an_order_under_a_second_number_gives_its_units_back_to_redis() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    deliver(&ledger, product, 1, &[grant(1, "ann", 2)]).await;
    let again = Grant { number: 2, ..grant(1, "ann", 2) };
    for _ in 0..2 {
        let outcome = deliver(&ledger, product, 1, std::slice::from_ref(&again)).await;
        assert_eq!(outcome, [Delivered::Duplicate]);
    }
    let credits = ledger.credits_waiting(10).await.unwrap();
    assert_eq!(credits.len(), 1);
    assert_eq!((credits[0].kind, credits[0].units, credits[0].epoch), (CreditKind::Void, 2, 1));
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_units, counts.sold, counts.units), (2, 2, 10), "it was never charged");
}

#[tokio::test]
async fn what_the_ledger_has_no_unit_for_is_revoked_and_seen() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 3).await;
    let grants = [grant(1, "ann", 2), grant(2, "bob", 2)];
    let outcomes = deliver(&ledger, product, 1, &grants).await;
    assert_eq!(outcomes, [Delivered::Confirmed, Delivered::Revoked]);
    // Told again: whoever asked first may have died before it did anything about it.
    let again = deliver(&ledger, product, 1, &grants).await;
    assert_eq!(again, [Delivered::Known, Delivered::Revoked]);
    ledger.seal(product, 1, 1).await.unwrap();
    assert_eq!(deliver(&ledger, product, 1, &grants).await, [Delivered::Known; 2]);
    let revoked = ledger.order(order(2)).await.unwrap().unwrap();
    assert_eq!(revoked.status, OrderStatus::Failed);
    assert!(revoked.reason.unwrap().starts_with("revoked"));
    let counts = counted(&ledger).await;
    assert_eq!((counts.revoked, counts.live_units, counts.returned_units), (1, 2, 0));
}

#[tokio::test]
async fn a_revoked_order_is_kept_whatever_is_wrong_with_it() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 2).await;
    deliver(&ledger, product, 1, &[grant(1, "ann", 2)]).await;
    // The same number as ann's, and more units than an order may have.
    let bad = [Grant { number: 1, ..grant(2, "bob", 1) }, grant(3, "cid", 5_000)];
    assert_eq!(deliver(&ledger, product, 1, &bad).await, [Delivered::Revoked; 2]);
    assert_eq!(deliver(&ledger, product, 1, &bad).await, [Delivered::Revoked; 2]);
    for number in [2, 3] {
        assert_eq!(ledger.order(order(number)).await.unwrap().unwrap().status, OrderStatus::Failed);
    }
    assert_eq!(counted(&ledger).await.revoked, 2);
}

#[tokio::test]
async fn a_second_order_under_one_number_is_kept_and_told_apart() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    deliver(&ledger, product, 1, &[grant(1, "ann", 1)]).await;
    // One of them has the number of an order from before, two have one number between them.
    let rewound = [
        Grant { number: 1, ..grant(2, "bob", 4) },
        grant(3, "cid", 1),
        Grant { number: 3, ..grant(4, "dan", 1) },
        Grant { number: 4, ..grant(5, "eve", 5_000) },
    ];
    let (collided, confirmed, known) = (Delivered::Collided, Delivered::Confirmed, Delivered::Known);
    let outcomes = deliver(&ledger, product, 1, &rewound).await;
    assert_eq!(outcomes, [collided, confirmed, collided, Delivered::Revoked]);
    assert_eq!(ledger.grants_of(product, 1).await.unwrap(), 5);
    let again = deliver(&ledger, product, 1, &rewound).await;
    assert_eq!(again, [collided, known, collided, Delivered::Revoked], "told again while it is sold from");
    let counts = counted(&ledger).await;
    assert_eq!((counts.sold, counts.refused_units, counts.live_units, counts.live_orders), (7, 0, 7, 4));
    assert_eq!(ledger.events(1, 10).await.unwrap().len(), 4, "one event each");
    ledger.seal(product, 1, 1).await.unwrap();
    assert_eq!(deliver(&ledger, product, 1, &rewound).await, [known; 4]);
    let cancelled = ledger.end_order(order(4), EndKind::Cancelled, "changed my mind", NOW).await.unwrap();
    assert_eq!(cancelled, Ended::Now);
    counted(&ledger).await;
}

#[tokio::test]
async fn what_a_customer_has_above_the_limit_is_revoked() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale_to_each(&ledger, Some(3)).await;
    deliver(&ledger, product, 1, &[grant(1, "ann", 2), grant(2, "bob", 1)]).await;
    // The second of ann's is too much, the third fits; bob's all fit.
    let more = [grant(3, "ann", 2), grant(4, "ann", 1), grant(5, "bob", 2), grant(6, "ann", 1)];
    let (confirmed, revoked) = (Delivered::Confirmed, Delivered::Revoked);
    let delivered = ledger.deliver(Way::Deliver, (product, 1), (LATER, NOW), &more).await.unwrap();
    let outcome = |number| delivered.iter().find(|(id, _)| *id == order(number)).unwrap().1;
    assert_eq!([3, 4, 5, 6].map(outcome), [revoked, confirmed, confirmed, revoked]);
    assert_eq!(delivered.len(), 4);
    let reason = ledger.order(order(3)).await.unwrap().unwrap().reason.unwrap();
    assert_eq!(
        &*reason,
        "revoked: with it the customer had more than the 3 units that one customer may have"
    );
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_units, counts.sold, counts.revoked, counts.customers_above_limit), (6, 6, 2, 0));
    // What has ended does not count.
    ledger.end_order(order(1), EndKind::Cancelled, "changed my mind", NOW).await.unwrap();
    assert_eq!(deliver(&ledger, product, 1, &[grant(7, "ann", 2)]).await, [confirmed]);
    // One that is tried again counts.
    let refused = [grant(8, "cid", 1_500)];
    assert_eq!(deliver(&ledger, product, 1, &refused).await, [revoked], "above any limit");
}

#[tokio::test]
async fn the_highest_limit_there_ever_was_is_what_counts() {
    let (database, ledger) = Database::with_ledger(2).await;
    let product = on_sale_to_each(&ledger, Some(1)).await;
    let limit_to = async |limit| {
        let change = ProductChange { limit_per_customer: Some(limit), ..ProductChange::default() };
        ledger.change_product(&super::id("1"), &change, NOW).await.unwrap();
    };
    limit_to(Some(3)).await;
    limit_to(Some(1)).await;
    let outcomes = deliver(&ledger, product, 1, &[grant(1, "ann", 3), grant(2, "bob", 4)]).await;
    assert_eq!(outcomes, [Delivered::Confirmed, Delivered::Revoked]);
    limit_to(None).await;
    limit_to(Some(1)).await;
    assert_eq!(deliver(&ledger, product, 1, &[grant(3, "bob", 4)]).await, [Delivered::Confirmed]);
    assert_eq!(counted(&ledger).await.customers_above_limit, 0);
    // Somebody else writes there.
    database.execute("UPDATE products SET limit_highest = 3").await;
    assert_eq!(counted(&ledger).await.customers_above_limit, 1);
}

async fn on_sale_to_each(ledger: &Postgres, limit: Option<u32>) -> i32 {
    let limited = NewProduct { limit_per_customer: limit, ..super::common::product("1", 10) };
    let product = ledger.create_product(&limited, NOW).await.unwrap().unwrap();
    assert!(ledger.set_open(product, 1).await.unwrap());
    product
}

#[tokio::test]
async fn units_below_one_make_no_room() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 1).await;
    for quantity in [0, -5] {
        let refused =
            ledger.deliver(Way::Deliver, (product, 1), (LATER, NOW), &[grant(1, "ann", quantity)]).await;
        assert_eq!(refused.unwrap_err().class(), ErrorClass::Permanent);
    }
    let unsendable = ledger.deliver(Way::Deliver, (product, 1), (LATER, NOW), &[grant(1, "a\0nn", 1)]).await;
    assert_eq!(unsendable.unwrap_err().class(), ErrorClass::Permanent);
    assert_eq!(counted(&ledger).await.sold, 0);
}

#[tokio::test]
async fn a_refused_order_becomes_a_dead_letter_and_its_units_come_back_once() {
    let (database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    database.execute(PICKY).await;
    let outcomes = deliver(&ledger, product, 1, &[grant(1, "mallory", 4), grant(2, "ann", 1)]).await;
    assert_eq!(outcomes, [Delivered::Refused, Delivered::Confirmed]);
    assert_eq!(ledger.order(order(1)).await.unwrap().unwrap().status, OrderStatus::Accepted);
    assert_eq!(
        ledger.order_statuses(&[order(1), order(2)]).await.unwrap(),
        [(order(2), OrderStatus::Confirmed)]
    );
    assert!(ledger.due_refused(NOW, 10).await.unwrap().is_empty(), "it is not due yet");
    assert_eq!(retry(&ledger, NOW).await, Retried::Retrying, "too early changes nothing");
    assert_eq!(ledger.due_refused(LATER, 10).await.unwrap(), [order(1)]);
    assert_eq!(retry(&ledger, LATER).await, Retried::Retrying);
    assert_eq!(retry(&ledger, LATER).await, Retried::Released);
    assert_eq!(retry(&ledger, LATER).await, Retried::Settled);

    let letter = only_letter(&ledger).await;
    assert_eq!((letter.state, letter.attempts), (DeadLetterState::Releasing, 3));
    let credits = ledger.credits_waiting(10).await.unwrap();
    assert_eq!(credits.len(), 1);
    assert_eq!((credits[0].kind, credits[0].units), (CreditKind::Returned, 4));
    assert!(ledger.mark_credit_applied(credits[0].id, credits[0].epoch).await.unwrap());
    assert!(ledger.mark_credit_applied(credits[0].id, 77).await.unwrap(), "it is applied already");
    assert_eq!(only_letter(&ledger).await.state, DeadLetterState::Released);
    let refusal = ledger.retry_dead_letter(letter.id, LATER).await.unwrap().unwrap_err();
    assert_eq!(refusal, DeadLetterRefusal::AlreadyReleased);
    let discarded = ledger.discard_dead_letter(letter.id, "seen", LATER).await.unwrap().unwrap();
    assert_eq!((discarded.state, discarded.reason.as_deref()), (DeadLetterState::Discarded, Some("seen")));
    let counts = counted(&ledger).await;
    assert_eq!((counts.returned_units, counts.ended_units, counts.failed), (4, 4, 1));
    let facts: Vec<Fact> =
        ledger.events(2, 10).await.unwrap().into_iter().map(|Event { fact, .. }| fact).collect();
    assert!(
        matches!(&facts[..], [Fact::OrderAccepted(accepted), Fact::OrderFailed { order: failed, .. }]
        if accepted.order == order(1) && accepted.quantity == 4 && *failed == order(1)),
        "{facts:?}"
    );
}

#[tokio::test]
async fn a_parked_dead_letter_is_taken_after_all_or_discarded() {
    let (database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    database.execute(PICKY).await;
    deliver(&ledger, product, 1, &[grant(1, "mallory", 4)]).await;
    let park = async |attempts_max| {
        ledger.retry_refused(order(1), attempts_max, OnRefusal::Park, (LATER, LATER)).await.unwrap()
    };
    assert_eq!(park(2).await, Retried::Parked);
    let letter = only_letter(&ledger).await;
    assert_eq!((letter.state, letter.created_at), (DeadLetterState::Parked, LATER));
    assert!(ledger.credits_waiting(10).await.unwrap().is_empty(), "its units stay sold");

    // Sent again while the cause is still there: it is the same dead letter.
    for _ in 0..2 {
        let sent = ledger.retry_dead_letter(letter.id, LATER).await.unwrap().unwrap();
        assert_eq!((sent.state, sent.attempts), (DeadLetterState::Retried, 2));
    }
    assert_eq!(park(1).await, Retried::Parked);
    assert_eq!(only_letter(&ledger).await.attempts, 3);

    database.execute("DROP TRIGGER pick ON orders").await;
    ledger.retry_dead_letter(letter.id, LATER).await.unwrap().unwrap();
    assert_eq!(park(3).await, Retried::Confirmed);
    assert_eq!(park(3).await, Retried::Settled);
    let refusal = ledger.discard_dead_letter(letter.id, "no", LATER).await.unwrap().unwrap_err();
    assert_eq!(refusal, DeadLetterRefusal::AlreadyRetried);
    assert_eq!(ledger.order(order(1)).await.unwrap().unwrap().status, OrderStatus::Confirmed);
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_units, counts.refused_units, counts.returned_units), (4, 0, 0));

    // Another one is discarded: its units come back, once.
    database
        .execute("CREATE TRIGGER pick BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pick()")
        .await;
    deliver(&ledger, product, 1, &[grant(2, "mallory", 3)]).await;
    ledger.retry_refused(order(2), 1, OnRefusal::Park, (LATER, LATER)).await.unwrap();
    for _ in 0..2 {
        let second = ledger.discard_dead_letter(letter.id + 1, "fraud", LATER).await.unwrap().unwrap();
        assert_eq!(second.state, DeadLetterState::Discarded);
    }
    assert_eq!(ledger.order(order(2)).await.unwrap().unwrap().status, OrderStatus::Failed);
    assert_eq!(counted(&ledger).await.returned_units, 3);
    let none = ledger.discard_dead_letter(99, "no", LATER).await.unwrap().unwrap_err();
    assert_eq!(none, DeadLetterRefusal::NotFound);
}

#[tokio::test]
async fn an_order_retried_while_it_is_taken_elsewhere_is_settled() {
    let (database, ledger) = Database::with_ledger(9).await;
    let product = on_sale(&ledger, "1", 10).await;
    database.execute(PICKY).await;
    deliver(&ledger, product, 1, &[grant(1, "mallory", 4)]).await;
    database.execute("DROP TRIGGER pick ON orders").await;
    let tries = (0..8).map(|_| {
        let ledger = ledger.clone();
        tokio::spawn(async move { retry(&ledger, LATER).await })
    });
    let outcomes = futures_util::future::join_all(tries).await;
    let count = |wanted| outcomes.iter().filter(|outcome| *outcome.as_ref().unwrap() == wanted).count();
    assert_eq!((count(Retried::Confirmed), count(Retried::Settled)), (1, 7), "{outcomes:?}");
    assert_eq!(counted(&ledger).await.live_units, 4);
}

#[tokio::test]
async fn eight_who_end_one_order_give_its_units_back_once() {
    let (_database, ledger) = Database::with_ledger(9).await;
    let product = on_sale(&ledger, "1", 10).await;
    deliver(&ledger, product, 1, &[grant(1, "ann", 3)]).await;
    let kinds = [EndKind::Cancelled, EndKind::Failed].into_iter().cycle().take(8);
    let ends = kinds.map(|kind| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.end_order(order(1), kind, "changed my mind", NOW).await.unwrap() })
    });
    let outcomes: Vec<Ended> =
        futures_util::future::join_all(ends).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ended::Now).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ended::Again).count(), 3, "{outcomes:?}");
    assert_eq!(ledger.credits_waiting(10).await.unwrap().len(), 1);
    let counts = counted(&ledger).await;
    assert_eq!((counts.units, counts.sold, counts.returned_units), (13, 3, 3));
    let nobody = ledger.end_order(order(9), EndKind::Cancelled, "?", NOW).await.unwrap();
    assert_eq!(nobody, Ended::NotFound);
}

#[tokio::test]
async fn two_hundred_overlapping_deliveries_sell_what_there_is_and_no_more() {
    let (_database, ledger) = Database::with_ledger(8).await;
    let product = on_sale(&ledger, "1", 100).await;
    let deliveries = (0..200_i64).map(|call| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            let grants: Vec<Grant> =
                (call + 1..call + 6).map(|number| grant(number, &format!("c{number}"), 1)).collect();
            loop {
                // All connections are in use, with so many callers: that is what they are told, and they ask again.
                match ledger.deliver(Way::Deliver, (product, 1), (LATER, NOW), &grants).await {
                    Ok(delivered) => return delivered,
                    Err(error) => assert_eq!(error.class(), ErrorClass::Transient, "{error}"),
                }
            }
        })
    });
    for delivered in futures_util::future::join_all(deliveries).await {
        assert_eq!(delivered.unwrap().len(), 5);
    }
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_units, counts.sold, counts.units), (100, 100, 100));
    assert_eq!(counts.revoked, 104, "204 orders were granted in all");
}

#[tokio::test]
async fn the_table_itself_refuses_to_sell_more_than_there_is() {
    let (database, ledger) = Database::with_ledger(2).await;
    on_sale(&ledger, "1", 3).await;
    let refused = database.session().await.batch_execute("UPDATE allocations SET sold = 4").await;
    assert!(refused.unwrap_err().as_db_error().unwrap().message().contains("never_oversold"));
}

async fn retry(ledger: &Postgres, now: yoink_core::Timestamp) -> Retried {
    ledger.retry_refused(order(1), 3, OnRefusal::Release, (LATER, now)).await.unwrap()
}

async fn only_letter(ledger: &Postgres) -> yoink_engine::DeadLetter {
    let filter = DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() };
    let mut letters = ledger.dead_letters(&filter).await.unwrap();
    assert_eq!(letters.len(), 1);
    letters.remove(0)
}

#[tokio::test]
async fn an_order_that_is_given_up_is_a_dead_letter_and_its_units_come_back_once() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let product = on_sale_to_each(&ledger, Some(4)).await;
    let give_up = async |epoch, grant: &Grant, then| {
        ledger.give_up((product, epoch), grant, (20, "broken"), then, NOW).await.unwrap()
    };
    let (released, parked) = (grant(1, "ann", 4), grant(2, "bob", 3));
    assert_eq!(give_up(1, &released, OnRefusal::Release).await, Retried::Released);
    assert_eq!(give_up(1, &parked, OnRefusal::Park).await, Retried::Parked);
    let both = [released, parked];
    for grant in &both {
        assert_eq!(give_up(1, grant, OnRefusal::Release).await, Retried::Settled, "it is there");
    }
    assert_eq!(deliver(&ledger, product, 1, &both).await, [Delivered::Known; 2]);
    let found = ledger.order(order(1)).await.unwrap().unwrap();
    assert_eq!((found.status, found.reason.as_deref()), (OrderStatus::Failed, Some("dead letter 1")));
    let filter = DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() };
    let letters = ledger.dead_letters(&filter).await.unwrap();
    let states = letters.iter().map(|letter| (letter.state, letter.attempts, letter.error.as_str()));
    let expected = [DeadLetterState::Releasing, DeadLetterState::Parked].map(|state| (state, 20, "broken"));
    assert_eq!(states.collect::<Vec<_>>(), expected);
    let counts = counted(&ledger).await;
    assert_eq!((counts.sold, counts.returned_units, counts.refused_units), (7, 4, 3));
    // An operator may send it again, and what is wrong with it is mended.
    ledger.retry_dead_letter(2, NOW).await.unwrap().unwrap();
    let retried = ledger.retry_refused(order(2), 3, OnRefusal::Park, (LATER, NOW)).await.unwrap();
    assert_eq!(retried, Retried::Confirmed);

    // Neither what there is no unit for nor what is above the limit takes one.
    let (too_many, above) = (grant(3, "cid", 8), grant(4, "bob", 2));
    for grant in [&too_many, &above] {
        assert_eq!(give_up(1, grant, OnRefusal::Park).await, Retried::Settled);
        assert!(ledger.order(grant.order).await.unwrap().unwrap().reason.unwrap().starts_with("revoked"));
    }
    assert_eq!(deliver(&ledger, product, 1, &[too_many, above]).await, [Delivered::Revoked; 2]);
    // Of an epoch that is not on sale nothing is written.
    ledger.seal(product, 1, 1).await.unwrap();
    for epoch in [1, 7] {
        assert_eq!(give_up(epoch, &grant(5, "dan", 1), OnRefusal::Release).await, Retried::Settled);
        assert!(ledger.order(order(5)).await.unwrap().is_none());
    }
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_units, counts.revoked, counts.customers_above_limit), (3, 2, 0));
}

#[tokio::test]
async fn a_dead_letter_that_is_tried_again_in_vain_waits_ever_longer_and_then_for_a_person() {
    let (database, ledger) = Database::with_ledger(2).await;
    let product = on_sale(&ledger, "1", 10).await;
    let given_up =
        ledger.give_up((product, 1), &grant(1, "ann", 1), (20, "broken"), OnRefusal::Park, NOW).await;
    assert_eq!(given_up.unwrap(), Retried::Parked);
    ledger.retry_dead_letter(1, NOW).await.unwrap().unwrap();
    let broken = "CREATE FUNCTION look_up() RETURNS trigger LANGUAGE plpgsql AS $$
                  BEGIN PERFORM FROM no_such_table; RETURN NEW; END $$;
                  CREATE TRIGGER look_up BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION look_up()";
    let session = database.session().await;
    session.batch_execute(broken).await.unwrap();
    let times = (LATER, NOW);
    let error = ledger.retry_refused(order(1), 3, OnRefusal::Park, times).await.unwrap_err();
    assert!(error.may_lie_in_what_was_asked(), "{error}");
    let mut waits = Vec::new();
    for _ in 0..2 {
        assert_eq!(ledger.postpone_refused(order(1), "broken", 3, times).await.unwrap(), Retried::Retrying);
        let row = session.query_one("SELECT next_at FROM refused", &[]).await.unwrap();
        waits.push(row.get::<_, i64>("next_at") - NOW.0);
    }
    assert_eq!(waits[1], 2 * waits[0]);
    assert!(waits[0] > 0);
    assert_eq!(ledger.postpone_refused(order(1), "broken", 3, times).await.unwrap(), Retried::Parked);
    assert_eq!(ledger.postpone_refused(order(1), "broken", 3, times).await.unwrap(), Retried::Settled);
    let letter = only_letter(&ledger).await;
    assert_eq!((letter.state, letter.id), (DeadLetterState::Parked, 1));
}
