//! `GET /v1/orders/{id}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::HeaderMap;

use super::{OrderPath, ok};
use crate::edge::Core;
use crate::problem::Problem;
use crate::wire::{Order, OrderFound, OrderInShort};

/// One order.
///
/// Found from the moment its purchase was answered on. The holder of a customer token sees their own orders only. Of an
/// order that another node queued and nobody has decided yet, only that it is `queued` can be told (rabbitmq engine); of one
/// whose product the ledger does not have, that it `failed`, and why.
#[utoipa::path(
    get, path = "/v1/orders/{id}", tag = "buyers", params(crate::api::schema::OrderInPath),
    responses((status = 200, description = "The order", body = OrderFound), crate::api::ReadProblems)
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
        Some(order) if caller.may_act_for(&order.customer) => Ok(ok(OrderFound::Known(Order::from(order)))),
        Some(_) => Err(Problem::no_such_order()),
        None => {
            let order = core.engine.order_in_short(id).await.map_err(|error| core.problem(error))?;
            // Whose it is nobody knows, and nothing else about it either.
            let order = order.ok_or_else(Problem::no_such_order)?;
            Ok(ok(OrderFound::InShort(OrderInShort::new(id, order))))
        }
    }
}
