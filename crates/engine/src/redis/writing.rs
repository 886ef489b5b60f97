//! Grants are written to the ledger together. Where that fails, perhaps for what one of them is, that one is found, and
//! does not hold up the others.

use std::collections::HashSet;
use std::time::Instant;

use yoink_core::OrderId;

use super::doubts::FAILURES_MAX;
use super::worker::{CarryError, Worker};
use crate::node::order_id::to_hex;
use crate::postgres::{Delivered, ErrorClass, Grant, PostgresError, Retried, Way};

/// If so many fail, and none is taken, it is perhaps not for what they are: the others wait.
const FAILURES_IN_A_ROW: usize = 8;

/// What became of some grants. Those of which nothing is said are no orders and were written down.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) delivered: Vec<(OrderId, Delivered)>,
    /// These the ledger does not have: they are to be tried again.
    pub(super) left: HashSet<OrderId>,
    /// Why, if any were tried.
    pub(super) error: Option<PostgresError>,
    /// Each of them fails although others are taken.
    pub(super) fail_alone: bool,
}

impl Worker {
    /// Writes grants to the ledger, in one transaction if it can be done.
    ///
    /// # Errors
    /// The ledger has trouble that is not for what was asked. Some may have been written.
    pub(super) async fn write(&self, way: Way, epoch: i32, grants: &[Grant]) -> Result<Written, CarryError> {
        let (begun, doubts) = (Instant::now(), &self.shared.doubts);
        let taken = doubts.taken(self.product);
        // What failed before must not make others fail, and comes after them.
        let doubtful = doubts.among(grants.iter().map(|grant| grant.order));
        let mut sorted: Vec<Grant> = Vec::new();
        let mut parts: Vec<&[Grant]> = vec![grants];
        if !doubtful.is_empty() {
            sorted.extend(grants.iter().cloned());
            sorted.sort_by_key(|grant| doubtful.contains(&grant.order));
            let (fresh, failed) =
                sorted.split_at(sorted.partition_point(|grant| !doubtful.contains(&grant.order)));
            parts = failed.chunks(1).rev().chain([fresh]).filter(|part| !part.is_empty()).collect();
        }
        let (mut written, mut failures) = (Written::default(), 0);
        while let Some(part) = parts.pop() {
            let error = match self.write_at_once(way, epoch, part).await {
                Ok(delivered) => {
                    doubts.settle(self.product, &delivered);
                    written.delivered.extend(delivered);
                    continue;
                }
                Err(error) => error,
            };
            match (error.class(), part) {
                (ErrorClass::Transient | ErrorClass::Unknown, _) => return Err(error.into()),
                (ErrorClass::Permanent, [grant]) => self.note_unsendable(epoch, grant, &error).await?,
                (ErrorClass::Unclassified, [grant]) => {
                    let is_hopeless = doubts.fail(grant.order, taken) && way == Way::Carry;
                    failures += usize::from(!doubts.fails_alone(grant.order));
                    match is_hopeless && self.give_up(epoch, grant, &error).await? {
                        true => parts.push(part),
                        false => drop(written.left.insert(grant.order)),
                    }
                    written.error = Some(error);
                }
                (ErrorClass::Permanent | ErrorClass::Unclassified, _) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
            if failures >= FAILURES_IN_A_ROW && written.delivered.is_empty() {
                written.left.extend(parts.drain(..).flatten().map(|grant| grant.order));
            }
        }
        written.fail_alone = written.left.iter().all(|order| doubts.fails_alone(*order));
        if !written.delivered.is_empty() {
            self.shared.node.note_delivered(begun.elapsed(), &written.delivered);
        }
        Ok(written)
    }

    async fn write_at_once(
        &self,
        way: Way,
        epoch: i32,
        grants: &[Grant],
    ) -> Result<Vec<(OrderId, Delivered)>, PostgresError> {
        let now = self.shared.node.now();
        let retry_at = self.shared.node.retry_at(now);
        self.postgres.deliver(way, (self.product, epoch), (retry_at, now), grants).await
    }

    /// It cannot even be sent, or is refused as a refused one: it is written down.
    async fn note_unsendable(
        &self,
        epoch: i32,
        grant: &Grant,
        error: &PostgresError,
    ) -> Result<(), CarryError> {
        let stream = self.shared.keys(self.product, epoch).grants;
        let (place, bytes) = (format!("grant {}", grant.number), format!("{grant:?}"));
        self.note_unreadable(&stream, &place, bytes.as_bytes(), &error.to_string()).await
    }

    /// Makes a grant that always fails a dead letter. True: the ledger has it now.
    async fn give_up(&self, epoch: i32, grant: &Grant, error: &PostgresError) -> Result<bool, CarryError> {
        let (node, order) = (&self.shared.node, to_hex(grant.order));
        let (then, why) = (node.options.delivery.on_dead_letter, error.to_string());
        let place = (self.product, epoch);
        match self.postgres.give_up(place, grant, (FAILURES_MAX, &why), then, node.now()).await {
            Ok(tried) => {
                node.note_retried(tried);
                // If nothing was done, the next attempt tells why.
                let is_given_up = tried != Retried::Settled;
                if is_given_up {
                    tracing::error!(
                        order, %error,
                        "the ledger can never take an order, as far as can be told: a dead letter"
                    );
                }
                Ok(is_given_up)
            }
            Err(refusal) if refusal.may_lie_in_what_was_asked() => {
                tracing::error!(
                    order, %error, %refusal,
                    "the ledger takes an order neither as one nor as a dead letter; it stays in the stream"
                );
                Ok(false)
            }
            Err(failure) => Err(failure.into()),
        }
    }
}
