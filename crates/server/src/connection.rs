//! One client connection: its phase and deadlines, and the stream under hyper.
//!
//! No timer is set per request. Each connection notes which phase it is in since when, on its core's coarse clock, and
//! one sweep per core a few times a second ends those that took too long.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use hyper::rt::{ReadBufCursor, Write as _};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;

use crate::edge::{Core, put_standard_head};
use crate::guard::framing::HeadWatch;
use crate::problem::{HEADERS_TOO_LARGE, Problem, URI_TOO_LONG};

/// The most that one read takes from the operating system: nearly always a whole request.
const READ_BYTES_MAX: usize = 8_192;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Waiting for the next request.
    Idle = 0,
    /// Part of a request's head has arrived.
    Head = 1,
    /// Its body is being read.
    Body = 2,
    /// It is being answered.
    Busy = 3,
    /// The answer is a stream.
    Streaming = 4,
}

/// What the edge keeps about a connection. Only its core's thread changes it, so plain loads and stores do.
pub(crate) struct Conn {
    pub(crate) core: Arc<Core>,
    pub(crate) peer: IpAddr,
    phase: AtomicU8,
    /// On the core's clock.
    since_ms: AtomicU64,
    /// A write is waiting for the client to read.
    is_write_blocked: AtomicBool,
    write_since_ms: AtomicU64,
    /// Requests that reached the service since everything was flushed last.
    calls_since_flush: AtomicU32,
    is_body_late: AtomicBool,
    pub(crate) is_ended: AtomicBool,
    waker: AtomicWaker,
}

impl Conn {
    pub(crate) fn new(core: Arc<Core>, peer: IpAddr) -> Self {
        let now_ms = core.now_ms();
        Self {
            core,
            peer,
            phase: AtomicU8::new(Phase::Idle as u8),
            since_ms: AtomicU64::new(now_ms),
            is_write_blocked: AtomicBool::new(false),
            write_since_ms: AtomicU64::new(now_ms),
            calls_since_flush: AtomicU32::new(0),
            is_body_late: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Begins a phase; its deadline counts from now.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since_ms.store(self.core.now_ms(), Ordering::Relaxed);
    }

    /// A request has reached the service.
    pub(crate) fn begin_call(&self) {
        let calls = self.calls_since_flush.load(Ordering::Relaxed);
        self.calls_since_flush.store(calls.saturating_add(1), Ordering::Relaxed);
        self.enter(Phase::Busy);
    }

    pub(crate) fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    pub(crate) fn body_is_late(&self) -> bool {
        self.is_body_late.load(Ordering::Relaxed)
    }

    /// Remembers the connection's task, so that a sweep or the shutdown can wake it.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn wake_task(&self) {
        self.waker.wake();
    }

    /// Ends the phase that took too long. Called by the sweep.
    pub(crate) fn sweep(&self, now_ms: u64) {
        let settings = &self.core.shared.settings;
        let is_over = |since_ms: &AtomicU64, limit: Duration| {
            u128::from(now_ms.saturating_sub(since_ms.load(Ordering::Relaxed))) > limit.as_millis()
        };
        let is_writing = self.is_write_blocked.load(Ordering::Relaxed);
        let is_write_late = is_writing && is_over(&self.write_since_ms, settings.write_timeout);
        let is_head_late =
            (self.is_in(Phase::Idle) && !is_writing && is_over(&self.since_ms, settings.idle_timeout))
                || (self.is_in(Phase::Head) && is_over(&self.since_ms, settings.header_read_timeout));
        if is_write_late || is_head_late {
            self.is_ended.store(true, Ordering::Relaxed);
            self.wake_task();
        } else if self.is_in(Phase::Body) && is_over(&self.since_ms, settings.body_timeout) {
            self.is_body_late.store(true, Ordering::Relaxed);
            self.wake_task();
        }
    }
}

/// What hyper wakes is this, and through it the connection's task.
impl Wake for Conn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match HELD.get() {
            Held::No => self.waker.wake(),
            Held::Quiet | Held::Woken => HELD.set(Held::Woken),
        }
    }
}

/// Whether this thread holds wakes back, and whether one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    No,
    Quiet,
    Woken,
}

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held::No) };
}

