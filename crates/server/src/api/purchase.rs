//! `POST /v1/orders`: the short way. Parse, one engine call, render; no router, no JSON tree, few allocations.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;
use uuid::fmt::Hyphenated;
use yoink_core::{QUANTITY_MAX, Rejection};
use yoink_engine::{Confirmed, Durability, OrderStatus, PurchaseRequest, Purchased, Replayed};

use super::Way;
use crate::body::{self, Body};
use crate::connection::Conn;
use crate::edge::{Core, from_problem};
use crate::guard::address::client_address;
use crate::guard::auth::Caller;
use crate::guard::rate_limit::Which;
use crate::json::{self, Id};
use crate::problem::{FORBIDDEN, ORDER_FAILED, Problem};
use crate::request::{idempotency_key, preference_applied, preferred_wait};
use crate::settings::IdempotencyKeyRule;
use crate::wire::{put_number, put_text, put_when};

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// What a buyer sends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PurchaseBody<'a> {
    /// Who buys; may be left out by the holder of a customer token.
    #[serde(borrow, default, deserialize_with = "json::present")]
    #[schema(value_type = Option<crate::api::schema::CustomerIdSchema>, nullable = false)]
    customer_id: Option<Id<'a>>,
    /// What.
    #[serde(borrow)]
    #[schema(value_type = crate::api::schema::ProductIdSchema)]
    product_id: Id<'a>,
    /// How many, up to the product's `max_per_order`.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 1000, default = 1, required = false)]
    quantity: u32,
}

fn one() -> u32 {
    1
}

/// Buy.
///
/// 202 means that the units are yours: the order is on disk. Where its `status` is `queued` (rabbitmq engine) it means
/// that the request is kept and will be decided. With `Prefer: wait=N` the answer is 201 if the ledger has the order
/// within N seconds, or 409 if it was decided within them that you get nothing or never can be. The same key and body again give the
/// same answer, also after sell-out.
#[utoipa::path(
    post, path = "/v1/orders", tag = "buyers", request_body = PurchaseBody,
    params(crate::api::schema::PurchaseKey, crate::api::schema::Prefer),
    responses(
        (status = 201, description = "Accepted, and in the ledger", body = crate::wire::Order),
        (status = 202, description = "Accepted, or queued", body = crate::wire::Order),
        crate::api::WriteProblems,
    )
)]
pub(crate) async fn answer(core: &Core, conn: &Arc<Conn>, head: Parts, body: Incoming) -> Response<Body> {
    match buy(core, conn, head, body).await {
        Ok(response) => response,
        Err(problem) => {
            core.counters.count_refusal(problem.kind.status);
            from_problem(problem)
        }
    }
}

async fn buy(core: &Core, conn: &Arc<Conn>, head: Parts, body: Incoming) -> Result<Response<Body>, Problem> {
    let settings = &core.shared.settings;
    json::check_content_type(&head.headers)?;
    let caller = core.shared.auth.buyer(&head.headers)?;
    let bytes = body::read(conn, body, settings.body_bytes_max).await?;
    let request = parse(settings.idempotency_key, &caller, &head.headers, &bytes)?;
    let purchased = if core.shared.limits.is_off(Which::General) {
        core.engine.purchase(request.clone()).await.map_err(|error| core.problem(error))?
    } else {
        let address = client_address(conn.peer, &head.headers, &settings.trusted_proxies);
        super::purchase_within(core, (&[Which::General], Way::Purchase), request.clone(), address).await?
    };
    let wait = preferred_wait(&head.headers);
    let decided = match wait {
        Some(wait) => wait_decided(core, &request, purchased, wait)
            .await
            .map_err(|no| no.with_header(PREFERENCE_APPLIED, preference_applied(wait)))?,
        None => purchased,
    };
    core.counters.count_queued();
    // The request's headers are not needed any more, but their room is: hyper keeps that of an answer for the next
    // request of the connection.
    let mut headers = head.headers;
    headers.clear();
    let terms = Terms { durability: core.engine.durability(), wait };
    Ok(render(&request, &decided, terms, headers))
}

/// For measuring: parses as for a caller who may act for anyone.
pub(crate) fn parse_for_anyone(headers: &HeaderMap, bytes: &Bytes) -> Result<PurchaseRequest, Problem> {
    parse(IdempotencyKeyRule::Optional, &Caller::Anyone, headers, bytes)
}

