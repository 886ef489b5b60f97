//! `POST /v1/admin/products`.

use std::sync::Arc;

use aws_lc_rs::digest;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use yoink_core::{
    IdempotencyKey, MAX_PER_ORDER_DEFAULT, NewProduct, PRODUCT_NAME_BYTES_MAX, ProductId, QUANTITY_MAX,
    Rejection, STOCK_UNITS_MAX, Window,
};
use yoink_engine::{CallError, ProductView, Replayed};

use super::cancel::replayed_header;
use super::{Body, Json};
use crate::edge::Core;
use crate::guard::auth::Operator;
use crate::json::Id;
use crate::problem::{FieldError, PRODUCT_EXISTS, Problem};
use crate::request::idempotency_key;
use crate::wire::{Money, Product, When};

/// A higher limit than there can be units means nothing.
const LIMIT_PER_CUSTOMER_MAX: u32 = 1_000_000_000;

/// Something to sell. Only name, price and stock are required.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProductBody {
    /// Left out, it is made from the `Idempotency-Key`; without one, it is the next free whole number.
    #[serde(default, deserialize_with = "product_id")]
    #[schema(value_type = Option<crate::api::schema::ProductIdSchema>)]
    id: Option<ProductId>,
    /// What people call it.
    #[schema(schema_with = crate::api::schema::product_name)]
    name: String,
    /// What one unit costs.
    price: Money,
    /// Units to begin with.
    #[schema(maximum = 1_000_000_000)]
    stock: u64,
    /// When its sale starts; `null` is open-ended.
    #[serde(default)]
    starts_at: Option<When>,
    /// When its sale ends; `null` is open-ended.
    #[serde(default)]
    ends_at: Option<When>,
    /// Units of live orders per customer; `null` does not limit them.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    limit_per_customer: Option<u32>,
    /// Units in one order; left out, 10.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000)]
    max_per_order: Option<u32>,
}

fn product_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ProductId>, D::Error> {
    let id = Option::<Id<'de>>::deserialize(deserializer)?;
    let id = id.map(|id| id.to_product("/id")).transpose();
    id.map_err(|problem| serde::de::Error::custom(problem.detail()))
}

/// Put something on sale.
///
/// The same `id`, or the same `Idempotency-Key` without one, and the same fields again create nothing: the answer is the
/// product as it is now. Without either, every request creates a product.
#[utoipa::path(
    post, path = "/v1/admin/products", tag = "operators", request_body = NewProductBody,
    params(crate::api::schema::CreationKey),
    responses((status = 201, description = "The product", body = Product), crate::api::WriteProblems)
)]
pub(crate) async fn create_product(
    _: Operator,
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    Body(body): Body<NewProductBody>,
) -> Result<impl IntoResponse, Problem> {
    let key = idempotency_key(&headers)?;
    let mut product = check(body)?;
    product.id = product.id.or_else(|| id_from(&key?));
    let (view, replayed) = create_once(&core, product).await?;
    let location = [(header::LOCATION, format!("/v1/products/{}", view.id))];
    Ok((replayed_header(replayed), location, Json(StatusCode::CREATED, Product::from(&view))))
}

/// The id of the product that is created with this key: a UUID, so that nobody's own id meets it by chance.
fn id_from(key: &IdempotencyKey) -> Option<ProductId> {
    let mut context = digest::Context::new(&digest::SHA256);
    // Told apart from whatever else may be made from a key one day.
    context.update(b"yoink product\0");
    context.update(key.as_str().as_bytes());
    let bytes = context.finish().as_ref().first_chunk().copied()?;
    let id = uuid::Builder::from_custom_bytes(bytes).into_uuid();
    ProductId::parse(&id.to_string()).ok()
}

/// Creates it, or finds that it is there with exactly the fields that are asked for.
///
/// What is compared is what creating sets. The units it began with are kept apart from those it has now, so sales and
/// restocks do not matter; a change of its details does, for then it is no longer what was asked for.
async fn create_once(core: &Core, product: NewProduct) -> Result<(ProductView, Replayed), Problem> {
    let refused = match core.engine.create_product(product.clone()).await {
        Ok(view) => return Ok((view, Replayed::No)),
        Err(error) => error,
    };
    let Some(id) = product.id.filter(|_| matches!(refused, CallError::Refused(Rejection::ProductExists)))
    else {
        return Err(core.problem(refused));
    };
    // It was committed and published before the refusal was sent.
    match core.engine.storefront().product(&id) {
        Some(view) if view.details == product => Ok((view, Replayed::Yes)),
        _ => {
            let detail = format!("Product {id} exists, and not with these fields; nothing happened.");
            Err(Problem::new(&PRODUCT_EXISTS, detail))
        }
    }
}

fn check(body: NewProductBody) -> Result<NewProduct, Problem> {
    let mut errors = Vec::new();
    check_name(&body.name, &mut errors);
    let price = check_price(&body.price, &mut errors);
    if body.stock > STOCK_UNITS_MAX {
        errors.push(wrong("/stock", format!("must be at most {STOCK_UNITS_MAX}")));
    }
    check_limit_per_customer(body.limit_per_customer, &mut errors);
    let max_per_order = body.max_per_order.unwrap_or(MAX_PER_ORDER_DEFAULT);
    check_max_per_order(max_per_order, &mut errors);
    match price {
        Some(price) if errors.is_empty() => Ok(NewProduct {
            id: body.id,
            name: body.name.into(),
            price,
            stock: body.stock,
            window: Window {
                starts_at: body.starts_at.map(|when| when.0),
                ends_at: body.ends_at.map(|when| when.0),
            },
            limit_per_customer: body.limit_per_customer,
            max_per_order,
        }),
        _ => Err(Problem::fields(errors)),
    }
}

pub(crate) fn wrong(pointer: &str, detail: impl Into<String>) -> FieldError {
    FieldError { pointer: pointer.to_owned(), detail: detail.into() }
}

pub(crate) fn check_name(name: &str, errors: &mut Vec<FieldError>) {
    if name.is_empty() || name.len() > PRODUCT_NAME_BYTES_MAX {
        errors.push(wrong("/name", format!("must have 1 to {PRODUCT_NAME_BYTES_MAX} bytes")));
    } else if name.chars().any(char::is_control) {
        errors.push(wrong("/name", "must not contain control characters"));
    }
}

pub(crate) fn check_price(price: &Money, errors: &mut Vec<FieldError>) -> Option<yoink_core::Money> {
    let checked = price.to_core();
    if checked.is_none() {
        let amount_max = yoink_core::Money::AMOUNT_MAX;
        let detail = format!("amount must be from 0 to {amount_max}, currency three capital letters");
        errors.push(wrong("/price", detail));
    }
    checked
}

pub(crate) fn check_limit_per_customer(limit: Option<u32>, errors: &mut Vec<FieldError>) {
    if limit.is_some_and(|limit| !(1..=LIMIT_PER_CUSTOMER_MAX).contains(&limit)) {
        let detail = format!("must be from 1 to {LIMIT_PER_CUSTOMER_MAX}, or null");
        errors.push(wrong("/limit_per_customer", detail));
    }
}

pub(crate) fn check_max_per_order(max_per_order: u32, errors: &mut Vec<FieldError>) {
    if !(1..=QUANTITY_MAX).contains(&max_per_order) {
        errors.push(wrong("/max_per_order", format!("must be from 1 to {QUANTITY_MAX}")));
    }
}
