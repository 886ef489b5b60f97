//! Compensation: giving the units of dead letters back, exactly once.
//!
//! Three steps, each durable before the next: the dead letter is recorded as 'releasing' (in the transaction that gave
//! the order up), the source gives the units back, the dead letter is recorded as settled. Killed between two of them,
//! the next start does the rest again, and the source, which decides in one place whether an order's units are back,
//! does nothing the second time.

use yoink_core::REASON_BYTES_MAX;

use super::worker::{Halt, Worker};
use crate::{
    failpoint,
    ledger::{DeadLetterRow, Step},
};

/// Dead letters between two looks at the commands and the log.
const RELEASED_AT_ONCE_MAX: usize = 100;

impl Worker {
    /// Gives back what is to be given back: some of it, if it is much.
    pub(super) fn release(&mut self) -> Result<(), Halt> {
        if !self.may_have_releasing {
            return Ok(());
        }
        let letters = self.ledger()?.releasing(RELEASED_AT_ONCE_MAX)?;
        if letters.is_empty() {
            self.may_have_releasing = false;
            return Ok(());
        }
        self.release_these(&letters)
    }

    /// Gives back the units of these dead letters, which are recorded as releasing.
    pub(super) fn release_these(&mut self, letters: &[DeadLetterRow]) -> Result<(), Halt> {
        failpoint::hit("delivery.dead-letter-recorded");
        self.pass(Step::DeadLetterRecorded)?;
        for letter in letters {
            self.give_back(letter)?;
        }
        failpoint::hit("delivery.compensated");
        self.pass(Step::Compensated)?;
        let now = self.source.now();
        self.write(|rows| letters.iter().try_for_each(|letter| rows.finish_release(letter.letter.id, now)))?;
        self.count_dead_letters()
    }

    fn give_back(&mut self, letter: &DeadLetterRow) -> Result<(), Halt> {
        // The log said already that it ended; its units came back then.
        if letter.order.end.is_some() {
            return Ok(());
        }
        let reason = match &letter.letter.reason {
            Some(reason) => shortened(reason),
            None => shortened(&format!("the ledger refused the order: {}", letter.letter.error)),
        };
        let given_back = self.source.fail(letter.order.id, reason);
        self.shared.update(|status| {
            let count = match given_back {
                Ok(()) => &mut status.rolled_back_total,
                Err(_) => &mut status.rollback_failed_total,
            };
            *count = count.saturating_add(1);
        });
        Ok(given_back?)
    }
}

/// As much of a reason as the log takes.
fn shortened(reason: &str) -> Box<str> {
    reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_shortened_between_characters() {
        assert_eq!(&*shortened("short"), "short");
        let long = "é".repeat(REASON_BYTES_MAX);
        assert_eq!(shortened(&long).len(), REASON_BYTES_MAX);
        let odd = format!("x{long}");
        assert_eq!(shortened(&odd).len(), REASON_BYTES_MAX - 1);
    }
}
