//! What waits for the writer. Bounded: when it is full, callers are told at once instead of being kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::ticket::Ticket;
use crate::CallError;

#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    /// Tickets admitted and not yet taken, wherever they wait (here or in a lane).
    waiting: AtomicUsize,
    tickets_max: usize,
}

#[derive(Debug)]
struct State {
    tickets: VecDeque<Ticket>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// No new tickets; those inside are served.
    Closing,
    /// The writer is gone.
    Closed,
}

/// What [`Inbox::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Tickets,
    /// Nothing came in the time given.
    Nothing,
    /// Nothing is left and nothing will come.
    Closed,
}

impl Inbox {
    pub(crate) fn new(tickets_max: usize) -> Self {
        let state = State { tickets: VecDeque::new(), stage: Stage::Open };
        Self { state: Mutex::new(state), arrived: Condvar::new(), waiting: AtomicUsize::new(0), tickets_max }
    }

    /// Takes a place for one ticket.
    ///
    /// # Errors
    /// All places are taken.
    pub(crate) fn admit(&self) -> Result<(), CallError> {
        if self.waiting.fetch_add(1, Ordering::AcqRel) < self.tickets_max {
            return Ok(());
        }
        self.leave(1);
        Err(CallError::Overloaded)
    }

    /// Takes a place even where all are taken: for the engine's own asks, which must not be crowded out by buyers.
    pub(crate) fn admit_own(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
    }

    /// Places that are taken.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Hands over tickets that were admitted, as one message. Where the engine is closing they are answered so.
    pub(crate) fn push(&self, tickets: impl ExactSizeIterator<Item = Ticket>) {
        let mut state = self.state.lock();
        if state.stage == Stage::Open {
            state.tickets.extend(tickets);
            drop(state);
            self.arrived.notify_one();
            return;
        }
        drop(state);
        self.leave(tickets.len());
        for ticket in tickets {
            let _ = ticket.reply.send(Err(CallError::Closing));
        }
    }

    /// Moves up to `tickets_max` tickets to the end of `into`; waits up to `wait` for the first.
    pub(crate) fn take(&self, into: &mut Vec<Ticket>, tickets_max: usize, wait: Duration) -> Taken {
        let mut state = self.state.lock();
        if state.tickets.is_empty() && state.stage == Stage::Open && !wait.is_zero() {
            self.arrived.wait_for(&mut state, wait);
        }
        if state.tickets.is_empty() {
            return if state.stage == Stage::Open { Taken::Nothing } else { Taken::Closed };
        }
        let count = state.tickets.len().min(tickets_max);
        into.extend(state.tickets.drain(..count));
        drop(state);
        self.leave(count);
        Taken::Tickets
    }

    /// No new tickets from now on.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        if state.stage == Stage::Open {
            state.stage = Stage::Closing;
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// The writer is gone: what still waits will never be decided. Dropping the tickets tells their callers that the
    /// outcome is unknown; these were not begun, but the caller cannot know which were.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.stage = Stage::Closed;
        let left = std::mem::take(&mut state.tickets);
        drop(state);
        self.leave(left.len());
    }

    fn leave(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::AcqRel);
    }
}
