//! One purchase: how it is asked for, and what its answer means.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;

use crate::client::{Answer, SendError, StormRequest};
use crate::error::OptionsProblem;
use crate::options::{Customers, Route, StormOptions};
use crate::scan::{problem_reason, top_level_field};
use crate::target::Target;

/// Everything of a purchase that does not change from one buyer to the next, prepared once.
#[derive(Clone, Debug)]
pub(crate) struct RequestTemplate {
    uri: Uri,
    headers: HeaderMap,
    /// The body in two halves; the customer goes between them.
    body_before: &'static str,
    body_after: String,
    route: Route,
    /// As a JSON string.
    product: String,
    quantity: u32,
    /// In every name of this storm, so that two storms do not meet.
    seed: u64,
    customers: Customers,
    buyers: u64,
}

impl RequestTemplate {
    pub(crate) fn new(
        options: &StormOptions,
        route: Route,
        target: &Target,
        seed: u64,
        customers: Customers,
        buyers: u64,
    ) -> Result<RequestTemplate, OptionsProblem> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::HOST, target.host.clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &options.key {
            headers.insert(header::AUTHORIZATION, bearer(key).ok_or(OptionsProblem::Key)?);
        }
        let product = serde_json::Value::from(options.product.as_str()).to_string();
        let quantity = options.quantity;
        let body_before = match route {
            Route::Native => "{\"customer_id\":\"",
            _ => "{\"userId\":\"",
        };
        Ok(RequestTemplate {
            uri: format!("{}{}", target.base, route.path()).parse().map_err(|_| OptionsProblem::Key)?,
            headers,
            body_before,
            body_after: body_after(route, &product, quantity),
            route,
            product,
            quantity,
            seed,
            customers,
            buyers: buyers.max(1),
        })
    }

    /// The customer of purchase `n`.
    pub(crate) fn customer(&self, n: u64) -> String {
        let seed = self.seed;
        match self.customers {
            Customers::PerPurchase => format!("storm-{seed:x}-{n}"),
            Customers::PerBuyer => format!("storm-{seed:x}-{}", n % self.buyers),
            Customers::One => format!("storm-{seed:x}-one"),
        }
    }

    /// The customer of purchase `n` as a number; equal for equal customers.
    pub(crate) fn customer_number(&self, n: u64) -> u64 {
        match self.customers {
            Customers::PerPurchase => n,
            Customers::PerBuyer => n % self.buyers,
            Customers::One => 0,
        }
    }

    /// The idempotency key of purchase `n`.
    pub(crate) fn key(&self, n: u64) -> String {
        format!("key-{:x}-{n}", self.seed)
    }

    /// The request of purchase `n`. The same `n` gives the same bytes every time, which is what a retry needs.
    pub(crate) fn request(&self, n: u64) -> StormRequest {
        self.assemble(&self.customer(n), &self.key(n), &self.body_after)
    }

    /// A purchase whose customer, key and quantity came from elsewhere, such as a record.
    pub(crate) fn request_for(&self, customer: &str, key: &str, quantity: u64) -> StormRequest {
        if quantity == u64::from(self.quantity) {
            return self.assemble(customer, key, &self.body_after);
        }
        let quantity = u32::try_from(quantity).unwrap_or(u32::MAX);
        self.assemble(customer, key, &body_after(self.route, &self.product, quantity))
    }

    fn assemble(&self, customer: &str, key: &str, body_after: &str) -> StormRequest {
        let mut body = BytesMut::with_capacity(self.body_before.len() + customer.len() + body_after.len());
        body.put_slice(self.body_before.as_bytes());
        body.put_slice(customer.as_bytes());
        body.put_slice(body_after.as_bytes());
        let mut request = Request::new(Full::new(body.freeze()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let mut headers = self.headers.clone();
        if let Ok(key) = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(key.as_bytes())) {
            headers.insert("idempotency-key", key);
        }
        *request.headers_mut() = headers;
        request
    }
}

