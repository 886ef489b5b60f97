//! A storm from options to report.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::api;
use crate::audit::{AuditReport, Claim, Evidence, StockCounts, Who, judge, look_up_all};
use crate::client::Client;
use crate::error::StormError;
use crate::options::{Audit, StormOptions};
use crate::plan::{Pace, Plan};
use crate::preset::{Preset, STRESS_UNITS};
use crate::progress::Progress;
use crate::record::{RecordedAnswer, RecordedAttempt, Recorder, read_record};
use crate::report::StormReport;
use crate::resolve::resolve;
use crate::shard::{Live, ShardResult, Shared, Signals, spawn};
use crate::tally::{Kept, Tally};
use crate::target::Target;
use crate::{closed_loop, open_loop};

/// Runs a storm, judges it, and writes the files that `options` asks for.
///
/// Needs a tokio runtime with time and network; a single-threaded one is enough, because the sending happens on
/// threads of its own.
///
/// # Errors
/// [`StormError`] if there can be no result: nobody answers, the product does not exist, the options contradict each
/// other, a file cannot be written. A storm whose verdict is bad is not an error: see [`StormReport::is_ok`].
pub async fn run(mut options: StormOptions) -> Result<StormReport, StormError> {
    let mut notes = Vec::new();
    if let Some(preset) = options.preset {
        preset.fill(&mut options);
    }
    let target = Target::resolve(&options.target).await?;
    let mut client = Client::new(target.address, options.timeout);
    api::reach(&mut client, &target).await?;
    // Checked before a product is created for it.
    Plan::new(&options, target.clone())?;
    if options.preset == Some(Preset::Stress) {
        notes.push(prepare_stress(&mut options, &mut client, &target).await?);
    }
    let plan = Plan::new(&options, target)?;
    let before = match plan.audit {
        Audit::Full => Some(look_at_product(&mut client, &plan, &mut notes).await?),
        Audit::Skip => None,
    };
    let mut progress = Progress::new(options.progress, plan.requests_expected());
    let (plan, tally) = storm(plan, &options, &mut progress).await?;
    let audit = match before {
        Some(before) => Some(audit_storm(&plan, &mut client, &tally, before, &progress).await?),
        None => None,
    };
    progress.finish();
    let mut report = StormReport::new(&plan, tally, audit, notes);
    report.preset = options.preset;
    report.checks = options.preset.map_or_else(Vec::new, |preset| {
        preset.checks(&report, before.map(|stock| u64::try_from(stock.available).unwrap_or(0)))
    });
    report.assertions = options.asserts.iter().map(|assertion| assertion.check(&report)).collect();
    report.write_files(&options)?;
    Ok(report)
}

/// Judges a record that outlived its storm: asks again for every purchase without an answer, looks every accepted
/// order up, and checks that no key has two orders. `options` needs the target, product, quantity and key.
///
/// # Errors
/// As [`run`]; also if the record cannot be read.
pub async fn audit_record(options: &StormOptions, record: &Path) -> Result<AuditReport, StormError> {
    let attempts = read_record(record)?;
    let target = Target::resolve(&options.target).await?;
    let mut client = Client::new(target.address, options.timeout);
    api::reach(&mut client, &target).await?;
    let plan = Arc::new(Plan::new(options, target)?);
    let mut claims = Vec::new();
    let mut unknown = Vec::new();
    for attempt in attempts.into_iter().filter(|attempt| attempt.product == plan.product) {
        sort_recorded(attempt, &mut claims, &mut unknown);
    }
    judge_claims(&plan, &mut client, claims, unknown, Before { stock: None, sold_out_customers: 0 }).await
}

/// A purchase is settled only by an answer for every time it was sent: one without may still have bought.
fn sort_recorded(attempt: RecordedAttempt, claims: &mut Vec<Claim>, unknown: &mut Vec<Who>) {
    let RecordedAttempt { customer, key, quantity, answers, sent, .. } = attempt;
    let who = Who::Named { customer, key, quantity };
    let mut answered = 0;
    for answer in answers {
        match answer {
            RecordedAnswer::Accepted { order, .. } => {
                answered += 1;
                claims.push(Claim { who: who.clone(), order_id: order.map(Into::into), replayed: false });
            }
            RecordedAnswer::Refused { .. } => answered += 1,
            RecordedAnswer::Failed { reason } => answered += u32::from(reason == "connect"),
        }
    }
    if answered < sent {
        unknown.push(who);
    }
}

async fn prepare_stress(
    options: &mut StormOptions,
    client: &mut Client,
    target: &Target,
) -> Result<String, StormError> {
    let Some(admin_key) = &options.admin_key else {
        return Ok(format!(
            "no admin key was given, so product {} was used as it is instead of a new one with {STRESS_UNITS} units",
            options.product
        ));
    };
    let units = STRESS_UNITS * u64::from(options.quantity);
    options.product = api::create_product(client, target, admin_key, "Storm stress", units).await?;
    Ok(format!("product {} was created with {units} units for this storm", options.product))
}

