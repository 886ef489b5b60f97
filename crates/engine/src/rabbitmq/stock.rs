//! Restocks and withdrawals: one step each in the ledger, because nobody else has units of it.

use uuid::Uuid;
use yoink_core::{Rejection, Seq, StockAdjustment, Timestamp};

use super::RabbitEngine;
use crate::CallError;
use crate::postgres::{
    AdjustmentBegun, AdjustmentOutcome, ErrorClass, Postgres, PostgresError, WithdrawalEnd,
};
use crate::views::{Adjusted, Replayed};

impl RabbitEngine {
    /// Restocks or withdraws.
    ///
    /// # Errors
    /// As [`crate::Engine::adjust_stock`].
    pub(crate) async fn adjust_stock(&self, adjustment: StockAdjustment) -> Result<Adjusted, CallError> {
        let (id, delta) = (adjustment.product, adjustment.delta);
        let made = self.desk().in_background_with(self, move |engine| async move {
            let made = engine.adjust(&adjustment).await?;
            engine.shared().follow_products().await?;
            Ok(made)
        });
        let (seq, replayed) = made.await?;
        let figures = self.shared().node.catalogue.find(&id).map(|listed| listed.figures());
        Ok(Adjusted { seq, delta, figures: figures.unwrap_or_default(), replayed })
    }

    async fn adjust(&self, adjustment: &StockAdjustment) -> Result<(Seq, Replayed), CallError> {
        let now = self.shared().node.now();
        let seq = |begun: AdjustmentBegun| begun.event.unwrap_or_default();
        match self.desk().postgres.adjust_stock(adjustment, now).await? {
            AdjustmentOutcome::Done(begun) => Ok((seq(begun), Replayed::No)),
            AdjustmentOutcome::Again(begun) => Ok((seq(begun), Replayed::Yes)),
            AdjustmentOutcome::Withdraw(begun) => Ok((self.withdraw(begun).await?, Replayed::No)),
            AdjustmentOutcome::KeyReused => Err(Rejection::KeyReused { original: None }.into()),
            AdjustmentOutcome::TooLarge => Err(Rejection::StockTooLarge.into()),
            AdjustmentOutcome::NotFound => Err(Rejection::ProductNotFound.into()),
        }
    }

    /// Takes units off sale that a withdrawal was begun for.
    async fn withdraw(&self, begun: AdjustmentBegun) -> Result<Seq, CallError> {
        let postgres = &self.desk().postgres;
        match finish(postgres, begun.adjustment, begun.epoch, self.shared().node.now()).await? {
            WithdrawalEnd::Done(event) => Ok(event),
            WithdrawalEnd::Refused => {
                let row = postgres.product_numbered(begun.product).await?;
                let available = row.map_or(0, |row| row.units.saturating_sub(row.sold));
                Err(Rejection::BelowCommitted { available }.into())
            }
            // The epochs of this engine's products do not change.
            WithdrawalEnd::Elsewhere => Err(CallError::OutcomeUnknown),
        }
    }
}

/// Brings a withdrawal to its end. May be done by several at once: it is done once.
///
/// # Errors
/// The ledger cannot be asked.
pub(super) async fn finish(
    postgres: &Postgres,
    adjustment: Uuid,
    epoch: i32,
    now: Timestamp,
) -> Result<WithdrawalEnd, PostgresError> {
    match postgres.finish_withdrawal(adjustment, epoch, now).await {
        // More units would be sold than there are: the ledger's own check says so.
        Err(error) if error.class() == ErrorClass::Permanent => {
            postgres.refuse_withdrawal(adjustment, epoch, now).await
        }
        ended => ended,
    }
}
