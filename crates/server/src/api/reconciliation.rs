//! `GET /v1/admin/reconciliation`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;

use super::ok;
use crate::edge::Core;
use crate::guard::auth::Operator;
use crate::problem::Problem;
use crate::wire::Reconciliation;

/// The invariants, recounted from the log by code that shares nothing with what it counts.
#[utoipa::path(
    get, path = "/v1/admin/reconciliation", tag = "operators",
    responses((status = 200, description = "What was found", body = Reconciliation), crate::api::ReadProblems)
)]
pub(crate) async fn get_reconciliation(
    _: Operator,
    State(core): State<Arc<Core>>,
) -> Result<impl IntoResponse, Problem> {
    let found = core.engine.reconcile().await.map_err(|error| core.problem(error))?;
    Ok(ok(Reconciliation::from(found)))
}
