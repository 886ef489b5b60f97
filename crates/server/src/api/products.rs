//! `GET /v1/products` and `GET /v1/products/{id}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;

use super::{ProductPath, ok};
use crate::edge::Core;
use crate::problem::Problem;
use crate::wire::{Product, ProductList};

/// What is on sale.
#[utoipa::path(
    get, path = "/v1/products", tag = "buyers", security(()),
    responses((status = 200, description = "Every product", body = ProductList), crate::api::OpenProblems)
)]
pub(crate) async fn list_products(State(core): State<Arc<Core>>) -> impl IntoResponse {
    let products = core.engine.storefront().products();
    ok(ProductList { products: products.iter().map(Product::from).collect() })
}

/// One product: stock, price, sale window, limits.
#[utoipa::path(
    get, path = "/v1/products/{id}", tag = "buyers", security(()),
    params(crate::api::schema::ProductInPath),
    responses((status = 200, description = "The product", body = Product), crate::api::OpenProblems)
)]
pub(crate) async fn get_product(
    State(core): State<Arc<Core>>,
    ProductPath(id): ProductPath,
) -> Result<impl IntoResponse, Problem> {
    let product = core.engine.product(&id).await.ok_or_else(Problem::no_such_product)?;
    Ok(ok(Product::from(&product)))
}
