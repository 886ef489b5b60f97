//! `cargo xtask k6`: a real k6 sends buyers of the older system to each generation, and its spike to each generation and
//! to the product.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use yoink_testkit::{Postgres, RedisServer, Yoink, YoinkProcess};

use super::Lab;
use crate::say::say;
use crate::setup;
use crate::steps::Counted;

/// Units of each product: as many as are sold while the spike is at its highest.
const UNITS: u64 = 400;
/// What the older system's buyers want, and what the spike wants: each has its own shelf in every generation.
const OF_BUYERS: &str = "1";
const OF_SPIKE: &str = "2";
/// How many of the older system's buyers buy at the same time: three for each of the ten connections of a generation, so
/// that nobody waits for one so long that his answer lacks the product.
const AT_ONCE: &str = "30";
/// How many come: enough that there is a no for some of them, where no unit is sold twice.
const BUYERS: &str = "600";
/// What they are told, by k6's checks.
const YES: &str = "a yes tells of the order";
const NO: &str = "a no tells why";
/// The whole spike, in seconds; the older system's takes 55.
const SECONDS: &str = "3";
/// How long the lab may take to start its servers and the generations, and to end them.
const START_MAX: Duration = Duration::from_secs(60);
const END_MAX: Duration = Duration::from_secs(30);
/// How long the workers of a generation may take to write what was accepted.
const WRITTEN_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
        let (units, products) = (UNITS.to_string(), [OF_BUYERS, OF_SPIKE].join(","));
        let serve = Yoink::new(lab.program()).args(["serve", "--units", &units, "--product", &products]);
        let mut process = serve.without_data().without_admin_key().spawn()?;
        let is_listening = process.wait_listening(START_MAX).is_ok();
        ensure!(is_listening, "yoink-lab does not serve; it wrote:\n{}", process.output());
        Ok(Generations { process })
    }

    /// Orders of a generation, as its /metrics has them.
    fn orders(&self, version: u8, status: &str) -> Result<f64> {
        let name = format!("yoink_total_orders{{status=\"{status}\",version=\"v{version}\"}}");
        let text = self.process.anonymous_client().get("/metrics")?.text();
        let line = text.lines().find(|line| line.starts_with(&name));
        let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
        value.with_context(|| format!("/metrics has no {name}: {text}"))
    }

    /// Orders that are written, when as many are as were accepted.
    fn written(&self, version: u8) -> Result<f64> {
        let begun = Instant::now();
        loop {
            let (written, accepted) = (self.orders(version, "CONFIRMED")?, self.orders(version, "ACCEPTED")?);
            if is_same(written, accepted) {
                return Ok(written);
            }
            let is_late = begun.elapsed() > WRITTEN_MAX;
            ensure!(!is_late, "generation {version} has accepted {accepted} orders and written {written}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Sends the older system's buyers. They, its metrics and the books have to say the same.
    fn buyers(&self, k6: &K6, version: u8) -> Result<()> {
        let (url, number) = (self.process.url(), version.to_string());
        let door = [("TARGET", url.as_str()), ("VERSION", &number), ("PRODUCT", OF_BUYERS)];
        let settings = [&door[..], &[("BUYERS", BUYERS), ("AT_ONCE", AT_ONCE)]].concat();
        let summary = k6.run("generations.js", &settings)?;
        for (counter, status) in
            [("yoink_accepted", "ACCEPTED"), ("yoink_sold_out", "REJECTED"), ("yoink_failed", "FAILED")]
        {
            let (told, counted) = (count(&summary, counter), self.orders(version, status)?);
            ensure!(
                is_same(told, counted),
                "generation {version} told {told} buyers what it counts as {counted} {status}"
            );
        }
        let (yes, no) = (passes(&summary, YES), passes(&summary, NO));
        // The first may sell to everybody.
        ensure!(
            yes > 0.0 && (version == 1 || no > 0.0),
            "generation {version} said {yes} times yes and {no} times no"
        );
        let written = self.written(version)?;
        // The spike comes one after the other where a machine is fast. These buyers come at the same time.
        ensure!(
            version != 1 || written > UNITS as f64,
            "the first generation did not oversell: {written} of {UNITS}"
        );
        say(format!(
            "k6: v{version}: {yes} times yes and {no} times no to buyers, {written} orders on {UNITS} units"
        ));
        ensure_sold(version, written)
    }

    /// Sends the spike.
    fn spike(&self, k6: &K6, version: u8) -> Result<()> {
        let before = self.written(version)?;
        let summary = k6.spike(&self.process, &format!("/api/v{version}/buy"), OF_SPIKE)?;
        let written = self.written(version)? - before;
        say(format!("k6: v{version}: {}, {written} orders on {UNITS} units", in_words(&summary)));
        ensure_sold(version, written)
    }
}

/// Whether a generation sold as many as it does.
fn ensure_sold(version: u8, written: f64) -> Result<()> {
    let units = UNITS as f64;
    match version {
        1 => ensure!(written >= units, "the first generation sold {written} of {units}"),
        // It loses units, and may lose all but one.
        3 => ensure!(written >= 1.0 && written <= units, "the third generation sold {written} of {units}"),
        _ => ensure!(is_same(written, units), "generation {version} sold {written} of {units}"),
    }
    Ok(())
}

/// Sends both scripts everywhere, and looks at what was told and sold.
///
/// # Errors
/// k6 is not installed, found a fault, or the wrong number was sold.
pub(crate) fn run(lab: &Lab) -> Result<Counted> {
    let k6 = K6::find()?;
    let generations = Generations::serve(lab)?;
    for version in 1..=4 {
        generations.buyers(&k6, version)?;
        generations.spike(&k6, version)?;
    }
    let health = generations.process.anonymous_client().get("/health")?.json();
    ensure!(health.get("status") == Some(&Value::from("ok")), "the lab is not well: {health}");
    drop(generations);
    let yoink = lab.program().with_file_name("yoink");
    spike_of_engine(&k6, "embedded", Yoink::new(&yoink).args(["serve", "--dev"]))?;
    let (redis, postgres) = (RedisServer::start()?, Postgres::start()?);
    let (redis_url, postgres_url) = (redis.url(), postgres.url());
    migrate(&yoink, &postgres_url)?;
    let servers = ["--redis", &redis_url, "--postgres", &postgres_url];
    let serve = Yoink::new(&yoink).args([&["serve", "--dev", "--engine", "redis"], &servers[..]].concat());
    spike_of_engine(&k6, "redis", serve.without_data())?;
    Ok(Counted::of(6, "systems under k6's buyers"))
}

/// Makes the tables of the ledger.
fn migrate(yoink: &Path, postgres: &str) -> Result<()> {
    let migrated = Command::new(yoink).args(["migrate", "--postgres", postgres]).output();
    let migrated = migrated.with_context(|| format!("cannot run {}", yoink.display()))?;
    let complaint = String::from_utf8_lossy(&migrated.stderr);
    ensure!(migrated.status.success(), "yoink migrate failed: {complaint}");
    Ok(())
}

fn spike_of_engine(k6: &K6, engine: &str, serve: Yoink) -> Result<()> {
    let server = serve.start()?;
    let price = json!({"amount": 100, "currency": "EUR"});
    let product = json!({"id": OF_SPIKE, "name": "Flash Sale Item", "price": price, "stock": UNITS});
    let answer = server.client().post("/v1/admin/products", &product)?;
    ensure!(answer.status == 201, "cannot open a product: {} {}", answer.status, answer.text());
    let summary = k6.spike(&server, "/buy", OF_SPIKE)?;
    let accepted = count(&summary, "yoink_accepted");
    say(format!("k6: yoink, {engine}: {} on {UNITS} units", in_words(&summary)));
    ensure!(is_same(accepted, UNITS as f64), "yoink, {engine}: sold {accepted} of {UNITS}");
    let failed = count(&summary, "yoink_failed");
    ensure!(is_same(failed, 0.0), "yoink, {engine}: {failed} buyers were not told yes or no");
    Ok(())
}

/// The k6 that setup has installed.
struct K6 {
    program: PathBuf,
}

impl K6 {
    fn find() -> Result<K6> {
        let program = setup::k6()?;
        ensure!(program.exists(), "k6 is not installed; run `cargo xtask setup` first");
        Ok(K6 { program })
    }

    fn spike(&self, server: &YoinkProcess, route: &str, product: &str) -> Result<Value> {
        let url = server.url();
        let settings =
            [("TARGET", url.as_str()), ("ROUTE", route), ("PRODUCT", product), ("SECONDS", SECONDS)];
        self.run("spike.js", &settings)
    }

    /// Runs a script of benchmarks/k6 with these variables, and gives k6's summary.
    fn run(&self, script: &str, settings: &[(&str, &str)]) -> Result<Value> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let summary = folder.path().join("summary.json");
        let status = Command::new(&self.program)
            .args(["run", "--quiet", "--no-usage-report", "--no-color", "--summary-export"])
            .arg(&summary)
            .args(settings.iter().flat_map(|(name, value)| ["-e".to_owned(), format!("{name}={value}")]))
            .arg(crate::root()?.join("benchmarks/k6").join(script))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("cannot run k6")?;
        let text = std::fs::read_to_string(&summary).context("k6 left no summary")?;
        let summary: Value = serde_json::from_str(&text).context("k6's summary is no JSON")?;
        let failed = failed_checks(&summary).join(", ");
        ensure!(
            status.success(),
            "k6 ended with {status} after {script} with {settings:?}; not so: {failed}"
        );
        Ok(summary)
    }
}

fn in_words(summary: &Value) -> String {
    format!("{} requests, {} accepted", count(summary, "http_reqs"), count(summary, "yoink_accepted"))
}

/// What a counter of k6's summary came to; 0 if nothing was ever counted.
fn count(summary: &Value, name: &str) -> f64 {
    let metric = summary.get("metrics").and_then(|metrics| metrics.get(name));
    metric.and_then(|metric| metric.get("count")).and_then(Value::as_f64).unwrap_or(0.0)
}

/// How often a check of k6's summary passed; 0 if it was never made.
fn passes(summary: &Value, name: &str) -> f64 {
    checks(summary).and_then(|checks| checks.get(name)).map_or(0.0, |check| times(check, "passes"))
}

/// The checks of k6's summary that failed, once or more.
fn failed_checks(summary: &Value) -> Vec<&str> {
    let failed = checks(summary).into_iter().flatten().filter(|(_, check)| times(check, "fails") > 0.0);
    failed.map(|(name, _)| name.as_str()).collect()
}

fn checks(summary: &Value) -> Option<&Map<String, Value>> {
    summary.get("root_group")?.get("checks")?.as_object()
}

/// How often a check ended so.
fn times(check: &Value, end: &str) -> f64 {
    check.get(end).and_then(Value::as_f64).unwrap_or(0.0)
}

/// Whether two whole numbers are the same.
fn is_same(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.5
}
