//! Puts requests into the queue and knows what became of each.
//!
//! One task has one connection. A few messages are under way at once; what comes meanwhile goes together in the next, so
//! that a crowd costs the broker little more than one buyer does. Each message is answered by the broker's confirm, or by
//! what is certain without it. What was written and not confirmed is sent once more on another connection: the order ids
//! are the same, so it is decided once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapin::uri::AMQPUri;
use tokio::time::MissedTickBehavior;

use super::broker;
use super::message::{REQUESTS_MAX, encode};
use super::publisher::{Sent, Ticket};
use super::sending::{Line, Outcome, UNDER_WAY_MAX};
use super::shared::Shared;
use super::status::Gauges;
use crate::failpoint;
use crate::node::Patience;

/// A message that was written and is not confirmed for so long is sent once more.
const CONFIRM_MAX: Duration = Duration::from_secs(1);
/// A request that could not be sent for so long is given back.
const SEND_MAX: Duration = Duration::from_secs(1);
/// By then every caller has an answer.
const ANSWER_MAX: Duration = Duration::from_millis(2_500);
/// The longest wait between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// A broker that confirms nothing on a second connection either is not asked again before this: a quorum queue that has no
/// leader elects none while it is asked again and again, and every new connection asks.
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);

/// One message that was handed to the broker.
struct UnderWay {
    tickets: Vec<Ticket>,
    sent_at: Instant,
}

/// Whether there is a connection, or what is done about it.
enum Way {
    Open(Box<Line>),
    Opening(BoxFuture<'static, lapin::Result<Line>>),
}

/// The task that owns the connection.
pub(crate) struct PublisherTask {
    shared: Arc<Shared>,
    uri: AMQPUri,
    way: Way,
    patience: Patience,
    /// Failed attempts to connect in a row.
    failures: u32,
    /// Whether the next connection makes sure that the queue is there.
    ensures: bool,
    /// Connections in a row on which nothing was confirmed for a second.
    silent: u32,
    /// Nothing more is sent on this connection until something is confirmed.
    is_stuck: bool,
    /// Whether anything was confirmed on this connection.
    has_confirmed: bool,
    /// Which connection it is, from 1: outcomes of earlier ones say nothing about this one.
    generation: u64,
    /// The number of the last request that got one.
    last_number: i64,
    /// Numbers whose requests are certainly not queued: they are given to others, so that what is confirmed stays dense.
    free_numbers: Vec<i64>,
    /// Those that wait for a connection, or for the next message.
    held: Vec<Ticket>,
    /// Messages sent so far. A message has no number outside of this task.
    messages: u64,
    /// By message.
    under_way: HashMap<u64, UnderWay>,
    /// How many messages of this connection are not answered. Those of earlier ones may never be.
    unanswered: usize,
    /// What is under way by when it was sent; some of it may be over.
    by_time: VecDeque<(Instant, u64)>,
    outcomes: FuturesUnordered<BoxFuture<'static, (u64, u64, Outcome)>>,
}

impl PublisherTask {
    pub(crate) fn new(shared: Arc<Shared>, uri: AMQPUri) -> Self {
        let way = Way::Opening(Box::pin(Line::open(Arc::clone(&shared), uri.clone(), Duration::ZERO, true)));
        Self {
            shared,
            uri,
            way,
            patience: Patience::up_to(RECONNECT_MAX),
            failures: 0,
            ensures: true,
            silent: 0,
            is_stuck: false,
            has_confirmed: false,
            generation: 1,
            last_number: 0,
            free_numbers: Vec::new(),
            held: Vec::new(),
            messages: 0,
            under_way: HashMap::new(),
            unanswered: 0,
            by_time: VecDeque::new(),
            outcomes: FuturesUnordered::new(),
        }
    }

    /// Runs until the publisher is closed and nothing is under way.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let publisher = &shared.publisher;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = publisher.wake.notified() => {}
                Some(outcome) = self.outcomes.next(), if !self.outcomes.is_empty() => self.heed(outcome),
                opened = opening(&mut self.way) => self.opened(opened),
                _ = tick.tick() => self.look_at_deadlines(),
            }
            // Whatever else is there already goes in the same turn.
            while let Some(Some(outcome)) = self.outcomes.next().now_or_never() {
                self.heed(outcome);
            }
            self.held.extend(publisher.take_waiting());
            self.send_held();
            if publisher.is_done() {
                break;
            }
        }
        shared.gauges.is_publishing.store(false, Ordering::Relaxed);
        if let Way::Open(line) = self.way {
            line.close().await;
        }
    }
}

