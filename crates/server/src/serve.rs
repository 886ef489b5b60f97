//! Process life of the edge: listeners, one single-threaded runtime per core, deadlines, and the way down.
//!
//! Every core has its own listener on the same port (the kernel spreads connections), its own lane to the engine and
//! its own routes, so a request never crosses threads on its way to the writer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use yoink_engine::{Engine, EngineState};

use crate::connection::{Conn, Phase, Stream, whole_answer};
use crate::edge::{Core, Front, Shared, answer};
use crate::guard::address::network_of;
use crate::guard::auth::Auth;
use crate::guard::rate_limit::{Limits, PARTS};
use crate::metrics::{Counters, RouteTable};
use crate::problem::{OVERLOADED, Problem, QUOTA_EXCEEDED, TIMEOUT};
use crate::router::{self, Surface};
use crate::settings::{Role, Settings};

/// Cancelled when the edge is to close.
pub type ShutdownSignal = CancellationToken;

/// How often rate limits forget who is below them, in one of their parts: each has its turn once a second.
const FORGET_EVERY: Duration = Duration::from_millis(1_000 / PARTS as u64);
/// Connections that the kernel keeps for us until we accept them.
const BACKLOG_CONNECTIONS: i32 = 4_096;
/// Tasks that are polled before the kernel is asked for events again, if any are left.
const EVENT_INTERVAL: u32 = 1_024;
/// Events that the kernel is asked for at once. What a connection has in memory is needed twice, for its request and for
/// its answer; with fewer connections in between, more of it is still in the cache (decision 17).
const EVENTS_MAX: usize = 128;
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the edge did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: is another process using the port? Choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operating system gave no thread or no event queue.
    #[error("cannot start a serving thread")]
    Thread {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A serving thread panicked.
    #[error("a serving thread stopped unexpectedly; this is a bug")]
    Panicked,
    /// The engine stopped: a commit failed, so it no longer knows what is on disk.
    #[error(
        "the engine stopped because the log could not be written; look at the disk and start again: the log says what \
         was accepted, and whoever asks again with the same key gets the same answer"
    )]
    EngineStopped,
    /// A setting is impossible.
    #[error("{what}")]
    Settings {
        /// Which, why, and what to do.
        what: &'static str,
    },
}

/// Serves HTTP until `shutdown`; blocks. `on_ready` gets the address once connections are accepted. Returns when the
/// last connection is done, at most `drain_delay` and `drain_timeout` after `shutdown`, or after the engine stopped by
/// itself. The engine stays open.
///
/// # Errors
/// See [`ServeError`]; nothing is served if an address is taken or a setting is impossible.
pub fn serve(
    engine: Engine,
    settings: Settings,
    on_ready: impl FnOnce(SocketAddr),
    shutdown: ShutdownSignal,
) -> Result<(), ServeError> {
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let (address, listeners) = listen_on_every_core(settings.listen, threads)?;
    let admin_listener = settings
        .admin_listen
        .map(|address| bind(address, Sharing::No).map_err(|source| ServeError::Listen { address, source }));
    let admin_listener = admin_listener.transpose()?;
    let (shared, routes) = share(settings, threads, shutdown)?;
    let running = start_cores(&engine, &shared, &routes, listeners, admin_listener)?;
    on_ready(address);
    let mut result = Ok(());
    for thread in running {
        let ended = thread.join().unwrap_or(Err(ServeError::Panicked));
        result = result.and(ended);
    }
    match engine.state() {
        EngineState::Failed => Err(ServeError::EngineStopped),
        _ => result,
    }
}

/// What all cores share, and the routes that each gives to its own.
fn share(
    settings: Settings,
    threads: usize,
    shutdown: ShutdownSignal,
) -> Result<(Arc<Shared>, router::Routes), ServeError> {
    let limits = Limits::new(&settings.rate_limits).ok_or(ServeError::Settings {
        what: "a rate limit of 0 requests or 0 seconds lets nobody in; remove it or give it numbers from 1",
    })?;
    let (routes, document) = router::describe();
    let table = RouteTable::new(&document);
    let shared = Shared {
        auth: Auth::new(&settings),
        limits,
        shutdown,
        started: Instant::now(),
        counters: (0..threads).map(|_| Arc::new(Counters::new(&table))).collect(),
        routes: table,
        connections: AtomicUsize::new(0),
        connections_by_address: Mutex::new(HashMap::new()),
        openapi: crate::openapi::to_json(&document),
        settings,
    };
    Ok((Arc::new(shared), routes))
}

type Running = Vec<std::thread::JoinHandle<Result<(), ServeError>>>;

