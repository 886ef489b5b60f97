//! `cargo xtask k6`: a real k6 sends its spike to each generation and to the product.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use yoink_testkit::{Yoink, YoinkProcess};

use super::Lab;
use crate::say::say;
use crate::setup;
use crate::steps::Counted;

/// Units of each product: as many as are sold while the spike is at its highest.
const UNITS: u64 = 400;
/// The whole spike, in seconds; the older system's takes 55.
const SECONDS: &str = "6";
/// How long the lab may take to start its servers and the generations, and to end them.
const START_MAX: Duration = Duration::from_secs(60);
const END_MAX: Duration = Duration::from_secs(30);

/// The lab, serving the generations. Ends with its owner.
struct Generations {
    process: YoinkProcess,
}

impl Drop for Generations {
    fn drop(&mut self) {
        // Asked first: it has servers to end. What does not end is killed.
        self.process.terminate();
        self.process.wait_exit(END_MAX);
    }
}

impl Generations {
    fn serve(lab: &Lab) -> Result<Generations> {
        let units = UNITS.to_string();
        let serve = Yoink::new(lab.program()).args(["serve", "--units", &units]);
        let mut process = serve.without_data().without_admin_key().spawn()?;
        process.wait_listening(START_MAX).context("the lab does not serve")?;
        Ok(Generations { process })
    }

    /// A metric of a generation, as its /metrics has it.
    fn metric(&self, name: &str) -> Result<f64> {
        let text = self.process.anonymous_client().get("/metrics")?.text();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
        value.with_context(|| format!("/metrics has no {name}: {text}"))
    }

    fn confirmed(&self, version: u8) -> Result<f64> {
        self.metric(&format!("yoink_total_orders{{status=\"CONFIRMED\",version=\"v{version}\"}}"))
    }
}

/// Sends the spike everywhere, and looks at what was sold.
///
/// # Errors
/// k6 is not installed, found a fault, or the wrong number was sold.
pub(crate) fn run(lab: &Lab) -> Result<Counted> {
    let program = setup::k6()?;
    ensure!(program.exists(), "k6 is not installed; run `cargo xtask setup` first");
    let generations = Generations::serve(lab)?;
    for version in 1..=4 {
        let summary = spike(&program, &generations.process.url(), &format!("/api/v{version}/buy"))?;
        let confirmed = generations.confirmed(version)?;
        say(format!(
            "k6: v{version}: {} requests, {} accepted, {confirmed} orders on {UNITS} units",
            count(&summary, "http_reqs"),
            count(&summary, "yoink_accepted"),
        ));
        let units = UNITS as f64;
        match version {
            1 => ensure!(confirmed > units, "the first generation did not oversell"),
            2 => {
                ensure!((confirmed - units).abs() < 0.5, "the second generation sold {confirmed} of {units}")
            }
            _ => ensure!(
                confirmed >= 1.0 && confirmed <= units,
                "generation {version} sold {confirmed} of {units}"
            ),
        }
    }
    let health = generations.process.anonymous_client().get("/health")?.json();
    ensure!(health.get("status") == Some(&Value::from("ok")), "the lab is not well: {health}");
    drop(generations);
    real_engine(lab, &program)?;
    Ok(Counted::of(5, "systems under k6's spike"))
}

fn real_engine(lab: &Lab, program: &Path) -> Result<()> {
    let server = Yoink::new(lab.program().with_file_name("yoink")).args(["serve", "--dev"]).start()?;
    let mut client = server.client();
    let price = json!({"amount": 100, "currency": "EUR"});
    let product = json!({"id": "1", "name": "Flash Sale Item", "price": price, "stock": UNITS});
    let answer = client.post("/v1/admin/products", &product)?;
    ensure!(answer.status == 201, "cannot open a product: {} {}", answer.status, answer.text());
    let summary = spike(program, &server.url(), "/buy")?;
    let accepted = count(&summary, "yoink_accepted");
    say(format!(
        "k6: yoink: {} requests, {accepted} accepted on {UNITS} units",
        count(&summary, "http_reqs")
    ));
    ensure!((accepted - UNITS as f64).abs() < 0.5, "yoink sold {accepted} of {UNITS}");
    ensure!(count(&summary, "yoink_failed") == 0.0, "yoink did not answer everybody");
    Ok(())
}

/// Runs the spike and gives k6's summary.
fn spike(program: &Path, target: &str, route: &str) -> Result<Value> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let summary = folder.path().join("summary.json");
    let status = Command::new(program)
        .args(["run", "--quiet", "--no-usage-report", "--no-color", "--summary-export"])
        .arg(&summary)
        .args(["-e", &format!("TARGET={target}"), "-e", &format!("ROUTE={route}")])
        .args(["-e", &format!("SECONDS={SECONDS}")])
        .arg(crate::root()?.join("benchmarks/k6/spike.js"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot run k6")?;
    ensure!(status.success(), "k6 found a fault at {target}{route}");
    let text = std::fs::read_to_string(&summary).context("k6 left no summary")?;
    serde_json::from_str(&text).context("k6's summary is no JSON")
}

/// What a counter of k6's summary came to; 0 if nothing was ever counted.
fn count(summary: &Value, name: &str) -> f64 {
    let metric = summary.get("metrics").and_then(|metrics| metrics.get(name));
    metric.and_then(|metric| metric.get("count")).and_then(Value::as_f64).unwrap_or(0.0)
}
