//! Every "no" of the native routes, as RFC 9457 wants it.
//!
//! One table of kinds, one exhaustive `match` from the engine's errors to them. 409 = the sale says no; 429 = you are
//! too fast; 503 = we are too slow; 500 = our bug.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use bytes::{BufMut as _, Bytes};
use http::{HeaderName, HeaderValue, StatusCode, header};
use yoink_core::{Rejection, Timestamp};
use yoink_engine::CallError;

use crate::guard::rate_limit::too_often;
use crate::settings::Policy;
use crate::wire::{put_number, put_text, put_when};

/// What a problem is called and which status it has. Its `type` is `/problems/<slug>`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) slug: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) title: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $status:ident $slug:literal $title:literal;)*) => {
        $(pub(crate) static $name: Kind = Kind { slug: $slug, status: StatusCode::$status, title: $title };)*
        /// Every kind.
        pub(crate) static KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    VALIDATION = BAD_REQUEST "validation" "The request is not valid";
    UNAUTHORIZED = UNAUTHORIZED "unauthorized" "A valid key or token is needed";
    FORBIDDEN = FORBIDDEN "forbidden" "This key or token does not open this";
    NOT_FOUND = NOT_FOUND "not-found" "There is no such thing";
    METHOD_NOT_ALLOWED = METHOD_NOT_ALLOWED "method-not-allowed" "This method does not work here";
    TIMEOUT = REQUEST_TIMEOUT "timeout" "The request did not arrive in time";
    SOLD_OUT = CONFLICT "sold-out" "Sold out";
    LIMIT_REACHED = CONFLICT "limit-reached" "The limit per customer is reached";
    SALE_NOT_STARTED = CONFLICT "sale-not-started" "The sale has not started";
    SALE_ENDED = CONFLICT "sale-ended" "The sale has ended";
    IDEMPOTENCY_IN_PROGRESS = CONFLICT "idempotency-in-progress" "The first request with this key is undecided";
    BELOW_COMMITTED = CONFLICT "below-committed" "Units that are sold cannot be withdrawn";
    PRODUCT_EXISTS = CONFLICT "product-exists" "There is a product with this id";
    ORDER_FAILED = CONFLICT "order-failed" "The order has failed";
    STOCK_TOO_LARGE = CONFLICT "stock-too-large" "A product cannot have so many units";
    DEAD_LETTER_CLOSED = CONFLICT "dead-letter-closed" "This dead letter is not open";
    TOO_LARGE = PAYLOAD_TOO_LARGE "too-large" "The body is too large";
    URI_TOO_LONG = URI_TOO_LONG "uri-too-long" "The address is too long";
    UNSUPPORTED_MEDIA_TYPE = UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "Send plain application/json";
    IDEMPOTENCY_KEY_REUSED = UNPROCESSABLE_ENTITY "idempotency-key-reused" "This key belongs to another request";
    QUOTA_EXCEEDED = TOO_MANY_REQUESTS "quota-exceeded" "Too many requests";
    HEADERS_TOO_LARGE = REQUEST_HEADER_FIELDS_TOO_LARGE "headers-too-large" "The header is too large";
    INTERNAL = INTERNAL_SERVER_ERROR "internal" "Something went wrong here";
    OVERLOADED = SERVICE_UNAVAILABLE "overloaded" "Too many requests are waiting";
    SALE_PAUSED = SERVICE_UNAVAILABLE "sale-paused" "The sale is paused";
    STORAGE_FULL = SERVICE_UNAVAILABLE "storage-full" "The disk is almost full";
    CLOSING = SERVICE_UNAVAILABLE "closing" "The server is closing";
    REBUILDING = SERVICE_UNAVAILABLE "rebuilding" "Nothing can be sold at the moment";
    UNREACHABLE = SERVICE_UNAVAILABLE "unreachable" "A server that is needed cannot be reached";
    NOT_READY = SERVICE_UNAVAILABLE "not-ready" "The server is not ready";
    OUTCOME_UNKNOWN = SERVICE_UNAVAILABLE "outcome-unknown" "Nobody knows whether it happened";
}

