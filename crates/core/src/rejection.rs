//! Every "no" has a name, a rank and a retry verdict.

use core::fmt;

use crate::{OrderId, Timestamp};

/// Why a command was refused. Listed in the order in which the checks run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No such product.
    ProductNotFound,
    /// No such order.
    OrderNotFound,
    /// A product with this id exists.
    ProductExists,
    /// The key was used for another request, which was accepted.
    KeyReused {
        /// The order that was accepted under this key; `None` where the key belongs to a stock adjustment.
        original: Option<OrderId>,
    },
    /// More units than the product allows in one order.
    QuantityAboveMax {
        /// The most units per order.
        max_per_order: u32,
    },
    /// The product's units do not add up; it sells nothing until somebody looked.
    ConservationBroken,
    /// The sale window has not opened.
    SaleNotStarted {
        /// When it does.
        starts_at: Timestamp,
    },
    /// The sale window has closed.
    SaleEnded {
        /// When it did.
        ends_at: Timestamp,
    },
    /// An operator paused the sale.
    SalePaused,
    /// The customer has, or would have, more units than one customer may.
    LimitReached {
        /// Units of live orders per customer.
        limit: u32,
        /// Units of live orders that this customer has.
        used: u32,
        /// The customer's live orders of this product, newest first, at most [`Rejection::EXISTING_MAX`].
        existing: Vec<OrderId>,
    },
    /// Fewer units are available than were asked for.
    SoldOut {
        /// How many are.
        available: u64,
    },
    /// The order has failed; there is nothing to cancel.
    OrderFailed,
    /// More units were to be withdrawn than are available.
    BelowCommitted {
        /// How many are.
        available: u64,
    },
    /// The product would have had more units in its life than [`crate::STOCK_UNITS_MAX`].
    StockTooLarge,
    /// The sale window would end before it starts.
    WindowEmpty,
}

impl Rejection {
    /// The most order ids that a [`Rejection::LimitReached`] names.
    pub const EXISTING_MAX: usize = 20;

    /// The names of all rejections, in the order in which the checks run.
    pub const NAMES: [&'static str; 15] = [
        "product-not-found",
        "order-not-found",
        "product-exists",
        "idempotency-key-reused",
        "quantity-above-max",
        "conservation-broken",
        "sale-not-started",
        "sale-ended",
        "sale-paused",
        "limit-reached",
        "sold-out",
        "order-failed",
        "below-committed",
        "stock-too-large",
        "window-empty",
    ];

    /// The place of its check among the others, from 0.
    pub fn rank(&self) -> usize {
        match self {
            Self::ProductNotFound => 0,
            Self::OrderNotFound => 1,
            Self::ProductExists => 2,
            Self::KeyReused { .. } => 3,
            Self::QuantityAboveMax { .. } => 4,
            Self::ConservationBroken => 5,
            Self::SaleNotStarted { .. } => 6,
            Self::SaleEnded { .. } => 7,
            Self::SalePaused => 8,
            Self::LimitReached { .. } => 9,
            Self::SoldOut { .. } => 10,
            Self::OrderFailed => 11,
            Self::BelowCommitted { .. } => 12,
            Self::StockTooLarge => 13,
            Self::WindowEmpty => 14,
        }
    }

    /// The rejection's name in answers, metrics and decision tables.
    pub fn name(&self) -> &'static str {
        Self::NAMES.get(self.rank()).copied().unwrap_or_default()
    }

    /// Whether the same command may be accepted later, if others act or time passes.
    pub fn retry_may_succeed(&self) -> bool {
        match self {
            Self::SaleNotStarted { .. }
            | Self::SalePaused
            | Self::ConservationBroken
            | Self::LimitReached { .. }
            | Self::SoldOut { .. }
            | Self::BelowCommitted { .. } => true,
            Self::ProductNotFound
            | Self::OrderNotFound
            | Self::ProductExists
            | Self::KeyReused { .. }
            | Self::QuantityAboveMax { .. }
            | Self::SaleEnded { .. }
            | Self::OrderFailed
            | Self::StockTooLarge
            | Self::WindowEmpty => false,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProductNotFound => f.write_str("there is no such product"),
            Self::OrderNotFound => f.write_str("there is no such order"),
            Self::ProductExists => f.write_str("a product with this id exists"),
            Self::KeyReused { original: Some(order) } => {
                write!(f, "this idempotency key was used for another request, which became order {order}")
            }
            Self::KeyReused { original: None } => {
                f.write_str("this idempotency key was used for another stock adjustment")
            }
            Self::QuantityAboveMax { max_per_order } => {
                write!(f, "at most {max_per_order} units of this product fit in one order")
            }
            Self::ConservationBroken => {
                f.write_str("the units of this product do not add up; selling has stopped")
            }
            Self::SaleNotStarted { .. } => f.write_str("the sale has not started"),
            Self::SaleEnded { .. } => f.write_str("the sale has ended"),
            Self::SalePaused => f.write_str("the sale is paused"),
            Self::LimitReached { limit, used, .. } => {
                write!(f, "one customer may have {limit} units of this product, and you have {used}")
            }
            Self::SoldOut { available: 0 } => f.write_str("sold out"),
            Self::SoldOut { available } => write!(f, "only {available} units are left"),
            Self::OrderFailed => f.write_str("the order has failed, its units are back in stock"),
            Self::BelowCommitted { available } => {
                write!(f, "only {available} units are available; the others are sold or withdrawn")
            }
            Self::StockTooLarge => f.write_str("a product may be given at most 1000000000 units in its life"),
            Self::WindowEmpty => f.write_str("the sale window would end before it starts"),
        }
    }
}
