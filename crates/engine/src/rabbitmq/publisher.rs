//! The way to the queue, as buyers see it: what waits to be put there, and what became of each request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::retained::Retained;
use crate::CallError;
use crate::postgres::Request;

/// Requests on their way at most.
const IN_HAND_MAX: usize = 20_000;

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
pub(super) struct Ticket {
    pub(super) request: Request,
    /// Whoever waits; nobody if it is queued again.
    pub(super) reply: Option<oneshot::Sender<Sent>>,
    pub(super) begun: Instant,
    /// How often it was handed to the broker.
    pub(super) attempts: u32,
    /// The queue may have it already from an earlier attempt.
    pub(super) may_be_queued: bool,
    /// It was confirmed before, and lost as far as can be told.
    pub(super) is_again: bool,
}

impl Ticket {
    fn new(request: Request, reply: Option<oneshot::Sender<Sent>>) -> Self {
        // What is queued again was confirmed before.
        let is_again = reply.is_none();
        Self { request, reply, begun: Instant::now(), attempts: 0, may_be_queued: is_again, is_again }
    }
}

/// The way to the queue, for all lanes.
pub(crate) struct Publisher {
    /// Who this is in every message: another for every process.
    pub(crate) id: Uuid,
    pub(crate) retained: Retained,
    /// How many requests may be on their way or retained.
    unseen_max: usize,
    waiting: Mutex<Vec<Ticket>>,
    pub(super) wake: Notify,
    /// Tickets that nobody has answered yet.
    in_hand: AtomicUsize,
    /// No more tickets are taken.
    is_closed: AtomicBool,
}

impl Publisher {
    /// One that takes requests as long as fewer than `unseen_max` of them wait for a worker, as far as is known.
    pub(crate) fn new(unseen_max: u64) -> Self {
        Self {
            id: Uuid::new_v4(),
            retained: Retained::default(),
            unseen_max: usize::try_from(unseen_max).unwrap_or(usize::MAX),
            waiting: Mutex::default(),
            wake: Notify::new(),
            in_hand: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Puts a request into the queue; its number is filled in on the way. It goes on if the caller goes.
    ///
    /// # Errors
    /// Too many are under way, or wait for a worker.
    pub(crate) fn publish(&self, request: Request) -> Result<oneshot::Receiver<Sent>, CallError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(CallError::Closing);
        }
        let others = self.in_hand.fetch_add(1, Ordering::AcqRel);
        // Those that are queued again are counted twice meanwhile: rather too many than too few.
        if others >= IN_HAND_MAX || others.saturating_add(self.retained.count()) >= self.unseen_max {
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
        self.in_hand.load(Ordering::Acquire)
    }

    /// Whether it is closed and everybody has an answer.
    pub(super) fn is_done(&self) -> bool {
        self.is_closed.load(Ordering::Acquire) && self.in_hand() == 0
    }

    /// What has come since the last call.
    pub(super) fn take_waiting(&self) -> Vec<Ticket> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// A ticket is done with; whoever waits is told.
    pub(super) fn answer(&self, reply: Option<oneshot::Sender<Sent>>, sent: Sent) {
        self.in_hand.fetch_sub(1, Ordering::AcqRel);
        if let Some(reply) = reply {
            // A caller who is gone asks again, with the same key.
            let _ = reply.send(sent);
        }
    }
}