fn parse(
    key_rule: IdempotencyKeyRule,
    caller: &Caller,
    headers: &HeaderMap,
    bytes: &Bytes,
) -> Result<PurchaseRequest, Problem> {
    let body: PurchaseBody = json::parse(bytes)?;
    let named = body.customer_id.map(|id| id.to_customer("/customer_id")).transpose()?;
    let customer = match (caller, named) {
        (Caller::Customer(customer), None) => customer.clone(),
        (caller, Some(named)) if caller.may_act_for(&named) => named,
        (_, Some(_)) => return Err(Problem::new(&FORBIDDEN, "This token buys for its own customer only.")),
        (_, None) => return Err(Problem::field("/customer_id", "missing field `customer_id`")),
    };
    let product = body.product_id.to_product("/product_id")?;
    check_quantity(body.quantity)?;
    let key = idempotency_key(headers)?;
    if key.is_none() && key_rule == IdempotencyKeyRule::Required {
        return Err(Problem::field("", "Idempotency-Key: this server wants one with every purchase"));
    }
    Ok(PurchaseRequest { customer, product, quantity: body.quantity, key })
}

/// # Errors
/// 400 if no product could ever allow it.
pub(crate) fn check_quantity(quantity: u32) -> Result<(), Problem> {
    if (1..=QUANTITY_MAX).contains(&quantity) {
        return Ok(());
    }
    Err(Problem::field("/quantity", format!("must be a whole number from 1 to {QUANTITY_MAX}")))
}

/// Waits for the ledger, but not into the shutdown.
///
/// # Errors
/// It was decided that the customer gets nothing, or it has failed; or the key turned out to be another request's.
async fn wait_decided(
    core: &Core,
    request: &PurchaseRequest,
    purchased: Purchased,
    wait: Duration,
) -> Result<Purchased, Problem> {
    let confirmed = tokio::select! {
        confirmed = core.engine.wait_confirmed(&purchased, wait) => confirmed,
        () = core.shared.shutdown.cancelled() => Confirmed::NotYet,
    };
    let was_queued = purchased.status == OrderStatus::Queued;
    let decided = match confirmed {
        Confirmed::Yes if was_queued => as_decided(core, request, &purchased).await?,
        // Without a key the order is nobody else's.
        Confirmed::Rejected(_) | Confirmed::Failed(_) if request.key.is_some() => {
            as_decided(core, request, &purchased).await?
        }
        _ => Some(purchased),
    };
    match (confirmed, decided) {
        // A confirmed order that cannot be read stays what is known of it: queued.
        (Confirmed::NotYet, _) | (Confirmed::Yes, None) => Ok(purchased),
        (Confirmed::Yes, Some(decided)) => Ok(Purchased { status: OrderStatus::Confirmed, ..decided }),
        (Confirmed::Rejected(rejection), _) => Err(core.problem(rejection.into())),
        (Confirmed::Failed(failure), _) => {
            Err(Problem::new(&ORDER_FAILED, format!("The order has failed ({}).", failure.reason)))
        }
    }
}

/// What was queued here, as the ledger has it now. Another node may have queued another request under the same key, at
/// another price, and that one may have been decided. `None`: the ledger cannot be asked, or does not have the product.
///
/// # Errors
/// The key is that of a request for something else.
async fn as_decided(
    core: &Core,
    request: &PurchaseRequest,
    purchased: &Purchased,
) -> Result<Option<Purchased>, Problem> {
    let Ok(Some(order)) = core.engine.order(purchased.order).await else { return Ok(None) };
    if (order.quantity, order.product) != (request.quantity, request.product) {
        return Err(core.problem(Rejection::KeyReused { original: Some(order.id) }.into()));
    }
    let is_anothers = order.accepted_at != purchased.accepted_at;
    Ok(Some(Purchased {
        // Only now it has its place among the events.
        seq: order.seq,
        accepted_at: order.accepted_at,
        unit_price: order.unit_price,
        replayed: if is_anothers { Replayed::Yes } else { purchased.replayed },
        ..*purchased
    }))
}

/// What an answer says besides the order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) durability: Durability,
    /// The wait that was asked for.
    pub(crate) wait: Option<Duration>,
}

