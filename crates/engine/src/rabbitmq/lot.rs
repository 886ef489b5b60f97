//! The requests of one product that a worker has in hand, decided batch by batch in their order.
//!
//! A worker never gives a message back. What cannot be decided now is held, so that neither crowds nor outages use up
//! how often the broker hands a message out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use yoink_core::OrderId;

use super::hand::{Gone, Hand};
use super::lock::{Asked, Lock, Locks};
use super::lots::{BATCH_MAX, Doubtful, Lots, Next, Taken};
use super::message;
use super::shared::{RabbitOptions, Shared};
use super::status::Gauges;
use super::trouble;
use crate::failpoint;
use crate::postgres::{Decided, Delivered, ErrorClass, PostgresError, Request, Retried, Verdict};
use crate::views::OrderStatus;

/// While there is more than one request at a time, a batch begins so long after the one before, unless much waits.
const PACE: Duration = Duration::from_millis(25);
/// How often a lock that is somebody else's is asked for, in milliseconds from and to.
const LOCKED_WAIT_MS: std::ops::Range<u64> = 5..20;
/// Who waits for a lock gets it after its holder has had it for so long.
const TURN: Duration = Duration::from_millis(200);
/// So many lives of a lock it is waited for. By then its holder has died or handed it over, unless the lock is nobody's: then
/// the work goes on without it, which is safe, and slower at worst.
const LOCK_LIVES_MAX: u32 = 2;
/// How long who handed a lock over stays away from it: longer than those who wait do between two attempts.
const AFTER_TURN: Duration = Duration::from_millis(25);
/// How often it is looked whether delivery is still paused.
const PAUSED_WAIT: Duration = Duration::from_millis(50);

/// How long a worker waits for a lock at most.
fn lock_wait_max(options: &RabbitOptions) -> Duration {
    options.lock_life.saturating_mul(LOCK_LIVES_MAX)
}

/// What one worker decides with.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    hand: Arc<Hand>,
    locks: Arc<Locks>,
    lots: Lots,
    /// How many of this worker's tasks may wait for, or have, one of the turns that all workers of the node share.
    tasks: Semaphore,
}

impl Worker {
    /// One that asks the ledger for as much at once as all of the node's workers may together.
    pub(crate) fn new(shared: Arc<Shared>, hand: Arc<Hand>, locks: Arc<Locks>) -> Arc<Self> {
        Self::with_tasks(shared, hand, locks, Semaphore::MAX_PERMITS)
    }

    /// One that asks the ledger for one thing after the other, and so keeps other workers waiting for no more than that.
    pub(crate) fn one_by_one(shared: Arc<Shared>, hand: Arc<Hand>, locks: Arc<Locks>) -> Arc<Self> {
        Self::with_tasks(shared, hand, locks, 1)
    }

    fn with_tasks(shared: Arc<Shared>, hand: Arc<Hand>, locks: Arc<Locks>, tasks: usize) -> Arc<Self> {
        Arc::new(Self { shared, hand, locks, lots: Lots::default(), tasks: Semaphore::new(tasks) })
    }

    /// The requests of one more message. Gives the lots that are to be run because no task is busy with their products.
    pub(crate) fn add(self: &Arc<Self>, message: Vec<Taken>) -> Vec<Lot> {
        self.divide(&message);
        self.begin(self.lots.add(message))
    }

    /// As [`Worker::add`]; each of these requests is decided alone.
    pub(crate) fn add_alone(self: &Arc<Self>, message: Vec<Taken>) -> Vec<Lot> {
        self.divide(&message);
        self.begin(self.lots.add_alone(message))
    }

    fn begin(self: &Arc<Self>, products: Vec<i32>) -> Vec<Lot> {
        products.into_iter().map(|product| Lot::new(self, product)).collect()
    }

