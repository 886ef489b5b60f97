//! Flash Sale Engine (and Yoink): `POST /buy`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{OldPurchase, buy as buy_old, in_old_words, in_yoinks_words, weaker_durability};
use crate::api::{Json, Way};
use crate::edge::Core;
use crate::guard::rate_limit::Which;
use crate::request::ClientAddress;

/// Accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BuyAnswer {
    message: &'static str,
    status: &'static str,
    order_id: String,
    /// `relaxed`, if the servers may forget it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    durability: Option<&'static str>,
}

/// Buy.
///
/// With the rabbitmq engine 202 also where nothing is left: the order tells later.
#[utoipa::path(
    post, path = "/buy", tag = "compatible", request_body = OldPurchase,
    params(crate::api::schema::PurchaseKey),
    responses(
        (status = 202, description = "Accepted", body = BuyAnswer),
        super::OldProblems
    )
)]
pub(crate) async fn buy(
    State(core): State<Arc<Core>>,
    address: ClientAddress,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match buy_old(&core, &headers, address, &body, (&[Which::General], Way::Enqueue)).await {
        Ok(purchased) => {
            let answer = BuyAnswer {
                message: "Order received! Processing...",
                status: "QUEUED",
                order_id: purchased.order.to_string(),
                durability: weaker_durability(&core),
            };
            Json(StatusCode::ACCEPTED, answer).into_response()
        }
        Err(problem) if problem.kind.status == StatusCode::BAD_REQUEST => {
            in_old_words(&problem, "Missing fields", None)
        }
        Err(problem) => in_yoinks_words(&problem),
    }
}
