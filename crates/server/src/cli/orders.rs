//! `yoink orders`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::api_client::ApiClient;
use super::args::OrdersArgs;
use super::output::{Align, Output};

/// Orders that one request asks for.
const PAGE_ORDERS_MAX: usize = 500;

/// Lists orders, page by page.
pub(super) fn run(args: &OrdersArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let client = ApiClient::new(&args.target)?;
    let (mut orders, mut after) = (Vec::new(), args.after);
    while orders.len() < args.limit {
        let missing = args.limit.saturating_sub(orders.len()).min(PAGE_ORDERS_MAX);
        let query = [
            ("customer_id", args.customer.clone()),
            ("status", args.status.clone()),
            ("after", after.map(|seq| seq.to_string())),
            ("limit", Some(missing.to_string())),
        ];
        let query: Vec<_> = query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let page = client.get("/v1/orders", &query)?;
        let found = page.get("orders").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_last = found.is_empty();
        orders.extend(found);
        after = page.get("next_after").and_then(Value::as_u64);
        if is_last || after.is_none() {
            break;
        }
    }
    if args.json {
        output.json(&json!({"orders": orders, "next_after": after}))?;
    } else {
        print(&orders, after, output)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(orders: &[Value], after: Option<u64>, output: &mut Output) -> anyhow::Result<()> {
    if orders.is_empty() {
        return Ok(output.line("no orders")?);
    }
    let columns = [
        ("seq", Align::Right),
        ("order", Align::Left),
        ("status", Align::Left),
        ("customer", Align::Left),
        ("product", Align::Left),
        ("units", Align::Right),
        ("accepted at", Align::Left),
    ];
    let fields = ["seq", "id", "status", "customer_id", "product_id", "quantity", "accepted_at"];
    let row = |order: &Value| fields.iter().map(|field| text(order.get(field))).collect();
    output.table(&columns, &orders.iter().map(row).collect::<Vec<_>>())?;
    if let Some(after) = after {
        output.line(format!("There are more: yoink orders --after {after}"))?;
    }
    Ok(())
}

/// A value as it stands in a cell: texts without quotes, nothing for null.
pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
