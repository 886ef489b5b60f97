//! The audit names precisely the invariant that a hand-made log breaks, and none in a log that is in order.

#![cfg(test)]

use yoink_core::audit::{Audit, InvariantId, Report};
use yoink_core::{
    Currency, CustomerId, Event, Fact, IdempotencyKey, Money, NewProduct, OrderAccepted, OrderId,
    ProductChange, ProductId, StockAdjustment, Timestamp, Window,
};

/// A log that breaks exactly one invariant.
struct Broken {
    invariant: InvariantId,
    /// The event that breaks it.
    seq: u64,
    log: Vec<Event>,
}

fn money(amount: i64) -> Money {
    let currency = Currency::parse("EUR").expect("a currency");
    Money { amount, currency }
}

fn product_id(text: &str) -> ProductId {
    ProductId::parse(text).expect("a product id")
}

fn order_id(number: u8) -> OrderId {
    OrderId([number; 16])
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).expect("a key")
}

/// Product 1: 10 units at 500, 2 per customer, 2 per order, sold from second 100 to second 200.
fn created(stock: u64) -> Fact {
    Fact::ProductCreated {
        id: product_id("1"),
        product: NewProduct {
            id: Some(product_id("1")),
            name: "Lamp".into(),
            price: money(500),
            stock,
            window: Window { starts_at: Some(Timestamp(100)), ends_at: Some(Timestamp(200)) },
            limit_per_customer: Some(2),
            max_per_order: 2,
        },
    }
}

fn order(number: u8, customer: &str) -> OrderAccepted {
    OrderAccepted {
        order: order_id(number),
        customer: CustomerId::parse(customer).expect("a customer id"),
        product: product_id("1"),
        quantity: 1,
        unit_price: money(500),
        key: Some(key("k").clone()),
    }
}

fn accepted(number: u8, customer: &str) -> Fact {
    Fact::OrderAccepted(order(number, customer))
}

fn accepted_with(order: OrderAccepted) -> Fact {
    Fact::OrderAccepted(order)
}

fn cancelled(number: u8) -> Fact {
    Fact::OrderCancelled { order: order_id(number), reason: "asked for".into() }
}

fn failed(number: u8) -> Fact {
    Fact::OrderFailed { order: order_id(number), reason: "the ledger cannot take it".into() }
}

fn adjusted(delta: i64, key_text: &str) -> Fact {
    Fact::StockAdjusted(StockAdjustment {
        product: product_id("1"),
        delta,
        reason: "count".into(),
        key: key(key_text),
    })
}

fn changed(change: ProductChange) -> Fact {
    Fact::ProductChanged { product: product_id("1"), change }
}

fn paused() -> Fact {
    Fact::SalePaused { product: product_id("1") }
}

fn resumed() -> Fact {
    Fact::SaleResumed { product: product_id("1") }
}

/// Numbered from 1, all at second 150.
fn log(facts: impl IntoIterator<Item = Fact>) -> Vec<Event> {
    (1..).zip(facts).map(|(seq, fact)| Event { seq, at: Timestamp(150), fact }).collect()
}

fn audit(log: &[Event]) -> Report {
    let mut audit = Audit::new();
    for event in log {
        audit.observe(event);
        assert_eq!(audit.seq(), event.seq);
    }
    audit.report()
}

fn broken_facts(invariant: InvariantId, facts: Vec<Fact>) -> Broken {
    Broken { invariant, seq: facts.len() as u64, log: log(facts) }
}

