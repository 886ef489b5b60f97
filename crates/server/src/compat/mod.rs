//! The routes of the three older systems, with their paths, bodies and status codes, so that their clients and load
//! scripts run unchanged. They share one way to the engine; each file speaks one system's language.

pub(crate) mod flash_sale_engine;
pub(crate) mod flash_sale_system;
pub(crate) mod yoink;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{Content, Ref, RefOr, Response as OpenApiResponse};
use utoipa::{IntoResponses, ToSchema};
use yoink_engine::{Durability, OrderStatus, PurchaseRequest, Purchased};

use crate::api::purchase::check_quantity;
use crate::api::{Json, Way, purchase_within};
use crate::edge::Core;
use crate::guard::auth::Caller;
use crate::guard::rate_limit::Which;
use crate::json::{self, Id};
use crate::problem::{FORBIDDEN, Problem};
use crate::request::{ClientAddress, idempotency_key};
use crate::settings::{IdempotencyKeyRule, Mode};

/// What the older systems were sent. Fields that they did not know, they ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OldPurchase<'a> {
    /// Who buys; may be left out by the holder of a customer token.
    #[serde(borrow, default)]
    #[schema(value_type = Option<crate::api::schema::CustomerIdSchema>)]
    user_id: Option<Id<'a>>,
    /// What.
    #[serde(borrow)]
    #[schema(value_type = crate::api::schema::ProductIdSchema)]
    product_id: Id<'a>,
    /// How many; left out, 1.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000)]
    quantity: Option<u32>,
}

/// An error in the shape of the older systems.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OldError {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message: Option<String>,
}

/// What may go wrong, in the old shape; or as a problem, where a request is refused before its route is known.
pub(crate) struct OldProblems;

impl IntoResponses for OldProblems {
    fn responses() -> BTreeMap<String, RefOr<OpenApiResponse>> {
        let content = |name| Content::new(Some(RefOr::Ref(Ref::from_schema_name(name))));
        let response = |description: &str| {
            OpenApiResponse::builder()
                .description(description)
                .content("application/json", content("OldError"))
                .content("application/problem+json", content("ProblemDocument"))
                .build()
        };
        let responses = [("4XX", response("No")), ("5XX", response("Too slow"))];
        responses.into_iter().map(|(status, response)| (status.to_owned(), response.into())).collect()
    }
}

/// The word that stands in every answer of a server whose orders may be forgotten.
fn weaker_durability(core: &Core) -> Option<&'static str> {
    let durability = core.engine.durability();
    (durability == Durability::Relaxed).then(|| durability.name())
}

/// Buys on behalf of a compatible route.
///
/// # Errors
/// A problem, for the route to put into its own words.
pub(crate) async fn buy(
    core: &Arc<Core>,
    headers: &HeaderMap,
    address: ClientAddress,
    body: &Bytes,
    terms: (&[Which], Way),
) -> Result<Purchased, Problem> {
    let bought = async {
        json::check_content_type(headers)?;
        let caller = core.shared.auth.buyer(headers)?;
        let request = parse(core, &caller, headers, body)?;
        purchase_within(core, terms, request, address.0).await
    };
    let bought = bought.await;
    match &bought {
        Ok(_) => core.counters.count_queued(),
        Err(problem) => core.counters.count_refusal(problem.kind.status),
    }
    bought
}

fn parse(
    core: &Core,
    caller: &Caller,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<PurchaseRequest, Problem> {
    let body: OldPurchase = json::parse_flat(body)?;
    let named = body.user_id.map(|id| id.to_customer("/userId")).transpose()?;
    let customer = match (caller, named) {
        (Caller::Customer(customer), None) => customer.clone(),
        (caller, Some(named)) if caller.may_act_for(&named) => named,
        (_, Some(_)) => return Err(Problem::new(&FORBIDDEN, "This token buys for its own customer only.")),
        (_, None) => return Err(Problem::field("/userId", "missing field `userId`")),
    };
    let quantity = body.quantity.unwrap_or(1);
    check_quantity(quantity)?;
    let key = idempotency_key(headers)?;
    let settings = &core.shared.settings;
    let is_key_missing = key.is_none() && settings.idempotency_key == IdempotencyKeyRule::Required;
    // What is only asked for outside --dev could not break the old clients there.
    if is_key_missing && settings.mode == Mode::Guarded {
        return Err(Problem::field("", "Idempotency-Key: this server wants one with every purchase"));
    }
    Ok(PurchaseRequest { customer, product: body.product_id.to_product("/productId")?, quantity, key })
}

/// A problem in an old shape: its status and headers, another body.
pub(crate) fn in_old_words(problem: &Problem, error: &str, message: Option<&str>) -> Response {
    let body = OldError { error: error.to_owned(), message: message.map(str::to_owned) };
    let mut response = Json(problem.kind.status, body).into_response();
    for (name, value) in problem.headers() {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}

/// `{"error","message"}`, as both Yoink and Flash Sale Engine had it.
pub(crate) fn in_yoinks_words(problem: &Problem) -> Response {
    let message = match problem.kind.slug {
        "sold-out" => "Out of stock",
        _ => problem.detail(),
    };
    in_old_words(problem, reason_of(problem.kind.status), Some(message))
}

fn reason_of(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

/// An order's status as the older systems called it.
pub(crate) fn old_status(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Queued | OrderStatus::Accepted => "PENDING",
        OrderStatus::Confirmed => "CONFIRMED",
        OrderStatus::Cancelled => "CANCELLED",
        OrderStatus::Failed | OrderStatus::Rejected => "FAILED",
    }
}
