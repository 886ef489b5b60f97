//! `GET /v1/products/{id}/stream`: live stock as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt as _};
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;
use yoink_engine::Shelf;

use super::ProductPath;
use crate::edge::Core;
use crate::problem::Problem;

/// At most four updates a second.
const UPDATE_EVERY: Duration = Duration::from_millis(250);
/// A comment this often tells proxies that the stream lives.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);

/// One update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct StockUpdate {
    /// Which product.
    product_id: String,
    /// Units a buyer can have now.
    stock: u64,
    /// Whether an operator paused the sale.
    paused: bool,
}

/// Live stock.
///
/// Server-sent events named `stock`: one at once, then one whenever it changes, at most four a second.
#[utoipa::path(
    get, path = "/v1/products/{id}/stream", tag = "buyers", security(()),
    params(crate::api::schema::ProductInPath),
    responses(
        (status = 200, description = "A stream of updates", body = StockUpdate, content_type = "text/event-stream"),
        crate::api::OpenProblems
    )
)]
pub(crate) async fn stream_stock(
    State(core): State<Arc<Core>>,
    ProductPath(id): ProductPath,
) -> Result<impl IntoResponse, Problem> {
    let shelf = core.engine.storefront().shelf(&id).ok_or_else(Problem::no_such_product)?;
    let shutdown = core.shared.shutdown.clone();
    let updates = updates(shelf).take_until(async move { shutdown.cancelled().await });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE_EVERY);
    // Tells nginx not to collect the stream.
    let no_buffering = [(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))];
    Ok((no_buffering, Sse::new(updates).keep_alive(keep_alive)))
}

fn updates(shelf: Arc<Shelf>) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((shelf, None), |(shelf, last)| async move {
        let mut is_first = last.is_none();
        loop {
            if !is_first {
                tokio::time::sleep(UPDATE_EVERY).await;
            }
            is_first = false;
            let now = StockUpdate {
                product_id: shelf.id().to_string(),
                stock: shelf.available(),
                paused: shelf.is_paused(),
            };
            if last.as_ref() != Some(&now) {
                let data = serde_json::to_string(&now).unwrap_or_default();
                return Some((Ok(Event::default().event("stock").data(data)), (shelf, Some(now))));
            }
        }
    })
}