/// Logs in which the last event is the only wrong one, for errors that are in facts.
fn broken_by_the_last_fact() -> Vec<Broken> {
    use InvariantId as I;
    let unkeyed = |number, customer| OrderAccepted { key: None, ..order(number, customer) };
    let quantity = |quantity| accepted_with(OrderAccepted { quantity, ..order(1, "ann") });
    let elsewhere = accepted_with(OrderAccepted { product: product_id("2"), ..order(1, "ann") });
    let cheaper = ProductChange { price: Some(money(400)), ..ProductChange::default() };
    let limit_1 = ProductChange { limit_per_customer: Some(Some(1)), ..ProductChange::default() };
    let max_1 = ProductChange { max_per_order: Some(1), ..ProductChange::default() };
    let ends_early = ProductChange { ends_at: Some(Some(Timestamp(150))), ..ProductChange::default() };
    let starts_late = ProductChange { starts_at: Some(Some(Timestamp(151))), ..ProductChange::default() };
    let pairs = vec![
        (I::NoOversell, vec![created(1), accepted(1, "ann"), accepted(2, "bob")]),
        (I::NoOversell, vec![created(0), accepted(1, "ann")]),
        (I::Conservation, vec![created(2), accepted(1, "ann"), adjusted(-2, "w")]),
        (I::Conservation, vec![created(2), adjusted(-2, "w"), accepted(1, "ann")]),
        (I::OneOrderPerId, vec![created(9), accepted(1, "ann"), accepted(1, "bob")]),
        (I::OneOrderPerKey, vec![created(9), accepted(1, "ann"), accepted(2, "ann")]),
        (I::OneOrderPerKey, vec![created(9), accepted(1, "ann"), cancelled(1), accepted(2, "ann")]),
        (
            I::LimitPerCustomer,
            vec![
                created(9),
                accepted(1, "ann"),
                accepted_with(unkeyed(2, "ann")),
                accepted_with(unkeyed(3, "ann")),
            ],
        ),
        (
            I::LimitPerCustomer,
            vec![created(9), accepted(1, "ann"), changed(limit_1), accepted_with(unkeyed(2, "ann"))],
        ),
        (I::UnitsBackOnce, vec![created(9), accepted(1, "ann"), cancelled(1), cancelled(1)]),
        (I::UnitsBackOnce, vec![created(9), accepted(1, "ann"), cancelled(1), failed(1)]),
        (I::UnitsBackOnce, vec![created(9), accepted(1, "ann"), failed(1), cancelled(1)]),
        (I::QuantityInRange, vec![created(9), quantity(0)]),
        (I::QuantityInRange, vec![created(9), changed(max_1), quantity(2)]),
        (I::InsideWindow, vec![created(9), changed(ends_early), accepted(1, "ann")]),
        (I::InsideWindow, vec![created(9), changed(starts_late), accepted(1, "ann")]),
        (I::NotWhilePaused, vec![created(9), paused(), accepted(1, "ann")]),
        (I::PriceAsListed, vec![created(9), changed(cheaper), accepted(1, "ann")]),
        (I::OneProductPerId, vec![created(9), created(9)]),
        (I::OneAdjustmentPerKey, vec![created(9), adjusted(1, "r"), adjusted(1, "r")]),
        (I::KnownNames, vec![elsewhere]),
        (I::KnownNames, vec![paused()]),
        (I::KnownNames, vec![resumed()]),
        (I::KnownNames, vec![adjusted(1, "r")]),
        (I::KnownNames, vec![changed(ProductChange::default())]),
        (I::KnownNames, vec![created(9), cancelled(1)]),
        (I::KnownNames, vec![created(9), failed(1)]),
    ];
    pairs.into_iter().map(|(invariant, facts)| broken_facts(invariant, facts)).collect()
}

/// Logs whose facts are right and whose places or times are not.
fn broken_by_place() -> Vec<Broken> {
    let facts = || [created(9), accepted(1, "ann"), accepted(2, "bob")];
    let mut gap = log(facts());
    gap[1].seq = 3;
    gap[2].seq = 4;
    let mut repeated = log(facts());
    repeated[2].seq = 2;
    let mut late_start = log(facts());
    for event in &mut late_start {
        event.seq += 1;
    }
    let mut older = log(facts());
    older[2].at = Timestamp(149);
    let broken = |invariant, seq, log| Broken { invariant, seq, log };
    vec![
        broken(InvariantId::DenseLog, 3, gap),
        broken(InvariantId::DenseLog, 2, repeated),
        broken(InvariantId::DenseLog, 2, late_start),
        broken(InvariantId::TimeForward, 3, older),
    ]
}

#[test]
fn every_broken_log_is_found_by_precisely_its_invariant() {
    let mut broken_logs = broken_by_the_last_fact();
    broken_logs.extend(broken_by_place());
    for Broken { invariant, seq, log } in &broken_logs {
        let report = audit(log);
        let found: Vec<_> = report.findings.iter().map(|f| (f.invariant, f.seq)).collect();
        assert_eq!(found, [(*invariant, *seq)], "in {log:#?}");
        assert!(!report.is_clean());
        assert_eq!(report.findings_total(), 1);
        for other in InvariantId::ALL {
            assert_eq!(report.count(other), u64::from(other == *invariant), "{other}");
        }
        assert!(!report.findings[0].detail.is_empty());
    }
    for invariant in InvariantId::ALL {
        assert!(broken_logs.iter().any(|broken| broken.invariant == invariant), "no log breaks {invariant}");
    }
}

