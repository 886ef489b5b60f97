//! Puts requests into the queue and knows what became of each.
//!
//! One task has one connection. Many messages are under way at once; each is answered by the broker's confirm, or by what
//! is certain without it. What was written and not confirmed is sent once more on another connection: the order id is
//! the same, so it is decided once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapin::uri::AMQPUri;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::broker;
use super::retained::Retained;
use super::sending::{Line, Outcome};
use super::shared::Shared;
use super::status::Gauges;
use crate::postgres::Request;
use crate::{CallError, failpoint};

/// Messages on their way at most.
const IN_HAND_MAX: usize = 20_000;
/// A message that was written and is not confirmed for so long is sent once more.
const CONFIRM_MAX: Duration = Duration::from_secs(1);
/// A message that could not be sent for so long is given back.
const SEND_MAX: Duration = Duration::from_secs(1);
/// By then every caller has an answer.
const ANSWER_MAX: Duration = Duration::from_millis(2_500);
/// The first wait after a failed attempt to connect; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A broker that confirms nothing on a second connection either is not asked again before this: a quorum queue that has no
/// leader elects none while it is asked again and again, and every new connection asks.
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is in the queue.
    Queued,
    /// It certainly is not.
    NotQueued,
    /// Nobody knows.
    Unknown,
}

/// A request on its way.
struct Ticket {
    request: Request,
    /// Whoever waits; nobody if it is queued again.
    reply: Option<oneshot::Sender<Sent>>,
    begun: Instant,
    /// How often it was handed to the broker.
    attempts: u32,
    /// The queue may have it already from an earlier attempt.
    may_be_queued: bool,
    /// It was confirmed before, and lost as far as can be told.
    is_again: bool,
}

/// The way to the queue, for all lanes.
pub(crate) struct Publisher {
    /// Who this is in every message: another for every process.
    pub(crate) id: Uuid,
    pub(crate) retained: Retained,
    waiting: Mutex<Vec<Ticket>>,
    wake: Notify,
    /// Tickets that nobody has answered yet.
    in_hand: AtomicUsize,
    /// No more tickets are taken.
    is_closed: AtomicBool,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Self {
            id: Uuid::new_v4(),
            retained: Retained::default(),
            waiting: Mutex::default(),
            wake: Notify::new(),
            in_hand: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Puts a request into the queue; its publisher and number are filled in here. It goes on if the caller goes.
    ///
    /// # Errors
    /// Too many are under way.
    pub(crate) fn publish(&self, request: Request) -> Result<oneshot::Receiver<Sent>, CallError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(CallError::Closing);
        }
        if self.in_hand.fetch_add(1, Ordering::AcqRel) >= IN_HAND_MAX {
            self.in_hand.fetch_sub(1, Ordering::AcqRel);
            return Err(CallError::Overloaded);
        }
        let (reply, answered) = oneshot::channel();
        self.push([Ticket::new(request, Some(reply))]);
        Ok(answered)
    }

    /// Puts requests into the queue again, with the numbers that they have.
    pub(crate) fn publish_again(&self, requests: Vec<Request>) {
        self.in_hand.fetch_add(requests.len(), Ordering::AcqRel);
        self.push(requests.into_iter().map(|request| Ticket::new(request, None)));
    }

    fn push(&self, tickets: impl IntoIterator<Item = Ticket>) {
        let mut waiting = self.waiting.lock();
        let was_empty = waiting.is_empty();
        waiting.extend(tickets);
        drop(waiting);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Takes no more requests; the task ends once none is under way.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Requests that are on their way.
    pub(crate) fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::Relaxed)
    }
}

impl Ticket {
    fn new(request: Request, reply: Option<oneshot::Sender<Sent>>) -> Self {
        // What is queued again was confirmed before.
        let is_again = reply.is_none();
        Self { request, reply, begun: Instant::now(), attempts: 0, may_be_queued: is_again, is_again }
    }
}

/// One message that was handed to the broker.
struct UnderWay {
    ticket: Ticket,
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
    last_number: i64,
    /// Numbers whose messages are certainly not queued: they are given to others, so that what is confirmed stays dense.
    free_numbers: Vec<i64>,
    /// Those that wait for a connection.
    held: Vec<Ticket>,
    under_way: HashMap<i64, UnderWay>,
    /// What is under way by when it was sent; some of it may be over.
    by_time: VecDeque<(Instant, i64)>,
    outcomes: FuturesUnordered<BoxFuture<'static, (u64, i64, Outcome)>>,
}

impl PublisherTask {
    pub(crate) fn new(shared: Arc<Shared>, uri: AMQPUri) -> Self {
        let way = Way::Opening(Box::pin(Line::open(Arc::clone(&shared), uri.clone(), Duration::ZERO, true)));
        Self {
            shared,
            uri,
            way,
            failures: 0,
            ensures: true,
            silent: 0,
            is_stuck: false,
            has_confirmed: false,
            generation: 1,
            last_number: 0,
            free_numbers: Vec::new(),
            held: Vec::new(),
            under_way: HashMap::new(),
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
            self.held.extend(publisher.waiting.lock().drain(..));
            self.send_held();
            if publisher.is_closed.load(Ordering::Acquire) && publisher.in_hand.load(Ordering::Acquire) == 0 {
                break;
            }
        }
        shared.gauges.is_publishing.store(false, Ordering::Relaxed);
        if let Way::Open(line) = self.way {
            line.close().await;
        }
    }

