//! What may be asked of the inventory.

use crate::{CustomerId, IdempotencyKey, Money, OrderId, ProductId, Timestamp};

/// The most units one order may ever have, whatever a product allows.
pub const QUANTITY_MAX: u32 = 1_000;
/// What a product allows per order unless it says otherwise.
pub const MAX_PER_ORDER_DEFAULT: u32 = 10;
/// The most units one product may have been given in its life.
pub const STOCK_UNITS_MAX: u64 = 1_000_000_000;
/// The longest name of a product, in bytes.
pub const PRODUCT_NAME_BYTES_MAX: usize = 200;
/// The longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 500;

/// A wish to change something.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Buy.
    Purchase(Purchase),
    /// Give the units of an order back because somebody asked for it.
    Cancel {
        /// Which order.
        order: OrderId,
        /// Why, for the books.
        reason: Box<str>,
    },
    /// Give the units of an order back because the ledger can never take it (compensation).
    Fail {
        /// Which order.
        order: OrderId,
        /// Why, for the books.
        reason: Box<str>,
    },
    /// Put something on sale.
    CreateProduct(NewProduct),
    /// Change what is said about a product; never its stock.
    ChangeProduct {
        /// Which product.
        product: ProductId,
        /// What to change.
        change: ProductChange,
    },
    /// Restock or withdraw.
    AdjustStock(StockAdjustment),
    /// Stop selling a product.
    Pause {
        /// Which product.
        product: ProductId,
    },
    /// Sell it again.
    Resume {
        /// Which product.
        product: ProductId,
    },
}

/// What a buyer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// The id the order gets if it is accepted. Made by the engine, unused if the answer is no.
    pub order: OrderId,
    /// Who buys.
    pub customer: CustomerId,
    /// What.
    pub product: ProductId,
    /// How many, from 1.
    pub quantity: u32,
    /// What makes a repetition of this request the same request.
    pub key: Option<IdempotencyKey>,
}

/// From when to when something is sold: `starts_at <= now < ends_at`; `None` is open-ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The first instant at which it is sold.
    pub starts_at: Option<Timestamp>,
    /// The first instant at which it is no longer sold.
    pub ends_at: Option<Timestamp>,
}

/// A product to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProduct {
    /// `None` takes the next free whole number.
    pub id: Option<ProductId>,
    /// What people call it.
    pub name: Box<str>,
    /// What one unit costs.
    pub price: Money,
    /// Units to begin with, at most [`STOCK_UNITS_MAX`].
    pub stock: u64,
    /// When it is sold.
    pub window: Window,
    /// Units of live orders that one customer may have.
    pub limit_per_customer: Option<u32>,
    /// Units in one order, 1 to [`QUANTITY_MAX`].
    pub max_per_order: u32,
}

/// What to change; `None` leaves a field as it is, `Some(None)` clears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProductChange {
    /// A new name.
    pub name: Option<Box<str>>,
    /// A new price; accepted orders keep theirs.
    pub price: Option<Money>,
    /// A new start of the sale window.
    pub starts_at: Option<Option<Timestamp>>,
    /// A new end of the sale window.
    pub ends_at: Option<Option<Timestamp>>,
    /// A new limit per customer; orders above it stay.
    pub limit_per_customer: Option<Option<u32>>,
    /// A new most per order.
    pub max_per_order: Option<u32>,
}

/// A restock (`delta > 0`) or a withdrawal (`delta < 0`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockAdjustment {
    /// Which product.
    pub product: ProductId,
    /// Units to add to, or to take from, what is available. Never 0.
    pub delta: i64,
    /// Why, for the books.
    pub reason: Box<str>,
    /// What makes a repetition of this request the same request; scoped to the product.
    pub key: IdempotencyKey,
}
