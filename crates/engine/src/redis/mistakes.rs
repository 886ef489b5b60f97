//! Mistakes that others make, to be made on purpose: the audit must find each of them.
//!
//! The fifth, a ledger without its guard, is made in the ledger itself.

/// Which mistakes to make. None, outside tests: without the feature `faults` there is no way to ask for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    pub(crate) ack_before_commit: bool,
    pub(crate) no_mark: bool,
    pub(crate) reseed: bool,
    pub(crate) two_steps: bool,
}

#[cfg(feature = "faults")]
impl Mistakes {
    /// Entries are acknowledged before the ledger has them, and the worker dies in between.
    pub fn ack_before_commit() -> Self {
        Self { ack_before_commit: true, ..Self::default() }
    }

    /// Units that come back are added to Redis without a mark, and the crash before that is noted makes it happen twice.
    pub fn no_mark() -> Self {
        Self { no_mark: true, ..Self::default() }
    }

    /// The stock in Redis expires, and is filled with what the ledger says is left, while orders are on their way there;
    /// nobody remembers what was accepted.
    pub fn reseed() -> Self {
        Self { reseed: true, ..Self::default() }
    }

    /// Units are taken in one step, the order is to be written in the next, and the process dies in between.
    pub fn two_steps() -> Self {
        Self { two_steps: true, ..Self::default() }
    }
}
