//! `GET /openapi.json`, and `GET /problems/{slug}`, which is what a problem's `type` points to.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use http::header;

use crate::edge::Core;
use crate::problem::{KINDS, Problem};

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "always there", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value), crate::api::OpenProblems)
)]
pub(crate) async fn get_openapi(State(core): State<Arc<Core>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], core.shared.openapi.clone())
}

/// What a kind of problem means.
#[utoipa::path(
    get, path = "/problems/{slug}", tag = "always there", security(()),
    params(("slug" = String, Path, description = "The last part of a problem's type")),
    responses(
        (status = 200, description = "In words", body = String, content_type = "text/plain"), crate::api::OpenProblems
    )
)]
pub(crate) async fn get_problem(Path(slug): Path<String>) -> Result<impl IntoResponse, Problem> {
    let kind = KINDS.iter().find(|kind| kind.slug == slug).ok_or_else(Problem::no_such_route)?;
    Ok(format!("{} {}: {}\n", kind.status.as_u16(), kind.slug, kind.title))
}