/// What follows the customer in a purchase's body.
fn body_after(route: Route, product: &str, quantity: u32) -> String {
    match route {
        Route::Native => format!("\",\"product_id\":{product},\"quantity\":{quantity}}}"),
        Route::CompatOrders => format!("\",\"productId\":{product}}}"),
        Route::CompatBuy | Route::CompatPurchase => {
            format!("\",\"productId\":{product},\"quantity\":{quantity}}}")
        }
    }
}

/// `Bearer KEY` as a header that is not shown in debug output.
pub(crate) fn bearer(key: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server gave an order, or has queued the request for one: then the order tells later what was decided.
    /// Compatible routes may not name it, and do not tell the two apart.
    Accepted { order_id: Option<Box<str>>, replayed: bool, queued: bool },
    /// The server said no, and nothing happened.
    Refused { status: u16, reason: Box<str>, sold_out: bool },
    /// There is no answer that says yes or no.
    Failed(Failure),
}

/// Why there is no yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Connect,
    Timeout,
    Closed,
    Protocol,
    /// A 5xx other than a 503 that says that nothing happened.
    ServerError,
    /// A 503 that says that the outcome is unknown.
    OutcomeUnknown,
    /// A status that no purchase should have, or an acceptance that names no order.
    Unexpected,
}

impl Failure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Failure::Connect => "connect",
            Failure::Timeout => "timeout",
            Failure::Closed => "closed",
            Failure::Protocol => "protocol",
            Failure::ServerError => "server-error",
            Failure::OutcomeUnknown => "outcome-unknown",
            Failure::Unexpected => "unexpected",
        }
    }

    /// Whether an order may exist all the same. Asking again with the same key tells.
    pub(crate) fn may_have_bought(self) -> bool {
        self != Failure::Connect
    }
}

/// Reads an answer, or the lack of one.
pub(crate) fn classify(route: Route, result: &Result<Answer, SendError>) -> Outcome {
    let answer = match result {
        Ok(answer) => answer,
        Err(SendError::Connect(_)) => return Outcome::Failed(Failure::Connect),
        Err(SendError::Timeout(_)) => return Outcome::Failed(Failure::Timeout),
        Err(SendError::Closed) => return Outcome::Failed(Failure::Closed),
        Err(SendError::Protocol) => return Outcome::Failed(Failure::Protocol),
    };
    match (answer.status, route) {
        (201 | 202, Route::Native) => accepted(answer, top_level_field(&answer.body, "id"), NeedsId::Yes),
        (200..=202, Route::CompatPurchase) => accepted(answer, None, NeedsId::No),
        (200..=202, Route::CompatBuy | Route::CompatOrders) => {
            accepted(answer, top_level_field(&answer.body, "orderId"), NeedsId::No)
        }
        (400..=499, _) => refused(answer, route),
        (503, _) => unavailable(answer, route),
        (500.., _) => Outcome::Failed(Failure::ServerError),
        _ => Outcome::Failed(Failure::Unexpected),
    }
}

#[derive(PartialEq)]
enum NeedsId {
    Yes,
    No,
}

fn accepted(answer: &Answer, order_id: Option<&str>, needs_id: NeedsId) -> Outcome {
    if order_id.is_none() && needs_id == NeedsId::Yes {
        return Outcome::Failed(Failure::Unexpected);
    }
    let replayed = answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true");
    let queued =
        needs_id == NeedsId::Yes && top_level_field(&answer.body, "status").is_some_and(|it| it == "queued");
    Outcome::Accepted { order_id: order_id.map(Into::into), replayed, queued }
}

fn refused(answer: &Answer, route: Route) -> Outcome {
    let reason = match route {
        Route::Native => problem_reason(&answer.body),
        _ => top_level_field(&answer.body, "error").or_else(|| problem_reason(&answer.body)),
    };
    let sold_out = match reason {
        Some("sold-out") => true,
        Some(_) if route != Route::Native => says_out_of_stock(&answer.body),
        _ => false,
    };
    let reason = reason.map_or_else(|| format!("status-{}", answer.status).into(), Box::from);
    Outcome::Refused { status: answer.status, reason, sold_out }
}

