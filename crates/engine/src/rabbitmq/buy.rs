//! A purchase, from the request to the answer: checked, queued, and confirmed by the broker.

use std::time::Duration;

use yoink_core::{Money, OrderId, Rejection, Timestamp};

use super::RabbitEngine;
use super::buying::{Bought, Turn};
use super::publisher::Sent;
use super::replays::Known;
use crate::node::catalogue::Listed;
use crate::node::order_id::OrderIds;
use crate::postgres::Request;
use crate::storefront::refuse_as_listed;
use crate::views::{OrderStatus, PurchaseRequest, Purchased, Replayed};
use crate::{CallError, EngineState};

/// The publisher answers sooner; whoever was to do it may have been ended with its runtime.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What is made of the hint that too few units are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// The request is refused early.
    Heeded,
    /// The request is queued for the decision, which will refuse it.
    Ignored,
}

/// What became of a request when it was made before.
enum Before {
    /// It was answered like this.
    Bought(Bought),
    /// It was not made.
    NotBought,
    /// The ledger cannot be asked.
    NobodyKnows,
}

impl RabbitEngine {
    /// Queues a request to buy.
    ///
    /// # Errors
    /// As [`crate::Engine::purchase`].
    pub(crate) async fn purchase(&self, request: PurchaseRequest, hint: Hint) -> Bought {
        let result = self.buy(&request, hint).await;
        self.shared().node.count_purchase(&result);
        result
    }

    async fn buy(&self, request: &PurchaseRequest, hint: Hint) -> Bought {
        let Some(listed) = self.desk().find_product(&request.product).await else {
            return Err(Rejection::ProductNotFound.into());
        };
        let node = &self.shared().node;
        if node.state() == EngineState::Closing {
            return Err(CallError::Closing);
        }
        if !node.may_sell() {
            return Err(CallError::UnsafeSettings);
        }
        let ids = &node.order_ids;
        let Some(key) = &request.key else {
            let order = ids.seal(OrderIds::random(listed.row.number));
            return match self.refuse(&listed, request, hint) {
                Some(rejection) => Err(rejection.into()),
                None => self.queue(&listed, order, request).await,
            };
        };
        let order = ids.seal(ids.derive(listed.row.number, &request.customer, key));
        self.buy_once(&listed, order, request, hint).await
    }

    /// Queues a request with a key, unless it was queued before.
    async fn buy_once(
        &self,
        listed: &Listed,
        order: OrderId,
        request: &PurchaseRequest,
        hint: Hint,
    ) -> Bought {
        loop {
            let mine = match self.shared().buying.begin(order, request.quantity) {
                Turn::Mine(mine) => mine,
                Turn::Anothers(quantity, told) => match told.await {
                    Ok(Ok(_)) if quantity != request.quantity => return Err(key_reused(order)),
                    Ok(Ok(purchased)) => return Ok(Purchased { replayed: Replayed::Yes, ..purchased }),
                    Ok(Err(error)) if quantity == request.quantity => return Err(error),
                    // What the other asked for was refused, or he went away.
                    Ok(Err(_)) | Err(_) => continue,
                },
            };
            // In this order: what took the last unit before the first look is found by the second.
            let refusal = self.refuse(listed, request, hint);
            let unsettled = &self.shared().unsettled;
            let bought = match (self.bought_before(order, request).await, refusal) {
                (Before::Bought(bought), _) => {
                    unsettled.remove(order);
                    bought
                }
                (Before::NotBought | Before::NobodyKnows, None) => {
                    self.queue_once(listed, order, request).await
                }
                // It may be in the queue already. The decision tells, whichever of the two it meets first.
                (Before::NotBought | Before::NobodyKnows, Some(Rejection::SoldOut { .. }))
                    if unsettled.has(order) =>
                {
                    self.queue_once(listed, order, request).await
                }
                // Whoever was told yes before, or may yet get one, must not be told no now.
                (Before::NobodyKnows, Some(_)) => Err(CallError::OutcomeUnknown),
                (Before::NotBought, Some(_)) if unsettled.has(order) => Err(CallError::OutcomeUnknown),
                (Before::NotBought, Some(rejection)) => Err(rejection.into()),
            };
            mine.tell(&bought);
            return bought;
        }
    }

