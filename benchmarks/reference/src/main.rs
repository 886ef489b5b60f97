//! An axum handler that parses the JSON of a purchase and answers 202 without doing anything: the ceiling that
//! benchmarks of Yoink are held against. Built with the same profile and allocator, and left at axum's defaults.

use std::io::Write as _;

use axum::{Json, Router, http::StatusCode, routing::post};
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
struct Purchase {
    customer_id: String,
    product_id: String,
    quantity: Option<u32>,
}

#[derive(Serialize)]
struct Accepted {
    status: &'static str,
}

async fn accept(Json(purchase): Json<Purchase>) -> (StatusCode, Json<Accepted>) {
    // Looked at, so that parsing cannot be left out.
    let is_empty =
        purchase.customer_id.is_empty() || purchase.product_id.is_empty() || purchase.quantity == Some(0);
    let status = if is_empty { StatusCode::BAD_REQUEST } else { StatusCode::ACCEPTED };
    (status, Json(Accepted { status: "accepted" }))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    writeln!(std::io::stdout().lock(), "listening on http://{}", listener.local_addr()?)?;
    let router = Router::new().route("/v1/orders", post(accept));
    axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), router)
        .await
}
