//! Delivery as the edge sees it, whichever engine it is.

use yoink_core::Seq;

use crate::delivery::{
    DeadLetter, DeadLetterFilter, DeadLetterRefusal, Delivery, DeliveryError, DeliveryStatus,
};
use crate::ledger::{LedgerCounts, Movement};
use crate::node::Desk;
use crate::rabbitmq::RabbitEngine;
use crate::redis::RedisEngine;
use crate::views::OrderPage;

/// What an operator asked about one dead letter: done, or why not.
pub type Settled = Result<DeadLetter, DeadLetterRefusal>;

/// Delivery: where it is, its switch, its dead letters, the ledger behind it.
#[derive(Debug)]
pub struct Deliveries<'a> {
    of: Of<'a>,
}

#[derive(Debug)]
enum Of<'a> {
    Embedded(&'a Delivery),
    OnPostgres(&'a Desk, Seller<'a>),
}

/// The engine that sells: what becomes of units that come back is its own.
#[derive(Debug)]
enum Seller<'a> {
    Redis(&'a RedisEngine),
    /// The ledger itself, to which they come back at once.
    Ledger,
}

impl<'a> From<&'a Delivery> for Deliveries<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self { of: Of::Embedded(delivery) }
    }
}

/// Asks the embedded engine's delivery, or the desk of an engine that works on PostgreSQL.
macro_rules! ask {
    ($deliveries:expr, $one:ident => $answer:expr) => {
        match &$deliveries.of {
            Of::Embedded($one) => $answer,
            Of::OnPostgres($one, _) => $answer,
        }
    };
}

impl<'a> Deliveries<'a> {
    pub(crate) fn of_redis(engine: &'a RedisEngine) -> Self {
        Self { of: Of::OnPostgres(engine.desk(), Seller::Redis(engine)) }
    }

    pub(crate) fn of_rabbit(engine: &'a RabbitEngine) -> Self {
        Self { of: Of::OnPostgres(engine.desk(), Seller::Ledger) }
    }

    /// Where delivery is.
    pub fn status(&self) -> DeliveryStatus {
        match &self.of {
            Of::Embedded(delivery) => delivery.status(),
            Of::OnPostgres(desk, _) => desk.delivery_status(),
        }
    }

    /// Stops carrying orders to the ledger. Remembered over restarts. Selling goes on.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn pause(&self) -> Result<DeliveryStatus, DeliveryError> {
        match &self.of {
            Of::Embedded(delivery) => delivery.pause().await,
            Of::OnPostgres(desk, _) => desk.pause_delivery().await,
        }
    }

    /// Carries orders to the ledger again.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn resume(&self) -> Result<DeliveryStatus, DeliveryError> {
        match &self.of {
            Of::Embedded(delivery) => delivery.resume().await,
            Of::OnPostgres(desk, _) => desk.resume_delivery().await,
        }
    }

    /// The dead letters that `filter` lets through, oldest first.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn dead_letters(&self, filter: DeadLetterFilter) -> Result<Vec<DeadLetter>, DeliveryError> {
        ask!(self, delivery => delivery.dead_letters(filter).await)
    }

    /// The dead letter with this id.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, DeliveryError> {
        ask!(self, delivery => delivery.dead_letter(id).await)
    }

    /// Sends a parked dead letter to be delivered again, with all its attempts. Doing it twice does it once.
    ///
    /// # Errors
    /// See [`DeliveryError`]; inside, why it is refused.
    pub async fn retry_dead_letter(&self, id: i64) -> Result<Settled, DeliveryError> {
        ask!(self, delivery => delivery.retry_dead_letter(id).await)
    }

    /// Gives the units of a dead letter back, unless they are back, and archives it. Doing it twice does it once.
    ///
    /// # Errors
    /// See [`DeliveryError`]; inside, why it is refused.
    pub async fn discard_dead_letter(&self, id: i64, reason: Box<str>) -> Result<Settled, DeliveryError> {
        match &self.of {
            Of::Embedded(delivery) => delivery.discard_dead_letter(id, reason).await,
            Of::OnPostgres(_, Seller::Redis(engine)) => engine.discard_dead_letter(id, reason).await,
            Of::OnPostgres(desk, Seller::Ledger) => desk.discard_dead_letter(id, reason, async {}).await,
        }
    }

    /// Counts the rows of the embedded engine's ledger; other engines have [`crate::Engine::reconcile`].
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn counts(&self) -> Result<LedgerCounts, DeliveryError> {
        match &self.of {
            Of::Embedded(delivery) => delivery.counts().await,
            Of::OnPostgres(..) => Ok(LedgerCounts::default()),
        }
    }

    /// One page of the ledger's orders; `after` is 0 or the [`OrderPage::next_after`] of the page before.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn export_orders(&self, after: Seq, limit: usize) -> Result<OrderPage, DeliveryError> {
        match &self.of {
            Of::Embedded(delivery) => {
                let orders = delivery.export_orders(after, limit).await?;
                let next_after = orders.last().map(|order| order.seq).filter(|_| orders.len() == limit);
                Ok(OrderPage { orders, next_after })
            }
            Of::OnPostgres(desk, _) => desk.export_orders(after, limit).await,
        }
    }

    /// One page of the movements of units behind event `after`.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn export_movements(&self, after: Seq, limit: usize) -> Result<Vec<Movement>, DeliveryError> {
        ask!(self, delivery => delivery.export_movements(after, limit).await)
    }
}
