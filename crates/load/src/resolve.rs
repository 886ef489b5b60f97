//! Asks again, with the same key, for every purchase that got no yes or no.
//!
//! A purchase whose answer was lost may have been accepted. Until that is known nothing can be judged, and the
//! idempotency key is the contract's way to find out: the same request either returns the order or is decided anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use crate::attempt::{Failure, Outcome, classify};
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
    let mut resolution = Resolution { asked: unknown.len() as u64, ..Resolution::default() };
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
                claims.push(Claim { who, order_id, replayed: false });
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
        let request = plan.template.request_for(&who.customer(plan), &who.key(plan), who.quantity(plan));
        let outcome = classify(plan.route, &client.send(request).await);
        if settles(&outcome) {
            return outcome;
        }
        if Instant::now() + pause >= deadline {
            return Outcome::Failed(Failure::OutcomeUnknown);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LAST);
    }
}

/// Whether an answer tells if the first try bought something. Too fast, too busy, still undecided and not allowed to
/// ask do not; nor does a key that is said to belong to another request, for then there is an order that is not named.
fn settles(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Accepted { .. } => true,
        Outcome::Refused { status, reason, .. } => {
            !matches!(status, 401 | 403 | 408 | 429 | 503)
                && !matches!(&**reason, "idempotency-in-progress" | "idempotency-key-reused")
        }
        Outcome::Failed(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_about_the_purchase_itself_settles_it() {
        let refused =
            |status, reason: &str| Outcome::Refused { status, reason: reason.into(), sold_out: false };
        assert!(settles(&Outcome::Accepted { order_id: None, replayed: true, queued: false }));
        assert!(settles(&refused(409, "sold-out")));
        assert!(settles(&refused(409, "limit-reached")));
        for (status, reason) in [
            (401, "unauthorized"),
            (429, "quota-exceeded"),
            (503, "overloaded"),
            (409, "idempotency-in-progress"),
            (422, "idempotency-key-reused"),
        ] {
            assert!(!settles(&refused(status, reason)), "{reason}");
        }
        assert!(!settles(&Outcome::Failed(Failure::Timeout)));
    }
}