fn start_cores(
    engine: &Engine,
    shared: &Arc<Shared>,
    routes: &router::Routes,
    listeners: Vec<std::net::TcpListener>,
    mut admin_listener: Option<std::net::TcpListener>,
) -> Result<Running, ServeError> {
    let mut running = Vec::with_capacity(listeners.len());
    for ((number, listener), counters) in listeners.into_iter().enumerate().zip(&shared.counters) {
        let start = CoreStart {
            number,
            shared: Arc::clone(shared),
            counters: Arc::clone(counters),
            engine: engine.clone(),
            listener,
            admin_listener: admin_listener.take(),
            routes: routes.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("http-{number}")).spawn(move || start.run());
        match thread {
            Ok(thread) => running.push(thread),
            Err(source) => {
                shared.shutdown.cancel();
                return Err(ServeError::Thread { source });
            }
        }
    }
    Ok(running)
}

fn listen_on_every_core(
    address: SocketAddr,
    threads: usize,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), ServeError> {
    let fail = |source| ServeError::Listen { address, source };
    // SO_REUSEPORT lets two servers share a port in silence, so first make sure that nobody has it.
    drop(bind(address, Sharing::No).map_err(fail)?);
    let first = bind(address, Sharing::Yes).map_err(fail)?;
    // Port 0 becomes a real one with the first listener; the others join it.
    let address = first.local_addr().map_err(fail)?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(bind(address, Sharing::Yes).map_err(fail)?);
    }
    Ok((address, listeners))
}

/// Whether several listeners may have the same port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    No,
    Yes,
}

fn bind(address: SocketAddr, sharing: Sharing) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::Yes)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG_CONNECTIONS)?;
    Ok(socket.into())
}

/// What a core's thread begins with.
struct CoreStart {
    number: usize,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    engine: Engine,
    listener: std::net::TcpListener,
    admin_listener: Option<std::net::TcpListener>,
    routes: router::Routes,
}

