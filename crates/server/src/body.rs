//! Bodies, in and out.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::connection::{Conn, Phase, hold_wakes};
use crate::problem::{Problem, TIMEOUT, TOO_LARGE};

/// The body of an answer: a fixed one costs no box.
pub(crate) enum Body {
    /// All of it; `None` once it was handed over.
    Fixed(Option<Bytes>),
    /// From the router: a stream, or a fixed one in axum's box. The guard tells the connection when it ends.
    Boxed(axum::body::Body, Option<StreamGuard>),
}

/// While this lives, the connection is busy with a stream and not idle.
pub(crate) struct StreamGuard(pub(crate) Arc<Conn>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Fixed(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Boxed(body, _) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Fixed(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Boxed(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Boxed(body, _) => body.size_hint(),
        }
    }
}

/// Takes the next piece of a body.
///
/// With every piece that is taken, hyper wakes the connection to read more of the body: behind the last one too, where
/// the connection would find nothing to do. At a thousand connections that is a thousand turns for nothing.
fn poll_piece(body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let (polled, is_woken) = hold_wakes(|| Pin::new(&mut *body).poll_frame(cx));
    if is_woken && !body.is_end_stream() {
        cx.waker().wake_by_ref();
    }
    polled
}

/// Reads a whole request body.
///
/// # Errors
/// 413 if it has, or announces, more than `bytes_max` bytes; 408 if the connection's time for bodies runs out; 400 if
/// it breaks off or its framing is wrong.
pub(crate) async fn read(conn: &Conn, mut body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(&TOO_LARGE, format!("A body may have at most {bytes_max} bytes."));
    if body.size_hint().exact().is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    conn.enter(Phase::Body);
    // Nearly every body comes in one piece, which is then passed on as it is.
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = poll_fn(|cx| {
            if conn.body_is_late() {
                return Poll::Ready(Err(()));
            }
            poll_piece(&mut body, cx).map(Ok)
        })
        .await
        .map_err(|()| Problem::new(&TIMEOUT, "The body did not arrive in time."))?;
        let data = match frame {
            None => break,
            Some(Err(_)) => return Err(Problem::field("", "the body broke off or is badly framed")),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        if first.len() + rest.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    conn.enter(Phase::Busy);
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}
