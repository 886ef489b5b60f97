//! Delivery: carries what the log has to the ledger.
//!
//! One thread follows the log, writes each batch of events to the ledger in one transaction that also moves the
//! position, and only then says how far it is. A crash at any point means that the same events are read again and
//! change nothing: the order's id, and its place in the log, are keys of the table. So it is at-least-once by
//! construction and exactly-once in effect.
//!
//! What can go wrong, and what is done:
//!
//! | class | examples | then |
//! |---|---|---|
//! | transient | disk full, I/O error, busy | keep everything, wait a little longer each time, for ever |
//! | permanent for one order | a constraint | the others go on; this one is tried again, then is a dead letter |
//! | unknown | COMMIT reported an error | open the file again, read the position, go on from there |
//!
//! `worker.rs` is the thread, `carry.rs` the transactions, `retry.rs` the waits, `compensation.rs` gives units back,
//! `command.rs` answers operators.

mod carry;
mod command;
mod compensation;
mod dead_letter;
mod prepared;
mod retry;
mod status;
mod worker;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use yoink_core::{Event, OrderId, Seq, Timestamp};

use self::command::{Command, Reply};
pub use self::{
    dead_letter::{
        DEAD_LETTERS_LISTED_MAX, DeadLetter, DeadLetterFilter, DeadLetterRefusal, DeadLetterState,
        OnDeadLetter,
    },
    prepared::Prepared,
    status::{DeliveryEnd, DeliveryStatus, DurationHistogram},
};
use self::{status::Shared, worker::Worker};
#[cfg(feature = "faults")]
use crate::ledger::LedgerFault;
use crate::{
    CallError, OpenError, OrderView,
    ledger::{FILE_NAME, LedgerCounts, Movement},
};

/// Operator calls that may wait for the delivery thread.
const COMMANDS_MAX: usize = 64;

/// Where delivery gets committed events from, and where it gives units back.
pub trait Source: Send {
    /// What comes after event `after`, at most `limit` events; waits up to `wait` if there are none yet.
    ///
    /// # Errors
    /// The engine is closing or has failed; delivery ends.
    fn events(&self, after: Seq, limit: usize, wait: Duration) -> Result<Next, SourceClosed>;

    /// Compensation: gives the units of this order back, once. `Ok` also if they came back before, whoever did it.
    /// Must work until [`Delivery::stop`] has returned.
    ///
    /// # Errors
    /// The engine is closing or has failed, and whether the units are back is not known; delivery ends, and asks
    /// again after the next start.
    fn fail(&self, order: OrderId, reason: Box<str>) -> Result<(), SourceClosed>;

    /// The time on the engine's clock.
    fn now(&self) -> Timestamp;
}

/// What comes after some event.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// These committed events, oldest first and dense; at least one.
    Events(Vec<Event>),
    /// Nothing up to this event: an operator accepted that these are lost. Delivery goes on behind it.
    Lost(Seq),
    /// Nothing, so far.
    Nothing,
    /// It could not be read just now, so there may be more. Delivery asks again.
    Unread,
}

/// The source is closing or has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine is closing")]
pub struct SourceClosed;

/// How delivery behaves.
#[derive(Clone, Debug)]
pub struct DeliveryOptions {
    /// How often the ledger may refuse an order before it is a dead letter, from 1.
    pub attempts_max: u32,
    /// The wait after the first failure; it doubles for each further one.
    pub backoff_base: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// Events that one transaction carries at most, from 1.
    pub batch_orders_max: usize,
    /// What happens to an order that the ledger refused for good.
    pub on_dead_letter: OnDeadLetter,
    /// The file layer under the ledger; `None` is the operating system's. For tests that take the power away.
    pub vfs: Option<String>,
    /// Makes the ledger fail on purpose.
    #[cfg(feature = "faults")]
    pub fault: LedgerFault,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            batch_orders_max: 1_000,
            on_dead_letter: OnDeadLetter::Release,
            vfs: None,
            #[cfg(feature = "faults")]
            fault: LedgerFault::default(),
        }
    }
}

