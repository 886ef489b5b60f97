//! What can go wrong, named by the operation.

use std::path::PathBuf;
use std::time::Duration;

use yoink_core::Rejection;

use crate::RateLimit;

/// Why a call got no result. All but [`CallError::OutcomeUnknown`] mean: nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The sale says no.
    #[error("{0}")]
    Refused(Rejection),
    /// The customer was granted as much as he may be for now; only where the engine keeps a limit for all its nodes.
    #[error(
        "at most {} purchases in {} seconds per customer; nothing happened, try again later",
        limit.requests, limit.window_s
    )]
    TooOften {
        /// What he may.
        limit: RateLimit,
        /// When he may be granted more.
        wait: Duration,
    },
    /// Too many calls wait for the writer already.
    #[error("too many requests are waiting; nothing happened, try again in a moment")]
    Overloaded,
    /// The call waited so long that its caller must have given up; it was dropped before it was decided.
    #[error("the request waited too long to be decided; nothing happened, try again")]
    Expired,
    /// The data folder's disk is almost full; selling stopped before it could fail.
    #[error("the disk of the data folder is almost full; nothing happened, free some space")]
    StorageFull,
    /// Redis is being filled anew with the product.
    #[error("the sale is being rebuilt after a failure; nothing happened, try again in a moment")]
    Rebuilding,
    /// The settings of a server could lose orders; nothing is sold until they are mended.
    #[error(
        "the settings of a server could lose orders; nothing happened, and nothing is sold until they are mended"
    )]
    UnsafeSettings,
    /// A server that the engine needs cannot be reached.
    #[error("a server that is needed cannot be reached; nothing happened, try again in a moment")]
    Unreachable,
    /// The engine is closing.
    #[error("the engine is closing; nothing happened, try again after the restart")]
    Closing,
    /// The engine stopped while the call was under way. Ask again with the same idempotency key.
    #[error("the engine stopped before it could answer; ask again with the same idempotency key")]
    OutcomeUnknown,
}

impl From<Rejection> for CallError {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

/// Why an engine did not open. Every message says what happened, to what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder cannot be made or read.
    #[error("cannot use the data folder {path}: check that it exists and may be written to")]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the data folder open.
    #[error(
        "the data folder {path} is in use by another process; stop that one first or choose another --data folder"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// SQLite refused an operation on a file.
    #[error("cannot {operation} {path}")]
    Sqlite {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A file was written by a newer version.
    #[error(
        "{path} has format {found}, and this version reads up to {known}; start the newer version instead"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format this version reads.
        known: i64,
    },
    /// What is on disk is not what was written.
    #[error(
        "{path} is damaged at event {seq}: {what}. Nothing was changed; restore the data folder from a backup"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first event that is not sound.
        seq: u64,
        /// How it shows.
        what: String,
    },
    /// The log ends before what it promised.
    #[error(
        "{path} ends at event {found}, but orders were promised up to event {promised}: it was truncated or restored \
         from an older backup. Restore the whole data folder, or start with --accept-loss to go on without the rest"
    )]
    Truncated {
        /// The log.
        path: PathBuf,
        /// Its last event.
        found: u64,
        /// The last event that the beacon knows to have been there.
        promised: u64,
    },
    /// The ledger is not what was written.
    #[error(
        "the ledger {path} is damaged: {what}. The log has every order: move this file away and start again, and it is \
         made again from the log. Dead letters are found anew; the reasons for discarding some are lost"
    )]
    LedgerDamaged {
        /// The ledger.
        path: PathBuf,
        /// How it shows.
        what: String,
    },
    /// The ledger is ahead of the log.
    #[error(
        "the ledger {path} has orders up to event {ledger}, but the log ends at {log}: they are from different \
         backups, or the log lost its end. Restore both from the same backup, or start with --accept-loss to go on \
         with what the log has; the ledger is then kept under another name"
    )]
    LedgerAhead {
        /// The ledger.
        path: PathBuf,
        /// What it has.
        ledger: u64,
        /// Where the log ends, or the loss begins that the ledger stands in.
        log: u64,
    },
}
