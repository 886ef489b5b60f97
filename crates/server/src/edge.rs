//! What happens to every request: the short way for purchases, the router for everything else, and the headers,
//! metrics and log line that all answers share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use yoink_engine::{CallError, Durability, Engine};

use crate::api::purchase;
use crate::body::{self, Body, StreamGuard};
use crate::connection::{Conn, Phase};
use crate::guard::address::client_address;
use crate::guard::auth::Auth;
use crate::guard::rate_limit::Limits;
use crate::metrics::{Counters, RouteTable, Slot};
use crate::problem::{self, Problem};
use crate::request::{ClientAddress, REQUEST_ID, RequestId, RequestIds, TRACEPARENT, Trace};
use crate::router::RouteTemplate;
use crate::settings::{RequestLog, Role, Settings};

/// What all cores share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) auth: Auth,
    pub(crate) limits: Limits,
    pub(crate) shutdown: CancellationToken,
    pub(crate) started: Instant,
    pub(crate) routes: RouteTable,
    /// The counters of every core.
    pub(crate) counters: Vec<Arc<Counters>>,
    pub(crate) connections: AtomicUsize,
    pub(crate) connections_by_address: Mutex<HashMap<IpAddr, usize>>,
    pub(crate) openapi: Bytes,
}

/// What one core has for itself. It is the router's state.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Engine,
    pub(crate) counters: Arc<Counters>,
    pub(crate) ids: RequestIds,
    pub(crate) in_flight: AtomicU32,
    pub(crate) in_flight_max: u32,
    /// Whether every answer is to say that orders may be forgotten.
    is_relaxed: bool,
    now_ms: AtomicU64,
    is_closing: AtomicBool,
}

impl Core {
    pub(crate) fn new(shared: Arc<Shared>, engine: Engine, counters: Arc<Counters>) -> Self {
        let per_core = shared.settings.in_flight_max.div_ceil(shared.counters.len().max(1));
        Self {
            is_relaxed: engine.durability() == Durability::Relaxed,
            engine,
            counters,
            ids: RequestIds::new(),
            in_flight: AtomicU32::new(0),
            in_flight_max: u32::try_from(per_core).unwrap_or(u32::MAX),
            now_ms: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            shared,
        }
    }

    /// The core's coarse clock, as of the last sweep.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_now(&self, since_start: Duration) {
        let now_ms = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Whether connections are to finish. Asked at every turn of every connection, so it takes no lock.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// The engine's "no" as a problem.
    pub(crate) fn problem(&self, error: CallError) -> Problem {
        problem::from_call_error(error, self.engine.now())
    }
}

/// A listener's way in: its core and its routes.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) core: Arc<Core>,
    pub(crate) router: Router,
}

/// Counts a request while it is being answered.
struct InFlight<'a>(&'a AtomicU32);

impl<'a> InFlight<'a> {
    /// `None` if there are too many already. One thread counts, so a load and a store will do.
    fn enter(core: &'a Core) -> Option<Self> {
        let count = core.in_flight.load(Ordering::Relaxed);
        if count >= core.in_flight_max {
            return None;
        }
        core.in_flight.store(count + 1, Ordering::Relaxed);
        Some(Self(&core.in_flight))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let count = self.0.load(Ordering::Relaxed);
        self.0.store(count.saturating_sub(1), Ordering::Relaxed);
    }
}

/// Answers one request.
pub(crate) async fn answer(front: &Front, conn: Arc<Conn>, request: Request<Incoming>) -> Response<Body> {
    let core = &*front.core;
    let started = Instant::now();
    conn.begin_call();
    let id = core.ids.next();
    let (head, body) = request.into_parts();
    let trace = match head.headers.contains_key(TRACEPARENT) {
        true => Trace::continued(&head.headers, id),
        false => None,
    };
    let method = head.method.clone();
    // Where a body in chunks ends only hyper knows, so `HeadWatch` cannot look at what would follow it. A body that is too
    // large is not read, so nothing can follow it either.
    let body_bytes_max = core.shared.settings.body_bytes_max as u64;
    let is_last = body.size_hint().exact().is_none_or(|bytes| bytes > body_bytes_max);
    let answered = AssertUnwindSafe(dispatch(front, &conn, head, body)).catch_unwind().await;
    let (slot, mut response) = answered.unwrap_or_else(|_| {
        tracing::error!(request_id = %id, "a handler panicked; this is a bug");
        let problem = Problem::new(&problem::INTERNAL, "This is our mistake; it was written down.");
        (Slot::UNMATCHED, from_problem(problem))
    });
    if !matches!(response.body(), Body::Boxed(_, Some(_))) {
        conn.enter(Phase::Idle);
    }
    put_standard_headers(core, response.headers_mut(), id, trace.as_ref());
    if is_last {
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    let elapsed = started.elapsed();
    core.counters.observe(slot, response.status(), elapsed);
    if core.shared.settings.request_log == RequestLog::On && tracing::enabled!(tracing::Level::DEBUG) {
        log_request(core, &method, slot, &response, (id, trace.as_ref()), elapsed);
    }
    response
}

async fn dispatch(front: &Front, conn: &Arc<Conn>, head: Parts, body: Incoming) -> (Slot, Response<Body>) {
    let core = &*front.core;
    let Some(_in_flight) = InFlight::enter(core) else {
        return (Slot::UNMATCHED, overloaded());
    };
    if let Some(problem) = check_head(&head) {
        let mut response = from_problem(problem);
        response.headers_mut().insert(header::CONNECTION, CLOSE);
        return (Slot::UNMATCHED, response);
    }
    if is_purchase(&head) && core.shared.settings.role == Role::Shop {
        let response = purchase::answer(core, conn, head, body).await;
        return (core.shared.routes.purchase(), response);
    }
    // Boxed, so that a connection does not reserve room for the largest handler there is.
    Box::pin(route(front, conn, head, body)).await
}

fn is_purchase(head: &Parts) -> bool {
    head.method == Method::POST && head.uri.path() == "/v1/orders"
}

fn overloaded() -> Response<Body> {
    from_problem(
        Problem::new(&problem::OVERLOADED, "Too many requests are being answered; nothing happened.")
            .with_retry_after(1)
            .with_outcome("none"),
    )
}

fn check_head(head: &Parts) -> Option<Problem> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) {
        return Some(Problem::field("", "Host: send it once"));
    }
    None
}

