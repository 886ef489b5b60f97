//! `GET /v1/admin/delivery`, `POST /v1/admin/delivery/pause` and `…/resume`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use yoink_engine::DeliveryStatus;

use super::ok;
use crate::edge::Core;
use crate::guard::auth::Operator;
use crate::metrics::oldest_undelivered_seconds;
use crate::problem::Problem;
use crate::wire::Delivery;

fn describe(core: &Core, status: &DeliveryStatus) -> Delivery {
    let oldest = oldest_undelivered_seconds(core.engine.now(), status);
    Delivery::new(status, core.engine.last_seq(), oldest)
}

/// Where the delivery of orders to the ledger is.
#[utoipa::path(
    get, path = "/v1/admin/delivery", tag = "operators",
    responses((status = 200, description = "Where it is", body = Delivery), crate::api::ReadProblems)
)]
pub(crate) async fn get_delivery(_: Operator, State(core): State<Arc<Core>>) -> impl IntoResponse {
    ok(describe(&core, &core.engine.delivery().status()))
}

/// Stop carrying orders to the ledger; selling goes on.
#[utoipa::path(
    post, path = "/v1/admin/delivery/pause", tag = "operators",
    responses((status = 200, description = "Where it is", body = Delivery), crate::api::WriteProblems)
)]
pub(crate) async fn pause_delivery(
    _: Operator,
    State(core): State<Arc<Core>>,
) -> Result<impl IntoResponse, Problem> {
    let status = core.engine.delivery().pause().await.map_err(|error| core.problem(error.into()))?;
    Ok(ok(describe(&core, &status)))
}

/// Carry orders to the ledger again.
#[utoipa::path(
    post, path = "/v1/admin/delivery/resume", tag = "operators",
    responses((status = 200, description = "Where it is", body = Delivery), crate::api::WriteProblems)
)]
pub(crate) async fn resume_delivery(
    _: Operator,
    State(core): State<Arc<Core>>,
) -> Result<impl IntoResponse, Problem> {
    let status = core.engine.delivery().resume().await.map_err(|error| core.problem(error.into()))?;
    Ok(ok(describe(&core, &status)))
}
