//! `cargo xtask drill`: kill -9 under load, again and again, on the same data.
//!
//! Buyers live in this process, which is never killed, and write down every intent before it is sent and every answer
//! when it is there. The server is killed at random instants, or at a labelled step between deciding and answering.
//! Afterwards every record is compared with what the shop has.

mod buyer;
mod rabbitmq;
mod record;
mod redis;
mod shop;
mod steps;
mod verify;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use yoink_testkit::{Yoink, YoinkProcess, ended_by};

use crate::say::say;
use buyer::{Buyer, LIMITED, PLENTY, SCARCE, UNLUCKY};

/// The server may take this long to end after SIGTERM.
/// The profile of the binary that is killed, and the folder that cargo puts it into.
const PROFILE: &str = "drilled";
const EXIT_WITHIN: Duration = Duration::from_secs(10);

/// After so many kills one life ends with SIGTERM under load instead: nothing accepted may be lost there either.
const ORDERLY_EVERY: u32 = 10;
const ORDERLY_LIFE: Duration = Duration::from_millis(60);

/// Which engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum EngineName {
    #[default]
    Embedded,
    Redis,
    Rabbitmq,
}

impl EngineName {
    fn name(self) -> &'static str {
        match self {
            EngineName::Embedded => "embedded",
            EngineName::Redis => "redis",
            EngineName::Rabbitmq => "rabbitmq",
        }
    }
}

/// How to drill.
#[derive(Clone, Debug, Args)]
pub(crate) struct DrillArgs {
    /// Which engine
    #[arg(long, value_enum, default_value_t)]
    engine: EngineName,
    /// How many times to kill at random instants
    #[arg(long, value_name = "N", conflicts_with_all = ["step", "all_steps"])]
    kills: Option<u32>,
    /// Kill at this labelled step instead
    #[arg(long, value_name = "LABEL")]
    step: Option<String>,
    /// How many times to kill at the step of --step
    #[arg(long, value_name = "N", default_value_t = 5)]
    times: u32,
    /// Kill at every labelled step this many times
    #[arg(long, value_name = "N", conflicts_with = "step")]
    all_steps: Option<u32>,
    /// Repeats a run's choices (not its timing) [default: a new one, printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Buyers at once
    #[arg(long, value_name = "N", default_value_t = 6)]
    buyers: usize,
    /// The binary, built with the feature `faults` [default: built now]
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    #[command(flatten)]
    shop: shop::ShopArgs,
    #[command(flatten)]
    redis: redis::RedisArgs,
    #[command(flatten)]
    rabbitmq: rabbitmq::RabbitArgs,
}

/// What a drill did.
#[derive(Debug)]
pub(crate) struct DrillReport {
    /// How many of `what`.
    pub(crate) count: u64,
    /// Kills or faults.
    pub(crate) what: &'static str,
    pub(crate) purchases: usize,
}

/// Drills and judges.
///
/// # Errors
/// Anything that must not be was found, or the drill could not be carried out. The data is kept then.
pub(crate) fn run(args: &DrillArgs) -> Result<DrillReport> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let folder = tempfile::Builder::new().prefix("yoink-drill-").tempdir()?;
    let records = folder.path().to_path_buf();
    if args.engine != EngineName::Embedded {
        let (name, buyers) = (args.engine.name(), args.buyers);
        say(format!("drill: {name}, seed {seed}, {buyers} buyers, records in {}", records.display()));
        return keep(folder, |folder| match args.engine {
            EngineName::Rabbitmq => {
                rabbitmq::run(&binary, (folder, seed, buyers, &args.shop), &args.rabbitmq)
            }
            _ => redis::run(&binary, (folder, seed, buyers, &args.shop), &args.redis),
        });
    }
    let buyers = (0..args.buyers).map(|number| Buyer::new(&records, number, seed));
    let buyers = buyers.collect::<Result<_>>()?;
    let mut drill = Drill { binary, data: records.join("data"), records, buyers, seed };
    say(format!("drill: seed {seed}, {} buyers, data in {}", args.buyers, drill.records.display()));
    keep(folder, |_| drill.run(args))
}

/// Keeps the folder of a drill that found something.
fn keep(folder: TempDir, drill: impl FnOnce(&Path) -> Result<DrillReport>) -> Result<DrillReport> {
    let result = drill(folder.path());
    if result.is_err() {
        say(format!("drill: the data is kept in {}", folder.keep().display()));
    }
    result
}

/// Builds the binary with failpoints, as fast as the product but for the last optimizations, which take minutes. It has a
/// folder of its own: nobody must take a binary with failpoints for the product.
pub(crate) fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args =
        ["build", "--quiet", "--profile", PROFILE, "--package", "yoink-server", "--features", "faults"];
    let built = Command::new(cargo).args(args).current_dir(crate::root()?).status();
    ensure!(
        built.context("cannot run cargo")?.success(),
        "cargo could not build yoink with the feature faults"
    );
    Ok(crate::target_folder()?.join(PROFILE).join("yoink"))
}

/// One data folder and its buyers.
struct Drill {
    binary: PathBuf,
    data: PathBuf,
    records: PathBuf,
    buyers: Vec<Buyer>,
    seed: u64,
}

impl Drill {
    fn run(&mut self, args: &DrillArgs) -> Result<DrillReport> {
        self.open_products()?;
        let begun = Instant::now();
        let kills = match (&args.step, args.all_steps) {
            (Some(step), _) => steps::run(self, &[step.as_str()], args.times)?,
            (None, Some(times)) => steps::run(self, &steps::LABELS, times)?,
            (None, None) => self.kill_at_random(args.kills.unwrap_or(200))?,
        };
        say(format!("drill: {kills} kills in {:.1} s; comparing", begun.elapsed().as_secs_f64()));
        let purchases = self.judge()?;
        Ok(DrillReport { count: kills.into(), what: "kills", purchases })
    }