    /// Waits until the ledger may be asked for something: connections are left to those who only ask.
    pub(crate) async fn turn(&self) -> Option<[SemaphorePermit<'_>; 2]> {
        let of_this = self.tasks.acquire().await.ok()?;
        Some([of_this, self.shared.turnstile.acquire().await.ok()?])
    }

    /// A message is acknowledged once each of its requests is decided.
    fn divide(&self, message: &[Taken]) {
        if let Some(first) = message.first() {
            self.hand.divide(first.tag, message.len());
        }
    }

    /// Gives everything in hand up: the broker hands it out anew.
    pub(crate) fn end(&self) {
        self.hand.end();
    }
}

/// What the ledger says in the end.
enum Ruling {
    Verdicts(Vec<Verdict>),
    /// It decided nothing, perhaps because of one of the requests.
    Failed(PostgresError),
}

/// The task of one product.
pub(crate) struct Lot {
    worker: Arc<Worker>,
    product: i32,
    lock: Option<Lock>,
    /// It was waited for in vain: what is left of the lot is decided without one.
    without_lock: bool,
    /// The token of the batch before, decided under the lock that is held.
    fence: Option<i64>,
}

impl Lot {
    fn new(worker: &Arc<Worker>, product: i32) -> Self {
        Self { worker: Arc::clone(worker), product, lock: None, without_lock: false, fence: None }
    }

    /// Decides until nothing of the product is left, or the channel is over.
    pub(crate) async fn run(mut self) {
        while matches!(self.go_on().await, Ok(true)) {}
        self.leave().await;
    }

    /// Does what comes next. False: nothing of the product is left.
    async fn go_on(&mut self) -> Result<bool, Gone> {
        let (worker, begun) = (Arc::clone(&self.worker), Instant::now());
        match worker.lots.next(self.product, begun) {
            Next::Batch(batch) => {
                let is_busy = batch.len() > 1;
                self.decide(batch).await?;
                self.hand_over().await?;
                if is_busy {
                    self.gather(begun).await?;
                }
            }
            Next::Alone(doubtful) => {
                match self.decide_alone(doubtful).await? {
                    Some(doubtful) => worker.lots.put_back(self.product, doubtful, Instant::now()),
                    None => worker.lots.went_well(self.product),
                }
                self.hand_over().await?;
            }
            Next::Later { wait, since } => {
                self.leave().await;
                if *worker.shared.closing.borrow() {
                    // What only fails now is decided by whoever works next.
                    return Ok(false);
                }
                // Others may come meanwhile.
                self.worker.hand.hold(since, wait.min(PACE)).await?;
            }
            Next::Nothing => {
                self.leave().await;
                return Ok(!worker.lots.finish(self.product));
            }
        }
        Ok(true)
    }

    /// Lets requests gather for the next batch: each batch costs the ledger a transaction, however small it is.
    async fn gather(&self, begun: Instant) -> Result<(), Gone> {
        let waiting = self.worker.lots.fresh(self.product);
        let rest = PACE.saturating_sub(begun.elapsed());
        if waiting >= BATCH_MAX / 2 || rest.is_zero() {
            return Ok(());
        }
        self.worker.hand.pause(rest).await
    }

    async fn decide(&mut self, batch: Vec<Taken>) -> Result<(), Gone> {
        let begun = Instant::now();
        let since = batch.iter().map(|taken| taken.at).min().unwrap_or(begun);
        let (places, requests): (Vec<(u64, Instant)>, Vec<Request>) =
            batch.into_iter().map(|taken| ((taken.tag, taken.at), taken.request)).unzip();
        match self.insist(&requests, since).await? {
            Ruling::Verdicts(verdicts) => {
                self.note(begun, &requests, &verdicts);
                self.worker.lots.went_well(self.product);
                self.acknowledge(places.into_iter().map(|(tag, _)| tag).collect()).await
            }
            Ruling::Failed(_) => {
                // One of them must not hold up the others.
                let batch = places.into_iter().zip(requests);
                let batch = batch.map(|((tag, at), request)| Taken { request, tag, at }).collect();
                match self.worker.lots.doubt(self.product, batch) {
                    copies if copies.is_empty() => Ok(()),
                    // With the first of its kind it would come again.
                    copies => self.worker.hand.acknowledge(copies).await,
                }
            }
        }
    }

