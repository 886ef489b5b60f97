//! The shop's door: the routes of the older systems.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Answer, Attempt, Shop, Strategy};

/// What the door needs.
struct Door {
    shop: Arc<Shop>,
    strategy: Arc<dyn Strategy>,
}

/// The body of a purchase. `userId` may be a string or a number.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Purchase {
    user_id: Value,
    product_id: Value,
    #[serde(default = "one")]
    quantity: i64,
}

fn one() -> i64 {
    1
}

/// Answers until the process ends.
///
/// # Errors
/// The address is taken.
pub async fn serve(listener: TcpListener, shop: Arc<Shop>, strategy: Arc<dyn Strategy>) -> Result<()> {
    let router = Router::new()
        .route("/buy", post(buy))
        // Where a storm opens its connections.
        .route("/v1/time", get(nothing))
        .route("/livez", get(alive))
        .route("/backlog", get(backlog))
        .with_state(Arc::new(Door { shop, strategy }));
    axum::serve(listener, router).await.context("the shop stopped listening")
}

async fn buy(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Response {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let Some(attempt) = read_attempt(key, &body) else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "Missing fields"}))).into_response();
    };
    let key = attempt.key.clone();
    door.shop.trace.step(&key, "asks", "");
    let told = sell(&door.strategy, attempt).await;
    door.shop.trace.step(&key, "is answered", &in_words(&told));
    render(told)
}

/// Sells by a strategy. It goes on when its client goes, as in the older systems.
///
/// # Errors
/// As the strategy says; or it panicked.
pub(crate) async fn sell(strategy: &Arc<dyn Strategy>, attempt: Attempt) -> Result<Answer> {
    let strategy = Arc::clone(strategy);
    let selling = tokio::spawn(async move { strategy.buy(&attempt).await });
    selling.await.unwrap_or_else(|error| Err(error.into()))
}

/// Reads a purchase; `None` if a field is missing. Without a key the request gets one of its own.
pub(crate) fn read_attempt(key: Option<&str>, body: &[u8]) -> Option<Attempt> {
    let purchase: Purchase = serde_json::from_slice(body).ok()?;
    let user = as_text(purchase.user_id)?;
    Some(Attempt {
        key: key.map_or_else(|| format!("{user}-{}", uuid::Uuid::new_v4()), str::to_owned),
        user,
        product: as_text(purchase.product_id)?,
        quantity: purchase.quantity,
    })
}

fn as_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn in_words(told: &Result<Answer>) -> String {
    match told {
        Ok(Answer::Bought { .. }) => "201: bought".to_owned(),
        Ok(Answer::Accepted { .. }) => "202: accepted".to_owned(),
        Ok(Answer::SoldOut) => "409: sold out".to_owned(),
        Ok(Answer::Invalid) => "400: invalid".to_owned(),
        Err(error) => format!("500: {error:#}"),
    }
}

fn render(told: Result<Answer>) -> Response {
    match told {
        Ok(Answer::Bought { order }) => {
            (StatusCode::CREATED, Json(json!({"message": "Order placed", "orderId": order}))).into_response()
        }
        Ok(Answer::Accepted { order }) => {
            let body = json!({"message": "Order accepted for processing", "orderId": order});
            (StatusCode::ACCEPTED, Json(body)).into_response()
        }
        Ok(Answer::SoldOut) => {
            let body = json!({"error": "Conflict", "message": "Out of stock"});
            (StatusCode::CONFLICT, Json(body)).into_response()
        }
        Ok(Answer::Invalid) => {
            let body = json!({"error": "Bad Request", "message": "Invalid quantity"});
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
        Err(error) => {
            let body = json!({"error": "Internal Server Error", "message": format!("{error:#}")});
            (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
        }
    }
}

async fn nothing() -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn alive() -> &'static str {
    "ok"
}

async fn backlog(State(door): State<Arc<Door>>) -> Response {
    match door.strategy.backlog().await {
        Ok(count) => Json(json!({ "backlog": count })).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purchase_is_read_as_the_older_systems_read_it() {
        let attempt = read_attempt(Some("k"), br#"{"userId":7,"productId":"1"}"#).unwrap();
        assert_eq!((attempt.user.as_str(), attempt.product.as_str(), attempt.quantity), ("7", "1", 1));
        assert_eq!(attempt.key, "k");
        // Nobody checks the quantity here: that is one of the bugs on show.
        assert_eq!(
            read_attempt(None, br#"{"userId":"a","productId":1,"quantity":-5}"#).unwrap().quantity,
            -5
        );
        for wrong in [&b"{}"[..], b"no", br#"{"userId":null,"productId":1}"#] {
            assert!(read_attempt(None, wrong).is_none());
        }
    }
}
