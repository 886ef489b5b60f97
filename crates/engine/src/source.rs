//! Where delivery gets its events: the tail in memory, or the log through the writer.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use yoink_core::{Command, Event, OrderId, Seq, Timestamp};

use crate::CallError;
use crate::delivery::{Source, SourceClosed};
use crate::embedded::clock::Clock;
use crate::embedded::tail::Found;
use crate::embedded::ticket::{Answer, Ask, Ticket};
use crate::embedded::writer::{EngineState, Shared};

/// A few milliseconds make large batches, and delivery pays per batch.
const LINGER: Duration = Duration::from_millis(10);

/// While the writer is busy, delivery rests this many times as long as it worked: selling comes first on a small
/// machine, and the ledger catches up when the rush is over.
const REST_PER_WORK: u32 = 9;
/// The longest rest, so that who waits for the ledger is not forgotten.
const REST_MAX: Duration = Duration::from_millis(200);
/// Without a commit for this long the rush is over.
const QUIET: Duration = Duration::from_millis(5);

pub(crate) struct WriterSource {
    shared: Arc<Shared>,
    clock: Clock,
    /// When events were last handed out.
    handed_out: Cell<Instant>,
}

impl WriterSource {
    pub(crate) fn new(shared: Arc<Shared>, clock: Clock) -> Self {
        Self { shared, clock, handed_out: Cell::new(Instant::now()) }
    }

    /// Asks the writer and waits for its answer, ahead of no buyer and turned away by none.
    pub(crate) fn ask(&self, ask: Ask) -> Result<Answer, CallError> {
        self.shared.inbox.admit_own();
        let (reply, answered) = oneshot::channel();
        let asked_us = self.clock.monotonic_us();
        self.shared.inbox.push(std::iter::once(Ticket { ask, reply, asked_us, returns: None }));
        answered.blocking_recv().unwrap_or(Err(CallError::OutcomeUnknown))
    }
}

impl Source for WriterSource {
    fn events(&self, after: Seq, limit: usize, wait: Duration) -> Result<Vec<Event>, SourceClosed> {
        if !wait.is_zero() {
            let rest = self.handed_out.get().elapsed().saturating_mul(REST_PER_WORK).min(REST_MAX);
            self.shared.tail.rest(rest, QUIET);
        }
        let found = self.shared.tail.wait_after(after, limit, wait, LINGER);
        self.handed_out.set(Instant::now());
        match found {
            Found::Events(events) => Ok(events),
            Found::Closed => Err(SourceClosed),
            Found::Dropped => match self.ask(Ask::Events { after, limit }) {
                Ok(Answer::Events(events)) => Ok(events),
                Ok(other) => unreachable!("the writer gave another kind of answer: {other:?}"),
                // It waited too long behind a crowd; delivery asks again.
                Err(CallError::Expired | CallError::Overloaded) => Ok(Vec::new()),
                Err(_) if self.shared.state() == EngineState::Failed => Err(SourceClosed),
                Err(CallError::OutcomeUnknown) => {
                    // The log could not be read just now; the writer has said why. Delivery asks for ever.
                    std::thread::sleep(QUIET.saturating_mul(20));
                    Ok(Vec::new())
                }
                Err(_) => Err(SourceClosed),
            },
        }
    }

    fn fail(&self, order: OrderId, reason: Box<str>) -> Result<(), SourceClosed> {
        loop {
            match self.ask(Ask::Command(Box::new(Command::Fail { order, reason: reason.clone() }))) {
                // Refused: there is no such order, so there are no units to give back.
                Ok(_) | Err(CallError::Refused(_)) => return Ok(()),
                Err(CallError::Expired | CallError::Overloaded) => {}
                Err(CallError::StorageFull | CallError::Closing | CallError::OutcomeUnknown) => {
                    return Err(SourceClosed);
                }
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
