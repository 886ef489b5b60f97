//! Facts: the only things that change state.

use crate::{
    CustomerId, IdempotencyKey, Money, NewProduct, OrderId, ProductChange, ProductId, Seq, StockAdjustment,
    Timestamp,
};

/// A fact at its place in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place: one more than the event before, or than the last lost one where an operator accepted a loss.
    pub seq: Seq,
    /// When it was decided, on the engine's clock; never before the event before it.
    pub at: Timestamp,
    /// What happened.
    pub fact: Fact,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// Something is on sale.
    ProductCreated {
        /// Its id, decided if the command left it open.
        id: ProductId,
        /// The command, with every default filled in.
        product: NewProduct,
    },
    /// What is said about a product changed.
    ProductChanged {
        /// Which product.
        product: ProductId,
        /// What changed.
        change: ProductChange,
    },
    /// Units came or went.
    StockAdjusted(StockAdjustment),
    /// Selling stopped.
    SalePaused {
        /// Of which product.
        product: ProductId,
    },
    /// Selling went on.
    SaleResumed {
        /// Of which product.
        product: ProductId,
    },
    /// Units were given to a customer.
    OrderAccepted(OrderAccepted),
    /// The units of an order came back because somebody asked.
    OrderCancelled {
        /// Which order.
        order: OrderId,
        /// Why.
        reason: Box<str>,
    },
    /// The units of an order came back because the ledger can never take it.
    OrderFailed {
        /// Which order.
        order: OrderId,
        /// Why.
        reason: Box<str>,
    },
}

/// An order, its key and its fingerprint in one durable record. The fingerprint of a request is the parsed fields
/// themselves (product and quantity), so comparing two requests can have no collisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderAccepted {
    /// The order's id.
    pub order: OrderId,
    /// Who bought.
    pub customer: CustomerId,
    /// What.
    pub product: ProductId,
    /// How many.
    pub quantity: u32,
    /// The price of one unit when it was accepted.
    pub unit_price: Money,
    /// The key it was asked for with.
    pub key: Option<IdempotencyKey>,
}
