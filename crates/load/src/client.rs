//! One HTTP/1.1 connection of one buyer: kept alive, reopened when it is gone, driven by the buyer's own task.
//!
//! Nothing is pooled, redirected or retried behind the measurement's back. The connection's machinery is polled
//! together with the request instead of in a task of its own, which saves two wake-ups per request.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// More than any answer of a shop; an endless body must not fill the memory.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A request as the storm sends it.
pub(crate) type StormRequest = Request<Full<Bytes>>;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The request was never sent.
    #[error("could not connect")]
    Connect(#[source] io::Error),
    /// The request may have been acted on.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The request may have been acted on.
    #[error("the connection was closed before the answer was complete")]
    Closed,
    /// The answer was not HTTP, or larger than any answer should be.
    #[error("the answer was not understood")]
    Protocol,
}

/// A buyer's connection.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    timeout: Duration,
    open: Option<OpenConnection>,
    /// Set from the moment at which the server may have seen the current request.
    may_have_arrived: bool,
}

impl Client {
    /// A client that will connect when it is first used.
    pub(crate) fn new(address: SocketAddr, timeout: Duration) -> Client {
        Client { address, timeout, open: None, may_have_arrived: false }
    }

    /// Connects now, so that the first request need not.
    ///
    /// # Errors
    /// What the operating system says, or that the time-out passed.
    pub(crate) async fn connect(&mut self) -> Result<(), SendError> {
        let connecting = OpenConnection::connect(self.address);
        let connected = tokio::time::timeout(self.timeout, connecting).await;
        self.open = Some(connected.unwrap_or_else(|_| Err(timed_out()))?);
        Ok(())
    }

    /// Sends one request and waits for the whole answer.
    ///
    /// # Errors
    /// [`SendError`]; only `Connect` means that the server can't have seen the request. The connection is dropped on
    /// any error, and the next request opens another.
    pub(crate) async fn send(&mut self, request: StormRequest) -> Result<Answer, SendError> {
        self.may_have_arrived = false;
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, self.send_without_limit(request)).await {
            Ok(result) => result,
            Err(_) if self.may_have_arrived => Err(SendError::Timeout(timeout)),
            Err(_) => Err(timed_out()),
        }
    }

    async fn send_without_limit(&mut self, mut request: StormRequest) -> Result<Answer, SendError> {
        // Taken out, so that an abandoned request takes its connection with it.
        if let Some(mut kept) = self.open.take() {
            self.may_have_arrived = true;
            match kept.exchange(request).await {
                Ok(answer) => {
                    self.open = kept.if_alive();
                    return Ok(answer);
                }
                // The server closed the idle connection: nothing was sent, so a new one is no hidden retry.
                Err(ExchangeError::NotSent(back)) => request = *back,
                Err(ExchangeError::Failed(error)) => return Err(error),
            }
            self.may_have_arrived = false;
        }
        let mut fresh = OpenConnection::connect(self.address).await?;
        self.may_have_arrived = true;
        match fresh.exchange(request).await {
            Ok(answer) => {
                self.open = fresh.if_alive();
                Ok(answer)
            }
            Err(ExchangeError::NotSent(_)) => Err(SendError::Connect(io::ErrorKind::ConnectionReset.into())),
            Err(ExchangeError::Failed(error)) => Err(error),
        }
    }
}

fn timed_out() -> SendError {
    SendError::Connect(io::ErrorKind::TimedOut.into())
}

enum ExchangeError {
    /// Handed back because not a byte of it was sent.
    NotSent(Box<StormRequest>),
    Failed(SendError),
}

/// The machinery that reads and writes.
type StormConnection = Connection<TokioIo<TcpStream>, Full<Bytes>>;

struct OpenConnection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` when it has ended.
    connection: Option<Pin<Box<StormConnection>>>,
}

impl std::fmt::Debug for OpenConnection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OpenConnection")
            .field("ended", &self.connection.is_none())
            .finish_non_exhaustive()
    }
}

impl OpenConnection {
    async fn connect(address: SocketAddr) -> Result<OpenConnection, SendError> {
        let stream = TcpStream::connect(address).await.map_err(SendError::Connect)?;
        stream.set_nodelay(true).map_err(SendError::Connect)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| SendError::Protocol)?;
        Ok(OpenConnection { sender, connection: Some(Box::pin(connection)) })
    }

    fn if_alive(self) -> Option<OpenConnection> {
        (self.connection.is_some() && !self.sender.is_closed()).then_some(self)
    }

    /// Lets the connection read and write what it can. Its result is of no interest: the request's own future gets it.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(context).is_ready()
        {
            // IMPORTANT: dropped as soon as it has ended, because a request that is still queued within it is only
            // then told so. Kept, it would let that request wait for its whole time-out.
            self.connection = None;
        }
    }

    async fn exchange(&mut self, request: StormRequest) -> Result<Answer, ExchangeError> {
        let ready = poll_fn(|context| {
            self.drive(context);
            self.sender.poll_ready(context)
        });
        if ready.await.is_err() {
            return Err(ExchangeError::NotSent(Box::new(request)));
        }
        let mut response = pin!(self.sender.try_send_request(request));
        let response = poll_fn(|context| {
            self.drive(context);
            response.as_mut().poll(context)
        });
        let response = response.await.map_err(|mut failed| match failed.take_message() {
            Some(request) => ExchangeError::NotSent(Box::new(request)),
            None => ExchangeError::Failed(reason(failed.error())),
        })?;
        let (parts, body) = response.into_parts();
        let body = self.read_body(body).await.map_err(ExchangeError::Failed)?;
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    async fn read_body(&mut self, mut body: Incoming) -> Result<Bytes, SendError> {
        let mut whole = Bytes::new();
        while !body.is_end_stream() {
            let frame = poll_fn(|context| {
                // Asking first tells the connection that the body is wanted.
                if let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(context) {
                    return Poll::Ready(frame);
                }
                self.drive(context);
                Pin::new(&mut body).poll_frame(context)
            });
            let Some(frame) = frame.await else { break };
            let Ok(data) = frame.map_err(|error| reason(&error))?.into_data() else {
                continue;
            };
            whole = append(whole, data);
            if whole.len() > BODY_BYTES_MAX {
                return Err(SendError::Protocol);
            }
        }
        Ok(whole)
    }
}

/// Almost every answer is one piece, and then nothing is copied.
fn append(whole: Bytes, data: Bytes) -> Bytes {
    if whole.is_empty() {
        return data;
    }
    let mut joined = BytesMut::from(whole);
    joined.extend_from_slice(&data);
    joined.freeze()
}

fn reason(error: &hyper::Error) -> SendError {
    if error.is_parse() || error.is_user() { SendError::Protocol } else { SendError::Closed }
}
