//! All that is on sale and all that was sold, in memory.
//!
//! A record costs what it must: customers and keys are kept as bytes in a few large pieces, and the look-up tables hold
//! positions and hashes only, so a million orders fit in well under 300 MiB. Nothing is moved when it grows. Only
//! acceptances are stored, so memory grows with units sold, not with traffic.

mod apply;
mod customers;
mod decide;
mod parts;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::{
    Currency, CustomerId, Figures, IdempotencyKey, Money, NewProduct, OrderId, ProductId, Rejection, Seq,
    Stock, Timestamp, chunked::Chunked, event::Event, index::Index, texts::Texts,
};
use core::hash::BuildHasher;
use customers::Customers;

pub use apply::Inconsistency;
pub use parts::Part;

/// What the inventory says to a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It may happen: this is the event that makes it so.
    Accept(Event),
    /// The same command was accepted before; nothing happens.
    Replay(Replay),
    /// No.
    Refuse(Rejection),
}

/// What an earlier, equal command led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// This order was accepted, or is cancelled or failed already.
    Order(OrderId),
    /// This stock adjustment was made.
    Adjustment(AdjustmentRecord),
    /// The product is as asked for already.
    Product(ProductId),
}

/// A stock adjustment, remembered for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdjustmentRecord {
    /// The event that made it.
    pub seq: Seq,
    /// Units added, or taken if below zero.
    pub delta: i64,
}

/// A product as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its id.
    pub id: ProductId,
    /// Name, price, window and limits. Its `id` is set, and its `stock` is what it began with.
    pub details: NewProduct,
    /// Whether an operator paused the sale.
    pub paused: bool,
    /// Its units.
    pub stock: Stock,
}

impl Product {
    /// The figures of its stock.
    pub fn figures(&self) -> Figures {
        self.stock.figures()
    }
}

/// Whether an order's units are the customer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderState {
    /// They are.
    Live,
    /// They came back because somebody asked.
    Cancelled,
    /// They came back because the ledger can never take the order.
    Failed,
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderEnd {
    /// The event that ended it.
    pub seq: Seq,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Box<str>,
}

/// An order as it stands, for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// Its id.
    pub id: OrderId,
    /// The event that accepted it.
    pub seq: Seq,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Who bought.
    pub customer: &'a str,
    /// What.
    pub product: ProductId,
    /// How many.
    pub quantity: u32,
    /// The price of one unit when it was accepted.
    pub unit_price: Money,
    /// The key it was asked for with.
    pub key: Option<&'a str>,
    /// Whether the units are the customer's.
    pub state: OrderState,
    /// How it ended, if it did.
    pub end: Option<&'a OrderEnd>,
}

/// An order in 72 bytes. Texts are numbers into [`Customers`] and `keys`.
#[derive(Debug)]
struct OrderRecord {
    id: OrderId,
    seq: Seq,
    accepted_at: Timestamp,
    amount: i64,
    customer: u32,
    product: u32,
    quantity: u32,
    /// Into `keys`; [`NONE`] if it was asked for without.
    key: u32,
    /// The customer's order before this one; [`NONE`] for the first.
    previous_of_customer: u32,
    currency: Currency,
    state: OrderState,
}

/// "No such number" in a record.
const NONE: u32 = u32::MAX;

/// All that is on sale and all that was sold.
#[derive(Debug, Default)]
pub struct Inventory {
    hasher: DefaultHashBuilder,
    last_seq: Seq,
    last_at: Timestamp,
    /// In order of creation.
    products: Vec<Product>,
    product_numbers: HashMap<ProductId, u32>,
    /// In order of acceptance.
    orders: Chunked<OrderRecord>,
    /// Order id → position in `orders`.
    orders_by_id: Index,
    customers: Customers,
    keys: Texts,
    /// (customer, key) → position in `orders`.
    orders_by_key: Index,
    /// (customer, product) → units of live orders; no entry means 0.
    live_units: HashMap<(u32, u32), u32>,
    /// Position in `orders` → how it ended.
    ends: HashMap<u32, OrderEnd>,
    /// (product, key) → the adjustment made under it.
    adjustments: HashMap<(u32, IdempotencyKey), AdjustmentRecord>,
}

