//! The switch itself. See [`LedgerFault`].

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Error, ffi};
use yoink_core::OrderId;

use crate::ledger::{OrderRow, WriteError};

/// Makes the ledger fail on purpose. Clones share one switch.
///
/// For black-box drills the environment variable `YOINK_FAULT_LEDGER` sets it when delivery starts, to one of
///
/// ```text
/// order=UUID[:N]          the row of this order is refused by a constraint
/// customer=PREFIX[:N]     the rows of all customers whose id begins with PREFIX are
/// all[:N]                 every transaction fails before it begins, as with a full disk
/// commit-done[:N]         COMMIT reports an error although it was done
/// commit-undone[:N]       COMMIT reports an error and was not done
/// ```
///
/// N times, or for ever. Several are separated by spaces.
#[derive(Clone, Debug, Default)]
pub struct LedgerFault {
    settings: Arc<Mutex<Settings>>,
}

#[derive(Debug, Default)]
struct Settings {
    order: Option<(OrderId, Times)>,
    customer: Option<(Box<str>, Times)>,
    all: Option<Times>,
    commit: Option<(CommitFault, Times)>,
    read_after_commit: Option<Times>,
    /// A COMMIT came by, and the next read fails.
    unreadable: bool,
    stop_at: Option<Step>,
    stopped: u64,
}

/// How often something fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// So many times.
    Count(u64),
    /// Until it is switched off.
    Always,
}

impl Times {
    /// Uses one up.
    fn take(&mut self) -> bool {
        match self {
            Self::Always | Self::Count(1..) => {
                if let Self::Count(count) = self {
                    *count -= 1;
                }
                true
            }
            Self::Count(0) => false,
        }
    }
}

/// What a COMMIT that reports an error did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// All of it.
    Done,
    /// Nothing.
    Undone,
}

/// A step of delivery at which it can be stopped as if the process had been killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A transaction is committed, and nobody was told.
    AfterCommit,
    /// A dead letter is recorded, its units are not back.
    DeadLetterRecorded,
    /// The units of a dead letter are back, and that is not recorded.
    Compensated,
}

/// Why `YOINK_FAULT_LEDGER` makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{setting:?} is no ledger fault: write order=UUID, customer=PREFIX, all, commit-done or commit-undone, and :N"
)]
pub struct FaultSettingError {
    setting: String,
}

impl LedgerFault {
    /// The row of one order is refused by a constraint of the table.
    pub fn refuse_order(&self, order: OrderId, times: Times) {
        self.settings.lock().order = Some((order, times));
    }

    /// The rows of all customers whose id begins with `prefix` are refused by a constraint of the table.
    pub fn refuse_customers(&self, prefix: &str, times: Times) {
        self.settings.lock().customer = Some((prefix.into(), times));
    }

    /// Every transaction fails before it begins, as with a full disk.
    pub fn refuse_all(&self, times: Times) {
        self.settings.lock().all = Some(times);
    }

    /// COMMIT reports an error.
    pub fn break_commit(&self, fault: CommitFault, times: Times) {
        self.settings.lock().commit = Some((fault, times));
    }

    /// A COMMIT is done, and the first time that dead letters are read after it fails, as with a bad sector.
    pub fn break_read_after_commit(&self, times: Times) {
        self.settings.lock().read_after_commit = Some(times);
    }

    /// Delivery ends at this step, once, without doing anything that comes after it.
    pub fn stop_at(&self, step: Step) {
        self.settings.lock().stop_at = Some(step);
    }

    /// How often delivery was stopped at a step.
    pub fn stopped(&self) -> u64 {
        self.settings.lock().stopped
    }

    /// Nothing fails any more.
    pub fn clear(&self) {
        let mut settings = self.settings.lock();
        *settings = Settings { stopped: settings.stopped, ..Settings::default() };
    }

    /// Sets what `text` says, in the form of `YOINK_FAULT_LEDGER`.
    ///
    /// # Errors
    /// It says nothing that is known.
    pub fn set(&self, text: &str) -> Result<(), FaultSettingError> {
        for setting in text.split_whitespace() {
            self.set_one(setting).ok_or_else(|| FaultSettingError { setting: setting.to_owned() })?;
        }
        Ok(())
    }

    fn set_one(&self, setting: &str) -> Option<()> {
        let (what, times) = match setting.rsplit_once(':') {
            Some((what, count)) => (what, Times::Count(count.parse().ok()?)),
            None => (setting, Times::Always),
        };
        match what.split_once('=') {
            Some(("order", id)) => {
                let id = uuid::Uuid::try_parse(id).ok()?;
                self.refuse_order(OrderId(id.into_bytes()), times);
            }
            Some(("customer", prefix)) => self.refuse_customers(prefix, times),
            None if what == "all" => self.refuse_all(times),
            None if what == "commit-done" => self.break_commit(CommitFault::Done, times),
            None if what == "commit-undone" => self.break_commit(CommitFault::Undone, times),
            _ => return None,
        }
        Some(())
    }

    pub(crate) fn before_write(&self) -> Result<(), WriteError> {
        match self.settings.lock().all.as_mut().is_some_and(Times::take) {
            true => Err(WriteError::before_commit(failure(ffi::SQLITE_FULL))),
            false => Ok(()),
        }
    }

    pub(crate) fn before_read(&self) -> Result<(), Error> {
        match std::mem::take(&mut self.settings.lock().unreadable) {
            true => Err(failure(ffi::SQLITE_IOERR)),
            false => Ok(()),
        }
    }

    /// What this COMMIT does.
    pub(crate) fn at_commit(&self) -> ThisCommit {
        let mut settings = self.settings.lock();
        if settings.read_after_commit.as_mut().is_some_and(Times::take) {
            settings.unreadable = true;
        }
        let fault = settings.commit.as_mut().and_then(|(fault, times)| times.take().then_some(*fault));
        ThisCommit { fault }
    }

    /// The quantity that goes into the row: one that the table's own CHECK refuses, if the order is to be refused.
    pub(crate) fn quantity(&self, order: &OrderRow) -> u32 {
        let mut settings = self.settings.lock();
        let is_order = settings.order.as_mut().is_some_and(|(id, times)| *id == order.id && times.take());
        let customer = order.customer.as_str();
        let is_customer = settings
            .customer
            .as_mut()
            .is_some_and(|(prefix, times)| customer.starts_with(&**prefix) && times.take());
        if is_order || is_customer { 0 } else { order.quantity }
    }

    pub(crate) fn stops_at(&self, step: Step) -> bool {
        let mut settings = self.settings.lock();
        let stops = settings.stop_at == Some(step);
        if stops {
            settings.stop_at = None;
            settings.stopped += 1;
        }
        stops
    }
}

/// What one COMMIT does.
#[derive(Debug)]
pub(crate) struct ThisCommit {
    fault: Option<CommitFault>,
}

impl ThisCommit {
    pub(crate) fn before(&self) -> Result<(), WriteError> {
        self.fail_if(CommitFault::Undone)
    }

    pub(crate) fn after(&self) -> Result<(), WriteError> {
        self.fail_if(CommitFault::Done)
    }

    fn fail_if(&self, fault: CommitFault) -> Result<(), WriteError> {
        match self.fault == Some(fault) {
            true => Err(WriteError::at_commit(failure(ffi::SQLITE_IOERR))),
            false => Ok(()),
        }
    }
}

fn failure(code: i32) -> Error {
    Error::SqliteFailure(ffi::Error::new(code), Some("the fault switch is on".to_owned()))
}