/// Everything but purchases.
async fn route(front: &Front, conn: &Arc<Conn>, head: Parts, body: Incoming) -> (Slot, Response<Body>) {
    let core = &front.core;
    let settings = &core.shared.settings;
    let method = head.method.clone();
    let has_body = !matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
    let bytes = match has_body {
        true => body::read(conn, body, settings.body_bytes_max).await,
        false => Ok(Bytes::new()),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(problem) => return (Slot::UNMATCHED, from_problem(problem)),
    };
    let mut request = Request::from_parts(head, axum::body::Body::from(bytes));
    let address = client_address(conn.peer, request.headers(), &settings.trusted_proxies);
    request.extensions_mut().insert(ClientAddress(address));
    let Ok(response) = front.router.clone().oneshot(request).await;
    let template = response.extensions().get::<RouteTemplate>();
    let slot = core.shared.routes.slot(&method, template.map(RouteTemplate::as_str));
    (slot, from_router(conn, response))
}

/// Gives the router's answer our body, and a problem where axum only has a status.
fn from_router(conn: &Arc<Conn>, response: axum::response::Response) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if parts.status == http::StatusCode::METHOD_NOT_ALLOWED {
        let allow = parts.headers.remove(header::ALLOW).unwrap_or(HeaderValue::from_static(""));
        let detail = format!("This path allows {}.", allow.to_str().unwrap_or_default());
        let problem = Problem::new(&problem::METHOD_NOT_ALLOWED, detail);
        return from_problem(problem.with_header(header::ALLOW, allow));
    }
    let is_stream = body.size_hint().exact().is_none();
    let guard = is_stream.then(|| {
        conn.enter(Phase::Streaming);
        StreamGuard(Arc::clone(conn))
    });
    // hyper sets it, and refuses a second one.
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::Boxed(body, guard))
}

/// A problem as an answer, without the headers that every answer has.
pub(crate) fn from_problem(problem: Problem) -> Response<Body> {
    let (status, body, headers) = problem.into_parts();
    let mut response = Response::new(Body::Fixed(Some(body)));
    *response.status_mut() = status;
    response.headers_mut().reserve(headers.len() + 6);
    for (name, value) in headers {
        response.headers_mut().insert(name, value);
    }
    response
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CONTENT_SECURITY_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// In the answers of a server whose operator said that orders may be forgotten, and of no other.
const DURABILITY: HeaderName = HeaderName::from_static("durability");
const RELAXED: HeaderValue = HeaderValue::from_static("relaxed");

fn put_standard_headers(core: &Core, headers: &mut HeaderMap, id: RequestId, trace: Option<&Trace>) {
    headers.insert(REQUEST_ID, id.to_value());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(CONTENT_SECURITY_POLICY);
    if core.is_relaxed {
        headers.insert(DURABILITY, RELAXED);
    }
    if let Some(trace) = trace {
        headers.insert(TRACEPARENT, trace.to_value());
    }
}

/// The same, for an answer that is written by hand.
pub(crate) fn put_standard_head(core: &Core, bytes: &mut BytesMut) {
    let mut headers = HeaderMap::new();
    put_standard_headers(core, &mut headers, core.ids.next(), None);
    for (name, value) in &headers {
        bytes.put_slice(b"\r\n");
        bytes.put_slice(name.as_str().as_bytes());
        bytes.put_slice(b": ");
        bytes.put_slice(value.as_bytes());
    }
}

fn log_request(
    core: &Core,
    method: &Method,
    slot: Slot,
    response: &Response<Body>,
    (id, trace): (RequestId, Option<&Trace>),
    elapsed: Duration,
) {
    let (_, route) = core.shared.routes.labels(slot);
    tracing::debug!(
        method = method.as_str(),
        route,
        status = response.status().as_u16(),
        duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        request_id = %id,
        trace_id = trace.map(|trace| trace.id.as_str()),
        "answered"
    );
}
