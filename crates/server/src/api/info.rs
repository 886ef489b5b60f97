//! `GET /v1/time` and `GET /v1/info`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use yoink_core::QUANTITY_MAX;
use yoink_engine::limits::{LIST_ORDERS_MAX, READ_EVENTS_MAX};

use super::ok;
use crate::edge::Core;
use crate::wire::{Info, InfoLimits, ServerTime, When};

/// The server's clock.
#[utoipa::path(
    get, path = "/v1/time", tag = "buyers", security(()),
    responses((status = 200, description = "Now", body = ServerTime), crate::api::OpenProblems)
)]
pub(crate) async fn get_time(State(core): State<Arc<Core>>) -> impl IntoResponse {
    ok(ServerTime { now: When(core.engine.now()) })
}

/// What is running, what an accepted order survives, and what requests may be at most.
#[utoipa::path(
    get, path = "/v1/info", tag = "buyers", security(()),
    responses((status = 200, description = "What is running", body = Info), crate::api::OpenProblems)
)]
pub(crate) async fn get_info(State(core): State<Arc<Core>>) -> impl IntoResponse {
    let durability = core.engine.durability();
    ok(Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine: core.engine.name().to_owned(),
        durability: durability.name().to_owned(),
        survives: durability.survives().to_owned(),
        limits: InfoLimits {
            body_bytes_max: core.shared.settings.body_bytes_max as u64,
            quantity_max: QUANTITY_MAX,
            wait_seconds_max: 30,
            list_orders_max: LIST_ORDERS_MAX as u64,
            read_events_max: READ_EVENTS_MAX as u64,
        },
    })
}
