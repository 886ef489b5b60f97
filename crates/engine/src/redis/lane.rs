//! One runtime's way to Redis and back: what its connections ask in one turn goes as one script call per product.
//!
//! Redis pays one fsync per turn of its event loop, and parses and looks up once per call, so purchases that come
//! together travel together. While enough calls are under way, what comes waits and makes the next call larger.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use yoink_core::{CustomerId, Money, OrderId, Timestamp};

use super::Shared;
use super::answer::{Answer, NotLoaded, parse};
use super::keys::SaleKeys;
use super::outcome::{Executed, executed, wants_new_connection};
use super::script;
use super::servers::{Server, Servers};
use super::status::Command;
use crate::RateLimit;
use crate::node::order_id::to_hex;

/// Purchases in one call at most: the others wait for Redis meanwhile.
pub(crate) const CALL_PURCHASES_MAX: usize = 128;
/// Calls under way at most, per runtime.
const CALLS_MAX: usize = 4;
/// Past this, on the server's clock, a purchase that is still on its way is not decided any more: its buyer was told
/// something else by then.
pub(crate) const DECIDE_WITHIN: Duration = Duration::from_millis(1_500);

/// Whether a purchase is a buyer's, or one that was accepted and whose Redis was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Buy,
    /// What the buyer was told then stays true.
    Offer {
        /// Which grant of its epoch it was.
        number: u64,
        accepted_at: Timestamp,
        price: Money,
    },
}

impl Mode {
    /// As `purchase.lua` calls it. One call has one.
    fn name(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Offer { .. } => "offer",
        }
    }
}

/// A purchase on its way.
pub(crate) struct Ticket {
    pub(crate) product: i32,
    pub(crate) epoch: i32,
    pub(crate) order: OrderId,
    pub(crate) customer: CustomerId,
    pub(crate) quantity: u32,
    pub(crate) mode: Mode,
    pub(crate) reply: oneshot::Sender<Sent>,
}

/// What became of a purchase that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "not sent is what it is")]
pub(crate) enum Sent {
    Answered(Answer),
    /// Certainly not executed.
    NotSent(Arc<str>),
    /// Nobody knows.
    Unknown(Arc<str>),
}

/// The purchases of one runtime that wait to be sent.
#[derive(Default)]
pub(crate) struct Lane {
    waiting: Mutex<Vec<Ticket>>,
    wake: Arc<Notify>,
}

impl Lane {
    pub(crate) fn push(&self, ticket: Ticket) {
        let mut waiting = self.waiting.lock();
        waiting.push(ticket);
        if waiting.len() == 1 {
            drop(waiting);
            self.wake.notify_one();
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// Sends the purchases of one lane. To be run on the lane's runtime.
pub(crate) struct LaneDriver {
    lane: Weak<Lane>,
    wake: Arc<Notify>,
    servers: Servers,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LaneDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneDriver").finish_non_exhaustive()
    }
}

impl LaneDriver {
    pub(crate) fn new(lane: &Arc<Lane>, servers: Servers, shared: Arc<Shared>) -> Self {
        Self { lane: Arc::downgrade(lane), wake: Arc::clone(&lane.wake), servers, shared }
    }

    /// Runs until the lane is gone.
    pub(crate) async fn run(self) {
        let mut waiting: Vec<Ticket> = Vec::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
            }
            let Some(lane) = self.lane.upgrade() else { return };
            waiting.append(&mut lane.waiting.lock());
            drop(lane);
            while under_way.len() < CALLS_MAX && !waiting.is_empty() {
                under_way.push(self.send(next_call(&mut waiting)));
            }
        }
    }

