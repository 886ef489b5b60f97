//! `yoink audit`: the invariants, counted again.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};
use yoink_engine::{Reconciliation, audit_data_folder};

use super::api_client::ApiClient;
use super::args::AuditArgs;
use super::orders::text;
use super::output::{Align, Output};

/// Audits a server, or a data folder without one. The exit code is 0 only if everything holds.
pub(super) fn run(args: &AuditArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let found = match &args.data {
        Some(folder) => count_offline(folder)?,
        None => ApiClient::new(&args.target)?.get("/v1/admin/reconciliation", &[])?,
    };
    // The words of the contract, in its order, whatever else the answer holds.
    let members =
        ["ok", "oversold", "lost", "duplicated", "stuck", "products", "orders", "invariants"].into_iter();
    let document: serde_json::Map<_, _> =
        members.map(|name| (name.to_owned(), found.get(name).cloned().unwrap_or(Value::Null))).collect();
    let document = Value::Object(document);
    let is_ok = document.get("ok") == Some(&Value::Bool(true));
    if args.json {
        output.json(&document)?;
    } else {
        print(&document, output)?;
    }
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
