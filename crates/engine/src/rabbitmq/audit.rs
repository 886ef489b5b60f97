//! Do the numbers add up? Recounts the ledger's events with [`yoink_core::audit`], counts the ledger's rows, and looks for
//! messages that the broker confirmed and lost.

use std::time::{Duration, Instant};

use yoink_core::Timestamp;
use yoink_core::audit::{InvariantId, Report};

use super::RabbitEngine;
use super::lot::lock_wait_max;
use crate::CallError;
use crate::node::audit;
use crate::postgres::{LedgerAudit, ProductCounts, Unseen};
use crate::reconciliation::{Invariant, Reconciliation};

/// How long messages may be in somebody's hands before they count as lost, besides the wait for a lock that nobody
/// gives back: PostgreSQL ends statements that take longer.
const IN_HAND_MAX: Duration = Duration::from_secs(10);
/// The wait between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Nodes look at these when a request is queued; the ledger hears of it later, and may have heard of a pause or a new price
/// in between. Its events cannot tell.
const LOOKED_AT_BEFORE: [InvariantId; 4] = [
    InvariantId::InsideWindow,
    InvariantId::NotWhilePaused,
    InvariantId::PriceAsListed,
    InvariantId::TimeForward,
];

/// What was confirmed and is not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Missing {
    /// Messages that nobody can queue again.
    lost: u64,
    /// Messages that may still be decided.
    waiting: u64,
    /// Which, in words.
    detail: String,
}

impl RabbitEngine {
    /// Recounts everything. Selling goes on.
    ///
    /// # Errors
    /// The ledger cannot be asked.
    pub(crate) async fn reconcile(&self) -> Result<Reconciliation, CallError> {
        self.desk().in_background_with(self, |engine| async move { engine.recount().await }).await
    }

    async fn recount(&self) -> Result<Reconciliation, CallError> {
        let missing = self.missing().await?;
        let postgres = &self.desk().postgres;
        let ledger = postgres.audit().await?;
        let report = audit::replay(postgres, ledger.last_seq).await?;
        Ok(judge(&ledger, &report, &missing))
    }

    /// Looks for a while: what is in a worker's hands is neither in the queue nor seen.
    async fn missing(&self) -> Result<Missing, CallError> {
        let shared = self.shared();
        let in_hand_max = lock_wait_max(&shared.options).saturating_add(IN_HAND_MAX);
        // Since when it has not become less: as long as it does, somebody decides.
        let (mut since, mut fewest) = (Instant::now(), u64::MAX);
        loop {
            shared.report().await?;
            let unseen = shared.desk.postgres.unseen().await?;
            // Workers that are paused may have messages in hand for as long as they like.
            let queued = shared.gauges.queued().filter(|_| !shared.node.delivery_is_paused());
            let missing = weigh(&unseen, queued, shared.node.now());
            if missing.lost < fewest {
                (since, fewest) = (Instant::now(), missing.lost);
            }
            if missing.lost == 0 || since.elapsed() >= in_hand_max {
                return Ok(missing);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// `queued`: messages in the queue, if that can be told.
fn weigh(unseen: &[Unseen], queued: Option<u64>, now: Timestamp) -> Missing {
    let sum = |of: &[&Unseen]| of.iter().map(|publisher| publisher.messages).sum::<u64>();
    let (alive, dead): (Vec<&Unseen>, Vec<&Unseen>) =
        unseen.iter().partition(|publisher| publisher.is_of_the_living(now));
    let named = |publishers: &[&Unseen]| {
        let names = publishers.iter().map(|of| format!("{} of publisher {}", of.numbers, of.publisher));
        names.collect::<Vec<_>>().join(", ")
    };
    match (sum(&alive), sum(&dead), queued) {
        (waiting, 0, _) => {
            let detail = format!("{waiting} confirmed messages wait for a worker");
            Missing { lost: 0, waiting, detail }
        }
        (waiting, lost, Some(0)) => Missing {
            lost,
            waiting,
            detail: format!(
                "the broker confirmed {lost} messages and lost them before a worker saw them, and the nodes that could \
                 queue them again are gone: {}",
                named(&dead)
            ),
        },
        // They may be in the queue.
        (waiting, of_the_dead, _) => {
            let waiting = waiting.saturating_add(of_the_dead);
            let detail =
                format!("{waiting} confirmed messages wait for a worker, {} among them", named(&dead));
            Missing { lost: 0, waiting, detail }
        }
    }
}

fn judge(ledger: &LedgerAudit, report: &Report, missing: &Missing) -> Reconciliation {
    let sum = |figure: fn(&ProductCounts) -> u64| ledger.products.iter().map(figure).sum::<u64>();
    let mut invariants = audit::told(report, &LOOKED_AT_BEFORE);
    invariants.push(audit::adds_up(ledger));
    let (ok, detail) = (missing.lost == 0, missing.detail.clone());
    invariants.push(Invariant { id: "queue-lost-nothing", ok, detail });
    Reconciliation {
        ok: invariants.iter().all(|invariant| invariant.ok),
        seq: ledger.last_seq,
        oversold: report.oversold_units.max(sum(|of| of.oversold)),
        lost: missing.lost,
        duplicated: report.duplicated_orders.saturating_add(ledger.duplicates),
        stuck: 0,
        products: audit::product_figures(ledger),
        orders: audit::order_counts(ledger, 0),
        invariants,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_what_nobody_can_queue_again_is_lost() {
        let unseen = |messages, reported_at| Unseen {
            publisher: Uuid::nil(),
            messages,
            numbers: "{[3,5)}".to_owned(),
            reported_at: Timestamp(reported_at),
        };
        let now = 100_000_000;
        let (alive, dead) = (unseen(2, now - 1_000_000), unseen(3, now - 60_000_000));
        let lost = |unseen: &[Unseen], queued| {
            let missing = weigh(unseen, queued, Timestamp(now));
            (missing.lost, missing.waiting)
        };
        assert_eq!(lost(&[], Some(0)), (0, 0));
        assert_eq!(lost(std::slice::from_ref(&alive), Some(0)), (0, 2));
        assert_eq!(lost(&[alive.clone(), dead.clone()], Some(0)), (3, 2));
        assert_eq!(lost(&[alive.clone(), dead.clone()], Some(1)), (0, 5));
        assert_eq!(lost(&[alive, dead.clone()], None), (0, 5));
        assert!(weigh(&[dead], Some(0), Timestamp(now)).detail.contains("{[3,5)} of publisher 0000"));
    }
}
