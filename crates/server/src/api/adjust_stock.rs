//! `POST /v1/admin/products/{id}/stock`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;
use yoink_core::{STOCK_UNITS_MAX, StockAdjustment};

use super::cancel::replayed_header;
use super::{Body, ProductPath, check_reason, ok};
use crate::edge::Core;
use crate::guard::auth::Operator;
use crate::problem::Problem;
use crate::request::idempotency_key;
use crate::wire::Adjustment;

/// A restock, or a withdrawal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StockBody {
    /// Units to add, or to take if below zero. Never 0.
    #[schema(schema_with = crate::api::schema::delta)]
    delta: i64,
    /// For the books.
    #[schema(schema_with = crate::api::schema::reason)]
    reason: String,
}

/// Add units to what is available, or take some.
///
/// Units that are sold cannot be taken. The same key and body again change nothing and give the same answer.
#[utoipa::path(
    post, path = "/v1/admin/products/{id}/stock", tag = "operators", request_body = StockBody,
    params(crate::api::schema::ProductInPath, crate::api::schema::AdjustmentKey),
    responses((status = 200, description = "What was done", body = Adjustment), crate::api::WriteProblems)
)]
pub(crate) async fn adjust_stock(
    _: Operator,
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    ProductPath(product): ProductPath,
    Body(body): Body<StockBody>,
) -> Result<impl IntoResponse, Problem> {
    let missing_key =
        || Problem::field("", "Idempotency-Key: needed, so that a repeated request changes stock once");
    let key = idempotency_key(&headers)?.ok_or_else(missing_key)?;
    if body.delta == 0 || body.delta.unsigned_abs() > STOCK_UNITS_MAX {
        let detail = format!("must not be 0, nor beyond {STOCK_UNITS_MAX} either way");
        return Err(Problem::field("/delta", detail));
    }
    let adjustment = StockAdjustment { product, delta: body.delta, reason: check_reason(&body.reason)?, key };
    let adjusted = core.engine.adjust_stock(adjustment).await.map_err(|error| core.problem(error))?;
    let answer = Adjustment {
        seq: adjusted.seq,
        product_id: product.to_string(),
        delta: adjusted.delta,
        figures: adjusted.figures.into(),
    };
    Ok((replayed_header(adjusted.replayed), ok(answer)))
}
