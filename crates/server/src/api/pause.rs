//! `POST /v1/admin/products/{id}/pause` and `…/resume`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;

use super::{ProductPath, ok};
use crate::edge::Core;
use crate::guard::auth::Operator;
use crate::problem::Problem;
use crate::wire::Product;

/// Stop selling a product.
#[utoipa::path(
    post, path = "/v1/admin/products/{id}/pause", tag = "operators",
    params(crate::api::schema::ProductInPath),
    responses((status = 200, description = "The product", body = Product), crate::api::WriteProblems)
)]
pub(crate) async fn pause_product(
    _: Operator,
    State(core): State<Arc<Core>>,
    ProductPath(id): ProductPath,
) -> Result<impl IntoResponse, Problem> {
    let view = core.engine.pause(id).await.map_err(|error| core.problem(error))?;
    Ok(ok(Product::from(&view)))
}

/// Sell it again.
#[utoipa::path(
    post, path = "/v1/admin/products/{id}/resume", tag = "operators",
    params(crate::api::schema::ProductInPath),
    responses((status = 200, description = "The product", body = Product), crate::api::WriteProblems)
)]
pub(crate) async fn resume_product(
    _: Operator,
    State(core): State<Arc<Core>>,
    ProductPath(id): ProductPath,
) -> Result<impl IntoResponse, Problem> {
    let view = core.engine.resume(id).await.map_err(|error| core.problem(error))?;
    Ok(ok(Product::from(&view)))
}
