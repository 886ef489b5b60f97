//! What the edge knows about one request before anybody handles it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use yoink_core::IdempotencyKey;

use crate::problem::Problem;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The longest wait that `Prefer: wait=N` can ask for.
const WAIT_SECONDS_MAX: u64 = 30;

/// Makes request ids: unique in this process, unlike those of any other run.
#[derive(Debug)]
pub(crate) struct RequestIds {
    start: u64,
    count: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        // The second half of a version 7 UUID is random.
        let (_, start) = uuid::Uuid::now_v7().as_u64_pair();
        Self { start, count: AtomicU64::new(0) }
    }

    /// The next id. One thread makes them, so a load and a store will do.
    pub(crate) fn next(&self) -> RequestId {
        let count = self.count.load(Ordering::Relaxed).wrapping_add(1);
        self.count.store(count, Ordering::Relaxed);
        // An odd factor is a bijection on 64 bits, so ids never repeat; it spreads neighbours apart.
        RequestId(self.start.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

/// The id of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestId(u64);

impl RequestId {
    pub(crate) fn to_value(self) -> HeaderValue {
        let bytes = Bytes::copy_from_slice(&hex(self.0));
        HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn hex(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'0'; 16];
    for (place, digit) in text.iter_mut().rev().enumerate() {
        let index = (number >> (place * 4)) & 0xf;
        *digit = usize::try_from(index).ok().and_then(|index| DIGITS.get(index)).copied().unwrap_or(b'0');
    }
    text
}

/// The trace that a client is part of, continued with a span of ours.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// 32 hexadecimal digits.
    pub(crate) id: String,
    header: HeaderValue,
}

impl Trace {
    /// Continues a valid W3C `traceparent`; anything else is ignored, as the standard says.
    pub(crate) fn continued(headers: &HeaderMap, span: RequestId) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return None;
        };
        let text = value.to_str().ok()?;
        let mut parts = text.splitn(4, '-');
        let (version, id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
        let flags = flags.get(..2)?;
        let is_length_right = version != "00" || text.len() == 55;
        let is_valid = is_hex(version, 2)
            && version != "ff"
            && is_hex(id, 32)
            && !is_zero(id)
            && is_hex(parent, 16)
            && !is_zero(parent)
            && is_hex(flags, 2)
            && is_length_right;
        if !is_valid {
            return None;
        }
        let header = HeaderValue::from_str(&format!("00-{id}-{span}-{flags}")).ok()?;
        Some(Self { id: id.to_owned(), header })
    }

    pub(crate) fn to_value(&self) -> HeaderValue {
        self.header.clone()
    }
}

/// Where a request comes from. Made by the edge for every request that goes through the router.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// The `Idempotency-Key` of a request.
///
/// # Errors
/// 400 for more than one, or one that is not 1 to 255 visible ASCII characters.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::field("", "Idempotency-Key: send it once"));
    }
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Problem::field("", "Idempotency-Key: must be ASCII"))?;
    match IdempotencyKey::parse(text) {
        Ok(key) => Ok(Some(key)),
        Err(error) => Err(Problem::field("", format!("Idempotency-Key: {error}"))),
    }
}

/// How long `Prefer: wait=N` asks to wait. What is not understood is ignored (RFC 7240).
pub(crate) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    if !headers.contains_key(PREFER) {
        return None;
    }
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|preference| {
            let (name, seconds) = preference.split(';').next()?.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("wait") {
                return None;
            }
            seconds.trim().trim_matches('"').parse::<u64>().ok()
        })
        .next()
        .filter(|seconds| *seconds <= WAIT_SECONDS_MAX)
        .map(Duration::from_secs)
}

/// `Preference-Applied` for a wait that was kept.
pub(crate) fn preference_applied(wait: Duration) -> HeaderValue {
    let mut text = BytesMut::with_capacity(8);
    // Writing to a buffer that grows cannot fail.
    let _ = write!(text, "wait={}", wait.as_secs());
    HeaderValue::from_maybe_shared(text.freeze()).unwrap_or_else(|_| HeaderValue::from_static("wait"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn request_ids_are_sixteen_digits_and_differ() {
        let ids = RequestIds::new();
        let (first, second) = (ids.next(), ids.next());
        assert_eq!(first.to_value().to_str().unwrap(), first.to_string());
        assert_eq!(first.to_string().len(), 16);
        assert_ne!(first.to_string(), second.to_string());
    }

    #[test]
    fn a_wait_that_is_not_understood_is_ignored() {
        for (value, expected) in [
            ("wait=5", Some(5)),
            ("respond-async, wait=\"10\"", Some(10)),
            ("Wait = 30", Some(30)),
            ("wait=31", None),
            ("wait=-1", None),
            ("wait=soon", None),
            ("wait", None),
            ("return=minimal", None),
        ] {
            let wait = preferred_wait(&headers("prefer", &[value]));
            assert_eq!(wait.map(|wait| wait.as_secs()), expected, "{value}");
        }
    }

    #[test]
    fn a_trace_is_continued_only_if_it_is_valid() {
        let ids = RequestIds::new();
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let id = ids.next();
        let trace = Trace::continued(&headers("traceparent", &[good]), id).unwrap();
        assert_eq!(
            trace.to_value().to_str().unwrap(),
            format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{id}-01")
        );
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf9-00f067aa0ba902b7-01",
        ] {
            assert!(Trace::continued(&headers("traceparent", &[bad]), id).is_none(), "{bad}");
        }
        assert!(Trace::continued(&headers("traceparent", &[good, good]), id).is_none());
    }

    #[test]
    fn an_idempotency_key_is_one_line_of_visible_ascii() {
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
        assert!(idempotency_key(&headers("idempotency-key", &["k-1"])).unwrap().is_some());
        for values in [vec!["a", "b"], vec![""], vec!["a b"], vec![&*"x".repeat(256)]] {
            assert!(idempotency_key(&headers("idempotency-key", &values)).is_err(), "{values:?}");
        }
    }
}
