//! The one thread that owns the inventory and the log: decide, apply, commit, answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, warn};
use uuid::{ContextV7, Uuid};
use yoink_core::{
    Command, Decision, Event, Fact, Inventory, OrderId, Purchase, Rejection, Replay, Seq, Timestamp,
};

use super::beacon::{Beacon, Promise};
use super::clock::Clock;
use super::folder::Folder;
use super::inbox::{Inbox, Taken};
use super::log::{Log, LogError};
use super::snapshot;
use super::tail::Tail;
use super::ticket::{Answer, Ask, Reply, Ticket};
use crate::figures::Counters;
use crate::limits;
use crate::views::{Adjusted, ProductView, PurchaseRequest, Purchased, Replayed};
use crate::{CallError, Storefront, failpoint};

mod answers;
mod ask;

use answers::Answers;

/// What the engine as a whole is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Selling.
    Ready,
    /// Not selling: the disk is almost full. Goes on by itself when there is space.
    StorageFull,
    /// Finishing what waits.
    Closing,
    /// Stopped after an error whose outcome is unknown. Only opening the folder again helps.
    Failed,
}

/// What the writer shares with the rest of the engine.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) inbox: Inbox,
    pub(crate) tail: Tail,
    pub(crate) storefront: Storefront,
    pub(crate) counters: Counters,
    /// By product, what the last look at the ledger found missing or too much; empty while everything adds up.
    pub(crate) differences: parking_lot::Mutex<Vec<(yoink_core::ProductId, i64)>>,
    state: AtomicU8,
}

impl Shared {
    pub(crate) fn new(inbox: Inbox, tail: Tail, storefront: Storefront) -> Self {
        Self {
            inbox,
            tail,
            storefront,
            counters: Counters::new(),
            differences: parking_lot::Mutex::default(),
            state: AtomicU8::new(0),
        }
    }

    pub(crate) fn state(&self) -> EngineState {
        match self.state.load(Ordering::Acquire) {
            0 => EngineState::Ready,
            1 => EngineState::StorageFull,
            2 => EngineState::Closing,
            _ => EngineState::Failed,
        }
    }

    pub(crate) fn set_state(&self, state: EngineState) {
        let code = match state {
            EngineState::Ready => 0,
            EngineState::StorageFull => 1,
            EngineState::Closing => 2,
            EngineState::Failed => 3,
        };
        self.state.store(code, Ordering::Release);
    }
}

