//! The routes of the older system.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::{Generation, Generations};
use crate::shop::{Answer, Attempt, Shop, read_attempt, sell};

pub(super) fn router(generations: Arc<Generations>) -> Router {
    Router::new()
        .route("/api/{version}/buy", post(buy))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(generations)
}

async fn buy(
    State(generations): State<Arc<Generations>>,
    Path(version): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let begun = Instant::now();
    let number = version.strip_prefix('v').and_then(|number| number.parse::<u8>().ok());
    let Some(generation) = generations.all.iter().find(|generation| Some(generation.version) == number)
    else {
        return error(StatusCode::NOT_FOUND, "Not Found", "There are v1, v2, v3 and v4");
    };
    let response = answer(generation, &headers, &body).await;
    generation.figures.answered(response.status().as_u16(), begun.elapsed());
    response
}

async fn answer(generation: &Generation, headers: &HeaderMap, body: &[u8]) -> Response {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let Some(attempt) = read_attempt(key, body) else {
        return error(StatusCode::BAD_REQUEST, "Bad Request", "userId and productId are required");
    };
    if !generation.products.contains(&attempt.product) {
        return error(StatusCode::NOT_FOUND, "Not Found", "Product not found");
    }
    match sell(&generation.strategy, attempt.clone()).await {
        Ok(Answer::Bought { order }) => {
            generation.figures.accepted();
            // The third generation answers 202, with the body of the second.
            let status = if generation.version < 3 { StatusCode::CREATED } else { StatusCode::ACCEPTED };
            (status, Json(bought(&generation.shop, &attempt, &order).await)).into_response()
        }
        other => render(generation, other),
    }
}

fn render(generation: &Generation, told: Result<Answer>) -> Response {
    let figures = &generation.figures;
    match told {
        Ok(Answer::Bought { .. } | Answer::Accepted { .. }) => {
            figures.accepted();
            let body = json!({"message": "Order accepted for processing"});
            (StatusCode::ACCEPTED, Json(body)).into_response()
        }
        Ok(Answer::SoldOut) => {
            figures.rejected();
            error(StatusCode::BAD_REQUEST, "Bad Request", "Out of stock")
        }
        Ok(Answer::Invalid) => {
            figures.rejected();
            error(StatusCode::BAD_REQUEST, "Bad Request", "The quantity must be at least 1")
        }
        Err(trouble) => {
            figures.failed();
            error(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error", &format!("{trouble:#}"))
        }
    }
}

/// The body of the first three generations: the product as it is now, and the order. The order stands, so a product that
/// cannot be read is left out.
async fn bought(shop: &Shop, attempt: &Attempt, order: &str) -> Value {
    let mut body = json!({
        "placedOrder": {
            "id": order,
            "userId": attempt.user,
            "productId": attempt.product,
            "quantity": attempt.quantity,
        },
    });
    if let (Ok(product), Some(fields)) = (product(shop, &attempt.product).await, body.as_object_mut()) {
        fields.insert("updatedProduct".to_owned(), product);
    }
    body
}

async fn product(shop: &Shop, id: &str) -> Result<Value> {
    let client = shop.stores.postgres().await?;
    let row = client.query_one("SELECT name, stock FROM products WHERE id = $1", &[&id]).await?;
    Ok(json!({"id": id, "name": row.get::<_, String>(0), "stock": row.get::<_, i32>(1)}))
}

fn error(status: StatusCode, error: &str, message: &str) -> Response {
    (status, Json(json!({"error": error, "message": message}))).into_response()
}

async fn health(State(generations): State<Arc<Generations>>) -> Response {
    let mut services = serde_json::Map::new();
    let (mut is_well, mut total, mut idle, mut waiting) = (true, 0, 0, 0);
    for generation in &generations.all {
        let asked = Instant::now();
        let answered = generation.shop.stores.postgres().await.is_ok();
        is_well &= answered;
        let pool = generation.shop.stores.pool();
        total += pool.total;
        idle += pool.idle;
        waiting += pool.waiting;
        let status = if answered { "ok" } else { "degraded" };
        let response_time = asked.elapsed().as_secs_f64() * 1e3;
        services.insert(
            format!("database-v{}", generation.version),
            json!({"status": status, "responseTime": response_time}),
        );
    }
    Json(json!({
        "status": if is_well { "ok" } else { "degraded" },
        "timestamp": jiff::Timestamp::now().to_string(),
        "uptime": generations.begun.elapsed().as_secs_f64(),
        "environment": "lab",
        "services": services,
        "pool": {"total": total, "idle": idle, "waiting": waiting},
    }))
    .into_response()
}

async fn metrics(State(generations): State<Arc<Generations>>) -> Response {
    match super::metrics::text(&generations).await {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble:#}")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shop::{Addresses, Trace};

    #[tokio::test]
    async fn an_order_is_told_of_where_its_product_cannot_be_read() {
        // A shop without a PostgreSQL gets no connection to it.
        let opened = Shop::open(&Addresses::default(), "run".to_owned(), Trace::nowhere(), None).await;
        let (user, product, key) = ("u".to_owned(), "p".to_owned(), "k".to_owned());
        let body = bought(&opened.unwrap(), &Attempt { user, product, quantity: 2, key }, "o").await;
        let order = json!({"id": "o", "userId": "u", "productId": "p", "quantity": 2});
        assert_eq!(body, json!({"placedOrder": order}));
    }
}