/// One field that is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// RFC 6901 pointer into the body; empty for the whole body and for headers and query parameters.
    pub(crate) pointer: String,
    pub(crate) detail: String,
}

/// A member of a problem beyond the standard ones.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    Number(&'static str, u64),
    Text(&'static str, String),
    Texts(&'static str, Vec<String>),
    When(&'static str, Timestamp),
}

/// A "no", ready to be sent.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) kind: &'static Kind,
    detail: Cow<'static, str>,
    members: Vec<Member>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

const ORDER_OUTCOME: HeaderName = HeaderName::from_static("order-outcome");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl Problem {
    pub(crate) fn new(kind: &'static Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), members: Vec::new(), errors: Vec::new(), headers: Vec::new() }
    }

    /// A 400 that names one field.
    pub(crate) fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }

    /// A 400 that names every field that is wrong.
    pub(crate) fn fields(errors: Vec<FieldError>) -> Self {
        let mut problem = Self::new(&VALIDATION, "See errors for what to change.");
        problem.errors = errors;
        problem
    }

    pub(crate) fn no_such_route() -> Self {
        Self::new(&NOT_FOUND, "Nothing is served at this path; see /docs.")
    }

    pub(crate) fn no_such_product() -> Self {
        Self::new(&NOT_FOUND, "There is no such product.")
    }

    pub(crate) fn no_such_order() -> Self {
        Self::new(&NOT_FOUND, "There is no such order.")
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub(crate) fn with_outcome(self, outcome: &'static str) -> Self {
        self.with_header(ORDER_OUTCOME, HeaderValue::from_static(outcome))
    }

    fn with(mut self, member: Member) -> Self {
        self.members.push(member);
        self
    }

    /// What happened, for people.
    pub(crate) fn detail(&self) -> &str {
        match self.errors.first() {
            Some(error) => &error.detail,
            None => &self.detail,
        }
    }

    /// The headers that go with it in any shape of answer.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The problem document.
    pub(crate) fn to_json(&self) -> Bytes {
        let mut buffer = Vec::with_capacity(256);
        buffer.put_slice(b"{\"type\":\"/problems/");
        buffer.put_slice(self.kind.slug.as_bytes());
        buffer.put_slice(b"\",\"title\":");
        put_text(&mut buffer, self.kind.title);
        buffer.put_slice(b",\"status\":");
        put_number(&mut buffer, u64::from(self.kind.status.as_u16()));
        buffer.put_slice(b",\"detail\":");
        put_text(&mut buffer, &self.detail);
        for member in &self.members {
            member.put(&mut buffer);
        }
        if !self.errors.is_empty() {
            put_errors(&mut buffer, &self.errors);
        }
        buffer.put_u8(b'}');
        buffer.into()
    }

    /// The answer, without the headers that every answer has.
    pub(crate) fn into_parts(self) -> (StatusCode, Bytes, Vec<(HeaderName, HeaderValue)>) {
        let body = self.to_json();
        let mut headers = self.headers;
        headers.push((header::CONTENT_TYPE, PROBLEM_JSON));
        (self.kind.status, body, headers)
    }
}

impl Member {
    fn put(&self, buffer: &mut Vec<u8>) {
        let name = match self {
            Self::Number(name, _) | Self::Text(name, _) | Self::Texts(name, _) | Self::When(name, _) => name,
        };
        buffer.put_u8(b',');
        put_text(buffer, name);
        buffer.put_u8(b':');
        match self {
            Self::Number(_, number) => put_number(buffer, *number),
            Self::Text(_, text) => put_text(buffer, text),
            Self::When(_, when) => put_when(buffer, *when),
            Self::Texts(_, texts) => {
                buffer.put_u8(b'[');
                for (index, text) in texts.iter().enumerate() {
                    if index > 0 {
                        buffer.put_u8(b',');
                    }
                    put_text(buffer, text);
                }
                buffer.put_u8(b']');
            }
        }
    }
}

fn put_errors(buffer: &mut Vec<u8>, errors: &[FieldError]) {
    buffer.put_slice(b",\"errors\":[");
    for (index, error) in errors.iter().enumerate() {
        if index > 0 {
            buffer.put_u8(b',');
        }
        buffer.put_slice(b"{\"pointer\":");
        put_text(buffer, &error.pointer);
        buffer.put_slice(b",\"detail\":");
        put_text(buffer, &error.detail);
        buffer.put_u8(b'}');
    }
    buffer.put_u8(b']');
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, body, headers) = self.into_parts();
        let mut response = Response::new(axum::body::Body::from(body));
        *response.status_mut() = status;
        for (name, value) in headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// The engine's "no" as a problem. `now` is the engine's clock, for `Retry-After`.
pub(crate) fn from_call_error(error: CallError, now: Timestamp) -> Problem {
    let text = error.to_string();
    match error {
        CallError::Refused(rejection) => from_rejection(&rejection, now),
        CallError::TooOften { limit, wait } => {
            let policy = Policy { requests: limit.requests, window_s: limit.window_s };
            too_often("customer", policy, wait)
        }
        CallError::Overloaded | CallError::Expired => {
            Problem::new(&OVERLOADED, text).with_retry_after(1).with_outcome("none")
        }
        CallError::StorageFull => {
            Problem::new(&STORAGE_FULL, "Selling has stopped until there is room again; nothing happened.")
                .with_retry_after(30)
                .with_outcome("none")
        }
        CallError::Rebuilding => Problem::new(&REBUILDING, text).with_retry_after(1).with_outcome("none"),
        // It lasts until somebody acts.
        CallError::UnsafeSettings => {
            Problem::new(&REBUILDING, text).with_retry_after(10).with_outcome("none")
        }
        CallError::Unreachable => Problem::new(&UNREACHABLE, text).with_retry_after(1).with_outcome("none"),
        CallError::Closing => Problem::new(&CLOSING, text).with_retry_after(5).with_outcome("none"),
        CallError::OutcomeUnknown => {
            Problem::new(&OUTCOME_UNKNOWN, "Ask again with the same idempotency key, or look at your orders.")
                .with_retry_after(2)
                .with_outcome("unknown")
        }
    }
}

/// The sale's "no" as a problem.
pub(crate) fn from_rejection(rejection: &Rejection, now: Timestamp) -> Problem {
    let text = rejection.to_string();
    match rejection {
        Rejection::ProductNotFound => Problem::no_such_product(),
        Rejection::OrderNotFound => Problem::no_such_order(),
        Rejection::ProductExists => Problem::new(&PRODUCT_EXISTS, text),
        Rejection::KeyReused { original } => {
            let problem = Problem::new(&IDEMPOTENCY_KEY_REUSED, text);
            match original {
                Some(order) => problem.with(Member::Text("original", order.to_string())),
                None => problem,
            }
        }
        Rejection::QuantityAboveMax { .. } => Problem::field("/quantity", text),
        Rejection::ConservationBroken | Rejection::SalePaused => {
            Problem::new(&SALE_PAUSED, text).with_retry_after(10).with_outcome("none")
        }
        Rejection::SaleNotStarted { starts_at } => Problem::new(&SALE_NOT_STARTED, text)
            .with(Member::When("starts_at", *starts_at))
            .with_retry_after(seconds_until(*starts_at, now)),
        Rejection::SaleEnded { ends_at } => {
            Problem::new(&SALE_ENDED, text).with(Member::When("ends_at", *ends_at))
        }
        Rejection::LimitReached { limit, used, existing } => Problem::new(&LIMIT_REACHED, text)
            .with(Member::Number("limit", u64::from(*limit)))
            .with(Member::Number("used", u64::from(*used)))
            .with(Member::Texts("existing", existing.iter().map(ToString::to_string).collect())),
        Rejection::SoldOut { available } => {
            let detail: Cow<'static, str> = match available {
                0 => "Every unit is sold; some may come back.".into(),
                _ => text.into(),
            };
            Problem::new(&SOLD_OUT, detail).with(Member::Number("available", *available))
        }
        Rejection::OrderFailed => Problem::new(&ORDER_FAILED, text),
        Rejection::BelowCommitted { available } => {
            Problem::new(&BELOW_COMMITTED, text).with(Member::Number("available", *available))
        }
        Rejection::StockTooLarge => Problem::new(&STOCK_TOO_LARGE, text),
        Rejection::WindowEmpty => Problem::field("/ends_at", text),
    }
}

/// Whole seconds from `now` until `then`, at least 1.
fn seconds_until(then: Timestamp, now: Timestamp) -> u64 {
    let microseconds = then.0.saturating_sub(now.0).max(0);
    u64::try_from(microseconds).unwrap_or_default().div_ceil(1_000_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use yoink_core::OrderId;

    fn json(problem: &Problem) -> serde_json::Value {
        serde_json::from_slice(&problem.to_json()).unwrap()
    }

    #[test]
    fn a_limit_that_is_reached_names_limit_used_and_the_existing_orders() {
        let rejection = Rejection::LimitReached { limit: 2, used: 2, existing: vec![OrderId([1; 16])] };
        let problem = from_rejection(&rejection, Timestamp(0));
        assert_eq!(
            json(&problem),
            serde_json::json!({
                "type": "/problems/limit-reached", "title": "The limit per customer is reached", "status": 409,
                "detail": "one customer may have 2 units of this product, and you have 2",
                "limit": 2, "used": 2, "existing": ["01010101-0101-0101-0101-010101010101"],
            })
        );
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        assert_eq!(seconds_until(Timestamp(1_000_001), Timestamp(0)), 2);
        assert_eq!(seconds_until(Timestamp(1), Timestamp(0)), 1);
        assert_eq!(seconds_until(Timestamp(0), Timestamp(5_000_000)), 1);
    }

    #[test]
    fn unsafe_settings_are_named_as_the_reason() {
        let problem = from_call_error(CallError::UnsafeSettings, Timestamp(0));
        assert_eq!((problem.kind.slug, problem.kind.status), ("rebuilding", StatusCode::SERVICE_UNAVAILABLE));
        assert!(problem.detail().contains("settings of a server could lose orders"), "{}", problem.detail());
        let everything = json(&problem).to_string();
        assert!(!everything.contains("rebuilt"), "{everything}");
    }

    #[test]
    fn the_engines_rate_limit_is_told_as_the_edges_own() {
        let limit = yoink_engine::RateLimit { requests: 2, window_s: 60 };
        let wait = std::time::Duration::from_millis(29_001);
        let problem = from_call_error(CallError::TooOften { limit, wait }, Timestamp(0));
        assert_eq!(
            (problem.kind.slug, problem.kind.status),
            ("quota-exceeded", StatusCode::TOO_MANY_REQUESTS)
        );
        let header = |name: &str| {
            let found = problem.headers().iter().find(|(other, _)| other.as_str() == name);
            found.map(|(_, value)| value.to_str().unwrap())
        };
        assert_eq!(header("retry-after"), Some("30"));
        assert_eq!(header("ratelimit-policy"), Some("\"customer\";q=2;w=60"));
        assert_eq!(header("ratelimit"), Some("\"customer\";r=0;t=30"));
        assert_eq!(header("order-outcome"), Some("none"));
    }

    #[test]
    fn only_a_call_whose_outcome_is_unknown_says_unknown() {
        let outcome = |error| {
            let problem = from_call_error(error, Timestamp(0));
            problem
                .headers()
                .iter()
                .find(|(name, _)| *name == ORDER_OUTCOME)
                .map(|(_, value)| value.to_str().unwrap().to_owned())
        };
        assert_eq!(outcome(CallError::OutcomeUnknown).as_deref(), Some("unknown"));
        for error in [
            CallError::Overloaded,
            CallError::Expired,
            CallError::StorageFull,
            CallError::Closing,
            CallError::Rebuilding,
            CallError::UnsafeSettings,
            CallError::Unreachable,
        ] {
            assert_eq!(outcome(error).as_deref(), Some("none"));
        }
        assert_eq!(outcome(CallError::Refused(Rejection::SoldOut { available: 0 })), None);
    }

    #[test]
    fn slugs_are_unique() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert!(KINDS.iter().skip(index + 1).all(|other| other.slug != kind.slug), "{}", kind.slug);
        }
    }
}