async fn look_at_product(
    client: &mut Client,
    plan: &Plan,
    notes: &mut Vec<String>,
) -> Result<StockCounts, StormError> {
    let product = api::product(client, &plan.target, plan.read_key.as_deref(), &plan.product).await?;
    if product.stock.available <= 0 {
        notes.push(format!("product {} was sold out before the storm began", plan.product));
    }
    if let Some(limit) = product.limit_per_customer {
        notes.push(format!("product {} is limited to {limit} units per customer", plan.product));
    }
    Ok(product.stock)
}

/// The sending itself.
async fn storm(
    plan: Plan,
    options: &StormOptions,
    progress: &mut Progress,
) -> Result<(Arc<Plan>, Tally), StormError> {
    let recorder = options.record_path.as_deref().map(|path| Recorder::open(path, &plan)).transpose()?;
    let threads = plan.threads;
    let shared = Arc::new(Shared {
        plan,
        next_purchase: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        recorder,
        live: (0..threads).map(|_| Live::default()).collect(),
    });
    let (start, started) = watch::channel(None);
    let (results, warm) = start_threads(&shared, &started)?;
    for thread in warm {
        // A thread that ended while warming up tells why in its result.
        let _ = thread.await;
    }
    let began = Instant::now();
    start.send_replace(Some(began));
    let tally = collect(&shared, results, progress, began).await?;
    if let Some(recorder) = &shared.recorder {
        recorder.sync()?;
    }
    Ok((Arc::new(shared.plan.clone()), tally))
}

type Warm = Vec<oneshot::Receiver<()>>;

fn start_threads(
    shared: &Arc<Shared>,
    started: &watch::Receiver<Option<Instant>>,
) -> Result<(Vec<ShardResult>, Warm), StormError> {
    let mut sources = open_loop::start_pacer(shared, started.clone())?.into_iter();
    let mut results = Vec::new();
    let mut warm = Vec::new();
    for index in 0..shared.plan.threads {
        let (warm_sender, warm_receiver) = oneshot::channel();
        let signals = Signals { warm: warm_sender, start: started.clone() };
        warm.push(warm_receiver);
        results.push(match (&shared.plan.pace, sources.next()) {
            (Pace::Open { .. }, Some(arrivals)) => {
                spawn(shared, index, async move |shard| open_loop::run(shard, signals, arrivals).await)?
            }
            _ => spawn(shared, index, async move |shard| closed_loop::run(shard, signals).await)?,
        });
    }
    Ok((results, warm))
}

/// Waits for all threads, showing how far they are.
async fn collect(
    shared: &Arc<Shared>,
    results: Vec<ShardResult>,
    progress: &mut Progress,
    began: Instant,
) -> Result<Tally, StormError> {
    let mut total = Tally::new(&shared.plan);
    let mut tick = tokio::time::interval(progress.period());
    tick.tick().await;
    for mut result in results {
        let tally = loop {
            tokio::select! {
                done = &mut result => break done.map_err(|_| StormError::Thread("panicked"))??,
                _ = tick.tick() => progress.show(shared, began.elapsed()),
            }
        };
        total.merge(tally);
    }
    Ok(total)
}

struct Before {
    stock: Option<StockCounts>,
    sold_out_customers: u64,
}

async fn audit_storm(
    plan: &Arc<Plan>,
    client: &mut Client,
    tally: &Tally,
    before: StockCounts,
    progress: &Progress,
) -> Result<AuditReport, StormError> {
    let claims = tally.kept.iter().map(claim).collect();
    let mut unknown = tally.unknown.clone();
    unknown.sort_unstable();
    unknown.dedup();
    progress.step(&format!("looking up {} orders", tally.kept.len()));
    let unknown = unknown.into_iter().map(Who::Numbered).collect();
    let before = Before { stock: Some(before), sold_out_customers: tally.sold_out_customers.len() };
    judge_claims(plan, client, claims, unknown, before).await
}

fn claim(kept: &Kept) -> Claim {
    Claim { who: Who::Numbered(kept.n), order_id: kept.order_id.clone(), replayed: kept.replayed }
}

async fn judge_claims(
    plan: &Arc<Plan>,
    client: &mut Client,
    mut claims: Vec<Claim>,
    unknown: Vec<Who>,
    before: Before,
) -> Result<AuditReport, StormError> {
    /// Between an order's look-up and the product's, an order may fail and its units come back. A bad verdict is
    /// therefore reached a second time before it is believed.
    const SECOND_LOOK_AFTER: Duration = Duration::from_millis(500);
    let (resolution, resolved) = resolve(plan, unknown).await;
    claims.extend(resolved);
    let mut evidence = Evidence {
        looked: look_up_all(plan, &claims).await?,
        claims,
        before: before.stock,
        after: look_at_stock(plan, client).await?,
        resolution,
        sold_out_customers: before.sold_out_customers,
    };
    let first = judge(plan, &evidence);
    if first.is_ok() {
        return Ok(first);
    }
    tokio::time::sleep(SECOND_LOOK_AFTER).await;
    evidence.looked = look_up_all(plan, &evidence.claims).await?;
    evidence.after = look_at_stock(plan, client).await?;
    Ok(judge(plan, &evidence))
}

async fn look_at_stock(plan: &Plan, client: &mut Client) -> Result<StockCounts, StormError> {
    Ok(api::product(client, &plan.target, plan.read_key.as_deref(), &plan.product).await?.stock)
}