    /// The server with a ledger that refuses unlucky customers for good, quickly.
    fn server(&self) -> Yoink {
        Yoink::new(&self.binary)
            .args(["serve", "--dev", "--log-level", "warn"])
            .data(&self.data)
            .env("YOINK_FAULT_LEDGER", format!("customer={UNLUCKY}"))
            .env("YOINK_DELIVERY_BACKOFF_BASE_MS", "1")
            .env("YOINK_DELIVERY_BACKOFF_MAX_MS", "4")
    }

    fn open_products(&self) -> Result<()> {
        let mut server = self.server().start()?;
        let price = json!({"amount": 100, "currency": "EUR"});
        for (id, stock, limit) in
            [(PLENTY, 500_000_000_u64, None), (SCARCE, 300, None), (LIMITED, 100_000, Some(2))]
        {
            let product =
                json!({"id": id, "name": id, "price": price, "stock": stock, "limit_per_customer": limit});
            let answer = server.client().post("/v1/admin/products", &product)?;
            ensure!(answer.status == 201, "cannot open {id}: {} {}", answer.status, answer.text());
        }
        end(&mut server)
    }

    fn kill_at_random(&mut self, kills: u32) -> Result<u32> {
        let mut random = SmallRng::seed_from_u64(self.seed);
        let mut slowest = Duration::ZERO;
        for kill in 1..=kills {
            let mut server =
                self.server().start().with_context(|| format!("start after kill {}", kill - 1))?;
            slowest = slowest.max(server.ready_after());
            let lives = Duration::from_micros(random.random_range(0..150_000));
            self.buy_during(&mut server, |server| {
                std::thread::sleep(lives);
                server.kill9();
                Ok(())
            })
            .with_context(|| format!("life {kill}"))?;
            if kill % ORDERLY_EVERY == 0 {
                self.end_under_load()?;
            }
            if kill % 50 == 0 {
                say(format!("drill: {kill} kills"));
            }
        }
        say(format!("drill: the slowest restart took {} ms", slowest.as_millis()));
        Ok(kills)
    }

    /// A life that ends with SIGTERM while everybody buys.
    fn end_under_load(&mut self) -> Result<()> {
        let mut server = self.server().start()?;
        self.buy_during(&mut server, |server| {
            std::thread::sleep(ORDERLY_LIFE);
            end(server)
        })
        .context("ending with SIGTERM under load")
    }

    /// Lets everybody buy while `life` goes on, which ends the server.
    fn buy_during<T>(
        &mut self,
        server: &mut YoinkProcess,
        life: impl FnOnce(&mut YoinkProcess) -> Result<T>,
    ) -> Result<T> {
        let is_over = AtomicBool::new(false);
        let is_over = &is_over;
        let lived = std::thread::scope(|scope| {
            let buying: Vec<_> = self
                .buyers
                .iter_mut()
                .map(|buyer| {
                    let mut client = server.client().with_timeout(EXIT_WITHIN);
                    scope.spawn(move || buyer.run(&mut client, &|| is_over.load(Ordering::Relaxed)))
                })
                .collect();
            let lived = life(server);
            is_over.store(true, Ordering::Relaxed);
            for buyer in buying {
                buyer.join().unwrap_or_else(|_| bail!("a buyer panicked"))?;
            }
            lived
        })?;
        self.complain()?;
        Ok(lived)
    }

    fn complain(&mut self) -> Result<()> {
        complain(self.buyers.iter_mut().flat_map(|buyer| buyer.findings.drain(..)).collect())
    }

    fn judge(&mut self) -> Result<usize> {
        let mut server = self.server().start().context("the start after the last kill")?;
        for buyer in &mut self.buyers {
            buyer.resolve(&mut server.client())?;
        }
        self.complain()?;
        let (verified, findings) = verify::verify(&server, &self.records, self.buyers.len())?;
        say(format!(
            "drill: {} purchases, {} orders ({} cancelled, {} failed) looked up and replayed",
            verified.purchases, verified.orders, verified.cancelled, verified.failed
        ));
        complain(findings)?;
        end(&mut server)?;
        let audit =
            Command::new(&self.binary).args(["audit", "--json", "--data"]).arg(&self.data).output()?;
        let document: Value = serde_json::from_slice(&audit.stdout).unwrap_or_default();
        ensure!(
            audit.status.success() && document.get("ok") == Some(&Value::Bool(true)),
            "the audit of the data folder says {}: {document} {}",
            ended_by(audit.status),
            String::from_utf8_lossy(&audit.stderr)
        );
        Ok(verified.purchases)
    }
}

/// Ends a server as a process manager does.
fn end(server: &mut YoinkProcess) -> Result<()> {
    server.terminate();
    match server.wait_exit(EXIT_WITHIN) {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            bail!("SIGTERM ended yoink with {}; it wrote:\n{}", ended_by(status), server.output())
        }
        None => bail!("yoink still runs {} s after SIGTERM", EXIT_WITHIN.as_secs()),
    }
}

/// Fails with the first findings, if there are any.
fn complain(findings: Vec<String>) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let first = findings.iter().take(20).map(|finding| format!("\n  {finding}")).collect::<String>();
    bail!("{} findings:{first}", findings.len())
}
