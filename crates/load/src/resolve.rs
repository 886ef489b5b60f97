//! Asks again, with the same key, for every purchase that got no yes or no.
//!
//! A purchase whose answer was lost may have been accepted. Until that is known nothing can be judged, and the
//! idempotency key is the contract's way to find out: the same request either returns the order or is decided anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use crate::attempt::{Outcome, classify};
use crate::audit::{Claim, Who};
use crate::client::Client;
use crate::plan::Plan;

/// Questions asked at once.
const ASKING_MAX: usize = 16;
/// First pause between two questions; it doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(2);
/// A server that does not come back within this time leaves the purchase unresolved.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of the purchases that had no yes or no.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resolution {
    /// Purchases that were asked about again.
    pub asked: u64,
    /// Of these, how many turned out to be orders.
    pub accepted: u64,
    /// Of these, how many were refused: nothing had happened and nothing did.
    pub refused: u64,
    /// Of these, how many still have no answer. Nothing can be said about them, so the audit fails.
    pub unresolved: u64,
}

/// Asks until every purchase of `unknown` is an order, a refusal, or out of patience.
pub(crate) async fn resolve(plan: &Arc<Plan>, unknown: Vec<Who>) -> (Resolution, Vec<Claim>) {
    let mut resolution = Resolution {
        asked: unknown.len() as u64,
        ..Resolution::default()
    };
    let mut claims = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let unknown: Arc<[Who]> = unknown.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut asking = JoinSet::new();
    for _ in 0..unknown.len().min(ASKING_MAX) {
        let (plan, unknown, next) = (Arc::clone(plan), Arc::clone(&unknown), Arc::clone(&next));
        asking.spawn(async move {
            let mut client = Client::new(plan.target.address, plan.timeout);
            let mut answers = Vec::new();
            while let Some(who) = unknown.get(next.fetch_add(1, Ordering::Relaxed)) {
                answers.push((who.clone(), ask(&plan, &mut client, who, deadline).await));
            }
            answers
        });
    }
    for (who, outcome) in asking.join_all().await.into_iter().flatten() {
        match outcome {
            Outcome::Accepted { order_id, .. } => {
                resolution.accepted += 1;
                // A replay here is of this storm's own first try, so its units count as bought now.
                claims.push(Claim {
                    who,
                    order_id,
                    replayed: false,
                });
            }
            Outcome::Refused { .. } => resolution.refused += 1,
            Outcome::Failed(_) => resolution.unresolved += 1,
        }
    }
    (resolution, claims)
}

async fn ask(plan: &Plan, client: &mut Client, who: &Who, deadline: Instant) -> Outcome {
    let mut pause = PAUSE_FIRST;
    loop {
        let request = plan.template.request_for(&who.customer(plan), &who.key(plan));
        let outcome = classify(plan.route, &client.send(request).await);
        let come_back_later = match &outcome {
            Outcome::Failed(_) => true,
            // Too fast, too busy or still undecided: that is no answer to whether the first try bought something.
            Outcome::Refused { status, reason, .. } => {
                matches!(status, 429 | 503) || &**reason == "idempotency-in-progress"
            }
            Outcome::Accepted { .. } => false,
        };
        if !come_back_later {
            return outcome;
        }
        if Instant::now() + pause >= deadline {
            return Outcome::Failed(crate::attempt::Failure::OutcomeUnknown);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LAST);
    }
}
