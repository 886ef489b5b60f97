//! Yoink: `GET /products`, `POST /orders`. (`POST /buy` it shared with Flash Sale Engine; `/health` and `/metrics` are
//! among the native routes.)

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{OldPurchase, buy, in_yoinks_words, weaker_durability};
use crate::api::{Json, Way, ok};
use crate::edge::Core;
use crate::guard::rate_limit::Which;
use crate::request::ClientAddress;

/// A product as Yoink showed it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OldProduct {
    id: String,
    name: String,
    /// In major units.
    price: f64,
    stock: u64,
}

/// What is on sale.
#[utoipa::path(
    get, path = "/products", tag = "compatible", security(()),
    responses((status = 200, description = "Every product", body = Vec<OldProduct>), super::OldProblems)
)]
pub(crate) async fn list_products(State(core): State<Arc<Core>>) -> impl IntoResponse {
    let products = core.engine.storefront().products();
    let old = products.iter().map(|product| OldProduct {
        id: product.id.to_string(),
        name: product.details.name.to_string(),
        price: to_major(product.details.price),
        stock: product.figures.available,
    });
    ok(old.collect::<Vec<_>>())
}

/// Prices are below 2^53 minor units, so the nearest float prints as the exact decimal.
fn to_major(price: yoink_core::Money) -> f64 {
    let minor_per_major = match price.currency.as_str() {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "VND"
        | "VUV" | "XAF" | "XOF" | "XPF" => 1.0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 1_000.0,
        _ => 100.0,
    };
    price.amount as f64 / minor_per_major
}

/// Accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrderAnswer {
    message: &'static str,
    order_id: String,
    /// `relaxed`, if the servers may forget it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    durability: Option<&'static str>,
}

/// Buy.
#[utoipa::path(
    post, path = "/orders", tag = "compatible", request_body = OldPurchase,
    responses(
        (status = 202, description = "Accepted", body = OrderAnswer),
        super::OldProblems
    )
)]
pub(crate) async fn order(
    State(core): State<Arc<Core>>,
    address: ClientAddress,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match buy(&core, &headers, address, &body, (&[Which::General], Way::Purchase)).await {
        Ok(purchased) => {
            let answer = OrderAnswer {
                message: "Order accepted for processing",
                order_id: purchased.order.to_string(),
                durability: weaker_durability(&core),
            };
            Json(StatusCode::ACCEPTED, answer).into_response()
        }
        Err(problem) => in_yoinks_words(&problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yoink_core::{Currency, Money};

    #[test]
    fn prices_are_shown_in_major_units() {
        let major = |amount, currency| {
            let price = Money { amount, currency: Currency::parse(currency).unwrap() };
            serde_json::to_string(&to_major(price)).unwrap()
        };
        assert_eq!(major(19_999, "EUR"), "199.99");
        assert_eq!(major(500, "JPY"), "500.0");
        assert_eq!(major(1_234, "KWD"), "1.234");
        assert_eq!(major(Money::AMOUNT_MAX - 1, "EUR"), "99999999.99");
    }
}