/// When delivery ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// After the batch it is at.
    Now,
    /// When the ledger has every committed event, or after this time; events that cannot be read count as not there
    /// yet. At once if an operator paused it. Orders that wait to be tried again stay on their list.
    AfterDraining(Duration),
}

/// How far delivery came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The last event whose effect is in the ledger.
    pub position: Seq,
    /// Orders that wait to be tried again after the next start.
    pub retrying: u64,
}

/// Why an operator's call got no result.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Too many calls wait already.
    #[error("too many calls wait for delivery; nothing happened, try again in a moment")]
    Busy,
    /// Delivery has ended.
    #[error("delivery has stopped; nothing happened, try again after the restart")]
    Stopped,
    /// It ended, or the ledger failed, during the call.
    #[error(
        "the ledger failed or delivery stopped during the call, which may be done in part; look at what it was for, \
         then try again"
    )]
    OutcomeUnknown,
    /// The ledger cannot be used just now.
    #[error("the ledger cannot be used just now; nothing happened, try again in a moment")]
    Ledger(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<DeliveryError> for CallError {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::Busy | DeliveryError::Ledger(_) => Self::Overloaded,
            DeliveryError::Stopped => Self::Closing,
            DeliveryError::OutcomeUnknown => Self::OutcomeUnknown,
        }
    }
}

/// The delivery thread's handle. Delivery ends when the last clone is dropped, but only [`Delivery::stop`] waits for
/// it.
#[derive(Clone)]
pub struct Delivery {
    inner: Arc<Inner>,
}

struct Inner {
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Delivery {
    /// Opens the ledger in the data folder, or makes one, and checks all of it: about half a second per million orders,
    /// which another thread can spend while the log is read back.
    ///
    /// # Errors
    /// The ledger cannot be opened, is damaged, or was written by a newer version.
    pub fn prepare(folder: &Path, options: DeliveryOptions) -> Result<Prepared, OpenError> {
        Prepared::open(folder, options)
    }

    /// [`Self::prepare`] and [`Self::start_prepared`] in one.
    ///
    /// # Errors
    /// Those of both.
    pub fn start(
        folder: &Path,
        options: DeliveryOptions,
        source: Box<dyn Source>,
        log_last_seq: Seq,
    ) -> Result<Self, OpenError> {
        Self::start_prepared(Self::prepare(folder, options)?, source, log_last_seq)
    }

    /// Begins to deliver behind the ledger's position.
    ///
    /// # Errors
    /// The ledger is ahead of the log, which ends at `log_last_seq`, or there is no thread to be had.
    pub fn start_prepared(
        prepared: Prepared,
        source: Box<dyn Source>,
        log_last_seq: Seq,
    ) -> Result<Self, OpenError> {
        let (folder, ledger) = (prepared.folder.clone(), prepared.position());
        if ledger > log_last_seq {
            return Err(OpenError::LedgerAhead { path: folder.join(FILE_NAME), ledger, log: log_last_seq });
        }
        prepared.ledger.fold_back_on_close().map_err(|source| OpenError::Sqlite {
            operation: "prepare",
            path: folder.join(FILE_NAME),
            source,
        })?;
        let (commands, inbox) = sync_channel(COMMANDS_MAX);
        let shared = Arc::new(Shared::new());
        let worker = Worker::new(prepared, source, (inbox, Arc::clone(&shared)));
        let thread =
            std::thread::Builder::new().name("yoink-delivery".to_owned()).spawn(move || worker.run());
        let thread = thread.map_err(|source| OpenError::DataFolder { path: folder, source })?;
        Ok(Self { inner: Arc::new(Inner { commands, shared, thread: Mutex::new(Some(thread)) }) })
    }

    /// Where delivery is. Costs no trip to its thread.
    pub fn status(&self) -> DeliveryStatus {
        self.inner.shared.status()
    }

    /// The last event whose effect is in the ledger.
    pub fn position(&self) -> Seq {
        self.inner.shared.position()
    }

    /// Changes whenever the position does, and whenever an order behind it is delivered after all.
    pub fn watch(&self) -> watch::Receiver<Seq> {
        self.inner.shared.watch()
    }

    /// Does the ledger have the order that was accepted by event `seq`? For live orders only: one that ended before
    /// the ledger took it counts as delivered.
    pub fn is_confirmed(&self, seq: Seq) -> bool {
        self.inner.shared.is_confirmed(seq)
    }

    /// Waits until the ledger has the order that was accepted by event `seq`: for ever, if it never takes it.
    pub async fn until_confirmed(&self, seq: Seq) {
        // The sender lives as long as this handle, so waiting cannot fail.
        let _ = self.watch().wait_for(|_| self.is_confirmed(seq)).await;
    }

    /// Stops carrying orders to the ledger. Remembered over restarts. Selling goes on.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn pause(&self) -> Result<DeliveryStatus, DeliveryError> {
        self.ask(|reply| Command::Pause { reply }).await
    }

