//! Who gets a unit.
//!
//! This crate is pure: no I/O, no clock, no threads, no randomness. Time is an argument. [`Inventory::decide`] says
//! what may happen and changes nothing; [`Inventory::apply`] makes it so and cannot say no. Live traffic and recovery
//! share `apply`, so a replayed log cannot disagree with the run that wrote it.
//!
//! [`audit`] recounts everything from the events alone and calls nothing of [`Inventory`].
#![deny(clippy::arithmetic_side_effects)]

pub mod audit;
mod chunked;
mod command;
mod event;
mod ids;
mod index;
mod inventory;
mod money;
mod rejection;
mod stock;
mod texts;

pub use command::{
    Command, MAX_PER_ORDER_DEFAULT, NewProduct, PRODUCT_NAME_BYTES_MAX, ProductChange, Purchase,
    QUANTITY_MAX, REASON_BYTES_MAX, STOCK_UNITS_MAX, StockAdjustment, Window,
};
pub use event::{Event, Fact, OrderAccepted};
pub use ids::{CustomerId, IdError, IdempotencyKey, OrderId, ProductId, Seq, Timestamp};
pub use inventory::{
    AdjustmentRecord, Decision, Inconsistency, Inventory, Order, OrderEnd, OrderState, Part, Product, Replay,
};
pub use money::{Currency, Money};
pub use rejection::Rejection;
pub use stock::{Figures, Stock};
