//! What operators ask of delivery, and how it answers.

use tokio::sync::oneshot;
use yoink_core::Seq;

use super::{
    DeadLetter, DeadLetterFilter, DeadLetterRefusal, DeadLetterState, DeliveryError, DeliveryStatus, Stop,
    worker::{Halt, Trouble, Worker},
};
use crate::{
    OrderView,
    ledger::{DeadLetterRow, ErrorClass, LedgerCounts, Movement, Retry, ThenState},
};

/// Where the answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, DeliveryError>>;

/// Why a dead letter is not touched, or the dead letter after it was.
type Settled = Result<DeadLetter, DeadLetterRefusal>;

/// Everything that can be asked of the delivery thread.
#[derive(Debug)]
pub(super) enum Command {
    Pause { reply: Reply<DeliveryStatus> },
    Resume { reply: Reply<DeliveryStatus> },
    DeadLetters { filter: DeadLetterFilter, reply: Reply<Vec<DeadLetter>> },
    DeadLetter { id: i64, reply: Reply<Option<DeadLetter>> },
    RetryDeadLetter { id: i64, reply: Reply<Settled> },
    DiscardDeadLetter { id: i64, reason: Box<str>, reply: Reply<Settled> },
    Counts { reply: Reply<LedgerCounts> },
    Orders { after: Seq, limit: usize, reply: Reply<Vec<OrderView>> },
    Movements { after: Seq, limit: usize, reply: Reply<Vec<Movement>> },
    Stop { stop: Stop },
}

impl Worker {
    /// Does what a command says. Only the end of the source, or a stop, ends delivery: trouble with the ledger is the
    /// caller's answer.
    pub(super) fn obey(&mut self, command: Command) -> Result<(), Halt> {
        match command {
            Command::Pause { reply } => self.answer(reply, |worker| worker.set_paused(true)),
            Command::Resume { reply } => self.answer(reply, |worker| worker.set_paused(false)),
            Command::DeadLetters { filter, reply } => {
                self.answer(reply, |worker| Ok(worker.ledger()?.dead_letters(&filter)?))
            }
            Command::DeadLetter { id, reply } => {
                self.answer(reply, |worker| Ok(worker.ledger()?.dead_letter(id)?.map(|row| row.letter)))
            }
            Command::RetryDeadLetter { id, reply } => {
                self.answer(reply, |worker| worker.retry_dead_letter(id))
            }
            Command::DiscardDeadLetter { id, reason, reply } => {
                self.answer(reply, |worker| worker.discard_dead_letter(id, &reason))
            }
            Command::Counts { reply } => self.answer(reply, |worker| Ok(worker.ledger()?.counts()?)),
            Command::Orders { after, limit, reply } => {
                self.answer(reply, |worker| Ok(worker.ledger()?.orders(after, limit)?))
            }
            Command::Movements { after, limit, reply } => {
                self.answer(reply, |worker| Ok(worker.ledger()?.movements(after, limit)?))
            }
            Command::Stop { stop } => self.begin_stop(stop),
        }
    }

    fn answer<T>(
        &mut self,
        reply: Reply<T>,
        work: impl FnOnce(&mut Self) -> Result<T, Halt>,
    ) -> Result<(), Halt> {
        let written_before = self.written_total;
        let (answer, end) = match work(self) {
            Ok(done) => (Ok(done), Ok(())),
            Err(Halt::End(end)) => (Err(DeliveryError::OutcomeUnknown), Err(Halt::End(end))),
            Err(Halt::Trouble(trouble)) => {
                self.note_trouble(&trouble);
                // IMPORTANT: "nothing happened" is only true until the call's first transaction is committed.
                let is_begun = self.written_total != written_before;
                let error =
                    if is_begun { DeliveryError::OutcomeUnknown } else { DeliveryError::from(trouble) };
                (Err(error), Ok(()))
            }
        };
        // Whoever asked may have gone; what was done is done.
        let _ = reply.send(answer);
        end
    }

    fn set_paused(&mut self, paused: bool) -> Result<DeliveryStatus, Halt> {
        self.write(|rows| rows.set_paused(paused))?;
        self.paused = paused;
        self.shared.update(|status| status.paused = paused);
        Ok(self.shared.status())
    }

    /// Parked: back on the list of those that are tried again, as if it had never been tried.
    fn retry_dead_letter(&mut self, id: i64) -> Result<Settled, Halt> {
        let Some(DeadLetterRow { letter, order }) = self.ledger()?.dead_letter(id)? else {
            return Ok(Err(DeadLetterRefusal::NotFound));
        };
        match letter.state {
            DeadLetterState::Parked => {}
            DeadLetterState::Retried => return Ok(Ok(letter)),
            DeadLetterState::Releasing | DeadLetterState::Released => {
                return Ok(Err(DeadLetterRefusal::AlreadyReleased));
            }
            DeadLetterState::Discarded => return Ok(Err(DeadLetterRefusal::AlreadyDiscarded)),
        }
        let now = self.source.now();
        let retry = Retry { order, attempts: 0, next_at: now, error: letter.error };
        self.write(|rows| {
            rows.put_retry(&retry)?;
            rows.settle_dead_letter(id, DeadLetterState::Retried, (now, None))
        })?;
        // It may have ended since it was parked and so have left the undelivered; until it is a row, it is one.
        self.shared.advance(self.position, [retry.order.seq]);
        self.reschedule(&[retry.due()], now);
        self.count_dead_letters()?;
        self.read_again(id)
    }

    /// Parked: its units come back, then it goes to the archive. Released: to the archive.
    fn discard_dead_letter(&mut self, id: i64, reason: &str) -> Result<Settled, Halt> {
        let Some(mut row) = self.ledger()?.dead_letter(id)? else {
            return Ok(Err(DeadLetterRefusal::NotFound));
        };
        let now = self.source.now();
        match row.letter.state {
            DeadLetterState::Parked | DeadLetterState::Releasing => {
                self.write(|rows| rows.begin_release(id, ThenState::Discarded, (now, reason)))?;
                row.letter.reason = Some(reason.into());
                // This one, not the oldest ones: the caller is told what became of it.
                self.release_these(&[row])?;
            }
            DeadLetterState::Released => {
                let why = (now, Some(reason));
                self.write(|rows| rows.settle_dead_letter(id, DeadLetterState::Discarded, why))?;
            }
            DeadLetterState::Discarded => return Ok(Ok(row.letter)),
            DeadLetterState::Retried => return Ok(Err(DeadLetterRefusal::AlreadyRetried)),
        }
        self.read_again(id)
    }

    fn read_again(&mut self, id: i64) -> Result<Settled, Halt> {
        let row = self.ledger()?.dead_letter(id)?;
        Ok(row.map(|row| row.letter).ok_or(DeadLetterRefusal::NotFound))
    }
}

impl From<Trouble> for DeliveryError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Write(error) if error.class == ErrorClass::Unknown => Self::OutcomeUnknown,
            trouble => Self::Ledger(Box::new(trouble)),
        }
    }
}
