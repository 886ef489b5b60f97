//! A damaged log is recognised: one test for each way in which an event cannot have followed the ones before it.

#![cfg(test)]

use yoink_core::{
    Currency, CustomerId, Event, Fact, IdempotencyKey, Inconsistency, Inventory, Money, NewProduct,
    OrderAccepted, OrderId, ProductChange, ProductId, StockAdjustment, Timestamp, Window,
};

const NOW: Timestamp = Timestamp(1_000);

fn product_id(text: &str) -> ProductId {
    ProductId::parse(text).expect("a product id")
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).expect("a key")
}

fn price() -> Money {
    Money { amount: 500, currency: Currency::parse("EUR").expect("a currency") }
}

fn created(id: &str) -> Fact {
    let product = NewProduct {
        id: Some(product_id(id)),
        name: "Lamp".into(),
        price: price(),
        stock: 5,
        window: Window::default(),
        limit_per_customer: None,
        max_per_order: 10,
    };
    Fact::ProductCreated { id: product_id(id), product }
}

/// An order of ann's for product 1, one unit, under the key `k` and its number.
fn order(number: u8) -> OrderAccepted {
    OrderAccepted {
        order: OrderId([number; 16]),
        customer: CustomerId::parse("ann").expect("a customer id"),
        product: product_id("1"),
        quantity: 1,
        unit_price: price(),
        key: Some(key(&format!("k{number}"))),
    }
}

fn cancelled(number: u8) -> Fact {
    Fact::OrderCancelled { order: OrderId([number; 16]), reason: "asked for".into() }
}

fn failed(number: u8) -> Fact {
    Fact::OrderFailed { order: OrderId([number; 16]), reason: "the ledger cannot take it".into() }
}

fn adjusted(product: &str, delta: i64) -> Fact {
    Fact::StockAdjusted(StockAdjustment {
        product: product_id(product),
        delta,
        reason: "count".into(),
        key: key("r"),
    })
}

/// Product 1 with 5 units; order 1 is live, order 2 is cancelled, order 3 has failed. Six events at `NOW`.
fn inventory() -> Inventory {
    let mut inventory = Inventory::new();
    let facts = [
        created("1"),
        Fact::OrderAccepted(order(1)),
        Fact::OrderAccepted(order(2)),
        cancelled(2),
        Fact::OrderAccepted(order(3)),
        failed(3),
    ];
    for (seq, fact) in (1..).zip(facts) {
        let event = Event { seq, at: NOW, fact };
        assert_eq!(inventory.check(&event), Ok(()));
        inventory.apply(&event);
    }
    inventory
}

fn next(fact: Fact) -> Event {
    Event { seq: 7, at: NOW, fact }
}

fn assert_found(fact: Fact, expected: &Inconsistency) {
    let event = next(fact);
    assert_eq!(inventory().check(&event), Err(expected.clone()), "{event:?}");
    assert!(!expected.to_string().is_empty());
}

#[test]
fn an_event_in_its_place_passes() {
    let change = ProductChange::default();
    let product = product_id("1");
    let facts = [
        created("2"),
        Fact::OrderAccepted(order(4)),
        cancelled(1),
        failed(1),
        adjusted("1", 1),
        adjusted("1", -4),
        Fact::SalePaused { product },
        Fact::SaleResumed { product },
        Fact::ProductChanged { product, change },
    ];
    for fact in facts {
        let event = next(fact);
        assert_eq!(inventory().check(&event), Ok(()), "{event:?}");
    }
}

#[test]
fn a_missing_or_doubled_event_is_found() {
    for found in [0, 6, 8, u64::MAX] {
        let event = Event { seq: found, ..next(Fact::OrderAccepted(order(4))) };
        let expected = Inconsistency::SeqGap { expected: 7, found };
        assert!(!expected.to_string().is_empty());
        assert_eq!(inventory().check(&event), Err(expected));
    }
}

#[test]
fn an_event_older_than_the_one_before_it_is_found() {
    let event = Event { at: Timestamp(NOW.0 - 1), ..next(Fact::OrderAccepted(order(4))) };
    assert_eq!(inventory().check(&event), Err(Inconsistency::TimeRunsBack));
}

#[test]
fn a_product_that_was_never_created_is_found() {
    let product = product_id("2");
    let elsewhere = OrderAccepted { product, ..order(4) };
    let facts = [
        Fact::OrderAccepted(elsewhere),
        adjusted("2", 1),
        Fact::SalePaused { product },
        Fact::SaleResumed { product },
        Fact::ProductChanged { product, change: ProductChange::default() },
    ];
    for fact in facts {
        assert_found(fact, &Inconsistency::UnknownProduct(product));
    }
}

#[test]
fn a_product_created_again_is_found() {
    assert_found(created("1"), &Inconsistency::ProductTwice(product_id("1")));
}

#[test]
fn the_end_of_an_order_that_was_never_accepted_is_found() {
    assert_found(cancelled(4), &Inconsistency::UnknownOrder(OrderId([4; 16])));
    assert_found(failed(4), &Inconsistency::UnknownOrder(OrderId([4; 16])));
}

#[test]
fn an_order_accepted_again_is_found() {
    let same_id = OrderAccepted { key: None, ..order(1) };
    assert_found(Fact::OrderAccepted(same_id), &Inconsistency::OrderTwice(OrderId([1; 16])));
    let same_key = OrderAccepted { key: Some(key("k2")), ..order(4) };
    assert_found(Fact::OrderAccepted(same_key), &Inconsistency::OrderTwice(OrderId([4; 16])));
}

#[test]
fn units_that_would_come_back_twice_are_found() {
    for number in [2, 3] {
        let expected = Inconsistency::EndedTwice(OrderId([number; 16]));
        assert_found(cancelled(number), &expected);
        assert_found(failed(number), &expected);
    }
}

#[test]
fn more_units_than_there_are_are_found() {
    let too_many = OrderAccepted { quantity: 5, ..order(4) };
    let broken = Inconsistency::LawBroken(product_id("1"));
    assert_found(Fact::OrderAccepted(too_many), &broken);
    assert_found(adjusted("1", -5), &broken);
    assert_found(adjusted("1", i64::MIN), &broken);
}

#[test]
#[should_panic(expected = "out of its place")]
fn applying_an_event_out_of_its_place_stops_the_program() {
    inventory().apply(&Event { seq: 8, ..next(cancelled(1)) });
}

#[test]
#[should_panic(expected = "twice")]
fn applying_the_end_of_an_ended_order_stops_the_program() {
    inventory().apply(&next(failed(2)));
}

#[test]
#[should_panic(expected = "below zero")]
fn applying_an_order_of_units_that_are_not_there_stops_the_program() {
    let too_many = OrderAccepted { quantity: 5, ..order(4) };
    inventory().apply(&next(Fact::OrderAccepted(too_many)));
}

#[test]
fn after_an_accepted_loss_the_event_behind_it_passes_and_no_other() {
    let mut inventory = inventory();
    inventory.skip_lost(1_000);
    let place = |seq| Event { seq, ..next(Fact::OrderAccepted(order(4))) };
    assert_eq!(
        inventory.check(&place(7)),
        Err(Inconsistency::SeqGap { expected: 1_001, found: 7 }),
        "the number of a lost event is given again"
    );
    assert_eq!(inventory.check(&place(1_001)), Ok(()));
    inventory.apply(&place(1_001));
    assert_eq!(inventory.order(order(4).order).map(|order| order.seq), Some(1_001));
}