/// Every kind of fact, at the edges of what is allowed.
fn clean_log() -> Vec<Event> {
    let two = OrderAccepted { quantity: 2, key: None, ..order(3, "cid") };
    let change = ProductChange {
        price: Some(money(700)),
        limit_per_customer: Some(None),
        ends_at: Some(None),
        max_per_order: Some(4),
        ..ProductChange::default()
    };
    let later =
        OrderAccepted { quantity: 4, unit_price: money(700), key: Some(key("k2")), ..order(4, "cid") };
    let mut log = log([
        created(3),
        accepted(1, "ann"),
        accepted(2, "bob"),
        cancelled(1),
        accepted_with(two),
        failed(2),
        adjusted(-1, "w"),
        adjusted(4, "r"),
        paused(),
        changed(change),
        resumed(),
        accepted_with(later),
    ]);
    for event in &mut log {
        event.at = Timestamp(100 + 9 * (event.seq as i64 - 2).max(0));
    }
    log[11].at = Timestamp(200);
    log
}

#[test]
fn a_log_in_order_is_counted_and_names_nothing() {
    let report = audit(&clean_log());
    assert_eq!(report.findings, []);
    assert!(report.is_clean());
    assert_eq!(report.findings_total(), 0);
    assert_eq!(report.seq, 12);
    let product = report.product(&product_id("1")).expect("product 1");
    assert_eq!(
        [product.stocked, product.available, product.held, product.sold, product.withheld],
        [7, 0, 0, 6, 1]
    );
    let orders = report.orders;
    assert_eq!([orders.accepted, orders.live, orders.cancelled, orders.failed], [4, 2, 1, 1]);
    assert_eq!((report.oversold_units, report.duplicated_orders), (0, 0));
}

#[test]
fn nothing_observed_is_an_empty_report() {
    let report = audit(&[]);
    assert!(report.is_clean());
    assert_eq!((report.seq, report.products.len()), (0, 0));
}

#[test]
fn oversold_units_are_counted_as_they_are_sold() {
    let mut facts = vec![created(3)];
    facts.extend((1..=5).map(|number| accepted(number, &format!("buyer-{number}"))));
    facts.push(cancelled(1));
    let report = audit(&log(facts));
    assert_eq!(report.count(InvariantId::NoOversell), 2);
    assert_eq!(report.oversold_units, 2);
    assert_eq!(report.products[0].available, -1);
    assert_eq!(report.products[0].sold, 4);
}

#[test]
fn only_the_units_above_the_stock_are_oversold() {
    let two = OrderAccepted { quantity: 2, ..order(1, "ann") };
    assert_eq!(audit(&log([created(1), accepted_with(two)])).oversold_units, 1);
}

#[test]
fn an_order_repeated_under_its_id_and_key_is_one_duplicate() {
    let report = audit(&log([created(9), accepted(1, "ann"), accepted(1, "ann")]));
    assert_eq!(report.count(InvariantId::OneOrderPerId), 1);
    assert_eq!(report.count(InvariantId::OneOrderPerKey), 1);
    assert_eq!(report.duplicated_orders, 1);
}

#[test]
fn a_flood_of_findings_is_counted_but_not_kept_and_hides_no_other() {
    let mut facts = vec![created(9), accepted(1, "ann")];
    facts.extend((0..5_000).map(|_| cancelled(1)));
    facts.extend([cancelled(2)]);
    let report = audit(&log(facts));
    assert_eq!(report.count(InvariantId::UnitsBackOnce), 4_999);
    assert_eq!(report.count(InvariantId::KnownNames), 1);
    assert_eq!(report.findings_total(), 5_000);
    assert_eq!(report.findings.len() as u64, Report::FINDINGS_PER_INVARIANT_MAX + 1);
    let last = report.findings.last().expect("findings");
    assert_eq!(last.invariant, InvariantId::KnownNames);
}

#[test]
fn every_invariant_has_a_name_of_its_own() {
    let mut names: Vec<_> = InvariantId::ALL.iter().map(|invariant| invariant.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), InvariantId::ALL.len());
    for name in names {
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name}");
    }
    for invariant in InvariantId::ALL {
        assert_eq!(invariant.to_string(), invariant.name());
        assert!(!invariant.promise().is_empty());
    }
}

#[test]
fn an_accepted_loss_is_no_gap_and_whatever_else_is_missing_is() {
    let mut events = log([created(9), accepted(1, "ann"), accepted(2, "bob"), accepted(3, "cid")]);
    events[2].seq = 11;
    events[3].seq = 13;
    let mut audit = Audit::new();
    events[..2].iter().for_each(|event| audit.observe(event));
    audit.skip_lost(10);
    audit.observe(&events[2]);
    assert!(audit.report().is_clean(), "{:?}", audit.report());
    audit.observe(&events[3]);
    let found: Vec<_> = audit.report().findings.iter().map(|f| (f.invariant, f.seq)).collect();
    assert_eq!(found, [(InvariantId::DenseLog, 13)]);
    audit.skip_lost(5);
    assert_eq!(audit.report().count(InvariantId::DenseLog), 2, "what was counted cannot be lost");
}
