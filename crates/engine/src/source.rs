//! Where delivery gets its events: the tail in memory, or the log through the writer.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use yoink_core::{Command, OrderId, Seq, Timestamp};

use crate::CallError;
use crate::delivery::{Next, Source, SourceClosed};
use crate::embedded::clock::Clock;
use crate::embedded::log::Stretch;
use crate::embedded::tail::Found;
use crate::embedded::ticket::{Answer, Ask, Reply, Ticket};
use crate::embedded::writer::{EngineState, Shared};

/// A few milliseconds make large batches, and delivery pays per batch.
const LINGER: Duration = Duration::from_millis(10);

/// While the writer is busy, delivery rests this many times as long as it worked: selling comes first on a small
/// machine, and the ledger catches up when the rush is over. Until then it gets about a twentieth of one core.
const REST_PER_WORK: u32 = 19;
/// The longest rest, so that who waits for the ledger is not forgotten.
const REST_MAX: Duration = Duration::from_millis(200);
/// How long to wait after the log could not be read.
const UNREAD_REST: Duration = Duration::from_millis(100);
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
    fn events(&self, after: Seq, limit: usize, wait: Duration) -> Result<Next, SourceClosed> {
        if !wait.is_zero() {
            let rest = self.handed_out.get().elapsed().saturating_mul(REST_PER_WORK).min(REST_MAX);
            self.shared.tail.rest(rest, QUIET);
        }
        let found = self.shared.tail.wait_after(after, limit, wait, LINGER);
        self.handed_out.set(Instant::now());
        match found {
            Found::Events(events) if events.is_empty() => Ok(Next::Nothing),
            Found::Events(events) => Ok(Next::Events(events)),
            Found::Closed => Err(SourceClosed),
            Found::Dropped => {
                let reply = self.ask(Ask::Events { after, limit });
                if matches!(reply, Err(CallError::OutcomeUnknown)) {
                    // The writer has said why. Not at once again, or it would do nothing else.
                    std::thread::sleep(UNREAD_REST);
                }
                next(reply, self.shared.state())
            }
        }
    }

    fn fail(&self, order: OrderId, reason: Box<str>) -> Result<(), SourceClosed> {
        loop {
            match self.ask(Ask::Command(Box::new(Command::Fail { order, reason: reason.clone() }))) {
                // Refused: there is no such order, so there are no units to give back.
                Ok(_) | Err(CallError::Refused(_)) => return Ok(()),
                Err(CallError::Expired | CallError::Overloaded) => {}
                Err(_) => return Err(SourceClosed),
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// What the writer's answer to a read of the log means.
fn next(reply: Reply, state: EngineState) -> Result<Next, SourceClosed> {
    match reply {
        Ok(Answer::Events(Stretch::Events(events))) if events.is_empty() => Ok(Next::Nothing),
        Ok(Answer::Events(Stretch::Events(events))) => Ok(Next::Events(events)),
        Ok(Answer::Events(Stretch::Lost { to })) => Ok(Next::Lost(to)),
        Ok(other) => unreachable!("the writer gave another kind of answer: {other:?}"),
        Err(_) if state == EngineState::Failed => Err(SourceClosed),
        // It waited too long behind a crowd, or the log cannot be read just now. Neither says that there is nothing.
        Err(CallError::Expired | CallError::Overloaded | CallError::OutcomeUnknown) => Ok(Next::Unread),
        Err(_) => Err(SourceClosed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_cannot_be_read_is_never_taken_for_one_that_has_nothing_more() {
        for error in [CallError::Expired, CallError::Overloaded, CallError::OutcomeUnknown] {
            for state in [EngineState::Ready, EngineState::StorageFull, EngineState::Closing] {
                assert_eq!(next(Err(error.clone()), state), Ok(Next::Unread), "{error}, {state:?}");
            }
            assert_eq!(next(Err(error), EngineState::Failed), Err(SourceClosed));
        }
        assert_eq!(next(Err(CallError::Closing), EngineState::Closing), Err(SourceClosed));
        let read = |stretch| next(Ok(Answer::Events(stretch)), EngineState::Closing);
        assert_eq!(read(Stretch::Events(Vec::new())), Ok(Next::Nothing));
        assert_eq!(read(Stretch::Lost { to: 9 }), Ok(Next::Lost(9)));
    }
}
