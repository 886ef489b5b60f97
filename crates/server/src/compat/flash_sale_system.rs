//! Flash Sale System: `POST /purchase`, `GET /purchase/orders/{userId}`, `GET /purchase/metrics`,
//! `POST /products/restock`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use yoink_core::{CustomerId, IdempotencyKey, STOCK_UNITS_MAX, StockAdjustment};
use yoink_engine::limits::LIST_ORDERS_MAX;
use yoink_engine::{OrderFilter, OrderView};

use super::{OldPurchase, buy, in_old_words, old_status, weaker_durability};
use crate::api::{Way, ok};
use crate::edge::Core;
use crate::guard::rate_limit::Which;
use crate::json::{self, Id};
use crate::problem::Problem;
use crate::request::{ClientAddress, idempotency_key};

fn in_old_system_words(problem: &Problem) -> Response {
    let error = match problem.kind.status {
        StatusCode::CONFLICT => "Stock problem",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests",
        _ => problem.detail(),
    };
    in_old_words(problem, error, None)
}

/// Accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PurchaseAnswer {
    status: &'static str,
    /// `relaxed`, if the servers may forget it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    durability: Option<&'static str>,
}

/// Buy; 5 a minute per customer and per address.
#[utoipa::path(
    post, path = "/purchase", tag = "compatible", request_body = OldPurchase,
    params(crate::api::schema::PurchaseKey),
    responses(
        (status = 200, description = "Accepted", body = PurchaseAnswer),
        super::OldProblems
    )
)]
pub(crate) async fn purchase(
    State(core): State<Arc<Core>>,
    address: ClientAddress,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let terms = (&[Which::Purchase, Which::General][..], Way::Purchase);
    match buy(&core, &headers, address, &body, terms).await {
        Ok(_) => {
            let answer = PurchaseAnswer { status: "queued", durability: weaker_durability(&core) };
            ok(answer).into_response()
        }
        Err(problem) => in_old_system_words(&problem),
    }
}

/// An order as Flash Sale System showed it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OldOrder {
    /// Its place in the log.
    id: u64,
    status: &'static str,
    quantity: u32,
}

impl From<OrderView> for OldOrder {
    fn from(order: OrderView) -> Self {
        Self { id: order.seq, status: old_status(order.status), quantity: order.quantity }
    }
}

/// The orders of a customer, oldest first.
#[utoipa::path(
    get, path = "/purchase/orders/{userId}", tag = "compatible",
    params(crate::api::schema::UserInPath),
    responses(
        (status = 200, description = "The orders", body = Vec<OldOrder>),
        super::OldProblems
    )
)]
pub(crate) async fn list_orders(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    user: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Response {
    let user = user.map(|Path(user)| user).unwrap_or_default();
    match orders_of(&core, &headers, &user).await {
        Ok(orders) => ok(orders).into_response(),
        Err(problem) => in_old_system_words(&problem),
    }
}

async fn orders_of(core: &Core, headers: &HeaderMap, user: &str) -> Result<Vec<OldOrder>, Problem> {
    let caller = core.shared.auth.lister(headers)?;
    let customer = CustomerId::parse(user).map_err(|error| Problem::field("", format!("userId {error}")))?;
    if !caller.may_act_for(&customer) {
        // As for a customer without orders.
        return Ok(Vec::new());
    }
    let filter = OrderFilter { customer: Some(customer), limit: LIST_ORDERS_MAX, ..OrderFilter::default() };
    let orders = core.engine.orders(filter).await.map_err(|error| core.problem(error))?.orders;
    Ok(orders.into_iter().map(OldOrder::from).collect())
}

/// Figures as Flash Sale System showed them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OldMetrics {
    /// Units that can be bought, of all products.
    stock_remaining: u64,
    /// Events that the ledger does not have.
    queue_depth: u64,
    /// Orders that the ledger took since the start.
    total_processed: u64,
}

/// Figures of the sale.
#[utoipa::path(
    get, path = "/purchase/metrics", tag = "compatible", security(()),
    responses((status = 200, description = "The figures", body = OldMetrics), super::OldProblems)
)]
pub(crate) async fn get_metrics(State(core): State<Arc<Core>>) -> impl IntoResponse {
    let delivery = core.engine.delivery().status();
    ok(OldMetrics {
        stock_remaining: core.engine.storefront().shelves().iter().map(|shelf| shelf.available()).sum(),
        queue_depth: core.engine.last_seq().saturating_sub(delivery.position),
        total_processed: delivery.confirmed_total,
    })
}

/// Units to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RestockBody<'a> {
    /// To which product.
    #[serde(borrow)]
    #[schema(value_type = crate::api::schema::ProductIdSchema)]
    product_id: Id<'a>,
    /// How many.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    amount: u64,
}

/// Added.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RestockAnswer {
    status: &'static str,
    /// As it was sent.
    #[schema(value_type = crate::api::schema::ProductIdSchema)]
    product_id: serde_json::Value,
    /// Units that can be bought now.
    stock: u64,
}

/// Add units to a product; outside `--dev` with an admin key.
#[utoipa::path(
    post, path = "/products/restock", tag = "compatible", request_body = RestockBody,
    params(crate::api::schema::OldRestockKey),
    responses(
        (status = 200, description = "Added", body = RestockAnswer),
        super::OldProblems
    )
)]
pub(crate) async fn restock(State(core): State<Arc<Core>>, headers: HeaderMap, body: Bytes) -> Response {
    match try_restock(&core, &headers, &body).await {
        Ok(answer) => ok(answer).into_response(),
        Err(problem) => in_old_words(&problem, problem.detail(), None),
    }
}

async fn try_restock(core: &Core, headers: &HeaderMap, body: &Bytes) -> Result<RestockAnswer, Problem> {
    core.shared.auth.operator_unless_dev(headers)?;
    json::check_content_type(headers)?;
    let body: RestockBody = json::parse_flat(body)?;
    let product = body.product_id.to_product("/productId")?;
    let delta = i64::try_from(body.amount).ok().filter(|_| (1..=STOCK_UNITS_MAX).contains(&body.amount));
    let bad_amount = || Problem::field("/amount", format!("must be from 1 to {STOCK_UNITS_MAX}"));
    // The original knew no keys: without one, every request counts.
    let once = || IdempotencyKey::parse(&uuid::Uuid::now_v7().to_string()).ok();
    let key = idempotency_key(headers)?.or_else(once).ok_or_else(bad_amount)?;
    let adjustment =
        StockAdjustment { product, delta: delta.ok_or_else(bad_amount)?, reason: "restock".into(), key };
    let adjusted = core.engine.adjust_stock(adjustment).await.map_err(|error| core.problem(error))?;
    Ok(RestockAnswer {
        status: "ok",
        product_id: body.product_id.to_json(),
        stock: adjusted.figures.available,
    })
}
