//! The native routes: one file per verb. A handler parses, makes one call to the engine and renders.

pub(crate) mod adjust_stock;
pub(crate) mod cancel;
pub(crate) mod change_product;
pub(crate) mod create_product;
pub(crate) mod dead_letters;
pub(crate) mod dead_letters_bulk;
pub(crate) mod delivery;
pub(crate) mod events;
pub(crate) mod exports;
pub(crate) mod get_order;
pub(crate) mod health;
pub(crate) mod info;
pub(crate) mod list_orders;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod paging;
pub(crate) mod pause;
pub(crate) mod products;
pub(crate) mod purchase;
pub(crate) mod reconciliation;
pub(crate) mod schema;
pub(crate) mod stream;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoResponses, ToResponse, ToSchema};
use yoink_core::{OrderId, ProductId, REASON_BYTES_MAX, Rejection};
use yoink_engine::{PurchaseRequest, Purchased};

use crate::edge::Core;
use crate::guard::rate_limit::Which;
use crate::json;
use crate::problem::Problem;
use crate::request::ClientAddress;

/// What is asked of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// An early no, if one can be told.
    Purchase,
    /// A place in the queue, where there is one: whether units are left is then told by the order alone.
    Enqueue,
}

impl Way {
    fn refuse_early(self, core: &Core, request: &PurchaseRequest) -> Option<Rejection> {
        match self {
            Self::Purchase => core.engine.refuse_early(request),
            Self::Enqueue => core.engine.refuse_to_enqueue(request),
        }
    }
}

/// Buys, unless one of the limits says no. Replays, and purchases that the sale refuses anyway, are not limited.
///
/// # Errors
/// The engine's "no", or 429.
pub(crate) async fn purchase_within(
    core: &Core,
    (limits, way): (&[Which], Way),
    request: PurchaseRequest,
    address: IpAddr,
) -> Result<Purchased, Problem> {
    let is_limited = !limits.iter().all(|which| core.shared.limits.is_off(*which));
    // Whose key has its order can only be told of it, so it is neither refused for being too fast nor counted.
    if is_limited
        && way.refuse_early(core, &request).is_none()
        && !core.engine.is_replay(&request).await.map_err(|error| core.problem(error))?
    {
        limits.iter().try_for_each(|which| core.shared.limits.check(*which, &request.customer, address))?;
    }
    let bought = match way {
        Way::Purchase => core.engine.purchase(request).await,
        Way::Enqueue => core.engine.enqueue(request).await,
    };
    bought.map_err(|error| core.problem(error))
}

/// A JSON answer.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) StatusCode, pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let Self(status, value) = self;
        let Ok(body) = serde_json::to_vec(&value) else {
            return Problem::new(&crate::problem::INTERNAL, "The answer could not be written.")
                .into_response();
        };
        let mut response = Response::new(axum::body::Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// 200 with JSON.
pub(crate) fn ok<T: Serialize>(value: T) -> Json<T> {
    Json(StatusCode::OK, value)
}

/// Extractor: a strict JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Core>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, core: &Arc<Core>) -> Result<Self, Problem> {
        json::check_content_type(request.headers())?;
        // The edge has read the body already, within its limits.
        let bytes =
            Bytes::from_request(request, core).await.map_err(|_| Problem::field("", "the body broke off"))?;
        json::parse(&bytes).map(Self)
    }
}

/// Extractor: the query, with known parameters only.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Core>> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _core: &Arc<Core>) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|axum::extract::Query(query)| Self(query)).map_err(
            |rejection| {
                let text = rejection.body_text();
                let detail = text.rsplit("query string: ").next().unwrap_or_default();
                Problem::field("", format!("query: {}", detail.chars().take(200).collect::<String>()))
            },
        )
    }
}

/// Extractor: where the request comes from.
impl FromRequestParts<Arc<Core>> for ClientAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _core: &Arc<Core>) -> Result<Self, Problem> {
        let address = parts.extensions.get::<Self>().copied();
        address.ok_or_else(|| Problem::new(&crate::problem::INTERNAL, "The client's address was lost."))
    }
}

async fn path_segment(parts: &mut Parts, core: &Arc<Core>) -> Option<String> {
    let path = Path::<String>::from_request_parts(parts, core).await;
    path.ok().map(|Path(segment)| segment)
}

/// Extractor: the product that the path names. A text that can't be an id names none.
pub(crate) struct ProductPath(pub(crate) ProductId);

impl FromRequestParts<Arc<Core>> for ProductPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        let segment = path_segment(parts, core).await;
        let id = segment.and_then(|segment| ProductId::parse(&segment).ok());
        id.map(Self).ok_or_else(Problem::no_such_product)
    }
}

/// Extractor: the order that the path names.
pub(crate) struct OrderPath(pub(crate) OrderId);

impl FromRequestParts<Arc<Core>> for OrderPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        let segment = path_segment(parts, core).await;
        let id = segment.and_then(|segment| uuid::Uuid::try_parse(&segment).ok());
        id.map(|id| Self(OrderId(id.into_bytes()))).ok_or_else(Problem::no_such_order)
    }
}

/// A reason as the books keep it.
///
/// # Errors
/// 400 if it is empty, too long, or holds control characters.
pub(crate) fn check_reason(reason: &str) -> Result<Box<str>, Problem> {
    let error = match reason {
        "" => "must not be empty".to_owned(),
        long if long.len() > REASON_BYTES_MAX => format!("must have at most {REASON_BYTES_MAX} bytes"),
        text if text.chars().any(char::is_control) => "must not contain control characters".to_owned(),
        _ => return Ok(reason.into()),
    };
    Err(Problem::field("/reason", error))
}

/// A "no" (RFC 9457). Some kinds carry more members than these.
#[derive(Serialize, ToSchema, ToResponse)]
#[response(description = "A problem (RFC 9457)", content_type = "application/problem+json")]
pub(crate) struct ProblemDocument {
    /// `/problems/<slug>`; read it to learn more.
    #[serde(rename = "type")]
    #[schema(pattern = "^/problems/[a-z-]+$")]
    kind: String,
    /// What it is called.
    title: String,
    /// The status again.
    status: u16,
    /// What happened.
    detail: String,
    /// What is wrong with the request, in `validation` only.
    #[schema(nullable = false)]
    errors: Option<Vec<FieldErrorDocument>>,
}

/// One field that is not valid.
#[derive(Serialize, ToSchema)]
pub(crate) struct FieldErrorDocument {
    /// RFC 6901 pointer into the body; empty for the whole body, headers and query parameters.
    pointer: String,
    /// What is wrong.
    detail: String,
}

fn problems(statuses: &[&str]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let problem = || RefOr::Ref(Ref::from_response_name("ProblemDocument"));
    statuses.iter().map(|status| ((*status).to_owned(), problem())).collect()
}

/// What may go wrong with a route that anybody may read.
pub(crate) struct OpenProblems;

impl IntoResponses for OpenProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        problems(&["400", "404", "503"])
    }
}

/// What may go wrong with a route that reads.
pub(crate) struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        problems(&["400", "401", "403", "404", "503"])
    }
}

/// What may go wrong with a route that changes something.
pub(crate) struct WriteProblems;

impl IntoResponses for WriteProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        problems(&["400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "503"])
    }
}
