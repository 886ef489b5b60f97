//! What the ledger tells.

use yoink_core::{Event, Fact, Money, ProductChange, Timestamp};
use yoink_engine::ledger::MovementKind;
use yoink_engine::postgres::{Changed, EndKind, OnRefusal, Postgres, SaleState, Way};
use yoink_engine::{DeadLetterFilter, DeadLetterRefusal, DeadLetterState, OrderFilter, OrderStatus};

use super::common::{product, restock};
use super::server::Database;
use super::{LATER, NOW, deliver, grant, id, on_sale, order};

#[tokio::test]
async fn products_are_created_changed_and_paused() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let mut wanted = product("2", 7);
    wanted.limit_per_customer = Some(u32::MAX);
    assert_eq!(ledger.create_product(&wanted, NOW).await.unwrap(), Some(1));
    assert_eq!(ledger.create_product(&wanted, NOW).await.unwrap(), None, "the id is taken");
    // The smallest whole number above the count of products that no product has as its id.
    wanted.id = None;
    for (number, free) in [(2, "3"), (3, "4")] {
        assert_eq!(ledger.create_product(&wanted, NOW).await.unwrap(), Some(number));
        assert_eq!(ledger.product_numbered(number).await.unwrap().unwrap().id, id(free));
    }
    let change = ProductChange {
        name: Some("Rarer".into()),
        price: Some(Money { amount: 5, ..wanted.price }),
        starts_at: Some(Some(Timestamp(10))),
        ends_at: Some(Some(Timestamp(20))),
        limit_per_customer: Some(None),
        max_per_order: Some(3),
    };
    assert_eq!(ledger.change_product(&id("2"), &change, NOW).await.unwrap(), Changed::Done);
    let empty = ProductChange { ends_at: Some(Some(Timestamp(10))), ..ProductChange::default() };
    assert_eq!(ledger.change_product(&id("2"), &empty, NOW).await.unwrap(), Changed::WindowEmpty);
    let nothing = ProductChange::default();
    assert_eq!(ledger.change_product(&id("2"), &nothing, NOW).await.unwrap(), Changed::Again);
    assert_eq!(ledger.change_product(&id("9"), &nothing, NOW).await.unwrap(), Changed::NotFound);
    let open_end = ProductChange { ends_at: Some(None), ..ProductChange::default() };
    assert_eq!(ledger.change_product(&id("2"), &open_end, NOW).await.unwrap(), Changed::Done);
    assert_eq!(ledger.pause_product(&id("2"), NOW).await.unwrap(), Changed::Done);
    assert_eq!(ledger.pause_product(&id("2"), NOW).await.unwrap(), Changed::Again);
    let row = ledger.product(&id("2")).await.unwrap().unwrap();
    assert_eq!(
        (&*row.details.name, row.details.price.amount, row.paused, row.version),
        ("Rarer", 5, true, 4)
    );
    assert_eq!((row.details.window.starts_at, row.details.window.ends_at), (Some(Timestamp(10)), None));
    assert_eq!((row.details.limit_per_customer, row.details.max_per_order), (None, 3));
    assert_eq!((row.state, row.units, row.details.stock), (SaleState::Loading, 7, 7));
    assert_eq!(ledger.resume_product(&id("2"), NOW).await.unwrap(), Changed::Done);
    assert_eq!(ledger.products().await.unwrap().len(), 3);

    let facts: Vec<Fact> = ledger.events(3, 100).await.unwrap().into_iter().map(|event| event.fact).collect();
    let product = id("2");
    assert_eq!(
        facts,
        [
            Fact::ProductChanged { product, change },
            Fact::ProductChanged { product, change: open_end },
            Fact::SalePaused { product },
            Fact::SaleResumed { product },
        ]
    );
}