    /// Carries orders to the ledger again.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn resume(&self) -> Result<DeliveryStatus, DeliveryError> {
        self.ask(|reply| Command::Resume { reply }).await
    }

    /// The dead letters that `filter` lets through, oldest first.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn dead_letters(&self, filter: DeadLetterFilter) -> Result<Vec<DeadLetter>, DeliveryError> {
        self.ask(|reply| Command::DeadLetters { filter, reply }).await
    }

    /// The dead letter with this id.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, DeliveryError> {
        self.ask(|reply| Command::DeadLetter { id, reply }).await
    }

    /// Sends a parked dead letter to be delivered again, with all its attempts. Doing it twice does it once.
    ///
    /// # Errors
    /// See [`DeliveryError`]; inside, why it is refused.
    pub async fn retry_dead_letter(
        &self,
        id: i64,
    ) -> Result<Result<DeadLetter, DeadLetterRefusal>, DeliveryError> {
        self.ask(|reply| Command::RetryDeadLetter { id, reply }).await
    }

    /// Gives the units of a dead letter back, unless they are back, and archives it. Doing it twice does it once.
    ///
    /// # Errors
    /// See [`DeliveryError`]; inside, why it is refused.
    pub async fn discard_dead_letter(
        &self,
        id: i64,
        reason: Box<str>,
    ) -> Result<Result<DeadLetter, DeadLetterRefusal>, DeliveryError> {
        self.ask(|reply| Command::DiscardDeadLetter { id, reason, reply }).await
    }

    /// Counts the ledger's rows. Delivery stands still meanwhile, about a second per million orders.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn counts(&self) -> Result<LedgerCounts, DeliveryError> {
        self.ask(|reply| Command::Counts { reply }).await
    }

    /// One page of the ledger's orders, in the order of the log: those after event `after`, at most `limit` and at
    /// most [`crate::ledger::EXPORT_ROWS_MAX`].
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn export_orders(&self, after: Seq, limit: usize) -> Result<Vec<OrderView>, DeliveryError> {
        self.ask(|reply| Command::Orders { after, limit, reply }).await
    }

    /// One page of the movements of units, in the order of the log, as [`Self::export_orders`].
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn export_movements(&self, after: Seq, limit: usize) -> Result<Vec<Movement>, DeliveryError> {
        self.ask(|reply| Command::Movements { after, limit, reply }).await
    }

    /// Ends delivery and waits until its thread is gone and the ledger is closed. Blocks: call it from a thread that
    /// may. Again, or after the source closed, it returns at once.
    pub fn stop(&self, stop: Stop) -> Stopped {
        // Blocks while the inbox is full, and fails if the thread has ended, which is what is wanted.
        let _ = self.inner.commands.send(Command::Stop { stop });
        let mut thread = self.inner.thread.lock();
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the delivery thread panicked");
        }
        let status = self.status();
        Stopped { position: status.position, retrying: status.retrying }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, DeliveryError> {
        let (reply, answer) = oneshot::channel();
        self.inner.commands.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => DeliveryError::Busy,
            TrySendError::Disconnected(_) => DeliveryError::Stopped,
        })?;
        answer.await.unwrap_or(Err(DeliveryError::OutcomeUnknown))
    }
}
