//! `GET /v1/admin/dead-letters`, `…/{id}`, `POST …/{id}/retry` and `…/{id}/discard`.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::response::IntoResponse;
use http::request::Parts;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use yoink_core::ProductId;
use yoink_engine::{DeadLetterFilter, DeadLetterRefusal};

use super::paging::Page;
use super::{Body, Query, check_reason, ok, path_segment};
use crate::edge::Core;
use crate::guard::auth::Operator;
use crate::problem::{DEAD_LETTER_CLOSED, NOT_FOUND, Problem};
use crate::wire::{DeadLetter, DeadLetterList, DeadLetterState};

/// The most dead letters in one page.
pub(crate) const PAGE_MAX: usize = yoink_engine::delivery::DEAD_LETTERS_LISTED_MAX;

/// Which dead letters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only those of this product.
    #[param(schema_with = crate::api::schema::product_id, required = false)]
    product: Option<String>,
    /// Only those whose error contains this text.
    error: Option<String>,
    /// Only those in this state.
    state: Option<DeadLetterState>,
    /// Only those with a higher number.
    #[serde(default)]
    #[param(default = 0, maximum = 9_223_372_036_854_775_807_i64)]
    after: u64,
    /// At most this many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Extractor: the number that the path names.
pub(crate) struct DeadLetterPath(i64);

impl FromRequestParts<Arc<Core>> for DeadLetterPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        let segment = path_segment(parts, core).await;
        let id = segment.and_then(|segment| segment.parse().ok());
        id.map(Self).ok_or_else(no_such_dead_letter)
    }
}

fn no_such_dead_letter() -> Problem {
    Problem::new(&NOT_FOUND, "There is no such dead letter.")
}

pub(crate) fn refused(refusal: DeadLetterRefusal) -> Problem {
    match refusal {
        DeadLetterRefusal::NotFound => no_such_dead_letter(),
        DeadLetterRefusal::AlreadyReleased
        | DeadLetterRefusal::AlreadyDiscarded
        | DeadLetterRefusal::AlreadyRetried
        | DeadLetterRefusal::Unreadable => Problem::new(&DEAD_LETTER_CLOSED, refusal.to_string()),
    }
}

/// # Errors
/// 400 if it cannot be an id.
pub(crate) fn check_product(product: Option<&str>, pointer: &str) -> Result<Option<ProductId>, Problem> {
    let product = product.map(ProductId::parse).transpose();
    product.map_err(|error| Problem::field(pointer, format!("product {error}")))
}

/// Orders that the ledger refused for good, oldest first.
#[utoipa::path(
    get, path = "/v1/admin/dead-letters", tag = "operators", params(Filter),
    responses((status = 200, description = "One page of them", body = DeadLetterList), crate::api::ReadProblems)
)]
pub(crate) async fn list_dead_letters(
    _: Operator,
    State(core): State<Arc<Core>>,
    Query(filter): Query<Filter>,
) -> Result<impl IntoResponse, Problem> {
    let Page { after, limit } = Page::check(filter.after, filter.limit, PAGE_MAX)?;
    let filter = DeadLetterFilter {
        product: check_product(filter.product.as_deref(), "")?,
        error: filter.error,
        // `Page` keeps it in range.
        after: i64::try_from(after).unwrap_or(i64::MAX),
        limit,
        state: filter.state.map(Into::into),
    };
    let found = core.engine.delivery().dead_letters(filter).await;
    let found = found.map_err(|error| core.problem(error.into()))?;
    let next_after = (found.len() == limit).then(|| found.last().map(|letter| letter.id)).flatten();
    let dead_letters = found.into_iter().map(DeadLetter::from).collect();
    Ok(ok(DeadLetterList { dead_letters, next_after }))
}

/// One dead letter.
#[utoipa::path(
    get, path = "/v1/admin/dead-letters/{id}", tag = "operators",
    params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, description = "The dead letter", body = DeadLetter), crate::api::ReadProblems)
)]
pub(crate) async fn get_dead_letter(
    _: Operator,
    State(core): State<Arc<Core>>,
    DeadLetterPath(id): DeadLetterPath,
) -> Result<impl IntoResponse, Problem> {
    let found = core.engine.delivery().dead_letter(id).await;
    let found = found.map_err(|error| core.problem(error.into()))?;
    found.map(|letter| ok(DeadLetter::from(letter))).ok_or_else(no_such_dead_letter)
}

/// Deliver it again, with all its attempts.
#[utoipa::path(
    post, path = "/v1/admin/dead-letters/{id}/retry", tag = "operators",
    params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, description = "The dead letter", body = DeadLetter), crate::api::WriteProblems)
)]
pub(crate) async fn retry_dead_letter(
    _: Operator,
    State(core): State<Arc<Core>>,
    DeadLetterPath(id): DeadLetterPath,
) -> Result<impl IntoResponse, Problem> {
    let retried = core.engine.delivery().retry_dead_letter(id).await;
    let retried = retried.map_err(|error| core.problem(error.into()))?;
    Ok(ok(DeadLetter::from(retried.map_err(refused)?)))
}

/// Why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiscardBody {
    /// For the books.
    #[schema(schema_with = crate::api::schema::reason)]
    reason: String,
}

/// Give its units back and close it.
#[utoipa::path(
    post, path = "/v1/admin/dead-letters/{id}/discard", tag = "operators", request_body = DiscardBody,
    params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, description = "The dead letter", body = DeadLetter), crate::api::WriteProblems)
)]
pub(crate) async fn discard_dead_letter(
    _: Operator,
    State(core): State<Arc<Core>>,
    DeadLetterPath(id): DeadLetterPath,
    Body(body): Body<DiscardBody>,
) -> Result<impl IntoResponse, Problem> {
    let reason = check_reason(&body.reason)?;
    let discarded = core.engine.delivery().discard_dead_letter(id, reason).await;
    let discarded = discarded.map_err(|error| core.problem(error.into()))?;
    Ok(ok(DeadLetter::from(discarded.map_err(refused)?)))
}
