//! Requests from a queue are decided once, in their order, by whoever has the newest token.

use uuid::Uuid;
use yoink_core::{ProductChange, Rejection};
use yoink_engine::postgres::{
    Decided, EndKind, Ended, KeptConnection, Postgres, Request, Sequences, Verdict,
};
use yoink_engine::{DeadLetterFilter, OrderStatus};

use super::server::Database;
use super::{LATER, NOW, counted, id, on_sale, order};

const SENDER: Uuid = Uuid::from_u128(7);

/// Request `number`, for the order with the same number.
pub fn request(number: i64, customer: &str, quantity: i32) -> Request {
    Request {
        order: order(number),
        customer: customer.to_owned(),
        quantity,
        price: 19_999,
        currency: "EUR".to_owned(),
        accepted_at: NOW.0 - 1_000,
        publisher: SENDER,
        sequence: number,
    }
}

async fn decide(ledger: &Postgres, product: i32, fence: Option<i64>, requests: &[Request]) -> Decided {
    ledger.decide(product, fence, (LATER, NOW), requests).await.unwrap()
}

async fn verdicts(ledger: &Postgres, product: i32, requests: &[Request]) -> Vec<Verdict> {
    match decide(ledger, product, None, requests).await {
        Decided::Done { verdicts, .. } => verdicts,
        Decided::Stale => panic!("who brings no token is never stale"),
    }
}

pub async fn rabbit_ledger() -> (Database, Postgres) {
    let (database, ledger) = Database::with_ledger(3).await;
    assert_eq!(ledger.claim_ledger("rabbitmq").await.unwrap(), "rabbitmq");
    (database, ledger)
}

#[tokio::test]
async fn the_last_units_go_to_those_who_came_first_and_fit() {
    let (_database, ledger) = rabbit_ledger().await;
    let product = on_sale(&ledger, "1", 5).await;
    let crowd = [
        request(1, "ann", 2),
        request(2, "bob", 2),
        request(3, "cid", 2),
        request(4, "dan", 1),
        request(5, "eve", 1),
    ];
    let short = |available| Verdict::SoldOut { available };
    let first = verdicts(&ledger, product, &crowd).await;
    assert_eq!(first, [Verdict::Confirmed, Verdict::Confirmed, short(1), Verdict::Confirmed, short(0)]);
    assert_eq!(verdicts(&ledger, product, &crowd).await, [Verdict::Known; 5], "again: nothing happens");
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_orders, counts.live_units, counts.rejected, counts.sold), (3, 5, 2, 5));
    assert_eq!(ledger.rejection(order(3)).await.unwrap(), Some(Rejection::SoldOut { available: 1 }));
    assert_eq!(ledger.rejection(order(1)).await.unwrap(), None);
    assert_eq!(ledger.order(order(3)).await.unwrap().unwrap().status, OrderStatus::Rejected);
    let facts = ledger.events(1, 10).await.unwrap();
    assert_eq!(facts.len(), 3, "an event for each order, none for those who got nothing: {facts:?}");
}

#[tokio::test]
async fn a_rejected_request_stays_rejected_after_a_restock() {
    let (_database, ledger) = rabbit_ledger().await;
    let product = on_sale(&ledger, "1", 1).await;
    let crowd = [request(1, "ann", 1), request(2, "bob", 1)];
    verdicts(&ledger, product, &crowd).await;
    assert_eq!(
        ledger.end_order(order(1), EndKind::Cancelled, "changed my mind", NOW).await.unwrap(),
        Ended::Now
    );
    assert_eq!(verdicts(&ledger, product, &crowd).await, [Verdict::Known; 2]);
    assert_eq!(verdicts(&ledger, product, &[request(3, "bob", 1)]).await, [Verdict::Confirmed]);
    assert!(ledger.credits_waiting(10).await.unwrap().is_empty(), "nobody else has to be told of units");
    counted(&ledger).await;
}

#[tokio::test]
async fn the_limit_counts_what_the_customer_had_and_what_the_batch_gives_him() {
    let (_database, ledger) = rabbit_ledger().await;
    let product = on_sale(&ledger, "1", 100).await;
    let limit = ProductChange { limit_per_customer: Some(Some(3)), ..ProductChange::default() };
    ledger.change_product(&id("1"), &limit, NOW).await.unwrap();
    let first = [request(1, "ann", 2), request(2, "ann", 2), request(3, "ann", 1), request(4, "bob", 3)];
    let reached = |used| Verdict::LimitReached { used };
    let outcome = verdicts(&ledger, product, &first).await;
    assert_eq!(outcome, [Verdict::Confirmed, reached(2), Verdict::Confirmed, Verdict::Confirmed]);
    assert_eq!(verdicts(&ledger, product, &[request(5, "ann", 1)]).await, [reached(3)]);
    let rejection = ledger.rejection(order(5)).await.unwrap();
    let existing = vec![order(1), order(3)];
    assert_eq!(rejection, Some(Rejection::LimitReached { limit: 3, used: 3, existing }));
    counted(&ledger).await;
}

