//! `GET /v1/orders/{id}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::HeaderMap;

use super::{OrderPath, ok};
use crate::edge::Core;
use crate::problem::Problem;
use crate::wire::Order;

/// One order.
///
/// Found from the moment its purchase was answered on. The holder of a customer token sees their own orders only.
#[utoipa::path(
    get, path = "/v1/orders/{id}", tag = "buyers", params(crate::api::schema::OrderInPath),
    responses((status = 200, description = "The order", body = Order), crate::api::ReadProblems)
)]
pub(crate) async fn get_order(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    OrderPath(id): OrderPath,
) -> Result<impl IntoResponse, Problem> {
    let caller = core.shared.auth.reader(&headers)?;
    let order = core.engine.order(id).await.map_err(|error| core.problem(error))?;
    match order {
        // A foreign order is told apart from none by nobody.
        Some(order) if caller.may_act_for(&order.customer) => Ok(ok(Order::from(order))),
        _ => Err(Problem::no_such_order()),
    }
}