    fn opened(&mut self, opened: lapin::Result<Line>) {
        match opened {
            Ok(line) => {
                if self.failures > 0 {
                    tracing::info!("connected to the broker again");
                }
                self.failures = 0;
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

    /// Drops the connection; another one is made after a while.
    fn reopen(&mut self) {
        self.generation += 1;
        // Where nothing was confirmed, something that belongs to the queue may be missing.
        self.ensures |= !self.has_confirmed;
        self.failures = self.failures.saturating_add(1);
        self.shared.gauges.is_publishing.store(false, Ordering::Relaxed);
        let doublings = self.failures.saturating_sub(1).min(10);
        let whole = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        let wait = whole.mul_f64(rand::random_range(0.5..1.0));
        self.way = Way::Opening(Box::pin(Line::open(
            Arc::clone(&self.shared),
            self.uri.clone(),
            wait,
            self.ensures,
        )));
    }

    /// Sends what waits, or gives it back where it is clear that it cannot be sent.
    fn send_held(&mut self) {
        let is_hopeless = match &self.way {
            Way::Open(line) => self.is_stuck || line.is_blocked(),
            Way::Opening(_) => self.failures > 1,
        };
        self.shared
            .gauges
            .is_publishing
            .store(matches!(&self.way, Way::Open(_)) && !is_hopeless, Ordering::Relaxed);
        if is_hopeless {
            // What may be queued is worth another attempt until its time is over.
            let waits = |ticket: &Ticket| ticket.may_be_queued && !ticket.is_again;
            let (held, given_back): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.held).into_iter().partition(waits);
            self.held = held;
            given_back.into_iter().for_each(|ticket| self.give_back(ticket));
            return;
        }
        let Way::Open(line) = &self.way else { return };
        for mut ticket in self.held.drain(..) {
            if ticket.attempts == 0 && !ticket.is_again {
                ticket.request.publisher = self.shared.publisher.id;
                ticket.request.sequence = self.free_numbers.pop().unwrap_or_else(|| {
                    self.last_number += 1;
                    self.last_number
                });
            }
            ticket.attempts += 1;
            let (number, generation) = (ticket.request.sequence, self.generation);
            failpoint::hit("publisher.before-publish");
            let sending = line.send(&ticket.request);
            self.outcomes.push(Box::pin(async move { (generation, number, sending.await) }));
            let sent_at = Instant::now();
            self.by_time.push_back((sent_at, number));
            self.under_way.insert(number, UnderWay { ticket, sent_at });
        }
    }

    /// It certainly is not in the queue from the last attempt.
    fn give_back(&mut self, ticket: Ticket) {
        if ticket.attempts > 0 && !ticket.may_be_queued {
            self.free_numbers.push(ticket.request.sequence);
        }
        let sent = if ticket.may_be_queued { Sent::Unknown } else { Sent::NotQueued };
        self.answer(ticket.reply, sent);
    }

    fn answer(&self, reply: Option<oneshot::Sender<Sent>>, sent: Sent) {
        self.shared.publisher.in_hand.fetch_sub(1, Ordering::AcqRel);
        if let Some(reply) = reply {
            // A caller who is gone asks again, with the same key.
            let _ = reply.send(sent);
        }
    }

    fn heed(&mut self, (generation, number, outcome): (u64, i64, Outcome)) {
        let Some(UnderWay { mut ticket, sent_at }) = self.under_way.remove(&number) else { return };
        let is_of_this_connection = generation == self.generation && matches!(self.way, Way::Open(_));
        match outcome {
            Outcome::Confirmed => {
                failpoint::hit("publisher.confirmed");
                let counters = &self.shared.node.counters;
                counters.commit_seconds.observe(sent_at.elapsed().as_secs_f64());
                if ticket.is_again {
                    Gauges::add(&self.shared.gauges.requeued, 1);
                }
                if is_of_this_connection {
                    (self.silent, self.is_stuck, self.has_confirmed) = (0, false, true);
                }
                self.shared.publisher.retained.confirm(ticket.request, sent_at);
                self.answer(ticket.reply, Sent::Queued);
            }
            Outcome::Refused | Outcome::Returned => {
                self.give_back(ticket);
                if outcome == Outcome::Returned && is_of_this_connection {
                    tracing::warn!("the queue is gone; it is made anew");
                    self.ensures = true;
                    self.failures = 0;
                    self.reopen();
                }
            }
            Outcome::NotWritten | Outcome::Unanswered => {
                ticket.may_be_queued |= outcome == Outcome::Unanswered;
                if ticket.attempts > 1 || ticket.is_again {
                    self.give_back(ticket);
                } else {
                    self.held.push(ticket);
                }
                if is_of_this_connection {
                    self.failures = 0;
                    self.reopen();
                }
            }
        }
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
            self.failures = 0;
            self.reopen();
        }
        let is_over = |(sent_at, number): &(Instant, i64)| {
            self.under_way.get(number).is_none_or(|under_way| under_way.sent_at != *sent_at)
        };
        while self.by_time.front().is_some_and(is_over) {
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
        self.failures = 0;
        self.reopen();
    }

    /// Tells those who waited long enough that nobody knows. A confirm that comes later is heeded all the same.
    fn answer_the_late(&mut self, now: Instant) {
        for (_, number) in &self.by_time {
            let Some(under_way) = self.under_way.get_mut(number) else { continue };
            if now.saturating_duration_since(under_way.sent_at) < CONFIRM_MAX {
                break;
            }
            let ticket = &mut under_way.ticket;
            if now.saturating_duration_since(ticket.begun) >= ANSWER_MAX
                && let Some(reply) = ticket.reply.take()
            {
                ticket.may_be_queued = true;
                let _ = reply.send(Sent::Unknown);
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
