//! Opening the ledger, which may take its time while the log is read back.

use std::fmt;
use std::path::{Path, PathBuf};

use yoink_core::Seq;

use super::DeliveryOptions;
use crate::{
    OpenError,
    ledger::{FILE_NAME, Ledger, LedgerFault, Loaded},
};

/// A ledger that was opened and checked, ready to be delivered to.
pub struct Prepared {
    pub(super) folder: PathBuf,
    pub(super) options: DeliveryOptions,
    pub(super) fault: LedgerFault,
    pub(super) ledger: Ledger,
    pub(super) loaded: Loaded,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("loaded", &self.loaded).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Opens the ledger in the data folder, or makes one; checks and reads it.
    pub(super) fn open(folder: &Path, options: DeliveryOptions) -> Result<Self, OpenError> {
        let fault = fault_of(&options);
        let ledger = Ledger::open(folder, options.vfs.as_deref(), fault.clone())?;
        let loaded = ledger.load().map_err(|source| OpenError::Sqlite {
            operation: "read",
            path: folder.join(FILE_NAME),
            source,
        })?;
        Ok(Self { folder: folder.to_owned(), options, fault, ledger, loaded })
    }

    /// Folds the ledger's write-ahead file back and closes it.
    pub(crate) fn fold_back_and_close(self) -> Result<(), OpenError> {
        let path = self.folder.join(FILE_NAME);
        let closed = self.ledger.fold_back_on_close().and_then(|()| self.ledger.close());
        closed.map_err(|source| OpenError::Sqlite { operation: "close", path, source })
    }

    /// The last event whose effect is in the ledger.
    pub fn position(&self) -> Seq {
        self.loaded.position
    }
}

#[cfg(feature = "faults")]
fn fault_of(options: &DeliveryOptions) -> LedgerFault {
    if let Ok(setting) = std::env::var("YOINK_FAULT_LEDGER")
        && let Err(error) = options.fault.set(&setting)
    {
        // Only in builds for drills, where a fault that silently does not happen would prove nothing.
        panic!("YOINK_FAULT_LEDGER: {error}");
    }
    options.fault.clone()
}

#[cfg(not(feature = "faults"))]
fn fault_of(_options: &DeliveryOptions) -> LedgerFault {
    LedgerFault::default()
}