impl CoreStart {
    fn run(self) -> Result<(), ServeError> {
        // One core less would serve worse in silence: whatever ends one, ends all.
        let _ends_all = self.shared.shutdown.clone().drop_guard();
        let runtime = tokio::runtime::Builder::new_current_thread()
            // Turns are long where many connections are busy: asking the kernel for more in the middle of one only
            // makes the batches for the writer smaller.
            .event_interval(EVENT_INTERVAL)
            .max_io_events_per_tick(EVENTS_MAX)
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(|source| ServeError::Thread { source })?;
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> Result<(), ServeError> {
        let (engine, lane) = self.engine.with_own_lane();
        drop(self.engine);
        tokio::task::spawn_local(lane.run());
        let core = Arc::new(Core::new(Arc::clone(&self.shared), engine, self.counters));
        let open = Rc::new(Open::default());
        let surface = match (self.shared.settings.role, self.shared.settings.admin_listen) {
            (Role::Worker, _) => Surface::Worker,
            (Role::Shop, None) => Surface::Everything,
            (Role::Shop, Some(_)) => Surface::Buyers,
        };
        let sweep = tokio::task::spawn_local(sweep(Arc::clone(&core), Rc::clone(&open)));
        if self.number == 0 {
            tokio::task::spawn_local(forget_regularly(Arc::clone(&self.shared)));
        }
        if let Some(admin_listener) = self.admin_listener {
            let front = front(&core, &self.routes, Surface::Everything);
            let listener = to_tokio(admin_listener)?;
            tokio::task::spawn_local(accept(listener, front, Rc::clone(&open)));
        }
        let front = front(&core, &self.routes, surface);
        accept(to_tokio(self.listener)?, front, Rc::clone(&open)).await;
        core.close();
        drain(&open, self.shared.settings.drain_timeout).await;
        sweep.abort();
        Ok(())
    }
}

fn front(core: &Arc<Core>, routes: &router::Routes, surface: Surface) -> Rc<Front> {
    Rc::new(Front { core: Arc::clone(core), router: router::for_core(routes, surface, core) })
}

fn to_tokio(listener: std::net::TcpListener) -> Result<TcpListener, ServeError> {
    TcpListener::from_std(listener).map_err(|source| ServeError::Thread { source })
}

/// The open connections of one core.
#[derive(Default)]
struct Open {
    conns: RefCell<HashMap<u64, Arc<Conn>>>,
    next: Cell<u64>,
}

impl Open {
    fn add(&self, conn: Arc<Conn>) -> u64 {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        self.conns.borrow_mut().insert(number, conn);
        number
    }
}

async fn accept(listener: TcpListener, front: Rc<Front>, open: Rc<Open>) {
    let mut is_over = pin!(end_of_accepting(&front.core));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut is_over => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => welcome(tcp, peer.ip(), &front, &open),
            Err(error) => {
                // Out of descriptors, or the client left the queue again. Neither is a reason to stop serving.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The shutdown, and then the time in which `/readyz` tells load balancers to send nobody here any more.
async fn end_of_accepting(core: &Core) {
    core.shared.shutdown.cancelled().await;
    let delay = core.shared.settings.drain_delay;
    // A stopped engine sells nothing, and the sooner the process ends, the sooner it is started again. Without a delay
    // nothing is waited for, so that those whose wait ends with the shutdown are told that their connection does too.
    if !delay.is_zero() && core.engine.state() != EngineState::Failed {
        tokio::time::sleep(delay).await;
    }
}

/// Starts serving a connection, or says why not.
fn welcome(tcp: TcpStream, peer: IpAddr, front: &Rc<Front>, open: &Rc<Open>) {
    let core = &front.core;
    let place = match Place::take(&core.shared, peer) {
        Ok(place) => place,
        Err(problem) => {
            // Best effort: the connection ends here anyway.
            let _ = tcp.try_write(&whole_answer(core, problem));
            return;
        }
    };
    // Answers are small and whole: waiting to merge them with later ones only delays them.
    let _ = tcp.set_nodelay(true);
    let conn = Arc::new(Conn::new(Arc::clone(core), peer));
    let number = open.add(Arc::clone(&conn));
    let (front, open) = (Rc::clone(front), Rc::clone(open));
    tokio::task::spawn_local(async move {
        let _place = place;
        serve_connection(tcp, conn, front).await;
        open.conns.borrow_mut().remove(&number);
    });
}

async fn serve_connection(tcp: TcpStream, conn: Arc<Conn>, front: Rc<Front>) {
    let settings = &conn.core.shared.settings;
    let service = service_fn(|request| {
        let (front, conn) = (Rc::clone(&front), Arc::clone(&conn));
        async move { Ok::<_, Infallible>(answer(&front, conn, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(settings.headers_max)
        .max_header_size(settings.header_bytes_max)
        .max_buf_size(settings.header_bytes_max.max(8_192))
        .half_close(false)
        // With it on, answers that precede a malformed request would never be sent.
        .pipeline_flush(false);
    let stream = Stream::new(tcp, Arc::clone(&conn));
    let mut connection = builder.serve_connection(stream, service);
    // Not the task's own: see `body::read`.
    let waker = Waker::from(Arc::clone(&conn));
    let mut is_told_to_close = false;
    let is_ended = poll_fn(|cx| {
        conn.register(cx.waker());
        if conn.is_ended.load(Ordering::Relaxed) {
            return Poll::Ready(true);
        }
        if !is_told_to_close && conn.core.is_closing() {
            is_told_to_close = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        // The only errors are the client's: it left, or sent what is not HTTP and was told so.
        Pin::new(&mut connection).poll(&mut Context::from_waker(&waker)).map(|_| false)
    })
    .await;
    if is_ended && conn.is_in(Phase::Head) {
        let head_is_late = Problem::new(&TIMEOUT, "The head of the request did not arrive in time.");
        connection.into_parts().io.send_last_words(head_is_late);
    }
}

/// A place among the open connections; given back when dropped.
struct Place {
    shared: Arc<Shared>,
    network: Option<IpAddr>,
}

impl Place {
    fn take(shared: &Arc<Shared>, peer: IpAddr) -> Result<Self, Problem> {
        let settings = &shared.settings;
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= settings.connections_max {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            let problem = Problem::new(&OVERLOADED, "Too many connections are open; nothing happened.");
            return Err(problem.with_retry_after(1).with_outcome("none"));
        }
        let mut place = Self { shared: Arc::clone(shared), network: None };
        let Some(connections_max) = settings.connections_per_address_max else {
            return Ok(place);
        };
        let network = network_of(peer);
        let mut counts = shared.connections_by_address.lock();
        let count = counts.entry(network).or_insert(0);
        if *count >= connections_max {
            drop(counts);
            let problem =
                Problem::new(&QUOTA_EXCEEDED, "Too many connections from this address; nothing happened.");
            return Err(problem.with_retry_after(1));
        }
        *count += 1;
        place.network = Some(network);
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = self.network else { return };
        let mut counts = self.shared.connections_by_address.lock();
        if let Some(count) = counts.get_mut(&network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&network);
            }
        }
    }
}

/// Moves the core's clock and ends what took too long.
async fn sweep(core: Arc<Core>, open: Rc<Open>) {
    let settings = &core.shared.settings;
    let shortest =
        [settings.header_read_timeout, settings.body_timeout, settings.idle_timeout, settings.write_timeout]
            .into_iter()
            .min()
            .unwrap_or(Duration::from_secs(1));
    let every = (shortest / 8).clamp(Duration::from_millis(10), Duration::from_millis(250));
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        core.set_now(core.shared.started.elapsed());
        if core.engine.state() == EngineState::Failed {
            // Nothing can be sold any more. A supervisor's restart reads the log and goes on.
            core.shared.shutdown.cancel();
        }
        for conn in open.conns.borrow().values() {
            conn.sweep(core.now_ms());
        }
    }
}

/// Rate limits forget who is below them. One core does it for all.
async fn forget_regularly(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(FORGET_EVERY);
    // A core that was busy for a second owes one call, not sixteen.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.limits.forget();
    }
}

/// Tells every connection to finish, and waits for it.
async fn drain(open: &Open, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    loop {
        for conn in open.conns.borrow().values() {
            conn.wake_task();
        }
        let count = open.conns.borrow().len();
        if count == 0 {
            return;
        }
        if Instant::now() >= deadline {
            tracing::warn!(connections = count, "closing connections that did not finish in time");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
