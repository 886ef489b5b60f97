//! `yoink dead-letters`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::api_client::ApiClient;
use super::args::{DeadLetterArgs, DeadLettersCommand, TargetArgs};
use super::orders::text;
use super::output::{Align, Output};

/// Lists, shows, retries or discards dead letters.
pub(super) fn run(command: &DeadLettersCommand, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        DeadLettersCommand::List { target, product, error, json } => {
            let letters = list(target, product.as_deref(), error.as_deref())?;
            if *json {
                output.json(&json!({"dead_letters": letters}))?
            } else {
                print_list(&letters, output)?
            }
        }
        DeadLettersCommand::Show(letter) => {
            let found = ApiClient::new(&letter.target)?.get(&path(letter, ""), &[])?;
            print_one(&found, letter, output)?;
        }
        DeadLettersCommand::Retry(letter) => {
            let after = ApiClient::new(&letter.target)?.post(&path(letter, "/retry"), &json!({}), None)?;
            print_one(&after, letter, output)?;
        }
        DeadLettersCommand::Discard { letter, reason } => {
            let body = json!({"reason": reason});
            let after = ApiClient::new(&letter.target)?.post(&path(letter, "/discard"), &body, None)?;
            print_one(&after, letter, output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(letter: &DeadLetterArgs, action: &str) -> String {
    format!("/v1/admin/dead-letters/{}{action}", letter.id)
}

/// All of them, page by page.
fn list(target: &TargetArgs, product: Option<&str>, error: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let client = ApiClient::new(target)?;
    let (mut letters, mut after) = (Vec::new(), None);
    loop {
        let query = [
            ("product", product.map(str::to_owned)),
            ("error", error.map(str::to_owned)),
            ("after", after.map(|id: i64| id.to_string())),
        ];
        let query: Vec<_> = query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let page = client.get("/v1/admin/dead-letters", &query)?;
        let found = page.get("dead_letters").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_last = found.is_empty();
        letters.extend(found);
        after = page.get("next_after").and_then(Value::as_i64);
        if is_last || after.is_none() {
            return Ok(letters);
        }
    }
}

fn print_list(letters: &[Value], output: &mut Output) -> anyhow::Result<()> {
    if letters.is_empty() {
        return Ok(output.line("no dead letters")?);
    }
    let columns = [
        ("id", Align::Right),
        ("state", Align::Left),
        ("order", Align::Left),
        ("customer", Align::Left),
        ("product", Align::Left),
        ("units", Align::Right),
        ("tries", Align::Right),
        ("error", Align::Left),
    ];
    let fields = ["id", "state", "order_id", "customer_id", "product_id", "quantity", "attempts", "error"];
    let row = |letter: &Value| fields.iter().map(|field| text(letter.get(field))).collect();
    Ok(output.table(&columns, &letters.iter().map(row).collect::<Vec<_>>())?)
}

fn print_one(letter: &Value, args: &DeadLetterArgs, output: &mut Output) -> anyhow::Result<()> {
    if args.json {
        return Ok(output.json(letter)?);
    }
    let members = letter.as_object().into_iter().flatten();
    let rows: Vec<_> = members.map(|(name, value)| vec![name.replace('_', " "), text(Some(value))]).collect();
    Ok(output.table(&[("dead letter", Align::Left), ("", Align::Left)], &rows)?)
}
