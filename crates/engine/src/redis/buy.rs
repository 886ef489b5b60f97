//! A purchase, from the request to the answer.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use yoink_core::{OrderId, Rejection, Timestamp};

use super::RedisEngine;
use super::answer::{Answer, Grant, NotLoaded};
use super::lane::{DECIDE_WITHIN, Mode, Sent, Ticket};
use super::offers::Offer;
use crate::node::catalogue::Listed;
use crate::node::order_id::OrderIds;
use crate::views::{OrderStatus, PurchaseRequest, Purchased, Replayed};
use crate::{CallError, EngineState};

/// The wait before a purchase that was not executed is sent again; it doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);
/// An attempt without an answer for this long gets none any more.
const SEND_MAX: Duration = Duration::from_millis(2_500);

impl RedisEngine {
    /// Buys.
    ///
    /// # Errors
    /// As [`crate::Engine::purchase`].
    pub(crate) async fn purchase(&self, request: PurchaseRequest) -> Result<Purchased, CallError> {
        let result = self.buy(&request).await;
        self.shared().node.count_purchase(&result);
        result
    }

    async fn buy(&self, request: &PurchaseRequest) -> Result<Purchased, CallError> {
        let Some(listed) = self.desk().find_product(&request.product).await else {
            return Err(Rejection::ProductNotFound.into());
        };
        if self.shared().node.state() == EngineState::Closing {
            return Err(CallError::Closing);
        }
        if !self.shared().node.may_sell() {
            return Err(CallError::UnsafeSettings);
        }
        if let Some(rejection) = self.refuse_early(&listed, request) {
            return Err(rejection.into());
        }
        let number = listed.row.number;
        let order = match &request.key {
            Some(key) => self.shared().node.order_ids.derive(number, &request.customer, key),
            None => OrderIds::random(number),
        };
        let begun = Instant::now();
        let mut attempt =
            Attempt { was_unknown: false, pause: RETRY_PAUSE, refreshed: false, expired: false };
        loop {
            let epoch = self.shared().node.catalogue.epoch(number);
            let arrivals = listed.arrivals();
            let sent = self.send(number, epoch, order, request).await;
            if let Sent::Answered(Answer::Refused(Rejection::SoldOut { available })) = &sent {
                listed.saw_available(arrivals, *available);
            }
            if let Some(result) = self.heed(sent, (&listed, epoch), order, request, &mut attempt).await {
                return result;
            }
            if begun.elapsed() >= DECIDE_WITHIN {
                return Err(attempt.give_up());
            }
            tokio::time::sleep(attempt.pause).await;
            attempt.pause = attempt.pause.saturating_mul(2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Sold out, and certainly so: the last look, a moment ago, found nothing, and neither a replay nor a limit could
    /// make another answer of it.
    pub(crate) fn refuse_early(&self, listed: &Listed, request: &PurchaseRequest) -> Option<Rejection> {
        let details = &listed.row.details;
        let now = self.shared().node.now();
        let is_plain = request.key.is_none()
            && details.limit_per_customer.is_none()
            && request.quantity <= details.max_per_order
            && !listed.row.paused
            && listed.is_selling()
            && details.window.starts_at.is_none_or(|starts_at| now >= starts_at)
            && details.window.ends_at.is_none_or(|ends_at| now < ends_at);
        (is_plain && listed.is_sold_out()).then_some(Rejection::SoldOut { available: 0 })
    }

    async fn send(&self, product: i32, epoch: i32, order: OrderId, request: &PurchaseRequest) -> Sent {
        let (reply, answered) = oneshot::channel();
        self.lane().push(Ticket {
            product,
            epoch,
            order,
            customer: request.customer.clone(),
            quantity: request.quantity,
            mode: Mode::Buy,
            reply,
        });
        // Whoever was to answer may have been ended with its runtime.
        match tokio::time::timeout(SEND_MAX, answered).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(_)) | Err(_) => Sent::Unknown("the engine is closing, or has no time".into()),
        }
    }

    /// What an attempt means; `None`: try again.
    async fn heed(
        &self,
        sent: Sent,
        (listed, epoch): (&Listed, i32),
        order: OrderId,
        request: &PurchaseRequest,
        attempt: &mut Attempt,
    ) -> Option<Result<Purchased, CallError>> {
        let answer = match sent {
            Sent::Answered(answer) => answer,
            Sent::NotSent(what) => {
                tracing::debug!(%what, "a purchase was not sent; trying again");
                return None;
            }
            Sent::Unknown(what) => {
                tracing::debug!(%what, "a purchase got no answer; asking again");
                attempt.was_unknown = true;
                return None;
            }
        };
        if answer == Answer::Refused(Rejection::ConservationBroken) {
            // Whatever became of an earlier attempt: the next filling can be read.
            listed.distrust(epoch);
        }
        match answer {
            Answer::Granted(grant) => {
                self.remember(listed.row.number, epoch, order, request, &grant);
                Some(Ok(purchased(order, &grant, Replayed::No)))
            }
            Answer::Replay(grant) => {
                // The node that granted it may be gone: what this one answers, it keeps, too.
                self.remember(listed.row.number, epoch, order, request, &grant);
                Some(Ok(purchased(order, &grant, attempt.replayed())))
            }
            Answer::OldReplay(grant) => Some(Ok(purchased(order, &grant, attempt.replayed()))),
            Answer::KeyReused => Some(Err(Rejection::KeyReused { original: Some(order) }.into())),
            // An attempt without an answer may still be executed: after it no "no" is certain.
            _ if attempt.was_unknown => {
                // Asking again soon is safe: every attempt names the same order, and the later ones find the first.
                None
            }
            Answer::Refused(rejection) => Some(Err(rejection.into())),
            Answer::TooOften { wait } => {
                // Only who names a limit is told that it is reached.
                let limit = self.shared().options.rate_limit;
                Some(Err(limit.map_or(CallError::Overloaded, |limit| CallError::TooOften { limit, wait })))
            }
            Answer::Backlog => Some(Err(CallError::Overloaded)),
            // The server's clock may have been set: the next attempt asks it first.
            Answer::Expired if !attempt.expired => {
                attempt.expired = true;
                None
            }
            Answer::Expired => Some(Err(CallError::Expired)),
            Answer::OtherEpoch(_) if attempt.refreshed => Some(Err(CallError::Rebuilding)),
            Answer::OtherEpoch(_) => {
                attempt.refreshed = true;
                self.desk().refresh_catalogue().await;
                None
            }
            Answer::NotLoaded(why) => {
                // The keeper sees by itself that another server is there, or that it is to be filled for the first time.
                if why == NotLoaded::Missing && listed.is_open_in_ledger() {
                    listed.distrust(epoch);
                }
                Some(Err(CallError::Rebuilding))
            }
        }
    }

    /// Until the ledger is known to have it.
    fn remember(&self, product: i32, epoch: i32, order: OrderId, request: &PurchaseRequest, grant: &Grant) {
        if self.shared().mistakes().reseed {
            return;
        }
        let offer = Offer {
            order,
            customer: request.customer.clone(),
            quantity: request.quantity,
            price: grant.price,
            accepted_at: grant.at,
        };
        self.shared().offers.add(product, (epoch, grant.number), offer);
    }
}

/// What the attempts so far have shown.
struct Attempt {
    was_unknown: bool,
    pause: Duration,
    /// The catalogue was read again already.
    refreshed: bool,
    /// An attempt came too late, by the server's clock.
    expired: bool,
}

impl Attempt {
    /// After an attempt without an answer it may be that one which is repeated.
    fn replayed(&self) -> Replayed {
        if self.was_unknown { Replayed::No } else { Replayed::Yes }
    }

    fn give_up(&self) -> CallError {
        match self.was_unknown {
            true => CallError::OutcomeUnknown,
            false => CallError::Unreachable,
        }
    }
}

fn purchased(order: OrderId, grant: &Grant, replayed: Replayed) -> Purchased {
    Purchased {
        order,
        seq: grant.number,
        accepted_at: Timestamp(grant.at.0),
        unit_price: grant.price,
        replayed,
        status: OrderStatus::Accepted,
    }
}
