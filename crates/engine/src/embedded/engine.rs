//! The embedded engine as a whole: opened, asked, closed.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::ContextV7;
use yoink_core::{
    Command, CustomerId, Event, IdempotencyKey, NewProduct, OrderId, ProductId, Seq, StockAdjustment,
    Timestamp,
};

use crate::delivery::{Delivery, Stop};
use crate::embedded::clock::{Clock, SystemTime, TimeSource};
use crate::embedded::folder::Folder;
use crate::embedded::inbox::Inbox;
use crate::embedded::log::{LogFile, Stretch};
use crate::embedded::loss;
use crate::embedded::recovery::{Recovered, RecoveryReport, recover};
use crate::embedded::tail::Tail;
use crate::embedded::ticket::{Answer, Ask, Books, Ticket};
use crate::embedded::writer::{EngineState, Shared, Upkeep, Writer};
use crate::figures::EngineFigures;
use crate::lane::{Lane, LaneDriver};
use crate::options::Options;
use crate::source::WriterSource;
use crate::views::{
    Adjusted, Change, OrderFilter, OrderPage, OrderStatus, OrderView, ProductView, PurchaseRequest,
    Purchased, Replayed,
};
use crate::watch::Watch;
use crate::{CallError, Confirmed, Durability, OpenError, Storefront, limits};

/// The embedded engine. Cheap to clone; every clone is the same engine.
#[derive(Clone)]
pub struct EmbeddedEngine {
    parts: Arc<Parts>,
    lane: Option<Arc<Lane>>,
}

impl std::fmt::Debug for EmbeddedEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedEngine")
            .field("state", &self.state())
            .field("last_seq", &self.last_seq())
            .finish_non_exhaustive()
    }
}

struct Parts {
    shared: Arc<Shared>,
    clock: Clock,
    durability: Durability,
    delivery: Delivery,
    report: RecoveryReport,
    writer: Mutex<Option<JoinHandle<()>>>,
    watch: Watch,
}

