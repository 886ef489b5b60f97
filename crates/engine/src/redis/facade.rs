//! What the edge asks of the engine as a whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use yoink_core::{ProductId, Rejection};

use super::RedisEngine;
use crate::deliveries::Settled;
use crate::delivery::DeliveryError;
use crate::node::catalogue::Listed;
use crate::views::PurchaseRequest;
use crate::{Confirmed, EngineFigures};

impl std::fmt::Debug for RedisEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisEngine").field("state", &self.shared().node.state()).finish_non_exhaustive()
    }
}

impl RedisEngine {
    /// The rejection that a purchase would certainly get now.
    pub(crate) fn would_refuse(&self, request: &PurchaseRequest) -> Option<Rejection> {
        let Some(listed) = self.shared().node.catalogue.find(&request.product) else {
            // Unless another node made it a moment ago.
            return Some(Rejection::ProductNotFound);
        };
        self.refuse_early(&listed, request)
    }

    /// Waits until nothing is on its way to the ledger.
    pub(crate) async fn wait_settled(&self, wait: Duration) -> Confirmed {
        let begun = Instant::now();
        loop {
            let waits = self.desk().in_background_with(self, |engine| async move {
                engine.parts.keeper.look_at_all().await;
                // In this order: what left the stream is counted here.
                let backlog = engine.postgres().backlog().await?;
                Ok(backlog.refused_retrying.saturating_add(backlog.credits_waiting))
            });
            let is_over = waits.await == Ok(0);
            let node = &self.shared().node;
            if is_over && node.granted() == node.delivery_status().position && self.has_all_it_accepted() {
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
            .node
            .catalogue
            .all()
            .iter()
            .all(|listed| listed.is_selling() && !shared.offers.has_before(listed.row.number, listed.epoch()))
    }

    pub(crate) fn figures(&self) -> EngineFigures {
        let shared = self.shared();
        let conservation = |listed: &Arc<Listed>| -> (ProductId, i64) {
            (listed.row.id, shared.difference(listed.row.number))
        };
        // Nobody waits for a writer here: no inbox.
        EngineFigures {
            clock_steps: shared.node.clock_steps(),
            conservation_error_units: shared.node.catalogue.all().iter().map(conservation).collect(),
            ..shared.node.counters.figures()
        }
    }

    pub(crate) async fn discard_dead_letter(
        &self,
        id: i64,
        reason: Box<str>,
    ) -> Result<Settled, DeliveryError> {
        let engine = self.clone();
        self.desk().discard_dead_letter(id, reason, async move { engine.apply_credits_now().await }).await
    }
}
