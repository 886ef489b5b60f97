//! One thread of a storm: its own single-threaded runtime, its own connections, its own counts.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Uri, header};
use http_body_util::Full;
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;

use crate::attempt::{Failure, Outcome, classify};
use crate::client::{Client, StormRequest};
use crate::error::StormError;
use crate::options::Audit;
use crate::plan::Plan;
use crate::record::Recorder;
use crate::tally::{Keep, Sample, Tally, micros};

/// Connections that one thread opens at once while it warms up; more would overflow a server's listen queue.
pub(crate) const CONNECTING_MAX: usize = 64;

/// Figures that the progress display reads while a thread runs.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) skipped: AtomicU64,
}

/// Whether a purchase got as far as the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    Yes,
    No,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    /// The next purchase that nobody has begun.
    pub(crate) next_purchase: AtomicU64,
    /// Set when the storm must end early, for example because its record cannot be written.
    pub(crate) stop: AtomicBool,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) live: Vec<Live>,
}

/// What a shard's tasks share. They all run on one thread.
pub(crate) struct Shard {
    pub(crate) shared: Arc<Shared>,
    /// Counted from 0.
    pub(crate) index: usize,
    /// This thread's part of the connections.
    pub(crate) connections: usize,
    tally: RefCell<Tally>,
    start: Cell<Option<Instant>>,
    keep: Keep,
    record_error: RefCell<Option<io::Error>>,
}

impl Shard {
    pub(crate) fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.plan().target.address, self.plan().timeout)
    }

    /// Time since the storm's start; zero before it.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.get().map_or(Duration::ZERO, |start| start.elapsed())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// One purchase from intent to count. `intended` is when it should have begun; now if `None`.
    pub(crate) async fn purchase(&self, client: &mut Client, n: u64, intended: Option<Duration>) -> Reached {
        let plan = self.plan();
        let request = plan.template.request(n);
        if let Some(recorder) = &self.shared.recorder {
            // IMPORTANT: recorded before it is sent, else a crash leaves a purchase that nobody knows of.
            if let Err(error) = recorder.intent(plan, n, micros(self.elapsed())) {
                self.fail_to_record(error);
                return Reached::No;
            }
        }
        let sent = self.elapsed();
        let result = client.send(request).await;
        let received = self.elapsed();
        let outcome = classify(plan.route, &result);
        if let Some(recorder) = &self.shared.recorder
            && let Err(error) = recorder.answer(plan, n, micros(received), &outcome)
        {
            self.fail_to_record(error);
        }
        self.show(&outcome);
        let reached = if outcome == Outcome::Failed(Failure::Connect) { Reached::No } else { Reached::Yes };
        let sample = Sample { n, intended: intended.unwrap_or(sent), sent, received, outcome };
        self.tally.borrow_mut().record(plan, sample, self.keep);
        reached
    }

    /// An arrival for which no connection was free.
    pub(crate) fn skip(&self) {
        self.tally.borrow_mut().skipped += 1;
        if let Some(live) = self.shared.live.get(self.index) {
            live.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the connection and asks for the time, without counting anything. Failures will show when it matters.
    pub(crate) async fn warm_up(&self, client: &mut Client, requests: u64) {
        if client.connect().await.is_err() {
            return;
        }
        for _ in 0..requests {
            if client.send(time_request(self.plan())).await.is_err() {
                return;
            }
        }
    }

    /// Warm-up requests of connection `index` of this thread.
    pub(crate) fn warm_up_share(&self, index: usize) -> u64 {
        let plan = self.plan();
        let (total, connections) = (plan.warm_up_requests, plan.concurrency as u64);
        let place = (index * plan.threads + self.index) as u64;
        total / connections + u64::from(place < total % connections)
    }

    fn show(&self, outcome: &Outcome) {
        let Some(live) = self.shared.live.get(self.index) else {
            return;
        };
        let counter = match outcome {
            Outcome::Accepted { .. } => &live.accepted,
            Outcome::Refused { .. } => &live.refused,
            Outcome::Failed(_) => &live.errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn fail_to_record(&self, error: io::Error) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.record_error.borrow_mut().get_or_insert(error);
    }
}

fn time_request(plan: &Plan) -> StormRequest {
    let mut request = Request::new(Full::default());
    let path = format!("{}/v1/time", plan.target.base);
    *request.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    request.headers_mut().insert(header::HOST, plan.target.host.clone());
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    request
}

/// How a thread tells that it is warm, and is told to begin.
pub(crate) struct Signals {
    /// Dropped or used when the thread is warm.
    pub(crate) warm: oneshot::Sender<()>,
    /// The common start, set once.
    pub(crate) start: watch::Receiver<Option<Instant>>,
}

impl Signals {
    /// Says that this thread is warm and waits for the start of all.
    pub(crate) async fn wait_for_start(self, shard: &Shard) {
        let Signals { warm, mut start } = self;
        // Nobody listens any more only if the storm was abandoned.
        let _ = warm.send(());
        if let Ok(instant) = start.wait_for(Option::is_some).await {
            shard.start.set(*instant);
        }
    }
}

/// A running thread's result, once it is there.
pub(crate) type ShardResult = oneshot::Receiver<Result<Tally, StormError>>;

/// Starts a thread that runs `body` in a runtime of its own.
///
/// # Errors
/// [`StormError::Thread`] if the operating system gives no thread.
pub(crate) fn spawn<Body>(shared: &Arc<Shared>, index: usize, body: Body) -> Result<ShardResult, StormError>
where
    Body: AsyncFnOnce(Rc<Shard>) + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let shared = Arc::clone(shared);
    let run = move || {
        // An abandoned storm has nobody to tell.
        let _ = sender.send(run_thread(shared, index, body));
    };
    std::thread::Builder::new()
        .name(format!("storm-{index}"))
        .spawn(run)
        .map_err(|_| StormError::Thread("could not be started"))?;
    Ok(receiver)
}

fn run_thread<Body>(shared: Arc<Shared>, index: usize, body: Body) -> Result<Tally, StormError>
where
    Body: AsyncFnOnce(Rc<Shard>),
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|_| StormError::Thread("could not get a runtime"))?;
    let plan = &shared.plan;
    let connections = plan.concurrency / plan.threads + usize::from(index < plan.concurrency % plan.threads);
    let shard = Rc::new(Shard {
        index,
        connections,
        tally: RefCell::new(Tally::new(plan)),
        start: Cell::new(None),
        keep: if plan.audit == Audit::Full { Keep::Yes } else { Keep::No },
        record_error: RefCell::new(None),
        shared: Arc::clone(&shared),
    });
    LocalSet::new().block_on(&runtime, body(Rc::clone(&shard)));
    if let (Some(error), Some(recorder)) = (shard.record_error.take(), &shared.recorder) {
        return Err(recorder.error(error));
    }
    let empty = Tally::new(&shared.plan);
    Ok(shard.tally.replace(empty))
}
