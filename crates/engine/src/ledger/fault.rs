//! The ledger's fault switch: makes the ledger fail for one order, for all, or at COMMIT, and stops delivery at a
//! step as if the process had been killed there. Only with the cargo feature `faults`; without it everything here is
//! empty and costs nothing.

#[cfg(feature = "faults")]
mod switch;

#[cfg(feature = "faults")]
pub use switch::{CommitFault, FaultSettingError, LedgerFault, Step, Times};

#[cfg(not(feature = "faults"))]
pub(crate) use none::{LedgerFault, Step};

#[cfg(not(feature = "faults"))]
mod none {
    use crate::ledger::{OrderRow, WriteError};

    /// A step of delivery.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Step {
        AfterCommit,
        DeadLetterRecorded,
        Compensated,
    }

    /// Nothing fails on purpose.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct LedgerFault {}

    impl LedgerFault {
        pub fn before_write(&self) -> Result<(), WriteError> {
            Ok(())
        }

        pub fn before_read(&self) -> Result<(), rusqlite::Error> {
            Ok(())
        }

        pub fn at_commit(&self) -> Self {
            Self {}
        }

        pub fn before(&self) -> Result<(), WriteError> {
            Ok(())
        }

        pub fn after(&self) -> Result<(), WriteError> {
            Ok(())
        }

        pub fn quantity(&self, order: &OrderRow) -> u32 {
            order.quantity
        }

        pub fn stops_at(&self, _step: Step) -> bool {
            false
        }
    }
}