#[tokio::test]
async fn an_older_token_decides_nothing() {
    let (_database, ledger) = rabbit_ledger().await;
    let product = on_sale(&ledger, "1", 10).await;
    let Decided::Done { fence: first, .. } = decide(&ledger, product, None, &[request(1, "ann", 1)]).await
    else {
        panic!("a new token is good");
    };
    let again = decide(&ledger, product, Some(first), &[request(2, "bob", 1)]).await;
    assert!(matches!(again, Decided::Done { fence, .. } if fence == first), "{again:?}");
    let Decided::Done { fence: second, .. } = decide(&ledger, product, None, &[request(3, "cid", 1)]).await
    else {
        panic!("a new token is good");
    };
    assert!(second > first);
    assert_eq!(decide(&ledger, product, Some(first), &[request(4, "dan", 1)]).await, Decided::Stale);
    assert_eq!(ledger.order(order(4)).await.unwrap(), None);
    assert_eq!(counted(&ledger).await.live_orders, 3);
}

#[tokio::test]
async fn two_who_decide_the_same_requests_at_once_decide_them_once() {
    let (_database, ledger) = rabbit_ledger().await;
    let product = on_sale(&ledger, "1", 50).await;
    let crowd: Vec<Request> = (1..=200).map(|number| request(number, "ann", 1)).collect();
    let all = futures_util::future::join_all((0..8).map(|_| verdicts(&ledger, product, &crowd))).await;
    let confirmed = all.iter().flatten().filter(|verdict| **verdict == Verdict::Confirmed).count();
    assert_eq!(confirmed, 50);
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_orders, counts.rejected), (50, 150));
}

#[tokio::test]
async fn what_was_confirmed_and_never_seen_is_named() {
    let (_database, ledger) = rabbit_ledger().await;
    let product = on_sale(&ledger, "1", 10).await;
    let mut confirmed = Sequences::default();
    (1..=4).for_each(|number| confirmed.add(number));
    let seen = ledger.report_confirmed(SENDER, &confirmed, NOW).await.unwrap();
    assert_eq!(seen, Sequences::default());
    verdicts(&ledger, product, &[request(1, "ann", 1), request(2, "bob", 1), request(4, "cid", 1)]).await;
    let seen = ledger.report_confirmed(SENDER, &confirmed, NOW).await.unwrap();
    assert_eq!((seen.has(2), seen.has(3), seen.has(4)), (true, false, true));
    let unseen = ledger.unseen().await.unwrap();
    assert_eq!(unseen.len(), 1);
    assert_eq!((unseen[0].publisher, unseen[0].messages, unseen[0].numbers.as_str()), (SENDER, 1, "{[3,4)}"));
}

#[tokio::test]
async fn what_can_never_be_decided_has_failed_once_and_what_was_decided_stays_so() {
    let (database, ledger) = rabbit_ledger().await;
    let product = on_sale(&ledger, "1", 10).await;
    let (ann, bob) = (request(1, "ann", 2), request(2, "bob", 1));
    verdicts(&ledger, product, std::slice::from_ref(&ann)).await;
    let nobodys = 77;
    let keep = |product, request| ledger.keep_undecidable(("q", b"m"), "no", (product, request), NOW);
    // Eight workers at once, one of whom comes back with what was decided.
    let all = (0..8).flat_map(|_| [keep(product, &ann), keep(product, &bob)]);
    futures_util::future::try_join_all(all).await.unwrap();
    let order_of = async |number| ledger.order(order(number)).await.unwrap().unwrap();
    assert_eq!(order_of(1).await.status, OrderStatus::Confirmed);
    assert_eq!(ledger.failure(order(1)).await.unwrap(), None);
    let failed = order_of(2).await;
    let failure = ledger.failure(order(2)).await.unwrap().unwrap();
    assert_eq!((failed.status, failed.quantity), (OrderStatus::Failed, 1));
    assert_eq!((failed.ended_at, failed.reason), (Some(failure.at), Some(failure.reason.clone())));
    assert_eq!(&*failure.reason, "dead letter 1: it can never be decided");
    assert_eq!(verdicts(&ledger, product, std::slice::from_ref(&bob)).await, [Verdict::Known]);
    let counts = counted(&ledger).await;
    assert_eq!((counts.live_orders, counts.revoked, counts.sold), (1, 1, 2));

    // Where there is no such product, the order is no other product's either.
    let cid = request(3, "cid", 4);
    futures_util::future::try_join_all((0..8).map(|_| keep(nobodys, &cid))).await.unwrap();
    database.execute("ALTER SEQUENCE products_number_seq RESTART WITH 77").await;
    assert_eq!(on_sale(&ledger, "2", 10).await, nobodys);
    assert_eq!(ledger.order(order(3)).await.unwrap(), None);
    assert_eq!(
        &*ledger.failure(order(3)).await.unwrap().unwrap().reason,
        "dead letter 2: it can never be decided"
    );
    let known = ledger.known_orders(&mut KeptConnection::default(), &[order(3), order(4)]).await.unwrap();
    assert_eq!(known.iter().map(|known| (known.id, known.quantity)).collect::<Vec<_>>(), [(order(3), 4)]);
    assert_eq!(verdicts(&ledger, nobodys, std::slice::from_ref(&cid)).await, [Verdict::Known]);
    assert_eq!(
        ledger.dead_letters(&DeadLetterFilter { limit: 9, ..Default::default() }).await.unwrap().len(),
        2
    );
    let seen = ledger.report_confirmed(SENDER, &Sequences::default(), NOW).await.unwrap();
    assert!((1..=3).all(|number| seen.has(number)));
    counted(&ledger).await;
}

#[tokio::test]
async fn a_ledger_is_one_engines() {
    let (_database, ledger) = rabbit_ledger().await;
    assert_eq!(ledger.claim_ledger("redis").await.unwrap(), "rabbitmq");
}
