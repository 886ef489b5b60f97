//! `POST /v1/orders/{id}/cancel`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::HeaderName;
use serde::Deserialize;
use utoipa::ToSchema;
use yoink_core::{OrderId, Rejection};
use yoink_engine::{CallError, OrderInShort, Replayed};

use super::{Body, OrderPath, check_reason, ok};
use crate::edge::Core;
use crate::guard::auth::{Buyer, Caller};
use crate::problem::Problem;
use crate::wire::Order;

/// Why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelBody {
    /// For the books.
    #[schema(schema_with = crate::api::schema::reason)]
    reason: String,
}

/// Give the units of an order back.
///
/// They go back to stock once; again gives the same answer.
#[utoipa::path(
    post, path = "/v1/orders/{id}/cancel", tag = "buyers", request_body = CancelBody,
    params(crate::api::schema::OrderInPath),
    responses((status = 200, description = "The cancelled order", body = Order), crate::api::WriteProblems)
)]
pub(crate) async fn cancel_order(
    State(core): State<Arc<Core>>,
    Buyer(caller): Buyer,
    OrderPath(id): OrderPath,
    Body(body): Body<CancelBody>,
) -> Result<impl IntoResponse, Problem> {
    let reason = check_reason(&body.reason)?;
    if let Caller::Customer(_) = &caller {
        let order = core.engine.order(id).await.map_err(|error| core.problem(error))?;
        match order {
            Some(order) if caller.may_act_for(&order.customer) => {}
            Some(_) => return Err(Problem::no_such_order()),
            None => return Err(refusal_of_unfound(&core, id).await),
        }
    }
    let (order, replayed) = core.engine.cancel(id, reason).await.map_err(|error| core.problem(error))?;
    Ok((replayed_header(replayed), ok(Order::from(order))))
}

/// What a customer is told of an order that is not found: whose it is shows once it is decided.
async fn refusal_of_unfound(core: &Core, id: OrderId) -> Problem {
    match core.engine.order_in_short(id).await {
        Ok(Some(OrderInShort::Queued)) => core.problem(CallError::Overloaded),
        Ok(Some(OrderInShort::Failed(_))) => core.problem(Rejection::OrderFailed.into()),
        Ok(None) => Problem::no_such_order(),
        Err(error) => core.problem(error),
    }
}

/// `Idempotent-Replayed: true`, where something was done before.
pub(crate) fn replayed_header(replayed: Replayed) -> Option<[(HeaderName, &'static str); 1]> {
    match replayed {
        Replayed::Yes => Some([(HeaderName::from_static("idempotent-replayed"), "true")]),
        Replayed::No => None,
    }
}
