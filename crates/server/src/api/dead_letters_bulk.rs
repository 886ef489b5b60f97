//! `POST /v1/admin/dead-letters/retry` and `…/discard`: every open one that a filter lets through.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use yoink_engine::{DeadLetterFilter, DeadLetterState};

use super::dead_letters::{PAGE_MAX, check_product};
use super::{Body, check_reason, ok};
use crate::edge::Core;
use crate::guard::auth::Operator;
use crate::problem::Problem;
use crate::wire::{BulkAnswer, BulkDiscard, BulkFilter, BulkRetry};

/// Deliver all of them again. With `dry_run` it only says which they are.
#[utoipa::path(
    post, path = "/v1/admin/dead-letters/retry", tag = "operators", request_body = BulkRetry,
    responses((status = 200, description = "What was done", body = BulkAnswer), crate::api::WriteProblems)
)]
pub(crate) async fn retry_dead_letters(
    _: Operator,
    State(core): State<Arc<Core>>,
    Body(body): Body<BulkRetry>,
) -> Result<impl IntoResponse, Problem> {
    body.reason.as_deref().map(check_reason).transpose()?;
    let ids = parked(&core, body.filter).await?;
    let mut changed = 0;
    if !body.dry_run {
        for id in &ids {
            let retried = core.engine.delivery().retry_dead_letter(*id).await;
            // One that somebody else settled meanwhile is not ours to change.
            changed += u64::from(retried.map_err(|error| core.problem(error.into()))?.is_ok());
        }
    }
    Ok(ok(answer(ids, changed, body.dry_run)))
}

/// Give the units of all of them back and close them. With `dry_run` it only says which they are.
#[utoipa::path(
    post, path = "/v1/admin/dead-letters/discard", tag = "operators", request_body = BulkDiscard,
    responses((status = 200, description = "What was done", body = BulkAnswer), crate::api::WriteProblems)
)]
pub(crate) async fn discard_dead_letters(
    _: Operator,
    State(core): State<Arc<Core>>,
    Body(body): Body<BulkDiscard>,
) -> Result<impl IntoResponse, Problem> {
    let reason = check_reason(&body.reason)?;
    let ids = parked(&core, body.filter).await?;
    let mut changed = 0;
    if !body.dry_run {
        for id in &ids {
            let discarded = core.engine.delivery().discard_dead_letter(*id, reason.clone()).await;
            changed += u64::from(discarded.map_err(|error| core.problem(error.into()))?.is_ok());
        }
    }
    Ok(ok(answer(ids, changed, body.dry_run)))
}

fn answer(ids: Vec<i64>, changed: u64, dry_run: bool) -> BulkAnswer {
    BulkAnswer { matched: ids.len() as u64, changed, dry_run, ids }
}

/// The numbers of all that wait for an operator.
async fn parked(core: &Core, filter: BulkFilter) -> Result<Vec<i64>, Problem> {
    let product = check_product(filter.product.as_deref(), "/filter/product")?;
    let mut ids = Vec::new();
    loop {
        let page = DeadLetterFilter {
            product,
            error: filter.error.clone(),
            after: ids.last().copied().unwrap_or(0),
            limit: PAGE_MAX,
            state: Some(DeadLetterState::Parked),
        };
        let page = core.engine.delivery().dead_letters(page).await;
        let page = page.map_err(|error| core.problem(error.into()))?;
        ids.extend(page.iter().map(|letter| letter.id));
        if page.len() < PAGE_MAX {
            return Ok(ids);
        }
    }
}
