//! An inventory taken apart and put together again.

#![cfg(test)]

use yoink_core::{
    Command, Currency, CustomerId, Decision, IdempotencyKey, Inventory, Money, NewProduct, OrderId,
    ProductId, Purchase, Replay, Timestamp, Window,
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
        price: Money {
            amount: 500,
            currency: Currency::parse("EUR").expect("a currency"),
        },
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
        let Command::Purchase(Purchase { order, .. }) = &command else {
            unreachable!("a purchase")
        };
        assert_eq!(inventory.order(*order).map(|found| found.id), Some(*order));
        assert_eq!(
            inventory.decide(NOW, &command),
            Decision::Replay(Replay::Order(*order))
        );
    }
}
