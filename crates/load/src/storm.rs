//! A storm from options to report.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::api;
use crate::audit::{
    AuditReport, Claim, Evidence, StockCounts, Who, has_orders, judge, list_all, look_up_all,
};
use crate::client::Client;
use crate::error::StormError;
use crate::options::{Audit, Route, StormOptions};
use crate::plan::{Pace, Plan};
use crate::preset::Preset;
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
    if let Some(units) = options.preset.and_then(|preset| preset.own_units(&options)) {
        notes.push(prepare_product(&mut options, units, &mut client, &target).await?);
    }
    let plan = Plan::new(&options, target)?;
    let before = match plan.audit {
        Audit::Full => Some(Before {
            stock: Some(look_at_product(&mut client, &plan, &mut notes).await?),
            repeats: look_for_repeat(&options, &mut client, &plan, &mut notes).await,
        }),
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
        let available = before.and_then(|before| before.stock).map(|stock| stock.available);
        preset.checks(&report, available.map(|units| u64::try_from(units).unwrap_or(0)))
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
    let before = Before { stock: None, repeats: Repeats::No };
    judge_claims(&plan, &mut client, claims, unknown, (before, 0)).await
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

async fn prepare_product(
    options: &mut StormOptions,
    units: u64,
    client: &mut Client,
    target: &Target,
) -> Result<String, StormError> {
    let Some(admin_key) = &options.admin_key else {
        return Ok(format!(
            "no admin key was given, so product {} was used as it is instead of a new one with {units} units",
            options.product
        ));
    };
    let preset = options.preset.map_or("", Preset::name);
    let name = format!("Storm {preset}");
    options.product = api::create_product(client, target, admin_key, &name, units).await?;
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

/// A storm with the seed of an earlier one sends the same keys, and its acceptances may be replays.
async fn look_for_repeat(
    options: &StormOptions,
    client: &mut Client,
    plan: &Plan,
    notes: &mut Vec<String>,
) -> Repeats {
    if options.seed.is_none() || plan.route == Route::Native || !has_orders(plan, client).await {
        return Repeats::No;
    }
    notes.push(format!(
        "customers of seed {} have orders from before, so acceptances without an order id may be theirs",
        plan.seed
    ));
    Repeats::Yes
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

/// What was there before the storm.
#[derive(Clone, Copy)]
struct Before {
    stock: Option<StockCounts>,
    repeats: Repeats,
}

/// Whether an earlier storm had the same customers and keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Yes,
    No,
}

async fn audit_storm(
    plan: &Arc<Plan>,
    client: &mut Client,
    tally: &Tally,
    before: Before,
    progress: &Progress,
) -> Result<AuditReport, StormError> {
    let claims = tally.kept.iter().map(claim).collect();
    let mut unknown = tally.unknown.clone();
    unknown.sort_unstable();
    unknown.dedup();
    progress.step(&format!("looking up {} orders", tally.kept.len()));
    let unknown = unknown.into_iter().map(Who::Numbered).collect();
    judge_claims(plan, client, claims, unknown, (before, tally.sold_out_customers.len())).await
}

fn claim(kept: &Kept) -> Claim {
    Claim { who: Who::Numbered(kept.n), order_id: kept.order_id.clone(), replayed: kept.replayed }
}

async fn judge_claims(
    plan: &Arc<Plan>,
    client: &mut Client,
    mut claims: Vec<Claim>,
    unknown: Vec<Who>,
    (before, sold_out_customers): (Before, u64),
) -> Result<AuditReport, StormError> {
    /// Between an order's look-up and the product's, an order may fail and its units come back. A bad verdict is
    /// therefore reached a second time before it is believed.
    const SECOND_LOOK_AFTER: Duration = Duration::from_millis(500);
    let (resolution, resolved) = resolve(plan, unknown).await;
    claims.extend(resolved);
    if before.repeats == Repeats::Yes {
        claims.iter_mut().filter(|claim| claim.order_id.is_none()).for_each(|claim| claim.replayed = true);
    }
    let mut evidence = Evidence {
        looked: look_up_all(plan, &claims).await?,
        unnamed: list_all(plan, &claims).await,
        claims,
        before: before.stock,
        after: look_at_stock(plan, client).await?,
        resolution,
        sold_out_customers,
    };
    let first = judge(plan, &evidence);
    if first.is_ok() {
        return Ok(first);
    }
    tokio::time::sleep(SECOND_LOOK_AFTER).await;
    evidence.looked = look_up_all(plan, &evidence.claims).await?;
    evidence.unnamed = list_all(plan, &evidence.claims).await;
    evidence.after = look_at_stock(plan, client).await?;
    Ok(judge(plan, &evidence))
}

async fn look_at_stock(plan: &Plan, client: &mut Client) -> Result<StockCounts, StormError> {
    Ok(api::product(client, &plan.target, plan.read_key.as_deref(), &plan.product).await?.stock)
}