    /// Decides a request for itself, or keeps it as one that can never be decided. Gives it back if neither is done.
    async fn decide_alone(&mut self, mut doubtful: Box<Doubtful>) -> Result<Option<Box<Doubtful>>, Gone> {
        let (begun, tag, since) = (Instant::now(), doubtful.taken.tag, doubtful.taken.at);
        let one = std::slice::from_ref(&doubtful.taken.request);
        match self.insist(one, since).await? {
            Ruling::Verdicts(verdicts) => self.note(begun, one, &verdicts),
            Ruling::Failed(error) => {
                let decided = self.worker.shared.gauges.decided();
                let has_failed_often = doubtful.fail(decided, Instant::now());
                let is_hopeless = has_failed_often || error.class() == ErrorClass::Permanent;
                let is_kept =
                    is_hopeless && self.keep_undecidable(&doubtful.taken.request, &error, since).await?;
                if !is_kept {
                    self.worker.shared.node.note_delivery_error(&error);
                    return Ok(Some(doubtful));
                }
            }
        }
        self.acknowledge(vec![tag]).await?;
        Ok(None)
    }

    async fn acknowledge(&self, tags: Vec<u64>) -> Result<(), Gone> {
        failpoint::hit("lot.committed");
        self.worker.hand.acknowledge(tags).await?;
        failpoint::hit("lot.acknowledged");
        Ok(())
    }

    /// Asks the ledger until it has decided, however long that takes, unless it fails for what it was asked, perhaps.
    async fn insist(&mut self, requests: &[Request], since: Instant) -> Result<Ruling, Gone> {
        let shared = Arc::clone(&self.worker.shared);
        let mut patience = trouble::patience();
        loop {
            self.wait_while_paused(since).await?;
            self.enter(since).await?;
            let now = shared.node.now();
            let retry_at = shared.node.retry_at(now);
            failpoint::hit("lot.before-decide");
            let decided = {
                let _turn = self.worker.turn().await;
                let postgres = &shared.desk.postgres;
                postgres.decide(self.product, self.fence, (retry_at, now), requests).await
            };
            match decided {
                Ok(Decided::Done { fence, verdicts }) => {
                    // Without a lock everybody begins anew every time.
                    self.fence = self.lock.as_ref().map(|_| fence);
                    return Ok(Ruling::Verdicts(verdicts));
                }
                Ok(Decided::Stale) => {
                    Gauges::add(&shared.gauges.stale, 1);
                    self.leave().await;
                }
                Err(error) => {
                    if error.may_lie_in_what_was_asked() {
                        return Ok(Ruling::Failed(error));
                    }
                    shared.node.note_delivery_error(&error);
                    // Perhaps it is only this worker that has trouble.
                    self.leave().await;
                    self.worker.hand.hold(since, patience.next()).await?;
                }
            }
        }
    }

    /// Counts what was decided here, and tells who waits for it.
    fn note(&self, begun: Instant, requests: &[Request], verdicts: &[Verdict]) {
        let shared = &self.worker.shared;
        let mut delivered: Vec<(OrderId, Delivered)> = Vec::new();
        for (request, verdict) in requests.iter().zip(verdicts) {
            match verdict {
                Verdict::Confirmed => {
                    Gauges::add(&shared.gauges.confirmed, 1);
                    delivered.push((request.order, Delivered::Confirmed));
                    shared.node.waiters.tell(request.order, OrderStatus::Confirmed);
                }
                Verdict::Refused => delivered.push((request.order, Delivered::Refused)),
                Verdict::Known => delivered.push((request.order, Delivered::Known)),
                Verdict::LimitReached { .. } | Verdict::SoldOut { .. } => {
                    Gauges::add(&shared.gauges.rejected, 1);
                    shared.node.waiters.tell(request.order, OrderStatus::Rejected);
                }
            }
        }
        shared.node.note_delivered(begun.elapsed(), &delivered);
    }