impl Inventory {
    /// Nothing on sale, nothing sold.
    pub fn new() -> Self {
        Self::default()
    }

    /// The last applied event; 0 before the first.
    pub fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// The time of the last applied event.
    pub fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// Every product, in order of creation.
    pub fn products(&self) -> impl ExactSizeIterator<Item = &Product> {
        self.products.iter()
    }

    /// One product.
    pub fn product(&self, id: &ProductId) -> Option<&Product> {
        self.product_number(id).and_then(|number| self.products.get(number as usize))
    }

    /// One order.
    pub fn order(&self, id: OrderId) -> Option<Order<'_>> {
        self.order_number(id).and_then(|number| self.order_at(number))
    }

    /// How many orders were ever accepted.
    pub fn orders_len(&self) -> usize {
        self.orders.len()
    }

    /// Orders accepted after event `after`, oldest first.
    pub fn orders_after(&self, after: Seq) -> impl Iterator<Item = Order<'_>> {
        let start = self.orders.partition_point(|order| order.seq <= after);
        (start..self.orders.len()).filter_map(|index| self.order_at(u32::try_from(index).ok()?))
    }

    /// The orders of one customer, newest first.
    pub fn orders_of(&self, customer: &str) -> impl Iterator<Item = Order<'_>> {
        let newest =
            self.customers.find(&self.hasher, customer).and_then(|number| self.customers.last_order(number));
        self.chain(newest).filter_map(|number| self.order_at(number))
    }

    /// The order that was accepted for this customer under this key.
    pub fn order_by_key(&self, customer: &CustomerId, key: &IdempotencyKey) -> Option<Order<'_>> {
        let customer = self.customers.find(&self.hasher, customer.as_str())?;
        self.order_number_by_key(customer, key.as_str()).and_then(|number| self.order_at(number))
    }

    /// Units of live orders that this customer has of this product.
    pub fn live_units(&self, customer: &str, product: &ProductId) -> u32 {
        let customer = self.customers.find(&self.hasher, customer);
        match (customer, self.product_number(product)) {
            (Some(customer), Some(product)) => {
                self.live_units.get(&(customer, product)).copied().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Customers that ever had an order accepted, in order of their first.
    pub fn customers(&self) -> impl Iterator<Item = &str> {
        self.customers.names()
    }

    fn product_number(&self, id: &ProductId) -> Option<u32> {
        self.product_numbers.get(id).copied()
    }

    fn order_number(&self, id: OrderId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        let is_it = |number: u32| self.orders.get(number as usize).is_some_and(|order| order.id == id);
        self.orders_by_id.find(hash, is_it)
    }

    fn order_number_by_key(&self, customer: u32, key: &str) -> Option<u32> {
        let hash = self.hasher.hash_one((customer, key));
        let is_it = |number: u32| {
            self.orders
                .get(number as usize)
                .is_some_and(|order| order.customer == customer && self.keys.get(order.key) == key)
        };
        self.orders_by_key.find(hash, is_it)
    }

    /// Positions of a customer's orders, newest first.
    fn chain(&self, newest: Option<u32>) -> impl Iterator<Item = u32> {
        core::iter::successors(newest, |number| {
            let before = self.orders.get(*number as usize)?.previous_of_customer;
            (before != NONE).then_some(before)
        })
    }

    fn order_at(&self, number: u32) -> Option<Order<'_>> {
        let record = self.orders.get(number as usize)?;
        Some(Order {
            id: record.id,
            seq: record.seq,
            accepted_at: record.accepted_at,
            customer: self.customers.name(record.customer),
            product: self.products.get(record.product as usize)?.id,
            quantity: record.quantity,
            unit_price: Money { amount: record.amount, currency: record.currency },
            key: (record.key != NONE).then(|| self.keys.get(record.key)),
            state: record.state,
            end: self.ends.get(&number),
        })
    }
}
