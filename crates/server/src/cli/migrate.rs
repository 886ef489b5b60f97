//! `yoink migrate`: the tables of the ledger in PostgreSQL.

use std::process::ExitCode;

use serde_json::json;
use yoink_engine::postgres;

use super::api_client;
use super::args::MigrateArgs;
use super::output::Output;
use crate::config::Config;

/// Makes the tables, or brings them up to this version.
pub(super) fn run(args: &MigrateArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let config = Config::load(args.layer(), args.config.as_deref())?;
    let url = config.postgres_url()?;
    let applied = api_client::runtime()?.block_on(postgres::migrate(url.expose()))?;
    if args.json {
        output.json(&json!({"applied": applied}))?;
    } else if applied.is_empty() {
        output.line("the tables were up to date")?;
    } else {
        output.line(format!("applied {}: the tables are up to date", applied.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}
