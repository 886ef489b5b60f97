//! `cargo xtask schemathesis`: hundreds of requests made up from the OpenAPI document, none of which may be answered
//! with 5xx or with something that the document does not say. Those that fit it must be accepted, but for what
//! `xtask/schemathesis/hooks.py` lists.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::json;
use yoink_testkit::Yoink;

use crate::say::say;
use crate::setup;
use crate::steps::Counted;

/// Requests made up for each operation.
const EXAMPLES_MAX: &str = "60";

/// What to try.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SchemathesisArgs {
    /// The binary [default: built now, release]
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
}

/// Tries the binary against its document, and counts the operations.
///
/// # Errors
/// A finding, or schemathesis is not installed.
pub(crate) fn run(args: &SchemathesisArgs) -> Result<Counted> {
    let program = setup::schemathesis()?;
    ensure!(program.exists(), "schemathesis is not installed; run `cargo xtask setup` first");
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    // Not --dev: there, buying without a key is no finding.
    let server = Yoink::new(binary).args(["serve", "--log-level", "warn"]).start()?;
    let mut client = server.client();
    let price = json!({"amount": 100, "currency": "EUR"});
    let product =
        json!({"id": "1", "name": "Tried", "price": price, "stock": 100_000, "max_per_order": 1_000});
    let answer = client.post("/v1/admin/products", &product)?;
    ensure!(answer.status == 201, "cannot open a product: {} {}", answer.status, answer.text());
    let document = client.get("/openapi.json")?.json();
    let operations = document.get("paths").and_then(|paths| paths.as_object()).map_or(0, |paths| {
        paths.values().filter_map(|path| path.as_object()).map(serde_json::Map::len).sum()
    });
    say(format!("schemathesis: {operations} operations at {}", server.url()));
    let mut child = Command::new(program)
        // What it keeps between runs belongs with what is built.
        .current_dir(crate::target_folder()?)
        .arg("run")
        .arg(format!("{}/openapi.json", server.url()))
        // What a JSON schema cannot say of a valid request is listed there.
        .env("SCHEMATHESIS_HOOKS", crate::root()?.join("xtask/schemathesis/hooks.py"))
        // Nothing is written beside it.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES_MAX])
        .args(["--request-timeout", "10", "--seed", "1", "--suppress-health-check", "all"])
        // A stream of events does not end by itself, and pausing delivery or selling would only make the rest say 503.
        .args(["--exclude-path-regex", "(/stream|/pause)$"])
        .args(["--header", &format!("Authorization: Bearer {}", server.admin_key())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run schemathesis")?;
    // Something else may be saying something, too.
    for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        say(line?);
    }
    if !child.wait()?.success() {
        bail!("schemathesis has findings, listed above; the server wrote:\n{}", server.output());
    }
    Ok(Counted::of(operations as u64, "operations tried"))
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--package", "yoink-server"])
        .current_dir(crate::root()?)
        .status()?;
    ensure!(status.success(), "cargo could not build yoink");
    Ok(crate::target_folder()?.join("release/yoink"))
}