/// `headers` are the answer's; they are empty.
pub(crate) fn render(
    request: &PurchaseRequest,
    purchased: &Purchased,
    terms: Terms,
    mut headers: HeaderMap,
) -> Response<Body> {
    let status = match purchased.status {
        OrderStatus::Confirmed => StatusCode::CREATED,
        _ => StatusCode::ACCEPTED,
    };
    // One allocation holds both the Location and the body.
    let mut buffer = Vec::with_capacity(512);
    let mut id = [0; Hyphenated::LENGTH];
    let id = Uuid::from_bytes(purchased.order.0).hyphenated().encode_lower(&mut id);
    buffer.put_slice(b"/v1/orders/");
    buffer.put_slice(id.as_bytes());
    let location_bytes = buffer.len();
    put_order(&mut buffer, id, request, purchased);
    if terms.durability == Durability::Relaxed {
        put_durability(&mut buffer, terms.durability);
    }
    let mut body = Bytes::from(buffer);
    let location = body.split_to(location_bytes);
    headers.reserve(10);
    headers.insert(header::CONTENT_TYPE, JSON);
    if let Ok(location) = HeaderValue::from_maybe_shared(location) {
        headers.insert(header::LOCATION, location);
    }
    if purchased.replayed == Replayed::Yes {
        headers.insert(IDEMPOTENT_REPLAYED, TRUE);
    }
    if let Some(wait) = terms.wait {
        headers.insert(PREFERENCE_APPLIED, preference_applied(wait));
    }
    let mut response = Response::new(Body::Fixed(Some(body)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn put_order(buffer: &mut Vec<u8>, id: &str, request: &PurchaseRequest, purchased: &Purchased) {
    buffer.put_slice(b"{\"id\":\"");
    buffer.put_slice(id.as_bytes());
    buffer.put_slice(b"\",\"seq\":");
    // What is queued has no place among the events yet; who asks again is told the same, though it may have one by then.
    put_number(buffer, if purchased.status == OrderStatus::Queued { 0 } else { purchased.seq });
    buffer.put_slice(b",\"status\":\"");
    buffer.put_slice(purchased.status.name().as_bytes());
    buffer.put_slice(b"\",\"customer_id\":");
    put_text(buffer, request.customer.as_str());
    buffer.put_slice(b",\"product_id\":");
    put_text(buffer, request.product.as_str());
    buffer.put_slice(b",\"quantity\":");
    put_number(buffer, u64::from(request.quantity));
    buffer.put_slice(b",\"unit_price\":{\"amount\":");
    // Prices are never below 0.
    put_number(buffer, purchased.unit_price.amount.unsigned_abs());
    buffer.put_slice(b",\"currency\":");
    put_text(buffer, purchased.unit_price.currency.as_str());
    buffer.put_slice(b"},\"accepted_at\":");
    put_when(buffer, purchased.accepted_at);
    buffer.put_u8(b'}');
}

/// Whoever is promised less is told so in every answer: one more member behind the others.
fn put_durability(order: &mut Vec<u8>, durability: Durability) {
    order.truncate(order.len().saturating_sub(1));
    order.put_slice(b",\"durability\":");
    put_text(order, durability.name());
    order.put_u8(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Money, Order, OrderStatus, When};
    use yoink_core::{Currency, CustomerId, OrderId, ProductId, Timestamp};

    #[test]
    fn the_body_written_by_hand_is_the_order_of_the_document() {
        let request = PurchaseRequest {
            customer: CustomerId::parse("o\"brien").unwrap(),
            product: ProductId::parse("1").unwrap(),
            quantity: 2,
            key: None,
        };
        let purchased = Purchased {
            order: OrderId([0xab; 16]),
            seq: 184_223,
            accepted_at: Timestamp(1_767_607_200_123_456),
            unit_price: yoink_core::Money { amount: 19_999, currency: Currency::parse("EUR").unwrap() },
            replayed: Replayed::No,
            status: yoink_engine::OrderStatus::Accepted,
        };
        let mut buffer = Vec::new();
        let id = "abababab-abab-abab-abab-abababababab";
        put_order(&mut buffer, id, &request, &purchased);
        let expected = Order {
            id: id.to_owned(),
            seq: 184_223,
            status: OrderStatus::Accepted,
            customer_id: "o\"brien".to_owned(),
            product_id: "1".to_owned(),
            quantity: 2,
            unit_price: Money { amount: 19_999, currency: "EUR".to_owned() },
            accepted_at: When(Timestamp(1_767_607_200_123_456)),
            ended_at: None,
            reason: None,
            durability: None,
        };
        assert_eq!(buffer, serde_json::to_string(&expected).unwrap().as_bytes());
        put_durability(&mut buffer, Durability::Relaxed);
        let expected = Order { durability: Some("relaxed".to_owned()), ..expected };
        assert_eq!(buffer, serde_json::to_string(&expected).unwrap().as_bytes());
        let queued = Purchased { status: yoink_engine::OrderStatus::Queued, ..purchased };
        let mut buffer = Vec::new();
        put_order(&mut buffer, id, &request, &queued);
        let expected = Order { seq: 0, status: OrderStatus::Queued, durability: None, ..expected };
        assert_eq!(buffer, serde_json::to_string(&expected).unwrap().as_bytes());
    }
}
