//! `PATCH /v1/admin/products/{id}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::ToSchema;
use yoink_core::ProductChange;

use super::create_product::{check_limit_per_customer, check_max_per_order, check_name, check_price};
use super::{Body, ProductPath, ok};
use crate::edge::Core;
use crate::guard::auth::Operator;
use crate::json::{nullable, present};
use crate::problem::Problem;
use crate::wire::{Money, Product, When};

/// What to change; what is left out stays. The stock is changed by restocks and withdrawals only.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProductChangeBody {
    /// A new name.
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = crate::api::schema::product_name)]
    name: Option<String>,
    /// A new price; accepted orders keep theirs.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    price: Option<Money>,
    /// A new start; `null` makes it open-ended.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<When>)]
    starts_at: Option<Option<When>>,
    /// A new end; `null` makes it open-ended.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<When>)]
    ends_at: Option<Option<When>>,
    /// A new limit; `null` takes it away.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    limit_per_customer: Option<Option<u32>>,
    /// A new most per order.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, minimum = 1, maximum = 1000)]
    max_per_order: Option<u32>,
}

/// Change what is said about a product.
#[utoipa::path(
    patch, path = "/v1/admin/products/{id}", tag = "operators", request_body = ProductChangeBody,
    params(crate::api::schema::ProductInPath),
    responses((status = 200, description = "The product", body = Product), crate::api::WriteProblems)
)]
pub(crate) async fn change_product(
    _: Operator,
    State(core): State<Arc<Core>>,
    ProductPath(id): ProductPath,
    Body(body): Body<ProductChangeBody>,
) -> Result<impl IntoResponse, Problem> {
    let change = check(body)?;
    let view = core.engine.change_product(id, change).await.map_err(|error| core.problem(error))?;
    Ok(ok(Product::from(&view)))
}

fn check(body: ProductChangeBody) -> Result<ProductChange, Problem> {
    let mut errors = Vec::new();
    if let Some(name) = &body.name {
        check_name(name, &mut errors);
    }
    let price = body.price.as_ref().and_then(|price| check_price(price, &mut errors));
    check_limit_per_customer(body.limit_per_customer.flatten(), &mut errors);
    if let Some(max_per_order) = body.max_per_order {
        check_max_per_order(max_per_order, &mut errors);
    }
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    let to_core = |field: Option<Option<When>>| field.map(|when| when.map(|when| when.0));
    Ok(ProductChange {
        name: body.name.map(Into::into),
        price,
        starts_at: to_core(body.starts_at),
        ends_at: to_core(body.ends_at),
        limit_per_customer: body.limit_per_customer,
        max_per_order: body.max_per_order,
    })
}
