//! `GET /health`, `GET /livez`, `GET /readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use yoink_core::OrderId;
use yoink_engine::postgres::Connections;
use yoink_engine::redis::{Ping, RedisStatus};
use yoink_engine::{EngineState, RabbitStatus};

use super::ok;
use crate::edge::Core;
use crate::problem::{NOT_READY, Problem};
use crate::settings::{Mode, Role};
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
    /// The connections to it, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pool: Option<Pool>,
}

impl Service {
    fn new(is_well: bool, took: Duration) -> Self {
        Self { status: word(is_well), response_time: took.as_secs_f64() * 1e3, pool: None }
    }
}

/// Connections.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pool {
    /// Open.
    total: usize,
    /// Of them, without work.
    idle: usize,
    /// Calls that wait for the writer; of a server, calls that wait for a connection.
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
    let is_well = matches!(answer, Ok(Ok(_))) && engine.state() == EngineState::Ready;
    let log = Service::new(is_well, asked.elapsed());
    let asked = Instant::now();
    let delivery = engine.delivery().status();
    let (redis, rabbit) = (engine.redis_status(), engine.rabbit_status());
    // A node may leave the carrying to workers.
    let is_carried = delivery.running || redis.is_some() || rabbit.is_some();
    let is_well = is_carried && delivery.last_error.is_none() && !delivery.paused;
    let ledger = Service::new(is_well, asked.elapsed());
    let mut services = BTreeMap::from([("log", log), ("ledger", ledger)]);
    if let Some(redis) = redis {
        services.extend(servers(&core, &["redis", "postgres"], redis.may_sell, redis.connections).await);
    }
    if let Some(rabbit) = rabbit {
        let names = ["rabbitmq", "redis", "postgres"];
        services.extend(servers(&core, &names, true, rabbit.connections).await);
        if let Some(rabbitmq) = services.get_mut("rabbitmq").filter(|_| !does_its_part(&core, &rabbit)) {
            rabbitmq.status = word(false);
        }
    }
    let total = core.shared.connections.load(std::sync::atomic::Ordering::Relaxed);
    let in_flight = core.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    ok(Health {
        status: word(services.values().all(|service| service.status == "ok")),
        timestamp: When(engine.now()),
        uptime: core.shared.started.elapsed().as_secs_f64(),
        environment: match core.shared.settings.mode {
            Mode::Dev => "development",
            Mode::Guarded => "production",
        },
        services,
        pool: Pool {
            total,
            idle: total.saturating_sub(usize::try_from(in_flight).unwrap_or(usize::MAX)),
            waiting: engine.figures().inbox_tickets,
        },
    })
}

/// The servers behind an engine: those of these names. None is well while nothing may be sold.
async fn servers(
    core: &Core,
    names: &[&'static str],
    may_sell: bool,
    connections: Connections,
) -> Vec<(&'static str, Service)> {
    let pings = pings(core).await;
    let service = |name: &'static str| {
        let service = match pings.iter().find(|ping| ping.server == name) {
            Some(ping) => Service::new(ping.is_well && may_sell, ping.took),
            None => Service::new(false, ENGINE_ANSWER_MAX),
        };
        let pool = (name == "postgres").then(|| Pool {
            total: connections.total,
            idle: connections.idle,
            waiting: u64::try_from(connections.waiting).unwrap_or(u64::MAX),
        });
        (name, Service { pool, ..service })
    };
    names.iter().copied().map(service).collect()
}

/// Whether this process of the rabbitmq engine can do what it is there for: queue, or decide what is queued.
fn does_its_part(core: &Core, status: &RabbitStatus) -> bool {
    match core.shared.settings.role {
        Role::Shop => status.is_publishing,
        Role::Worker => status.is_consuming,
    }
}

/// Which servers gave a sign of life in time.
async fn pings(core: &Core) -> Vec<Ping> {
    let answer = tokio::time::timeout(ENGINE_ANSWER_MAX, core.engine.ping()).await;
    answer.ok().and_then(Result::ok).unwrap_or_default()
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
/// Not while it closes, the disk is full, the engine has stopped, or the units of a product do not add up. With the redis
/// engine also not while nothing at all can be sold: the settings of a server are not safe, a server cannot be reached,
/// or Redis is being filled; with the rabbitmq engine while RabbitMQ cannot be reached or takes nothing, or the settings
/// of PostgreSQL are not safe. A worker is ready while it reaches the servers that it cannot work without.
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
    if let Some(status) = core.engine.redis_status()
        && let Some(why) = why_nothing_is_sold(&core, &status).await
    {
        return not_ready(why);
    }
    if let Some(status) = core.engine.rabbit_status()
        && let Some(why) = why_nothing_is_queued(&core, &status).await
    {
        return not_ready(why);
    }
    Ok(ok(Alive { status: "ok" }).into_response())
}

/// Why this node of the redis engine, or worker, is of no use now.
async fn why_nothing_is_sold(core: &Core, status: &RedisStatus) -> Option<&'static str> {
    if !status.may_sell {
        return Some(
            "The settings of Redis or PostgreSQL could lose orders, so nothing is sold; the log says which.",
        );
    }
    let is_shop = core.shared.settings.role == Role::Shop;
    if is_shop && !status.sales.is_empty() {
        let is_selling = status.sales.iter().any(|sale| sale.is_selling);
        return (!is_selling)
            .then_some("Redis sells nothing: it cannot be reached, or is being filled by a worker.");
    }
    let pings = pings(core).await;
    let answers = |name| pings.iter().any(|ping| ping.server == name && ping.is_well);
    match (answers("redis"), answers("postgres")) {
        (true, true) => None,
        (false, _) => Some("Redis cannot be reached."),
        (true, false) => Some("PostgreSQL cannot be reached."),
    }
}

/// Why this node of the rabbitmq engine, or worker, is of no use now. Redis only makes it quicker.
async fn why_nothing_is_queued(core: &Core, status: &RabbitStatus) -> Option<&'static str> {
    if !status.may_sell {
        return Some(
            "The settings of PostgreSQL could lose orders, so nothing is queued; the log says which.",
        );
    }
    let is_shop = core.shared.settings.role == Role::Shop;
    if does_its_part(core, status) {
        // What is queued is decided once PostgreSQL is back, so buyers may come without it.
        let has_postgres =
            is_shop || pings(core).await.iter().any(|ping| ping.server == "postgres" && ping.is_well);
        return (!has_postgres).then_some("PostgreSQL cannot be reached.");
    }
    Some(match is_shop {
        true => {
            "RabbitMQ takes no requests: it cannot be reached, or has raised an alarm for want of memory or disk."
        }
        false => "RabbitMQ cannot be reached, so nothing that is queued is decided here.",
    })
}