/// Holds back what wakes connections on this thread during `work`, which must not touch any connection but its own;
/// says whether anything did. Wakes from other threads are not held back.
pub(crate) fn hold_wakes<T>(work: impl FnOnce() -> T) -> (T, bool) {
    /// Ends also where `work` panics.
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            HELD.set(Held::No);
        }
    }

    let _end = End;
    HELD.set(Held::Quiet);
    let done = work();
    (done, HELD.get() == Held::Woken)
}

/// The TCP stream as hyper sees it.
pub(crate) struct Stream {
    tcp: TokioIo<TcpStream>,
    conn: Arc<Conn>,
    heads: HeadWatch,
    /// What is sent instead of hyper's own answer to a head that it could not read.
    instead: Option<Bytes>,
}

impl Stream {
    pub(crate) fn new(tcp: TcpStream, conn: Arc<Conn>) -> Self {
        Self { tcp: TokioIo::new(tcp), conn, heads: HeadWatch::default(), instead: None }
    }

    /// Sends what fits at once, for a connection that is about to be closed.
    pub(crate) fn send_last_words(&self, problem: Problem) {
        // Best effort: the client may be gone.
        let _ = self.tcp.inner().try_write(&whole_answer(&self.conn.core, problem));
    }

    fn note_progress(&self) {
        self.conn.is_write_blocked.store(false, Ordering::Relaxed);
    }

    fn poll_write_to_tcp(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        if result.is_ready() {
            self.note_progress();
        } else if !self.conn.is_write_blocked.swap(true, Ordering::Relaxed) {
            let now_ms = self.conn.core.now_ms();
            self.conn.write_since_ms.store(now_ms, Ordering::Relaxed);
        }
        result
    }

    /// hyper answers a head that it cannot read by itself, without a body. Ours says what is wrong.
    fn replacement(&self, bytes: &[u8]) -> Option<Bytes> {
        if self.conn.calls_since_flush.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let status = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
        let problem = match status {
            b"400" => {
                let complaint = self.heads.complaint();
                Problem::field("", complaint.unwrap_or("the request line or a header is malformed"))
            }
            b"414" => Problem::new(&URI_TOO_LONG, "Ask for a shorter address."),
            b"431" => Problem::new(&HEADERS_TOO_LARGE, "Send fewer or shorter headers."),
            _ => return None,
        };
        Some(whole_answer(&self.conn.core, problem))
    }
}

/// A problem as the bytes of a last answer.
pub(crate) fn whole_answer(core: &Core, problem: Problem) -> Bytes {
    let (status, body, headers) = problem.into_parts();
    let mut bytes = BytesMut::with_capacity(512);
    bytes.put_slice(b"HTTP/1.1 ");
    bytes.put_slice(status.as_str().as_bytes());
    bytes.put_u8(b' ');
    bytes.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    bytes.put_slice(b"\r\nconnection: close\r\ncontent-length: ");
    bytes.put_slice(body.len().to_string().as_bytes());
    for (name, value) in &headers {
        bytes.put_slice(b"\r\n");
        bytes.put_slice(name.as_str().as_bytes());
        bytes.put_slice(b": ");
        bytes.put_slice(value.as_bytes());
    }
    put_standard_head(core, &mut bytes);
    bytes.put_slice(b"\r\n\r\n");
    bytes.put_slice(&body);
    bytes.freeze()
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Through a place of our own, because hyper's cannot be looked at without unsafe code. A request is small.
        let mut space = [MaybeUninit::uninit(); READ_BYTES_MAX];
        let wanted = space.get_mut(..cursor.remaining().min(READ_BYTES_MAX)).unwrap_or_default();
        let mut arrived = ReadBuf::uninit(wanted);
        ready!(Pin::new(this.tcp.inner_mut()).poll_read(cx, &mut arrived))?;
        this.heads.look(arrived.filled_mut());
        cursor.put_slice(arrived.filled());
        if this.conn.is_in(Phase::Idle) {
            this.conn.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.instead.is_none() {
            this.instead = this.replacement(bytes);
        }
        let Some(mut instead) = this.instead.take() else {
            return this.poll_write_to_tcp(cx, bytes);
        };
        while instead.has_remaining() {
            match this.poll_write_to_tcp(cx, &instead) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => instead.advance(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.instead = Some(instead);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TCP has nothing to flush. hyper asks when all is written, but also while a call is still being answered.
        if self.conn.is_in(Phase::Idle) || self.conn.is_in(Phase::Head) {
            self.conn.calls_since_flush.store(0, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
