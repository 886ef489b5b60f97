//! `yoink audit`: the invariants, counted again.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use yoink_engine::redis::Repaired;
use yoink_engine::{Engine, Reconciliation, audit_data_folder};

use super::api_client::{self, ApiClient};
use super::args::AuditArgs;
use super::logging;
use super::orders::text;
use super::output::{Align, Output};
use super::serve::open_on_servers;
use crate::config::{Config, DurabilityName, EngineName, LogConfig};

/// How long RabbitMQ may take to say what waits in the queue.
const BROKER_MAX: Duration = Duration::from_secs(5);
/// The wait between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Audits a server, or a data folder without one. The exit code is 0 only if everything holds.
pub(super) fn run(args: &AuditArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut repairs = Vec::new();
    let found = match &args.data {
        Some(folder) => count_offline(folder)?,
        None if args.asks_servers() => count_on_servers(args, &mut repairs)?,
        None => ApiClient::new(&args.target)?.get("/v1/admin/reconciliation", &[])?,
    };
    // The words of the contract, in its order, whatever else the answer holds.
    let members =
        ["ok", "oversold", "lost", "duplicated", "stuck", "products", "orders", "invariants"].into_iter();
    let document: serde_json::Map<_, _> =
        members.map(|name| (name.to_owned(), found.get(name).cloned().unwrap_or(Value::Null))).collect();
    let mut document = Value::Object(document);
    if let (true, Value::Object(members)) = (args.repair, &mut document) {
        members.insert("repairs".to_owned(), repairs.iter().map(repair_document).collect());
    }
    let is_ok = document.get("ok") == Some(&Value::Bool(true));
    if args.json {
        output.json(&document)?;
    } else {
        for repaired in &repairs {
            let Repaired { product, what, epoch } = repaired;
            output
                .line(format!("repaired product {product}: {what}; Redis sells epoch {epoch} of it now"))?;
        }
        if args.repair && repairs.is_empty() {
            output.line("nothing to repair: Redis says what PostgreSQL says\n")?;
        }
        print(&document, output)?;
    }
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts behind the servers of an engine; before that, if that is asked for, repairs what differs.
fn count_on_servers(args: &AuditArgs, repairs: &mut Vec<Repaired>) -> anyhow::Result<Value> {
    let mut config = Config::load(args.layer(), args.config.as_deref())?;
    config.choose_engine_on_servers();
    if config.engine == EngineName::Rabbitmq && args.repair {
        bail!(
            "--repair fills Redis from PostgreSQL, and the rabbitmq engine keeps nothing in Redis that could differ; \
             leave it out"
        );
    }
    config.servers()?;
    logging::init(&LogConfig { level: "warn".to_owned(), ..config.log.clone() })?;
    if !args.repair {
        // Who only looks needs no promise from what is looked at.
        config.durability = DurabilityName::Relaxed;
    }
    let engine = open_on_servers(&config, 0)?;
    let work = async {
        wait_for_broker(&engine).await;
        if let Some(reason) = &args.reason {
            *repairs = engine.repair(reason.as_str().into()).await?;
        }
        engine.reconcile().await.context("cannot count in PostgreSQL and the other servers")
    };
    let counted = api_client::runtime()?.block_on(work);
    engine.close_blocking(Duration::ZERO);
    Ok(document(&counted?))
}

/// Waits a while until the queue was looked at: only then it can be told what the broker lost. A broker that is down does
/// not keep the ledger from being counted.
async fn wait_for_broker(engine: &Engine) {
    let begun = Instant::now();
    while engine.rabbit_status().is_some_and(|status| status.queued.is_none()) && begun.elapsed() < BROKER_MAX
    {
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    if engine.rabbit_status().is_some_and(|status| status.queued.is_none()) {
        tracing::warn!("RabbitMQ cannot be reached: what waits there and what it lost cannot be told apart");
    }
}

fn repair_document(repaired: &Repaired) -> Value {
    json!({"product": repaired.product.as_str(), "what": repaired.what, "epoch": repaired.epoch})
}

fn count_offline(folder: &Path) -> anyhow::Result<Value> {
    let audit = audit_data_folder(folder).with_context(|| format!("cannot audit {}", folder.display()))?;
    Ok(document(&audit))
}

/// The audit as the contract writes it.
fn document(audit: &Reconciliation) -> Value {
    let products = audit.products.iter().map(|product| {
        let figures = &product.figures;
        json!({
            "id": product.id.as_str(), "stocked": figures.stocked, "available": figures.available,
            "held": figures.held, "sold": figures.sold, "withheld": figures.withheld,
        })
    });
    let invariants = audit
        .invariants
        .iter()
        .map(|invariant| json!({"id": invariant.id, "ok": invariant.ok, "detail": invariant.detail}));
    json!({
        "ok": audit.ok, "oversold": audit.oversold, "lost": audit.lost, "duplicated": audit.duplicated,
        "stuck": audit.stuck,
        "products": products.collect::<Vec<_>>(),
        "orders": {
            "accepted": audit.orders.accepted, "confirmed": audit.orders.confirmed,
            "cancelled": audit.orders.cancelled, "failed": audit.orders.failed,
        },
        "invariants": invariants.collect::<Vec<_>>(),
    })
}

fn print(audit: &Value, output: &mut Output) -> anyhow::Result<()> {
    let rows_of = |name: &str, fields: &[&str]| -> Vec<Vec<String>> {
        let rows = audit.get(name).and_then(Value::as_array).into_iter().flatten();
        rows.map(|row| fields.iter().map(|field| text(row.get(field))).collect()).collect()
    };
    let figures = ["stocked", "available", "held", "sold", "withheld"];
    let columns: Vec<_> =
        [("product", Align::Left)].into_iter().chain(figures.map(|name| (name, Align::Right))).collect();
    output
        .table(&columns, &rows_of("products", &["id", "stocked", "available", "held", "sold", "withheld"]))?;
    let count = |path: &str| text(audit.pointer(path));
    output.line(format!(
        "\norders: {} accepted, {} confirmed, {} cancelled, {} failed\n",
        count("/orders/accepted"),
        count("/orders/confirmed"),
        count("/orders/cancelled"),
        count("/orders/failed")
    ))?;
    let rows = rows_of("invariants", &["ok", "id", "detail"]).into_iter().map(|mut row| {
        if let Some(verdict) = row.first_mut() {
            *verdict = if verdict == "true" { "holds".to_owned() } else { "BROKEN".to_owned() };
        }
        row
    });
    let columns = [("", Align::Left), ("invariant", Align::Left), ("detail", Align::Left)];
    output.table(&columns, &rows.collect::<Vec<_>>())?;
    output.line(format!(
        "\noversold {}, lost {}, duplicated {}, stuck {}: {}",
        count("/oversold"),
        count("/lost"),
        count("/duplicated"),
        count("/stuck"),
        if audit.get("ok") == Some(&Value::Bool(true)) { "everything holds" } else { "NOT in order" }
    ))?;
    Ok(())
}
