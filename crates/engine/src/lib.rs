//! Turns a decision into a promise.
//!
//! [`Engine`] is what the edge talks to. A purchase goes through [`Storefront`] (answers that need no decision), the
//! writer (`embedded/writer.rs`: decide, apply, commit, answer) and later, on its own, delivery to the ledger.

mod deliveries;
pub mod delivery;
mod durability;
pub mod embedded;
mod engine;
mod error;
pub mod failpoint;
mod figures;
mod lane;
pub mod ledger;
pub mod limits;
mod node;
mod options;
pub mod postgres;
pub mod rabbitmq;
mod rate_limit;
mod reconciliation;
pub mod redis;
mod source;
mod storefront;
mod views;
mod watch;

pub use deliveries::{Deliveries, Settled};
pub use delivery::{
    DeadLetter, DeadLetterFilter, DeadLetterRefusal, DeadLetterState, Delivery, DeliveryError,
    DeliveryOptions, DeliveryStatus, DurationHistogram, OnDeadLetter,
};
pub use durability::Durability;
pub use embedded::beacon::BeaconFile;
pub use embedded::clock::{Clock, SystemTime, TimeSource};
pub use embedded::recovery::{AcceptLoss, RecoveryReport};
pub use embedded::writer::EngineState;
pub use engine::{Confirmed, Engine, LaneDriver};
pub use error::{CallError, OpenError};
pub use figures::{BATCH_BOUNDS_EVENTS, DURATION_BOUNDS_SECONDS, EngineFigures, HistogramFigures};
pub use options::Options;
pub use rabbitmq::{RabbitOpenError, RabbitOptions, RabbitProcessed, RabbitStatus};
pub use rate_limit::RateLimit;
pub use reconciliation::{Invariant, OrderCounts, ProductFigures, Reconciliation, audit_data_folder};
pub use storefront::{Shelf, Storefront};
pub use views::{
    Adjusted, Failure, OrderFilter, OrderInShort, OrderPage, OrderStatus, OrderView, ProductView,
    PurchaseRequest, Purchased, Replayed,
};