impl Parts {
    fn close(&self, drain: Duration) {
        if self.shared.state() != EngineState::Failed {
            self.shared.set_state(EngineState::Closing);
        }
        let Some(writer) = self.writer.lock().take() else {
            return;
        };
        self.watch.stop();
        // Delivery first: it may need the writer to give units back, or to read what memory no longer has.
        let stopped = self.delivery.stop(Stop::AfterDraining(drain));
        let last_seq = self.shared.tail.last_seq();
        if stopped.position < last_seq {
            let position = stopped.position;
            tracing::info!(position, last_seq, "the ledger lacks events; the next start carries them over");
        }
        self.shared.inbox.close();
        // A writer that panicked has said so already; its callers were told.
        let _ = writer.join();
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

impl EmbeddedEngine {
    /// Opens the data folder: takes it for this process, reads the log back, starts the writer and delivery.
    ///
    /// # Errors
    /// The folder is in use, or what is on disk is not what was written; nothing was changed then.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        Self::open_with_time(options, Box::<SystemTime>::default())
    }

    /// As [`EmbeddedEngine::open`], with another source of time.
    ///
    /// # Errors
    /// As [`EmbeddedEngine::open`].
    pub fn open_with_time(options: Options, time: Box<dyn TimeSource>) -> Result<Self, OpenError> {
        let folder = Folder::open(&options.data)?;
        let path = match &options.log_vfs {
            Some(_) => PathBuf::from("log.db"),
            None => folder.file("log.db"),
        };
        let file = LogFile { path, vfs: options.log_vfs };
        let accept_loss = options.accept_loss;
        // The ledger is checked while the log is read back: at a million orders each takes about half a second.
        let (mut recovered, prepared) = std::thread::scope(|scope| {
            let ledger = scope.spawn(|| Delivery::prepare(folder.path(), options.delivery.clone()));
            let recovered = recover(folder.path(), &file, options.durability, accept_loss, options.beacon);
            // What is wrong with the log is said first: the ledger can be made again from it.
            recovered.and_then(|recovered| {
                Ok((recovered, ledger.join().unwrap_or_else(|panic| resume_unwind(panic))?))
            })
        })?;
        let prepared = loss::settle(&mut recovered, prepared, &options.delivery, accept_loss, folder.path())?;
        let Recovered { inventory, log, beacon, incarnation, report, .. } = recovered;
        log.prepare_commits(&file, options.durability);
        let clock = Clock::new(time, inventory.last_at());
        let shared = Arc::new(Shared::new(
            Inbox::new(options.inbox_tickets_max),
            Tail::new(log.last_seq(), limits::TAIL_EVENTS_MAX),
            Storefront::new(&inventory),
        ));
        let source = WriterSource::new(Arc::clone(&shared), clock.clone());
        let delivery = Delivery::start_prepared(prepared, Box::new(source), log.last_seq())?;
        let ledger = delivery.clone();
        let now = Instant::now();
        let upkeep = Upkeep {
            beacon_seq: 0,
            beacon_at: now,
            free_space_at: now,
            snapshot_seq: report.snapshot_seq,
            checkpoint_seq: log.last_seq(),
        };
        let writer = Writer {
            inventory,
            log,
            beacon,
            folder,
            clock: clock.clone(),
            shared: Arc::clone(&shared),
            is_confirmed: Box::new(move |order| ledger.is_confirmed(order.seq)),
            incarnation,
            free_bytes_min: options.free_bytes_min,
            ids: ContextV7::new(),
            upkeep,
        };
        let writer = start(writer)?;
        let durability = options.durability;
        let watch_source = WriterSource::new(Arc::clone(&shared), clock.clone());
        let watch = Watch::start(Arc::clone(&shared), watch_source, delivery.clone(), options.watch_every);
        let writer = Mutex::new(Some(writer));
        let parts = Parts { shared, clock, durability, delivery, report, writer, watch };
        Ok(Self { parts: Arc::new(parts), lane: None })
    }

    /// The same engine with a lane of its own: calls made in one turn of a runtime go to the writer as one message,
    /// and the answers of one commit come back as one. Spawn the driver on that runtime.
    pub fn with_own_lane(&self) -> (Self, LaneDriver) {
        let lane = Arc::new(Lane::default());
        let driver = LaneDriver::new(&lane, Arc::clone(&self.parts.shared));
        (Self { parts: Arc::clone(&self.parts), lane: Some(lane) }, driver)
    }

    /// What everybody may see without asking the writer.
    pub fn storefront(&self) -> &Storefront {
        &self.parts.shared.storefront
    }

    /// The engine's time.
    pub fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// What an answer survives.
    pub fn durability(&self) -> Durability {
        self.parts.durability
    }

    /// What the engine as a whole is doing.
    pub fn state(&self) -> EngineState {
        self.parts.shared.state()
    }

    /// What recovery did when the engine was opened.
    pub fn recovery(&self) -> RecoveryReport {
        self.parts.report
    }

    /// The last committed event.
    pub fn last_seq(&self) -> Seq {
        self.parts.shared.tail.last_seq()
    }

    /// Buys.
    ///
    /// # Errors
    /// The sale says no, or the engine is too slow. Only [`CallError::OutcomeUnknown`] leaves it open whether the
    /// order was accepted: ask again with the same key.
    pub async fn purchase(&self, request: PurchaseRequest) -> Result<Purchased, CallError> {
        let shared = &self.parts.shared;
        // One look at the clock for both: there are many calls.
        let asked_us = self.parts.clock.monotonic_us();
        if let Some(rejection) = shared.storefront.refuse_early(self.parts.clock.at(asked_us), &request) {
            shared.counters.reject(&rejection);
            return Err(rejection.into());
        }
        if request.key.is_some() {
            // Who asks again while this is undecided waits behind it, instead of being told "sold out" on the way.
            shared.storefront.publish_buyer(request.customer.as_str());
        }
        match self.ask_at(Ask::Purchase(request), asked_us).await? {
            Answer::Purchased(purchased) => Ok(purchased),
            other => wrong(&other),
        }
    }

    /// Waits until the ledger has the order, at most `wait`. An order that ended meanwhile is not confirmed.
    pub async fn wait_confirmed(&self, purchased: &Purchased, wait: Duration) -> Confirmed {
        if self.wait_delivered(purchased.seq, wait).await == Confirmed::NotYet {
            return Confirmed::NotYet;
        }
        // Delivery is done with an order also when it gave its units back, so the order itself has the last word.
        match self.order(purchased.order).await {
            Ok(Some(order)) if order.status == OrderStatus::Confirmed => Confirmed::Yes,
            _ => Confirmed::NotYet,
        }
    }

    /// Waits until delivery is done with event `seq` and what it led to, at most `wait`.
    pub async fn wait_delivered(&self, seq: Seq, wait: Duration) -> Confirmed {
        match tokio::time::timeout(wait, self.parts.delivery.until_confirmed(seq)).await {
            Ok(()) => Confirmed::Yes,
            Err(_) => Confirmed::NotYet,
        }
    }

    /// One order.
    ///
    /// # Errors
    /// The engine is too slow or closing.
    pub async fn order(&self, id: OrderId) -> Result<Option<OrderView>, CallError> {
        match self.ask(Ask::Order(id)).await? {
            Answer::Order(order) => Ok(*order),
            other => wrong(&other),
        }
    }

    /// The order that was accepted for this customer under this key.
    ///
    /// # Errors
    /// The engine is too slow or closing.
    pub async fn order_by_key(
        &self,
        customer: CustomerId,
        key: IdempotencyKey,
    ) -> Result<Option<OrderView>, CallError> {
        match self.ask(Ask::OrderByKey(customer, key)).await? {
            Answer::Order(order) => Ok(*order),
            other => wrong(&other),
        }
    }

    /// A page of orders, oldest first.
    ///
    /// # Errors
    /// The engine is too slow or closing.
    pub async fn orders(&self, filter: OrderFilter) -> Result<OrderPage, CallError> {
        match self.ask(Ask::Orders(Box::new(filter))).await? {
            Answer::Orders(page) => Ok(page),
            other => wrong(&other),
        }
    }

    /// Gives the units of an order back because somebody asked for it.
    ///
    /// # Errors
    /// There is no such order, or it has failed; or the engine is too slow.
    pub async fn cancel(&self, id: OrderId, reason: Box<str>) -> Result<(OrderView, Replayed), CallError> {
        match self.command(Command::Cancel { order: id, reason }).await? {
            Answer::Ended(order, replayed) => Ok((*order, replayed)),
            other => wrong(&other),
        }
    }

    /// Gives the units of an order back as delivery does for a dead letter. For tests of decisions.
    ///
    /// # Errors
    /// There is no such order; or the engine is too slow.
    #[cfg(feature = "faults")]
    pub async fn fail(&self, id: OrderId, reason: Box<str>) -> Result<(OrderView, Replayed), CallError> {
        match self.command(Command::Fail { order: id, reason }).await? {
            Answer::Ended(order, replayed) => Ok((*order, replayed)),
            other => wrong(&other),
        }
    }

    /// Puts something on sale.
    ///
    /// # Errors
    /// It exists, or what is asked does not fit together; or the engine is too slow.
    pub async fn create_product(&self, product: NewProduct) -> Result<ProductView, CallError> {
        self.product_command(Command::CreateProduct(product)).await
    }

    /// Changes a product; never its stock.
    ///
    /// # Errors
    /// There is no such product, or what is asked does not fit together; or the engine is too slow.
    pub async fn change(&self, id: ProductId, change: Change) -> Result<ProductView, CallError> {
        let command = match change {
            Change::Details(change) => Command::ChangeProduct { product: id, change },
            Change::Pause => Command::Pause { product: id },
            Change::Resume => Command::Resume { product: id },
        };
        self.product_command(command).await
    }

    /// Restocks or withdraws.
    ///
    /// # Errors
    /// There is no such product, the key was used for another adjustment, or the units are not there; or the engine
    /// is too slow.
    pub async fn adjust_stock(&self, adjustment: StockAdjustment) -> Result<Adjusted, CallError> {
        match self.command(Command::AdjustStock(adjustment)).await? {
            Answer::Adjusted(adjusted) => Ok(adjusted),
            other => wrong(&other),
        }
    }

    /// Committed events after `after`, oldest first, at most `limit` and [`limits::READ_EVENTS_MAX`]. Their numbers are
    /// dense but where a loss was accepted; a number is never given to two events.
    ///
    /// # Errors
    /// The log cannot be read, or the engine is too slow.
    pub async fn events(&self, mut after: Seq, limit: usize) -> Result<Vec<Event>, CallError> {
        loop {
            match self.stretch(after, limit).await? {
                Stretch::Events(events) => return Ok(events),
                Stretch::Lost { to } => after = to,
            }
        }
    }

    /// What the log has after event `after`.
    pub(crate) async fn stretch(&self, after: Seq, limit: usize) -> Result<Stretch, CallError> {
        match self.ask(Ask::Events { after, limit }).await? {
            Answer::Events(stretch) => Ok(stretch),
            other => wrong(&other),
        }
    }

    /// Delivery: where it is, its switch, its dead letters, the ledger behind it.
    pub fn delivery(&self) -> &Delivery {
        &self.parts.delivery
    }

    /// The inventory's own figures at one event.
    pub(crate) async fn books(&self) -> Result<Books, CallError> {
        match self.ask(Ask::Books).await? {
            Answer::Books(books) => Ok(*books),
            other => wrong(&other),
        }
    }

    /// What the engine counted since it was opened.
    pub fn figures(&self) -> EngineFigures {
        EngineFigures {
            inbox_tickets: self.parts.shared.inbox.waiting() as u64,
            clock_steps: self.parts.clock.steps(),
            conservation_error_units: self.conservation_errors(),
            ..self.parts.shared.counters.figures()
        }
    }

    /// By product: what its figures lack to add up, or else what the ledger lacks against them; 0 while all is well.
    fn conservation_errors(&self) -> Vec<(ProductId, i64)> {
        let shared = &self.parts.shared;
        let differences = shared.differences.lock().clone();
        let error = |shelf: &Arc<crate::Shelf>| match shelf.settled_figures().conservation_error_units() {
            0 => differences.iter().find(|(id, _)| *id == shelf.id()).map_or(0, |(_, units)| *units),
            error => error,
        };
        shared.storefront.shelves().iter().map(|shelf| (shelf.id(), error(shelf))).collect()
    }

    /// Refuses new calls, finishes what waits, lets delivery catch up for at most `drain`, and leaves the folder so
    /// that the next start is quick. Blocks; calling it again does nothing.
    pub fn close_blocking(&self, drain: Duration) {
        self.parts.close(drain);
    }

    async fn product_command(&self, command: Command) -> Result<ProductView, CallError> {
        match self.command(command).await? {
            Answer::Product(product) => Ok(*product),
            other => wrong(&other),
        }
    }

    async fn command(&self, command: Command) -> Result<Answer, CallError> {
        self.ask(Ask::Command(Box::new(command))).await
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, CallError> {
        self.ask_at(ask, self.parts.clock.monotonic_us()).await
    }

    async fn ask_at(&self, ask: Ask, asked_us: i64) -> Result<Answer, CallError> {
        let shared = &self.parts.shared;
        match shared.state() {
            EngineState::Ready | EngineState::StorageFull => {}
            EngineState::Closing | EngineState::Failed => return Err(CallError::Closing),
        }
        if let Err(error) = shared.inbox.admit() {
            shared.counters.overloaded.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Err(error);
        }
        let (reply, answered) = oneshot::channel();
        match &self.lane {
            None => shared.inbox.push(std::iter::once(Ticket { ask, reply, asked_us, returns: None })),
            Some(lane) => {
                lane.push(Ticket { ask, reply, asked_us, returns: Some(Arc::clone(&lane.returns)) })
            }
        }
        // The sender is dropped unsent only where the writer stopped with the ticket in its hands.
        answered.await.unwrap_or(Err(CallError::OutcomeUnknown))
    }
}

fn start(writer: Writer) -> Result<JoinHandle<()>, OpenError> {
    let path = writer.folder.path().to_path_buf();
    std::thread::Builder::new()
        .name("yoink-writer".to_owned())
        .spawn(move || writer.run())
        .map_err(|source| OpenError::DataFolder { path, source })
}

/// Each ask has one kind of answer; another one is a bug in this crate.
fn wrong<T>(answer: &Answer) -> Result<T, CallError> {
    unreachable!("the writer gave another kind of answer: {answer:?}")
}
