//! What the edge asks of the engine as a whole.

use std::time::{Duration, Instant};

use yoink_core::{ProductId, Rejection};

use super::RabbitEngine;
use super::buy::Hint;
use crate::views::{ProductView, PurchaseRequest};
use crate::{Confirmed, EngineFigures};

impl std::fmt::Debug for RabbitEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RabbitEngine").field("state", &self.shared().node.state()).finish_non_exhaustive()
    }
}

impl RabbitEngine {
    /// A product as everybody may see it.
    pub(crate) async fn product(&self, id: &ProductId) -> Option<ProductView> {
        Some(self.desk().find_product(id).await?.view())
    }

    /// The rejection that a purchase would get now if its key is new.
    pub(crate) fn would_refuse(&self, request: &PurchaseRequest, hint: Hint) -> Option<Rejection> {
        let Some(listed) = self.shared().node.catalogue.find(&request.product) else {
            // Unless another node made it a moment ago.
            return Some(Rejection::ProductNotFound);
        };
        // Who repeats a request is told of the first, whatever is left.
        if request.key.is_some() {
            return None;
        }
        self.refuse(&listed, request, hint)
    }

    /// Waits until everything is decided that this node and others queued who are there, and nothing that the ledger
    /// refused is to be tried again.
    pub(crate) async fn wait_settled(&self, wait: Duration) -> Confirmed {
        let begun = Instant::now();
        loop {
            let waits = self.desk().in_background_with(self, |engine| async move {
                let (shared, postgres) = (engine.shared(), &engine.desk().postgres);
                shared.report().await?;
                let now = shared.node.now();
                let unseen = postgres.unseen().await?;
                let of_the_living = unseen.iter().filter(|unseen| unseen.is_of_the_living(now));
                let waiting: u64 = of_the_living.map(|unseen| unseen.messages).sum();
                let backlog = postgres.backlog().await?;
                shared.follow_products().await?;
                Ok(waiting.saturating_add(backlog.refused_retrying))
            });
            if waits.await == Ok(0) && self.shared().publisher.retained.count() == 0 {
                return Confirmed::Yes;
            }
            if begun.elapsed() >= wait {
                return Confirmed::NotYet;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn figures(&self) -> EngineFigures {
        let node = &self.shared().node;
        // The ledger's own checks keep the units of every product together.
        let conservation = node.catalogue.all().iter().map(|listed| (listed.row.id, 0)).collect();
        EngineFigures {
            clock_steps: node.clock_steps(),
            inbox_tickets: self.shared().publisher.in_hand() as u64,
            conservation_error_units: conservation,
            ..node.counters.figures()
        }
    }
}
