//! From the words of the tables to the core's types and back; for every test that plays them.

use yoink_core::{
    Currency, MAX_PER_ORDER_DEFAULT, Money, NewProduct, OrderId, ProductChange, ProductId, Rejection,
    Timestamp, Window,
};

use crate::language::{Detail, Outcome, Price, Terms};

pub fn money(price: &Price) -> Money {
    Money { amount: price.amount, currency: Currency::parse(&price.currency).expect("a currency") }
}

pub fn new_product(id: Option<&str>, stock: u64, terms: &Terms) -> NewProduct {
    let usual = Price { amount: 1_000, currency: "EUR".to_owned() };
    NewProduct {
        id: id.map(|id| ProductId::parse(id).expect("a product id")),
        name: "Lamp".into(),
        price: money(terms.price.as_ref().unwrap_or(&usual)),
        stock,
        window: Window {
            starts_at: terms.starts_at_us.flatten().map(Timestamp),
            ends_at: terms.ends_at_us.flatten().map(Timestamp),
        },
        limit_per_customer: terms.limit.flatten(),
        max_per_order: terms.max_per_order.unwrap_or(MAX_PER_ORDER_DEFAULT),
    }
}

pub fn change(terms: &Terms) -> ProductChange {
    ProductChange {
        name: None,
        price: terms.price.as_ref().map(money),
        starts_at: terms.starts_at_us.map(|time_us| time_us.map(Timestamp)),
        ends_at: terms.ends_at_us.map(|time_us| time_us.map(Timestamp)),
        limit_per_customer: terms.limit,
        max_per_order: terms.max_per_order,
    }
}

/// A rejection as the tables write it; `number_of` says the how-manieth an order is.
pub fn refused(rejection: &Rejection, number_of: impl Fn(OrderId) -> u32) -> Outcome {
    let orders = |orders: &[OrderId]| Detail::Orders(orders.iter().map(|order| number_of(*order)).collect());
    let details = match rejection {
        Rejection::KeyReused { original } => vec![("original", orders(original.as_slice()))],
        Rejection::QuantityAboveMax { max_per_order } => {
            vec![("max", Detail::Number((*max_per_order).into()))]
        }
        Rejection::SaleNotStarted { starts_at } => vec![("starts", Detail::TimeUs(starts_at.0))],
        Rejection::SaleEnded { ends_at } => vec![("ends", Detail::TimeUs(ends_at.0))],
        Rejection::LimitReached { limit, used, existing } => vec![
            ("limit", Detail::Number((*limit).into())),
            ("used", Detail::Number((*used).into())),
            ("existing", orders(existing)),
        ],
        Rejection::SoldOut { available } | Rejection::BelowCommitted { available } => {
            vec![("available", Detail::Number(*available))]
        }
        _ => Vec::new(),
    };
    Outcome::Refused { name: rejection.name(), details }
}