/// Connections.
impl PublisherTask {
    fn opened(&mut self, opened: lapin::Result<Line>) {
        match opened {
            Ok(line) => {
                if self.failures > 0 {
                    tracing::info!("connected to the broker again");
                }
                self.failures = 0;
                self.patience.reset();
                (self.ensures, self.is_stuck, self.has_confirmed) = (false, false, false);
                self.way = Way::Open(Box::new(line));
            }
            Err(error) => {
                if self.failures == 0 {
                    let broker = broker::shown(&self.uri);
                    tracing::warn!(broker, %error, "the broker cannot be used; trying again");
                }
                self.reopen();
            }
        }
    }

    /// Drops a connection that was a good one; another one is made after a short while.
    fn give_up(&mut self) {
        self.failures = 0;
        self.patience.reset();
        self.reopen();
    }

    /// Drops the connection; another one is made after a while.
    fn reopen(&mut self) {
        self.generation += 1;
        self.unanswered = 0;
        // Where nothing was confirmed, something that belongs to the queue may be missing.
        self.ensures |= !self.has_confirmed;
        self.failures = self.failures.saturating_add(1);
        self.shared.gauges.is_publishing.store(false, Ordering::Relaxed);
        self.way = Way::Opening(Box::pin(Line::open(
            Arc::clone(&self.shared),
            self.uri.clone(),
            self.patience.next(),
            self.ensures,
        )));
    }
}

/// What is sent.
impl PublisherTask {
    /// Sends what waits, or gives it back where it is clear that it cannot be sent.
    fn send_held(&mut self) {
        let is_hopeless = match &self.way {
            Way::Open(line) => self.is_stuck || line.is_blocked(),
            Way::Opening(_) => self.failures > 1,
        };
        let is_publishing = matches!(&self.way, Way::Open(_)) && !is_hopeless;
        self.shared.gauges.is_publishing.store(is_publishing, Ordering::Relaxed);
        if is_hopeless {
            // What may be queued is worth another attempt until its time is over.
            let waits = |ticket: &Ticket| ticket.may_be_queued && !ticket.is_again;
            let (held, given_back): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.held).into_iter().partition(waits);
            self.held = held;
            given_back.into_iter().for_each(|ticket| self.give_back(ticket));
            return;
        }
        while !self.held.is_empty() && self.unanswered < UNDER_WAY_MAX {
            let rest = self.held.split_off(self.held.len().min(REQUESTS_MAX));
            let tickets = std::mem::replace(&mut self.held, rest);
            if let Err(tickets) = self.send(tickets) {
                self.held = tickets;
                return;
            }
        }
    }

    /// Hands requests to the broker as one message. Gives them back if there is no connection.
    fn send(&mut self, mut tickets: Vec<Ticket>) -> Result<(), Vec<Ticket>> {
        let Way::Open(line) = &self.way else { return Err(tickets) };
        for ticket in &mut tickets {
            if ticket.attempts == 0 && !ticket.is_again {
                ticket.request.sequence = self.free_numbers.pop().unwrap_or_else(|| {
                    self.last_number += 1;
                    self.last_number
                });
            }
            ticket.attempts += 1;
        }
        failpoint::hit("publisher.before-publish");
        self.messages += 1;
        self.unanswered += 1;
        let (message, generation) = (self.messages, self.generation);
        let requests = tickets.iter().map(|ticket| &ticket.request);
        let payload = encode(self.shared.publisher.id, requests, &self.shared.node.order_ids);
        let sending = line.send(payload);
        self.outcomes.push(Box::pin(async move { (generation, message, sending.await) }));
        let sent_at = Instant::now();
        self.by_time.push_back((sent_at, message));
        self.under_way.insert(message, UnderWay { tickets, sent_at });
        Ok(())
    }

    /// It certainly is not in the queue from the last attempt.
    fn give_back(&mut self, ticket: Ticket) {
        if ticket.attempts > 0 && !ticket.may_be_queued {
            self.free_numbers.push(ticket.request.sequence);
        }
        let sent = if ticket.may_be_queued { Sent::Unknown } else { Sent::NotQueued };
        self.shared.publisher.answer(ticket.reply, sent);
    }
}