    /// Whether a request was made before, as far as this node and the ledger can tell: it may be queued by another node.
    async fn bought_before(&self, order: OrderId, request: &PurchaseRequest) -> Before {
        let shared = self.shared();
        let (quantity, accepted_at, unit_price, seq) = match shared.publisher.retained.find(order) {
            Some(queued) => {
                let Some(currency) = yoink_core::Currency::parse(&queued.currency) else {
                    return Before::NobodyKnows;
                };
                let price = Money { amount: queued.price, currency };
                (queued.quantity.unsigned_abs(), Timestamp(queued.accepted_at), price, 0)
            }
            None => match shared.replays.look_up(order).await {
                Known::Yes(known) => (known.quantity, known.accepted_at, known.unit_price, known.seq),
                Known::No => return Before::NotBought,
                Known::NobodyKnows => return Before::NobodyKnows,
            },
        };
        if quantity != request.quantity {
            return Before::Bought(Err(key_reused(order)));
        }
        let (replayed, status) = (Replayed::Yes, OrderStatus::Queued);
        Before::Bought(Ok(Purchased { order, seq, accepted_at, unit_price, replayed, status }))
    }

    /// Whether there is an order under the request's key already, or may be: whoever was told that nobody knows asks
    /// again as often as it takes.
    ///
    /// # Errors
    /// None, so far: while the ledger cannot be asked it counts as no.
    pub(crate) async fn is_replay(&self, request: &PurchaseRequest) -> Result<bool, CallError> {
        let Some(key) = &request.key else { return Ok(false) };
        let Some(listed) = self.desk().find_product(&request.product).await else { return Ok(false) };
        let ids = &self.shared().node.order_ids;
        let order = ids.seal(ids.derive(listed.row.number, &request.customer, key));
        Ok(self.shared().unsettled.has(order)
            || matches!(self.bought_before(order, request).await, Before::Bought(_)))
    }

    /// What can be told without a decision.
    pub(crate) fn refuse(&self, listed: &Listed, request: &PurchaseRequest, hint: Hint) -> Option<Rejection> {
        let (row, now) = (&listed.row, self.shared().node.now());
        if let Some(rejection) = refuse_as_listed(&row.details, row.paused, now, request.quantity) {
            return Some(rejection);
        }
        // A moment old; what is queued decides nothing yet.
        let available = listed.available();
        let is_sold_out = hint == Hint::Heeded && u64::from(request.quantity) > available;
        is_sold_out.then_some(Rejection::SoldOut { available })
    }

    /// Queues a request with a key. While it is not known whether it is queued, that is remembered, also if the caller
    /// goes.
    async fn queue_once(&self, listed: &Listed, order: OrderId, request: &PurchaseRequest) -> Bought {
        let unsettled = &self.shared().unsettled;
        let was_unsettled = unsettled.add(order);
        match self.queue(listed, order, request).await {
            Err(CallError::OutcomeUnknown) => Err(CallError::OutcomeUnknown),
            // Nothing happened now; but perhaps before.
            Err(_) if was_unsettled => Err(CallError::OutcomeUnknown),
            settled => {
                unsettled.remove(order);
                settled
            }
        }
    }

    async fn queue(&self, listed: &Listed, order: OrderId, request: &PurchaseRequest) -> Bought {
        let shared = self.shared();
        let (accepted_at, unit_price) = (shared.node.now(), listed.row.details.price);
        let sent = shared.publisher.publish(Request {
            order,
            customer: request.customer.as_str().to_owned(),
            quantity: i32::try_from(request.quantity).unwrap_or(i32::MAX),
            price: unit_price.amount,
            currency: unit_price.currency.as_str().to_owned(),
            accepted_at: accepted_at.0,
            publisher: shared.publisher.id,
            sequence: 0,
        })?;
        match tokio::time::timeout(ANSWER_MAX, sent).await {
            Ok(Ok(Sent::Queued)) => {
                let (replayed, status) = (Replayed::No, OrderStatus::Queued);
                Ok(Purchased { order, seq: 0, accepted_at, unit_price, replayed, status })
            }
            Ok(Ok(Sent::NotQueued)) => Err(CallError::Unreachable),
            Ok(Ok(Sent::Unknown) | Err(_)) | Err(_) => Err(CallError::OutcomeUnknown),
        }
    }
}

fn key_reused(order: OrderId) -> CallError {
    Rejection::KeyReused { original: Some(order) }.into()
}
