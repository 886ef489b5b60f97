//! Do the numbers add up? Recounts the ledger's events with [`yoink_core::audit`], counts the ledger's rows, and looks for
//! messages that the broker confirmed and lost.

use std::time::{Duration, Instant};

use yoink_core::Timestamp;
use yoink_core::audit::{InvariantId, Report};

use super::RabbitEngine;
use super::hand::MAY_HOLD_MAX;
use crate::CallError;
use crate::node::audit;
use crate::postgres::{LedgerAudit, ProductCounts, Unseen};
use crate::reconciliation::{Invariant, Reconciliation};

/// What was missed for so long is lost. The queues are looked at every second, and workers tell every second what they
/// have in hand: what went from the one to the other meanwhile is found by then.
const MISSED_MAX: Duration = Duration::from_secs(10);
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

    /// Looks for a while: what goes from the queue to a worker is in neither of the two for a moment.
    async fn missing(&self) -> Result<Missing, CallError> {
        let shared = self.shared();
        // Since when it has not become less: as long as it does, somebody decides.
        let (mut since, mut fewest) = (Instant::now(), u64::MAX);
        loop {
            shared.report().await?;
            let (postgres, now) = (&shared.desk.postgres, shared.node.now());
            let unseen = postgres.unseen().await?;
            let in_hand = postgres.in_hand(MAY_HOLD_MAX).await?;
            let queued = shared.gauges.queued().zip(shared.gauges.dead());
            let queued = queued.map(|(orders, dead)| orders.saturating_add(dead));
            let missing = weigh(&unseen, Elsewhere { queued, in_hand }, now);
            if missing.lost < fewest {
                (since, fewest) = (Instant::now(), missing.lost);
            }
            if missing.lost == 0 || since.elapsed() >= MISSED_MAX {
                return Ok(missing);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// Where requests are that no worker has decided yet.
#[derive(Clone, Copy, Debug)]
struct Elsewhere {
    /// Messages in the queues of requests and of dead letters, if that can be told. Each has one request or several.
    queued: Option<u64>,
    /// Requests that workers have in hand.
    in_hand: u64,
}

fn weigh(unseen: &[Unseen], elsewhere: Elsewhere, now: Timestamp) -> Missing {
    let sum = |of: &[&Unseen]| of.iter().map(|publisher| publisher.messages).sum::<u64>();
    let (alive, dead): (Vec<&Unseen>, Vec<&Unseen>) =
        unseen.iter().partition(|publisher| publisher.is_of_the_living(now));
    let named = |publishers: &[&Unseen]| {
        let names = publishers.iter().map(|of| format!("{} of publisher {}", of.numbers, of.publisher));
        names.collect::<Vec<_>>().join(", ")
    };
    let (waiting, of_the_dead, in_hand) = (sum(&alive), sum(&dead), elsewhere.in_hand);
    let lost = match elsewhere.queued {
        // What is in hand may be of these.
        Some(0) => of_the_dead.saturating_sub(in_hand),
        // They may be in a queue.
        _ => 0,
    };
    let waiting = waiting.saturating_add(of_the_dead).saturating_sub(lost);
    let detail = match (lost, of_the_dead) {
        (0, 0) => format!("{waiting} confirmed messages wait for a worker"),
        (0, _) => format!(
            "{waiting} confirmed messages wait for a worker or are in the hand of one ({in_hand} are), {} among them",
            named(&dead)
        ),
        (_, _) => format!(
            "the broker confirmed {lost} messages and lost them before a worker saw them, and the nodes that could \
             queue them again are gone: {}{}",
            named(&dead),
            match in_hand {
                0 => String::new(),
                _ => format!(" ({in_hand} are in the hand of a worker, perhaps of these)"),
            }
        ),
    };
    Missing { lost, waiting, detail }
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
        let missing =
            |unseen: &[Unseen], queued, in_hand| weigh(unseen, Elsewhere { queued, in_hand }, Timestamp(now));
        let lost = |unseen: &[Unseen], queued, in_hand| {
            let missing = missing(unseen, queued, in_hand);
            (missing.lost, missing.waiting)
        };
        let both = [alive.clone(), dead.clone()];
        assert_eq!(lost(&[], Some(0), 0), (0, 0));
        assert_eq!(lost(&[alive], Some(0), 0), (0, 2));
        assert_eq!(lost(&both, Some(0), 0), (3, 2));
        assert_eq!(lost(&both, Some(1), 0), (0, 5));
        assert_eq!(lost(&both, None, 0), (0, 5));
        // Nobody knows whose it is.
        assert_eq!(lost(&both, Some(0), 1), (2, 3));
        assert_eq!(lost(&both, Some(0), 9), (0, 5));
        assert!(missing(&[dead], Some(0), 1).detail.contains("{[3,5)} of publisher 0000"));
    }
}