/// Says whether the ledger has an order: delivery knows.
pub(crate) type IsConfirmed = Box<dyn Fn(&yoink_core::Order<'_>) -> bool + Send>;

pub(crate) struct Writer {
    pub(crate) inventory: Inventory,
    pub(crate) log: Log,
    pub(crate) beacon: Beacon,
    pub(crate) folder: Folder,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
    pub(crate) is_confirmed: IsConfirmed,
    pub(crate) incarnation: u64,
    pub(crate) free_bytes_min: u64,
    pub(crate) ids: ContextV7,
    pub(crate) upkeep: Upkeep,
}

/// When the things between batches were last done.
pub(crate) struct Upkeep {
    pub(crate) beacon_seq: u64,
    pub(crate) beacon_at: Instant,
    pub(crate) free_space_at: Instant,
    pub(crate) snapshot_seq: u64,
    pub(crate) checkpoint_seq: u64,
}

/// The writer stopped because it no longer knows what is on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Poisoned {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot write the beacon")]
    Beacon(#[source] std::io::Error),
}

impl Writer {
    /// Serves until the inbox is closed and empty, or until a commit fails.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // Whatever ends this thread, a panic included, nobody may go on waiting for it.
        let _stop = StopOnDrop { shared: Arc::clone(&shared) };
        match self.serve() {
            Ok(()) => self.close(),
            Err(error) => {
                shared.set_state(EngineState::Failed);
                error!(
                    error = &error as &dyn std::error::Error,
                    "the engine stopped: it no longer knows what is on disk"
                );
            }
        }
    }

    fn serve(&mut self) -> Result<(), Poisoned> {
        let mut tickets = Vec::with_capacity(limits::BATCH_TICKETS_MAX);
        let mut answers = Answers::default();
        loop {
            match self.shared.inbox.take(&mut tickets, limits::BATCH_TICKETS_MAX, limits::BEACON_EVERY) {
                Taken::Tickets => {
                    // On a busy machine others are about to ask: let them, and pay one fsync for all.
                    std::thread::yield_now();
                    let room = limits::BATCH_TICKETS_MAX.saturating_sub(tickets.len());
                    self.shared.inbox.take(&mut tickets, room, Duration::ZERO);
                    self.run_batch(&mut tickets, &mut answers)?;
                }
                Taken::Nothing => self.idle(),
                Taken::Closed => return Ok(()),
            }
            self.between_batches()?;
        }
    }

    /// Decide in memory, write once, then answer. The only function that commits.
    fn run_batch(&mut self, tickets: &mut Vec<Ticket>, answers: &mut Answers) -> Result<(), Poisoned> {
        failpoint::hit("writer.batch-taken");
        let now = self.clock.tick();
        let asked_after_us =
            self.clock.monotonic_us().saturating_sub(limits::TICKET_WAIT_MAX.as_micros() as i64);
        let mut committed = Vec::with_capacity(tickets.len());
        for ticket in tickets.drain(..) {
            // A caller who is gone, or who has waited too long, is left out before the decision, never after it.
            if ticket.reply.is_closed() {
                continue;
            }
            let reply = if ticket.asked_us < asked_after_us {
                self.shared.counters.expired.fetch_add(1, Ordering::Relaxed);
                Err(CallError::Expired)
            } else {
                self.answer(now, ticket.ask, &mut committed)
            };
            answers.push((ticket.reply, reply), ticket.returns);
        }
        // One fsync for all of them; none if nothing was accepted. On error the outcome is unknown: the answers are
        // dropped unsent ("unknown", never "failed") and the engine stops.
        let begun = Instant::now();
        self.log.commit()?;
        if !committed.is_empty() {
            self.shared.counters.commit_seconds.observe(begun.elapsed().as_secs_f64());
            self.shared.counters.batch_events.observe(committed.len() as f64);
        }
        // From here on every acceptance, and every replay of one, is a promise.
        self.publish(committed);
        answers.send();
        Ok(())
    }

    /// Decides a command and, if it may happen, makes it so in memory and stages it for the commit.
    ///
    /// # Errors
    /// It is refused, or may not happen while the disk is almost full.
    fn decide(
        &mut self,
        now: Timestamp,
        command: &Command,
        committed: &mut Vec<Event>,
    ) -> Result<Done, CallError> {
        let decision = self.inventory.decide(now, command);
        failpoint::hit("writer.decided");
        let event = match decision {
            Decision::Accept(event) => event,
            Decision::Replay(replay) => return Ok(Done::Before(replay)),
            Decision::Refuse(rejection) => return Err(rejection.into()),
        };
        if takes_units(&event) && self.shared.state() == EngineState::StorageFull {
            self.shared.counters.storage_full.fetch_add(1, Ordering::Relaxed);
            return Err(CallError::StorageFull);
        }
        self.inventory.apply(&event); // the next ticket in this batch must see it
        failpoint::hit("writer.applied");
        self.log.stage(&event);
        let seq = event.seq;
        committed.push(event);
        Ok(Done::Now(seq))
    }

    fn next_order_id(&self, now: Timestamp) -> OrderId {
        let seconds = now.0.div_euclid(1_000_000).unsigned_abs();
        let nanos = u32::try_from(now.0.rem_euclid(1_000_000).saturating_mul(1_000)).unwrap_or(0);
        let timestamp = uuid::Timestamp::from_unix(&self.ids, seconds, nanos);
        OrderId(Uuid::new_v7(timestamp).into_bytes())
    }

    fn publish(&mut self, committed: Vec<Event>) {
        failpoint::hit("writer.before-publish");
        let mut products_changed = false;
        let mut touched = Vec::new();
        for event in &committed {
            let product = match &event.fact {
                Fact::OrderAccepted(accepted) => {
                    self.shared.storefront.publish_buyer(accepted.customer.as_str());
                    Some(accepted.product)
                }
                Fact::OrderCancelled { order, .. } | Fact::OrderFailed { order, .. } => {
                    self.inventory.order(*order).map(|order| order.product)
                }
                Fact::StockAdjusted(adjustment) => Some(adjustment.product),
                Fact::ProductCreated { .. }
                | Fact::ProductChanged { .. }
                | Fact::SalePaused { .. }
                | Fact::SaleResumed { .. } => {
                    products_changed = true;
                    None
                }
            };
            if let Some(product) = product.filter(|product| !touched.contains(product)) {
                touched.push(product);
            }
        }
        if products_changed {
            self.shared.storefront.publish_products(&self.inventory);
        }
        for product in touched.iter().filter_map(|id| self.inventory.product(id)) {
            self.shared.storefront.publish_figures(product);
        }
        self.shared.tail.push(committed);
    }

    /// What must be done now and then, never while a decision waits to be written.
    fn between_batches(&mut self) -> Result<(), Poisoned> {
        if self.upkeep.beacon_seq < self.log.last_seq()
            && self.upkeep.beacon_at.elapsed() >= limits::BEACON_EVERY
        {
            self.write_beacon()?;
        }
        if self.upkeep.free_space_at.elapsed() >= limits::FREE_SPACE_CHECK_EVERY {
            self.look_at_free_space();
        }
        if self.log.wal_bytes() >= limits::WAL_BYTES_MAX {
            self.checkpoint();
        }
        Ok(())
    }

    fn idle(&mut self) {
        self.clock.tick();
        if self.upkeep.checkpoint_seq < self.log.last_seq()
            && self.log.wal_bytes() >= limits::WAL_BYTES_MAX / 4
        {
            self.checkpoint();
        }
        if self.log.last_seq().saturating_sub(self.upkeep.snapshot_seq) >= limits::SNAPSHOT_EVENTS_IDLE {
            self.write_snapshot();
        }
    }

    fn write_beacon(&mut self) -> Result<(), Poisoned> {
        let (seq, chain) = (self.log.last_seq(), self.log.chain());
        self.beacon.write(Promise { incarnation: self.incarnation, seq, chain }).map_err(Poisoned::Beacon)?;
        self.upkeep.beacon_seq = seq;
        self.upkeep.beacon_at = Instant::now();
        Ok(())
    }

    fn look_at_free_space(&mut self) {
        self.upkeep.free_space_at = Instant::now();
        let is_low = self.folder.free_bytes() < self.free_bytes_min;
        match (is_low, self.shared.state()) {
            (true, EngineState::Ready) => {
                warn!(path = %self.folder.path().display(), "the disk is almost full: selling stops until there is space");
                self.shared.set_state(EngineState::StorageFull);
            }
            (false, EngineState::StorageFull) => {
                warn!("there is space on the disk again: selling goes on");
                self.shared.set_state(EngineState::Ready);
            }
            _ => {}
        }
    }

    fn checkpoint(&mut self) {
        match self.log.checkpoint() {
            Ok(()) => {
                self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "the write-ahead file stays long for now")
            }
        }
        self.upkeep.checkpoint_seq = self.log.last_seq();
    }

    fn write_snapshot(&mut self) {
        let path = self.folder.file("snapshot");
        if let Err(error) = snapshot::write(&path, &self.inventory, self.log.chain()) {
            warn!(%error, path = %path.display(), "no snapshot was written; the next start takes longer");
        }
        self.upkeep.snapshot_seq = self.log.last_seq();
    }

    /// After the last answer: leave the folder so that the next start is quick.
    fn close(mut self) {
        if self.upkeep.beacon_seq < self.log.last_seq()
            && let Err(error) = self.write_beacon()
        {
            warn!(error = &error as &dyn std::error::Error, "the beacon stays behind the log");
        }
        if self.log.last_seq().saturating_sub(self.upkeep.snapshot_seq) >= limits::SNAPSHOT_EVENTS_MIN {
            self.write_snapshot();
        }
        self.checkpoint();
        if let Err(error) = self.log.close() {
            warn!(error = &error as &dyn std::error::Error, "the next start folds the log back");
        }
    }
}

/// What a command that was not refused led to.
#[derive(Debug)]
enum Done {
    /// This event.
    Now(Seq),
    /// Nothing now: the same command was accepted before.
    Before(Replay),
}

impl Done {
    fn replayed(&self) -> Replayed {
        match self {
            Self::Now(_) => Replayed::No,
            Self::Before(_) => Replayed::Yes,
        }
    }
}

/// Whether an event may not happen while the disk is almost full. Giving units back, pausing and the like go on.
fn takes_units(event: &Event) -> bool {
    matches!(event.fact, Fact::OrderAccepted(_) | Fact::ProductCreated { .. })
}

/// Ends the waiting of everybody when the writer ends, however it ends.
struct StopOnDrop {
    shared: Arc<Shared>,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.set_state(EngineState::Failed);
        }
        self.shared.inbox.abandon();
        self.shared.tail.close();
    }
}