#[tokio::test]
async fn events_pass_the_cores_own_audit_and_movements_add_up() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let number = on_sale(&ledger, "1", 10).await;
    ledger.adjust_stock(&restock("1", 5, "k1"), NOW).await.unwrap();
    // Whoever delivers has a clock that is behind.
    let grants = [grant(1, "ann", 2), grant(2, "bob", 3), grant(3, "cid", 5_000)];
    ledger.deliver(Way::Deliver, (number, 1), (LATER, Timestamp(NOW.0 - 5)), &grants[..2]).await.unwrap();
    ledger.end_order(order(1), EndKind::Cancelled, "changed my mind", NOW).await.unwrap();
    ledger.deliver(Way::Deliver, (number, 1), (LATER, NOW), &grants[2..]).await.unwrap();

    let events = ledger.events(0, 100).await.unwrap();
    assert_eq!(ledger.last_seq().await.unwrap(), events.len() as u64);
    let report = {
        let mut audit = yoink_core::audit::Audit::new();
        events.iter().for_each(|event| audit.observe(event));
        audit.report()
    };
    assert!(report.is_clean(), "{report:?}");
    let kinds: Vec<u64> = events.iter().map(|Event { seq, .. }| *seq).collect();
    assert_eq!(kinds, (1..=5).collect::<Vec<u64>>(), "dense: {events:?}");
    assert_eq!(ledger.events(4, 100).await.unwrap(), events[4..]);

    let movements = ledger.export_movements(0, 100).await.unwrap();
    let units: Vec<(MovementKind, i64)> = movements.iter().map(|moved| (moved.kind, moved.units)).collect();
    assert_eq!(
        units,
        [
            (MovementKind::Created, 10),
            (MovementKind::Restocked, 5),
            (MovementKind::Sold, -2),
            (MovementKind::Sold, -3),
            (MovementKind::Returned, 2),
        ]
    );
    let row = ledger.product_numbered(number).await.unwrap().unwrap();
    assert_eq!(units.iter().map(|(_, units)| units).sum::<i64>(), row.figures().available as i64);
}

#[tokio::test]
async fn orders_are_listed_page_by_page_and_none_is_left_out() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let number = on_sale(&ledger, "1", 100_000).await;
    let other = on_sale(&ledger, "2", 10).await;
    for first in [1, 11, 21] {
        let mut grants: Vec<_> = (first..first + 10).map(|n| grant(n, &format!("c{}", n % 2), 1)).collect();
        grants[5].quantity = 5_000;
        deliver(&ledger, number, 1, &grants).await;
    }
    deliver(&ledger, other, 1, &[grant(40, "c0", 1)]).await;
    ledger.end_order(order(2), EndKind::Cancelled, "changed my mind", NOW).await.unwrap();
    ledger.retry_refused(order(6), 1, OnRefusal::Release, (LATER, LATER)).await.unwrap();

    let all = OrderFilter { limit: 4, ..OrderFilter::default() };
    assert_eq!(listed(&ledger, &all).await.len(), 31);
    let of = |status| OrderFilter { status: Some(status), ..all.clone() };
    let accepted = listed(&ledger, &of(OrderStatus::Accepted)).await;
    assert_eq!(accepted, [(16, OrderStatus::Accepted), (26, OrderStatus::Accepted)]);
    assert_eq!(listed(&ledger, &of(OrderStatus::Confirmed)).await.len(), 27);
    assert_eq!(listed(&ledger, &of(OrderStatus::Cancelled)).await, [(2, OrderStatus::Cancelled)]);
    assert_eq!(listed(&ledger, &of(OrderStatus::Failed)).await, [(6, OrderStatus::Failed)]);
    let hers = OrderFilter {
        customer: Some(yoink_core::CustomerId::parse("c0").unwrap()),
        product: Some(id("2")),
        status: Some(OrderStatus::Confirmed),
        ..all.clone()
    };
    assert_eq!(listed(&ledger, &hers).await, [(40, OrderStatus::Confirmed)]);
    let failed = OrderFilter { status: Some(OrderStatus::Failed), ..hers };
    assert_eq!(listed(&ledger, &failed).await, []);
    let exported = ledger.export_orders(0, 100).await.unwrap();
    assert_eq!((exported.orders.len(), exported.next_after), (28, None));
}

/// Numbers and statuses, over all pages.
async fn listed(ledger: &Postgres, filter: &OrderFilter) -> Vec<(u64, OrderStatus)> {
    let (mut filter, mut found) = (filter.clone(), Vec::new());
    loop {
        let page = ledger.orders(&filter).await.unwrap();
        assert!(page.orders.len() <= filter.limit);
        found.extend(page.orders.iter().map(|order| (order.seq, order.status)));
        match page.next_after {
            Some(after) => filter.after = after,
            None => return found,
        }
    }
}

