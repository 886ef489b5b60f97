//! Mistakes that others make, to be made on purpose: the audit must find each of them.

/// Which mistakes to make. None, outside tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mistakes {
    /// Entries are acknowledged before the ledger has them, and the worker dies in between.
    pub ack_before_commit: bool,
    /// Units of an order that ended are added to Redis without a mark, twice.
    pub no_mark: bool,
}

impl Mistakes {
    /// To acknowledge before the ledger has committed.
    #[cfg(feature = "faults")]
    pub fn ack_before_commit() -> Self {
        Self { ack_before_commit: true, ..Self::default() }
    }

    /// To add the units of an order without a mark.
    #[cfg(feature = "faults")]
    pub fn no_mark() -> Self {
        Self { no_mark: true, ..Self::default() }
    }
}
