//! `GET /health`, `GET /livez`, `GET /readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use yoink_core::OrderId;
use yoink_engine::EngineState;

use super::ok;
use crate::edge::Core;
use crate::problem::{NOT_READY, Problem};
use crate::settings::Mode;
use crate::wire::When;

/// How long the engine may take to answer before it counts as degraded.
const ENGINE_ANSWER_MAX: Duration = Duration::from_secs(1);

/// How everything is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok` or `degraded`.
    #[schema(pattern = "^(ok|degraded)$")]
    status: &'static str,
    /// Now.
    timestamp: When,
    /// Seconds since the start.
    uptime: f64,
    /// `development` or `production`.
    environment: &'static str,
    /// Each part.
    services: BTreeMap<&'static str, Service>,
    /// The connections of the edge.
    pool: Pool,
}

/// How one part is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Service {
    /// `ok` or `degraded`.
    status: &'static str,
    /// Milliseconds.
    #[serde(rename = "responseTime")]
    response_time: f64,
}

/// The connections of the edge.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pool {
    /// Open.
    total: usize,
    /// Without a request.
    idle: usize,
    /// Calls that wait for the writer.
    waiting: u64,
}

/// Alive.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alive {
    /// `ok`.
    status: &'static str,
}

fn word(is_well: bool) -> &'static str {
    if is_well { "ok" } else { "degraded" }
}

/// How everything is, in one look; always 200.
#[utoipa::path(
    get, path = "/health", tag = "always there", security(()),
    responses((status = 200, description = "How everything is", body = Health), crate::api::OpenProblems)
)]
pub(crate) async fn get_health(State(core): State<Arc<Core>>) -> impl IntoResponse {
    let engine = &core.engine;
    let asked = Instant::now();
    // No order has this id; the answer shows that the writer is alive and how long it takes.
    let answer = tokio::time::timeout(ENGINE_ANSWER_MAX, engine.order(OrderId([0; 16]))).await;
    let log = Service {
        status: word(matches!(answer, Ok(Ok(_))) && engine.state() == EngineState::Ready),
        response_time: asked.elapsed().as_secs_f64() * 1e3,
    };
    let asked = Instant::now();
    let delivery = engine.delivery().status();
    let ledger = Service {
        status: word(delivery.running && delivery.last_error.is_none() && !delivery.paused),
        response_time: asked.elapsed().as_secs_f64() * 1e3,
    };
    let total = core.shared.connections.load(std::sync::atomic::Ordering::Relaxed);
    let in_flight = core.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    ok(Health {
        status: word(log.status == "ok" && ledger.status == "ok"),
        timestamp: When(engine.now()),
        uptime: core.shared.started.elapsed().as_secs_f64(),
        environment: match core.shared.settings.mode {
            Mode::Dev => "development",
            Mode::Guarded => "production",
        },
        services: BTreeMap::from([("log", log), ("ledger", ledger)]),
        pool: Pool {
            total,
            idle: total.saturating_sub(usize::try_from(in_flight).unwrap_or(usize::MAX)),
            waiting: engine.figures().inbox_tickets,
        },
    })
}

/// Whether the process answers at all.
#[utoipa::path(
    get, path = "/livez", tag = "always there", security(()),
    responses((status = 200, description = "It does", body = Alive), crate::api::OpenProblems)
)]
pub(crate) async fn get_livez() -> impl IntoResponse {
    ok(Alive { status: "ok" })
}

/// Whether buyers should be sent here.
///
/// Not while it closes, the disk is full, the engine has stopped, or the units of a product do not add up.
#[utoipa::path(
    get, path = "/readyz", tag = "always there", security(()),
    responses((status = 200, description = "They should", body = Alive), crate::api::OpenProblems)
)]
pub(crate) async fn get_readyz(State(core): State<Arc<Core>>) -> Result<Response, Problem> {
    let not_ready = |why: &'static str| Err(Problem::new(&NOT_READY, why).with_retry_after(5));
    if core.shared.shutdown.is_cancelled() {
        return not_ready("The server is closing.");
    }
    match core.engine.state() {
        EngineState::Ready => {}
        EngineState::StorageFull => return not_ready("The disk of the data folder is almost full."),
        EngineState::Closing => return not_ready("The engine is closing."),
        EngineState::Failed => return not_ready("The engine has stopped and must be started again."),
    }
    let errors = core.engine.figures().conservation_error_units;
    if errors.iter().any(|(_, error)| *error != 0) {
        return not_ready("The units of a product do not add up; see /v1/admin/reconciliation.");
    }
    Ok(ok(Alive { status: "ok" }).into_response())
}