#[tokio::test]
async fn what_waits_is_counted() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let number = on_sale(&ledger, "1", 10_000).await;
    assert_eq!(ledger.backlog().await.unwrap(), Default::default());
    deliver(&ledger, number, 1, &[grant(1, "ann", 5_000), grant(2, "bob", 2), grant(3, "cid", 1_001)]).await;
    ledger.end_order(order(2), EndKind::Cancelled, "changed my mind", NOW).await.unwrap();
    ledger.retry_refused(order(3), 1, OnRefusal::Park, (LATER, LATER)).await.unwrap();
    ledger.adjust_stock(&restock("1", -1, "k1"), NOW).await.unwrap();
    for _ in 0..2 {
        ledger.note_unreadable("grants", "0-1", b"\xff", "it is no text", NOW).await.unwrap();
    }
    ledger.record_repair(number, "moved on", "because", NOW).await.unwrap();
    let backlog = ledger.backlog().await.unwrap();
    assert_eq!((backlog.credits_waiting, backlog.credits_since), (1, Some(NOW)));
    assert_eq!((backlog.refused_retrying, backlog.refused_since), (1, Some(NOW)));
    assert_eq!((backlog.dead_letters_open, backlog.dead_letters_since), (2, Some(NOW)));
    assert_eq!((backlog.withdrawals_waiting, backlog.unreadable), (1, 1));
}

#[tokio::test]
async fn delivery_is_paused_for_everybody() {
    let (database, ledger) = Database::with_ledger(2).await;
    let check = yoink_engine::postgres::SettingsCheck::Strict;
    let other = Postgres::connect(&database.url(), 1, check).await.unwrap();
    assert!(!other.delivery_is_paused().await.unwrap());
    ledger.pause_delivery().await.unwrap();
    assert!(other.delivery_is_paused().await.unwrap());
    other.resume_delivery().await.unwrap();
    assert!(!ledger.delivery_is_paused().await.unwrap());
}

#[tokio::test]
async fn what_could_not_be_read_is_a_dead_letter_that_can_only_be_discarded() {
    let (_database, ledger) = Database::with_ledger(2).await;
    let garbage: Vec<u8> = b"{\n\x00\xff".iter().copied().chain(std::iter::repeat_n(b'x', 100_000)).collect();
    for (entry, bytes) in [("a", garbage.as_slice()), ("a", b"again"), ("b", b"")] {
        ledger.note_unreadable("dead", entry, bytes, "it is no text", NOW).await.unwrap();
    }
    let filter = DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() };
    let letters = ledger.dead_letters(&filter).await.unwrap();
    let [letter, other] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.order, letter.seq, letter.product, letter.quantity), (None, None, None, None));
    assert_eq!((letter.error.as_str(), letter.attempts, letter.created_at), ("it is no text", 0, NOW));
    let shown = letter.message.as_deref().unwrap();
    assert!(shown.starts_with("{\\n\\u{0}\u{fffd}xxx") && shown.len() < 520, "{shown}");
    assert_eq!((other.message.as_deref(), other.state), (Some(""), DeadLetterState::Parked));

    let refusal = ledger.retry_dead_letter(letter.id, LATER).await.unwrap();
    assert_eq!(refusal, Err(DeadLetterRefusal::Unreadable));
    for _ in 0..2 {
        let discarded = ledger.discard_dead_letter(letter.id, "noise", LATER).await.unwrap().unwrap();
        assert_eq!(
            (discarded.state, discarded.reason.as_deref()),
            (DeadLetterState::Discarded, Some("noise"))
        );
        assert_eq!((discarded.created_at, discarded.updated_at), (NOW, LATER));
    }
    let refusal = ledger.retry_dead_letter(letter.id, LATER).await.unwrap();
    assert_eq!(refusal, Err(DeadLetterRefusal::Unreadable));
    assert_eq!(ledger.backlog().await.unwrap().dead_letters_open, 1);
}
