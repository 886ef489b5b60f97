//! An inventory taken apart and put together again.

#![cfg(test)]

use yoink_core::{
    AdjustmentRecord, Command, Currency, CustomerId, Decision, IdempotencyKey, Inconsistency, Inventory,
    Money, NewProduct, OrderId, OrderState, Part, ProductId, Purchase, Replay, Timestamp, Window,
};

const NOW: Timestamp = Timestamp(1_000);

fn purchase(number: u32) -> Command {
    let mut order = [0; 16];
    order[..4].copy_from_slice(&number.to_be_bytes());
    Command::Purchase(Purchase {
        order: OrderId(order),
        customer: CustomerId::parse(&format!("customer-{number}")).expect("a customer id"),
        product: ProductId::parse("1").expect("a product id"),
        quantity: 1,
        key: Some(IdempotencyKey::parse("k").expect("a key")),
    })
}

fn accept(inventory: &mut Inventory, command: &Command) {
    match inventory.decide(NOW, command) {
        Decision::Accept(event) => inventory.apply(&event),
        other => panic!("{command:?} was answered {other:?}"),
    }
}

fn inventory_with_orders(orders: u32) -> Inventory {
    let mut inventory = Inventory::new();
    let product = NewProduct {
        id: None,
        name: "Lamp".into(),
        price: Money { amount: 500, currency: Currency::parse("EUR").expect("a currency") },
        stock: 1_000_000,
        window: Window::default(),
        limit_per_customer: None,
        max_per_order: 10,
    };
    accept(&mut inventory, &Command::CreateProduct(product));
    for number in 0..orders {
        accept(&mut inventory, &purchase(number));
    }
    inventory
}

#[test]
fn making_room_forgets_no_order_and_no_key_that_is_there_already() {
    let mut inventory = inventory_with_orders(100);
    inventory.reserve_orders(10_000);
    for number in 0..100 {
        let command = purchase(number);
        let Command::Purchase(Purchase { order, .. }) = &command else { unreachable!("a purchase") };
        assert_eq!(inventory.order(*order).map(|found| found.id), Some(*order));
        assert_eq!(inventory.decide(NOW, &command), Decision::Replay(Replay::Order(*order)));
    }
}

/// The parts of a sound inventory with two orders: the product first, then the orders.
fn with_parts(check: impl FnOnce(Vec<Part<'_>>)) {
    let inventory = inventory_with_orders(2);
    let parts: Vec<_> = inventory.parts().collect();
    assert!(matches!(parts.as_slice(), [Part::Product { .. }, Part::Order(_), Part::Order(_)]));
    check(parts);
}

/// Puts all parts back and closes them.
fn assemble(parts: Vec<Part<'_>>) -> Result<Inventory, Inconsistency> {
    let mut inventory = Inventory::new();
    for part in parts {
        inventory.insert_part(part)?;
    }
    inventory.finish_parts(3, NOW)?;
    Ok(inventory)
}

fn one() -> ProductId {
    ProductId::parse("1").expect("a product id")
}

#[test]
fn sound_parts_make_the_same_inventory() {
    with_parts(|parts| {
        let inventory = assemble(parts).expect("sound parts");
        assert_eq!((inventory.last_seq(), inventory.last_at()), (3, NOW));
        assert_eq!(inventory.orders_len(), 2);
    });
}

#[test]
fn a_product_or_an_order_that_is_there_twice_is_refused() {
    for doubled in 0..2 {
        with_parts(|mut parts| {
            parts.push(parts[doubled].clone());
            let expected = match &parts[doubled] {
                Part::Order(order) => Inconsistency::OrderTwice(order.id),
                _ => Inconsistency::ProductTwice(one()),
            };
            assert_eq!(assemble(parts).map(|_| ()), Err(expected));
        });
    }
}

#[test]
fn two_orders_under_one_key_are_refused() {
    with_parts(|mut parts| {
        let id = OrderId([9; 16]);
        if let Part::Order(order) = &mut parts[2] {
            (order.customer, order.id) = ("customer-0", id);
        }
        assert_eq!(assemble(parts).map(|_| ()), Err(Inconsistency::OrderTwice(id)));
    });
}

#[test]
fn a_part_of_a_product_that_is_not_there_is_refused() {
    let unknown = Err(Inconsistency::UnknownProduct(one()));
    with_parts(|mut parts| {
        parts.remove(0);
        assert_eq!(assemble(parts).map(|_| ()), unknown);
    });
    let adjustment = Part::Adjustment {
        product: one(),
        key: IdempotencyKey::parse("k").expect("a key"),
        record: AdjustmentRecord { seq: 1, delta: 1 },
    };
    assert_eq!(assemble(vec![adjustment]).map(|_| ()), unknown);
}

#[test]
fn units_that_do_not_add_up_are_refused() {
    let broken = Err(Inconsistency::LawBroken(one()));
    with_parts(|mut parts| {
        if let Part::Product { figures, .. } = &mut parts[0] {
            figures.available += 1;
        }
        assert_eq!(assemble(parts).map(|_| ()), broken);
    });
    // A lost order: the product's figures add up, but nobody has one of the units sold.
    with_parts(|mut parts| {
        parts.pop();
        assert_eq!(assemble(parts).map(|_| ()), broken);
    });
    with_parts(|mut parts| {
        if let Part::Order(order) = &mut parts[1] {
            order.state = OrderState::Cancelled;
        }
        assert_eq!(assemble(parts).map(|_| ()), broken);
    });
}

#[test]
fn orders_after_an_event_begin_with_the_next_one() {
    let inventory = inventory_with_orders(3);
    let seqs = |after| inventory.orders_after(after).map(|order| order.seq).collect::<Vec<_>>();
    assert_eq!(seqs(0), [2, 3, 4]);
    assert_eq!(seqs(2), [3, 4]);
    assert_eq!(seqs(4), []);
    assert_eq!(seqs(u64::MAX), []);
}

#[test]
fn an_order_is_found_by_its_customer_and_key_only() {
    let inventory = inventory_with_orders(2);
    let customer = |text| CustomerId::parse(text).expect("a customer id");
    let key = |text| IdempotencyKey::parse(text).expect("a key");
    let found = |name, key_text| {
        let order = inventory.order_by_key(&customer(name), &key(key_text));
        order.map(|order| (order.seq, order.customer.to_owned()))
    };
    assert_eq!(found("customer-0", "k"), Some((2, "customer-0".to_owned())));
    assert_eq!(found("customer-1", "k"), Some((3, "customer-1".to_owned())));
    assert_eq!(found("customer-1", "other"), None);
    assert_eq!(found("customer-2", "k"), None);
}
