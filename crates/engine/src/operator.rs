//! What an operator does with delivery, on the engine.

use crate::delivery::{DeadLetter, DeadLetterFilter, DeadLetterRefusal, DeliveryStatus};
use crate::{CallError, Engine};

impl Engine {
    /// Where delivery is. Costs no trip to its thread.
    pub fn delivery(&self) -> DeliveryStatus {
        self.ledger().status()
    }

    /// Stops carrying orders to the ledger. Remembered over restarts. Selling goes on.
    ///
    /// # Errors
    /// Delivery is too slow or has stopped.
    pub async fn pause_delivery(&self) -> Result<DeliveryStatus, CallError> {
        Ok(self.ledger().pause().await?)
    }

    /// Carries orders to the ledger again.
    ///
    /// # Errors
    /// Delivery is too slow or has stopped.
    pub async fn resume_delivery(&self) -> Result<DeliveryStatus, CallError> {
        Ok(self.ledger().resume().await?)
    }

    /// The dead letters that `filter` lets through, oldest first.
    ///
    /// # Errors
    /// Delivery is too slow or has stopped.
    pub async fn dead_letters(&self, filter: DeadLetterFilter) -> Result<Vec<DeadLetter>, CallError> {
        Ok(self.ledger().dead_letters(filter).await?)
    }

    /// One dead letter.
    ///
    /// # Errors
    /// Delivery is too slow or has stopped.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, CallError> {
        Ok(self.ledger().dead_letter(id).await?)
    }

    /// Sends a parked dead letter to be delivered again.
    ///
    /// # Errors
    /// Delivery is too slow or has stopped; inside, why the dead letter cannot be sent.
    pub async fn retry_dead_letter(
        &self,
        id: i64,
    ) -> Result<Result<DeadLetter, DeadLetterRefusal>, CallError> {
        Ok(self.ledger().retry_dead_letter(id).await?)
    }

    /// Gives the units of a dead letter back, unless they are back, and archives it.
    ///
    /// # Errors
    /// Delivery is too slow or has stopped; inside, why the dead letter cannot be discarded.
    pub async fn discard_dead_letter(
        &self,
        id: i64,
        reason: Box<str>,
    ) -> Result<Result<DeadLetter, DeadLetterRefusal>, CallError> {
        Ok(self.ledger().discard_dead_letter(id, reason).await?)
    }
}