    /// Keeps a request that can never be decided: it has failed. False: the ledger does not take that either.
    async fn keep_undecidable(
        &self,
        request: &Request,
        error: &PostgresError,
        since: Instant,
    ) -> Result<bool, Gone> {
        let shared = &self.worker.shared;
        let line = message::encode(request.publisher, [request], &shared.node.order_ids);
        let (why, message) = (error.to_string(), (shared.names.orders.as_str(), line.as_bytes()));
        let postgres = &shared.desk.postgres;
        let keep = || postgres.keep_undecidable(message, &why, (self.product, request), shared.node.now());
        let kept = trouble::insist(&shared.node, keep, |wait| self.worker.hand.hold(since, wait)).await?;
        if let Err(refusal) = kept {
            tracing::error!(
                order = %request.order, %error, %refusal,
                "a request can never be decided, and the ledger does not keep it as failed either; it stays in hand"
            );
            return Ok(false);
        }
        tracing::error!(order = %request.order, %error, "a request can never be decided: it has failed");
        Gauges::add(&shared.gauges.unreadable, 1);
        shared.node.note_retried(Retried::Parked);
        shared.node.waiters.tell(request.order, OrderStatus::Failed);
        Ok(true)
    }

    async fn wait_while_paused(&mut self, since: Instant) -> Result<(), Gone> {
        while self.worker.shared.node.delivery_is_paused() {
            self.leave().await;
            self.worker.hand.hold(since, PAUSED_WAIT).await?;
        }
        Ok(())
    }
}

/// The lock.
impl Lot {
    /// Comes to hold the lock, if there is to be one and Redis can be asked.
    async fn enter(&mut self, since: Instant) -> Result<(), Gone> {
        let worker = Arc::clone(&self.worker);
        if !worker.shared.options.lock || self.without_lock {
            return Ok(());
        }
        if let Some(lock) = &mut self.lock {
            if worker.locks.keep(lock).await {
                return Ok(());
            }
            self.leave().await;
        }
        let begun = Instant::now();
        let mut has_waited = false;
        loop {
            match worker.locks.take(self.product).await {
                Asked::Taken(lock) => {
                    self.lock = Some(lock);
                    failpoint::hit("lot.locked");
                    return Ok(());
                }
                Asked::NoRedis => return Ok(()),
                Asked::Locked => {
                    if !std::mem::replace(&mut has_waited, true) {
                        Gauges::add(&worker.shared.gauges.locked, 1);
                    }
                    if begun.elapsed() > lock_wait_max(&worker.shared.options) {
                        tracing::warn!(
                            product = self.product,
                            "nobody gives the lock back; going on without it"
                        );
                        self.without_lock = true;
                        return Ok(());
                    }
                    let wait = Duration::from_millis(rand::random_range(LOCKED_WAIT_MS));
                    self.worker.hand.hold(since, wait).await?;
                }
            }
        }
    }

    /// Gives the lock back, and forgets the token that came with it.
    async fn leave(&mut self) {
        self.fence = None;
        if let Some(lock) = self.lock.take() {
            self.worker.locks.give_back(lock).await;
        }
    }

    /// After a while others get their turn.
    async fn hand_over(&mut self) -> Result<(), Gone> {
        let Some(lock) = self.lock.as_ref().filter(|lock| lock.age() > TURN) else { return Ok(()) };
        if self.worker.locks.hand_over(lock).await {
            (self.lock, self.fence) = (None, None);
            self.worker.hand.pause(AFTER_TURN).await?;
        }
        Ok(())
    }
}