/// The older systems say it in words: "Stock problem", "Out of stock".
fn says_out_of_stock(body: &[u8]) -> bool {
    ["error", "message"]
        .iter()
        .filter_map(|field| top_level_field(body, field))
        .any(|text| text.to_ascii_lowercase().contains("stock"))
}

fn unavailable(answer: &Answer, route: Route) -> Outcome {
    let outcome = answer.headers.get("order-outcome").and_then(|value| value.to_str().ok());
    let reason = problem_reason(&answer.body);
    let nothing_happened = match (outcome, reason) {
        (Some(outcome), _) => outcome == "none",
        (None, Some(reason)) => {
            matches!(reason, "overloaded" | "sale-paused" | "storage-full" | "rebuilding")
        }
        // Without a word about it an order may exist: ask again rather than guess.
        (None, None) => false,
    };
    if nothing_happened { refused(answer, route) } else { Outcome::Failed(Failure::OutcomeUnknown) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Failure; 7] = [
        Failure::Connect,
        Failure::Timeout,
        Failure::Closed,
        Failure::Protocol,
        Failure::ServerError,
        Failure::OutcomeUnknown,
        Failure::Unexpected,
    ];

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Answer {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        Answer { status, headers, body: Bytes::from_static(body.as_bytes()) }
    }

    fn outcome(route: Route, answer: Answer) -> Outcome {
        classify(route, &Ok(answer))
    }

    #[test]
    fn a_202_is_accepted_only_if_it_names_the_order() {
        assert_eq!(
            outcome(Route::Native, answer(202, &[("idempotent-replayed", "true")], r#"{"id":"7"}"#)),
            Outcome::Accepted { order_id: Some("7".into()), replayed: true, queued: false }
        );
        assert_eq!(
            outcome(Route::Native, answer(202, &[], r#"{"id":"7","status":"queued"}"#)),
            Outcome::Accepted { order_id: Some("7".into()), replayed: false, queued: true }
        );
        assert_eq!(
            outcome(Route::Native, answer(202, &[], r#"{"status":"accepted"}"#)),
            Outcome::Failed(Failure::Unexpected)
        );
        assert_eq!(
            outcome(Route::Native, answer(200, &[], r#"{"id":"7"}"#)),
            Outcome::Failed(Failure::Unexpected)
        );
    }

    #[test]
    fn a_503_counts_as_refused_only_if_it_says_that_nothing_happened() {
        let refused = |reason: &str| Outcome::Refused { status: 503, reason: reason.into(), sold_out: false };
        let overloaded = r#"{"type":"/problems/overloaded"}"#;
        assert_eq!(
            outcome(Route::Native, answer(503, &[("order-outcome", "none")], overloaded)),
            refused("overloaded")
        );
        assert_eq!(outcome(Route::Native, answer(503, &[], overloaded)), refused("overloaded"));
        for (headers, body) in [
            (&[("order-outcome", "unknown")][..], overloaded),
            (&[], ""),
            (&[], r#"{"type":"/problems/outcome-unknown"}"#),
        ] {
            assert_eq!(
                outcome(Route::Native, answer(503, headers, body)),
                Outcome::Failed(Failure::OutcomeUnknown)
            );
        }
    }

    #[test]
    fn compatible_refusals_are_named_by_their_error_and_sold_out_is_recognised() {
        let sold_out = |reason: &str| Outcome::Refused { status: 409, reason: reason.into(), sold_out: true };
        assert_eq!(
            outcome(Route::CompatPurchase, answer(409, &[], r#"{"error":"Stock problem"}"#)),
            sold_out("Stock problem")
        );
        assert_eq!(
            outcome(Route::CompatBuy, answer(409, &[], r#"{"error":"Conflict","message":"Out of stock"}"#)),
            sold_out("Conflict")
        );
        assert_eq!(
            outcome(Route::CompatPurchase, answer(429, &[], r#"{"error":"Too many requests"}"#)),
            Outcome::Refused { status: 429, reason: "Too many requests".into(), sold_out: false }
        );
    }

    #[test]
    fn only_a_failure_to_connect_rules_out_that_an_order_exists() {
        for failure in ALL {
            assert_eq!(failure.may_have_bought(), failure != Failure::Connect, "{failure:?}");
        }
    }
}