/// What became of it.
impl PublisherTask {
    fn heed(&mut self, (generation, message, outcome): (u64, u64, Outcome)) {
        if generation == self.generation {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        let Some(UnderWay { tickets, sent_at }) = self.under_way.remove(&message) else { return };
        let is_of_this_connection = generation == self.generation && matches!(self.way, Way::Open(_));
        match outcome {
            Outcome::Confirmed => {
                failpoint::hit("publisher.confirmed");
                if is_of_this_connection {
                    (self.silent, self.is_stuck, self.has_confirmed) = (0, false, true);
                }
                tickets.into_iter().for_each(|ticket| self.confirm(ticket, sent_at));
            }
            Outcome::Refused | Outcome::Returned => {
                tickets.into_iter().for_each(|ticket| self.give_back(ticket));
                if outcome == Outcome::Returned && is_of_this_connection {
                    tracing::warn!("the queue is gone; it is made anew");
                    self.ensures = true;
                    self.give_up();
                }
            }
            Outcome::NotWritten | Outcome::Unanswered => {
                for mut ticket in tickets {
                    ticket.may_be_queued |= outcome == Outcome::Unanswered;
                    if ticket.attempts > 1 || ticket.is_again {
                        self.give_back(ticket);
                    } else {
                        self.held.push(ticket);
                    }
                }
                if is_of_this_connection {
                    self.give_up();
                }
            }
        }
    }

    fn confirm(&self, ticket: Ticket, sent_at: Instant) {
        self.shared.node.counters.commit_seconds.observe(sent_at.elapsed().as_secs_f64());
        if ticket.is_again {
            Gauges::add(&self.shared.gauges.requeued, 1);
        }
        self.shared.publisher.retained.confirm(ticket.request, sent_at);
        self.shared.publisher.answer(ticket.reply, Sent::Queued);
    }

    fn look_at_deadlines(&mut self) {
        let now = Instant::now();
        let is_late = |ticket: &Ticket| {
            let max = if ticket.attempts == 0 { SEND_MAX } else { ANSWER_MAX };
            now.saturating_duration_since(ticket.begun) >= max
        };
        let (late, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held).into_iter().partition(is_late);
        self.held = held;
        late.into_iter().for_each(|ticket| self.give_back(ticket));

        if matches!(&self.way, Way::Open(line) if line.has_ended()) {
            self.ensures |= matches!(&self.way, Way::Open(line) if line.is_queue_gone());
            self.give_up();
        }
        while self.by_time.front().is_some_and(|(_, message)| !self.under_way.contains_key(message)) {
            self.by_time.pop_front();
        }
        let Some((oldest, _)) = self.by_time.front() else { return };
        let waits = now.saturating_duration_since(*oldest);
        if waits < CONFIRM_MAX {
            return;
        }
        match &self.way {
            // It reads nothing until its memory or disk has room again: another connection would be stopped, too.
            Way::Open(line) if line.is_blocked() => {}
            Way::Open(line) if *oldest >= line.opened_at => self.heed_silence(waits),
            _ => {}
        }
        self.answer_the_late(now);
    }

    /// Nothing was confirmed for a second, or longer.
    fn heed_silence(&mut self, silence: Duration) {
        if self.silent > 0 && silence < SILENCE_MAX {
            if !self.is_stuck {
                tracing::warn!("the broker confirms nothing; nothing is sent until it does");
            }
            self.is_stuck = true;
            return;
        }
        tracing::warn!("the broker has confirmed nothing for a second; connecting anew");
        self.silent = self.silent.saturating_add(1);
        self.give_up();
    }

    /// Tells those who waited long enough that nobody knows. A confirm that comes later is heeded all the same.
    fn answer_the_late(&mut self, now: Instant) {
        for (_, message) in &self.by_time {
            let Some(under_way) = self.under_way.get_mut(message) else { continue };
            if now.saturating_duration_since(under_way.sent_at) < CONFIRM_MAX {
                break;
            }
            for ticket in &mut under_way.tickets {
                if now.saturating_duration_since(ticket.begun) >= ANSWER_MAX
                    && let Some(reply) = ticket.reply.take()
                {
                    ticket.may_be_queued = true;
                    let _ = reply.send(Sent::Unknown);
                }
            }
        }
    }
}

/// Waits for a connection that is being made; for ever if there is one.
async fn opening(way: &mut Way) -> lapin::Result<Line> {
    match way {
        Way::Opening(line) => line.await,
        Way::Open(_) => std::future::pending().await,
    }
}
