//! `GET /metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, header};

use crate::edge::Core;
use crate::metrics::{Format, render};
use crate::problem::Problem;

/// Metrics for Prometheus.
///
/// OpenMetrics if `Accept` names it, else the older text format.
#[utoipa::path(
    get, path = "/metrics", tag = "always there",
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain"), crate::api::ReadProblems)
)]
pub(crate) async fn get_metrics(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    core.shared.auth.observer(&headers)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept);
    Ok(([(header::CONTENT_TYPE, format.content_type())], render(&core, format)))
}