    async fn send(&self, tickets: Vec<Ticket>) {
        let Some(first) = tickets.first() else { return };
        let product = first.product;
        let keys = self.shared.keys(product, first.epoch);
        let server = match self.servers.of(product).await {
            Ok(server) => server,
            Err(error) => return answer_all(tickets, &Sent::NotSent(error.to_string().into())),
        };
        let begun = std::time::Instant::now();
        let purchase = match self.shared.mistakes().two_steps {
            true => &script::PURCHASE_WITHOUT_ENTRY,
            false => &script::PURCHASE,
        };
        let sent = self.call(&server, &keys, &tickets, purchase).await;
        self.shared.node.counters.commit_seconds.observe(begun.elapsed().as_secs_f64());
        self.shared.gauges.asked(Command::Purchase, begun);
        match sent {
            Ok(answers) if answers.len() == tickets.len() => {
                self.shared.node.counters.batch_events.observe(tickets.len() as f64);
                let mut has_granted = false;
                for (ticket, answer) in tickets.into_iter().zip(answers) {
                    let sent = match parse(&answer) {
                        Some(answer) => {
                            has_granted |= matches!(answer, Answer::Granted(_));
                            if matches!(answer, Answer::Expired | Answer::NotLoaded(NotLoaded::OtherServer)) {
                                // The server's clock may have been set, or it is not what it was: the next connection
                                // asks it.
                                self.servers.forget(&server, product);
                            }
                            Sent::Answered(answer)
                        }
                        None => Sent::Unknown(format!("Redis gave an answer that is none: {answer}").into()),
                    };
                    // A caller who is gone asks again, with the same key.
                    let _ = ticket.reply.send(sent);
                }
                if has_granted {
                    self.shared.rush.granted();
                }
            }
            Ok(_) => answer_all(tickets, &Sent::Unknown("Redis gave another number of answers".into())),
            Err(error) => {
                if wants_new_connection(&error) {
                    self.servers.forget(&server, product);
                }
                let what: Arc<str> = error.to_string().into();
                let sent = match executed(&error) {
                    Executed::No => Sent::NotSent(what),
                    Executed::Unknown => Sent::Unknown(what),
                };
                answer_all(tickets, &sent);
            }
        }
    }

    async fn call(
        &self,
        server: &Server,
        keys: &SaleKeys,
        tickets: &[Ticket],
        purchase: &redis::Script,
    ) -> redis::RedisResult<Vec<String>> {
        let mut call = purchase.prepare_invoke();
        call.key(&keys.sale).key(&keys.buyers).key(&keys.grants);
        let first = tickets.first();
        call.arg(first.map_or(0, |ticket| ticket.epoch)).arg(&*server.identity);
        let (mode, now_override) =
            (first.map_or("", |ticket| ticket.mode.name()), self.shared.node.now_override());
        match now_override {
            // Tests that set the time have no use for a deadline on the server's clock.
            Some(now_us) => call.arg("").arg(mode).arg(now_us),
            None => {
                let deadline_us = server.now_us().saturating_add(DECIDE_WITHIN.as_micros() as i64);
                call.arg(deadline_us).arg(mode).arg("")
            }
        };
        match self.shared.options.rate_limit.and_then(RateLimit::interval_us) {
            Some((interval_us, at_once)) => call.arg(interval_us).arg(at_once),
            None => call.arg("").arg(""),
        };
        call.arg(self.shared.options.backlog_max);
        for ticket in tickets {
            call.arg(to_hex(ticket.order)).arg(ticket.customer.as_str()).arg(ticket.quantity);
            if let Mode::Offer { number, accepted_at, price } = ticket.mode {
                call.arg(number).arg(accepted_at.0);
                call.arg(format!("{}|{}", price.amount, price.currency.as_str()));
            }
        }
        call.invoke_async(&mut server.connection.clone()).await
    }
}

/// Takes tickets of one product, epoch and mode, in order.
fn next_call(waiting: &mut Vec<Ticket>) -> Vec<Ticket> {
    let Some(first) = waiting.first() else { return Vec::new() };
    let of = (first.product, first.epoch, first.mode.name());
    let mut room = CALL_PURCHASES_MAX;
    waiting
        .extract_if(.., |ticket| {
            let belongs = room > 0 && (ticket.product, ticket.epoch, ticket.mode.name()) == of;
            room -= usize::from(belongs);
            belongs
        })
        .collect()
}

fn answer_all(tickets: Vec<Ticket>, sent: &Sent) {
    for ticket in tickets {
        let _ = ticket.reply.send(sent.clone());
    }
}
