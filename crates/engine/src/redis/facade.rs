//! What the edge asks of the engine as a whole.

use std::time::{Duration, Instant};

use yoink_core::{ProductId, Rejection, Seq, Timestamp};

use super::RedisEngine;
use crate::deliveries::Settled;
use crate::delivery::{DeadLetter, DeadLetterFilter, DeliveryError, DeliveryStatus};
use crate::ledger::Movement;
use crate::postgres::{ErrorClass, PostgresError, SettingsCheck};
use crate::views::{OrderPage, PurchaseRequest};
use crate::{CallError, Confirmed, Durability, EngineFigures, EngineState, Storefront};

impl std::fmt::Debug for RedisEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisEngine").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl RedisEngine {
    pub(crate) fn storefront(&self) -> &Storefront {
        &self.shared().storefront
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared().now()
    }

    #[cfg(feature = "faults")]
    pub(crate) fn set_now(&self, now: Timestamp) {
        self.shared().set_now(now);
    }

    pub(crate) fn durability(&self) -> Durability {
        match self.shared().options.settings {
            SettingsCheck::Strict => Durability::Fsync,
            SettingsCheck::Relaxed => Durability::Relaxed,
        }
    }

    pub(crate) fn state(&self) -> EngineState {
        self.shared().state()
    }

    /// Accepted purchases of the epochs on sale.
    pub(crate) fn last_seq(&self) -> Seq {
        self.shared().granted()
    }

    /// The rejection that a purchase would certainly get now.
    pub(crate) fn would_refuse(&self, request: &PurchaseRequest) -> Option<Rejection> {
        let Some(listed) = self.shared().catalogue.find(&request.product) else {
            // Unless another node made it a moment ago.
            return Some(Rejection::ProductNotFound);
        };
        self.refuse_early(&listed, request)
    }

    /// Waits until nothing is on its way to the ledger.
    pub(crate) async fn wait_settled(&self, wait: Duration) -> Confirmed {
        let begun = Instant::now();
        loop {
            let waits = self.in_background(|engine| async move {
                engine.parts.keeper.look_at_all().await;
                // In this order: what left the stream is counted here.
                let backlog = engine.postgres().backlog().await?;
                Ok(backlog.refused_retrying.saturating_add(backlog.credits_waiting))
            });
            let is_over = waits.await == Ok(0);
            if is_over
                && self.shared().granted() == self.delivery_status().position
                && self.has_all_it_accepted()
            {
                return Confirmed::Yes;
            }
            if begun.elapsed() >= wait {
                return Confirmed::NotYet;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether Redis sells everything that there is, and has what this node accepted before it was lost.
    fn has_all_it_accepted(&self) -> bool {
        let shared = self.shared();
        shared
            .catalogue
            .all()
            .iter()
            .all(|listed| listed.is_selling() && !shared.offers.has_before(listed.row.number, listed.epoch()))
    }

    pub(crate) fn figures(&self) -> EngineFigures {
        let shared = self.shared();
        let differences = shared.differences.lock().clone();
        let conservation = |listed: &std::sync::Arc<super::catalogue::Listed>| -> (ProductId, i64) {
            (listed.row.id, differences.get(&listed.row.number).copied().unwrap_or(0))
        };
        // Nobody waits for a writer here: no inbox.
        EngineFigures {
            clock_steps: shared.clock_steps(),
            conservation_error_units: shared.catalogue.all().iter().map(conservation).collect(),
            ..shared.counters.figures()
        }
    }

    pub(crate) fn delivery_status(&self) -> DeliveryStatus {
        self.shared().delivery_status()
    }

    pub(crate) async fn pause_delivery(&self) -> Result<DeliveryStatus, DeliveryError> {
        self.ask_ledger(|engine| async move {
            engine.postgres().pause_delivery().await?;
            engine.shared().set_delivery_paused(true);
            Ok(engine.delivery_status())
        })
        .await
    }

    pub(crate) async fn resume_delivery(&self) -> Result<DeliveryStatus, DeliveryError> {
        self.ask_ledger(|engine| async move {
            engine.postgres().resume_delivery().await?;
            engine.shared().set_delivery_paused(false);
            Ok(engine.delivery_status())
        })
        .await
    }

    pub(crate) async fn dead_letters(
        &self,
        filter: DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, DeliveryError> {
        self.ask_ledger(|engine| async move { engine.postgres().dead_letters(&filter).await }).await
    }

    pub(crate) async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, DeliveryError> {
        self.ask_ledger(move |engine| async move { engine.postgres().dead_letter(id).await }).await
    }

    pub(crate) async fn retry_dead_letter(&self, id: i64) -> Result<Settled, DeliveryError> {
        self.ask_ledger(
            move |engine| async move { engine.postgres().retry_dead_letter(id, engine.now()).await },
        )
        .await
    }

    pub(crate) async fn discard_dead_letter(
        &self,
        id: i64,
        reason: Box<str>,
    ) -> Result<Settled, DeliveryError> {
        self.ask_ledger(move |engine| async move {
            let settled = engine.postgres().discard_dead_letter(id, &reason, engine.now()).await?;
            engine.apply_credits_now().await;
            Ok(settled)
        })
        .await
    }

    pub(crate) async fn export_orders(&self, after: Seq, limit: usize) -> Result<OrderPage, DeliveryError> {
        self.ask_ledger(move |engine| async move { engine.postgres().export_orders(after, limit).await })
            .await
    }

    pub(crate) async fn export_movements(
        &self,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Movement>, DeliveryError> {
        self.ask_ledger(move |engine| async move { engine.postgres().export_movements(after, limit).await })
            .await
    }

    async fn ask_ledger<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, DeliveryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, PostgresError>> + Send + 'static,
    {
        let work = work(self.clone());
        let answer = self.in_background(|_| async move { Ok::<_, CallError>(work.await) }).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.class() == ErrorClass::Unknown => Err(DeliveryError::OutcomeUnknown),
            Ok(Err(error)) => Err(DeliveryError::Ledger(Box::new(error))),
            Err(_) => Err(DeliveryError::OutcomeUnknown),
        }
    }
}
