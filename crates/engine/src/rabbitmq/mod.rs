//! The rabbitmq engine: requests are queued in RabbitMQ, workers decide them in PostgreSQL.
//!
//! ```text
//! purchase  buy.rs → publisher.rs → publishing.rs   one message for those who come together, confirmed by the broker
//! decision  consumer.rs → lots.rs → lot.rs         decide(): one transaction per batch and product, then acknowledged
//! lock.rs                                          a lock in Redis keeps workers out of each other's way; the fencing
//!                                                  token and the row lock of PostgreSQL are what keeps units safe
//! trouble   retained.rs                            what the broker confirmed and no worker saw is queued again
//!           aside.rs → dead.rs                     what cannot be read is kept where operators see it
//! ```
//!
//! PostgreSQL alone decides; the broker only carries, Redis only helps.

mod aside;
mod audit;
mod background;
mod broker;
mod buy;
mod buying;
mod consumer;
mod dead;
mod facade;
mod hand;
mod lock;
mod lot;
mod lots;
mod making;
mod message;
mod open;
mod orders;
mod products;
mod publisher;
mod publishing;
mod replays;
mod retained;
mod sending;
mod session;
mod shared;
mod status;
mod stock;
mod topology;
mod trouble;
mod unsettled;

use std::sync::Arc;

use lapin::uri::AMQPUri;

pub(crate) use self::buy::Hint;
pub use self::open::RabbitOpenError;
pub use self::shared::RabbitOptions;
use self::shared::Shared;
pub use self::status::{RabbitProcessed, RabbitStatus};
use crate::node::Desk;

/// The rabbitmq engine. Cheap to clone; every clone is the same engine.
#[derive(Clone)]
pub(crate) struct RabbitEngine {
    parts: Arc<open::Parts>,
}

impl RabbitEngine {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.parts.shared
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.parts.shared.desk
    }

    fn broker(&self) -> &AMQPUri {
        &self.parts.broker
    }
}
