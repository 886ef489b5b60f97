//! The power goes at every step of a run of the whole engine: log, beacon and ledger are on one disk, which keeps,
//! drops, tears or reorders what was not synced. Whatever is left, the engine starts, and every order that was answered
//! is in the log once, in the ledger once (or there as a dead letter whose units are back once), and answers to its key;
//! what is sold is what live orders have.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{buy, id, product, runtime};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use yoink_core::{Fact, OrderId};
use yoink_engine::ledger::Times;
use yoink_engine::{BeaconFile, Confirmed, DeadLetterFilter, Engine, Options, OrderStatus, Replayed};
use yoink_faultfs::{Disk, DiskFile, Loss, Mount, SyncHonesty};

const SEED: u64 = 20_260_311;
/// Fewer than are asked for, so that the run ends sold out.
const STOCK: u64 = 90;
const BUYERS: u64 = 60;
/// More than there are cores: a start mostly waits.
const THREADS: u64 = 16;
/// How the names of those begin whose orders the ledger never takes: they become dead letters, and their units come back.
const REFUSED: &str = "refused";
/// Longer than anything here takes on a slow machine; reaching it fails the test.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct DiskBeacon(DiskFile);

impl BeaconFile for DiskBeacon {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        match self.0.read_all() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

/// The event up to which a beacon's file promises the log; 0 if it promises nothing. Of its two slots of 512 bytes the
/// newer one counts, and the number of the event is the fourth of 8 bytes in it.
fn promised_by(file: &[u8]) -> u64 {
    let events =
        file.chunks(512).filter_map(|slot| slot.get(24..32)?.try_into().ok().map(u64::from_le_bytes));
    events.max().unwrap_or(0)
}

fn open(disk: &Disk, mount: &Mount, folder: &Path) -> Result<Engine, String> {
    let mut options = Options::new(folder);
    options.log_vfs = Some(mount.name().to_owned());
    options.delivery.vfs = Some(mount.name().to_owned());
    options.beacon = Some(Box::new(DiskBeacon(disk.file("/beacon"))));
    options.delivery.attempts_max = 2;
    options.delivery.backoff_base = Duration::from_millis(1);
    options.delivery.fault.refuse_customers(REFUSED, Times::Always);
    Engine::open(options).map_err(|error| format!("the start is refused: {error} ({error:?})"))
}

/// An answer, and the step of the disk after which it was there.
struct Answered {
    step: u64,
    order: OrderId,
    customer: String,
    quantity: u32,
}

struct Run {
    disk: Disk,
    accepted: Vec<Answered>,
    cancelled: Vec<(u64, OrderId)>,
    /// How often the beacon was seen to promise more than before.
    beacons: u64,
    /// The event up to which it promised the log when it was last looked at.
    promised: u64,
    /// Orders whose units delivery gave back.
    failed: u64,
}

impl Run {
    /// Sells until nothing is left, cancels now and then, waits for the ledger and the beacon now and then, and starts
    /// again in the middle, which folds both files back.
    fn new(honesty: SyncHonesty) -> Self {
        let disk = Disk::new(SEED);
        disk.set_sync_honesty(honesty);
        let mut run =
            Self { disk, accepted: Vec::new(), cancelled: Vec::new(), beacons: 0, promised: 0, failed: 0 };
        let (folder, mount) = (tempfile::tempdir().unwrap(), run.disk.mount().unwrap());
        let runtime = runtime();
        for half in 0..2 {
            let engine = open(&run.disk, &mount, folder.path()).unwrap();
            runtime.block_on(run.sell(&engine, half * BUYERS / 2..(half + 1) * BUYERS / 2));
            engine.close_blocking(PATIENCE);
            run.failed += engine.figures().failed;
        }
        run
    }

    async fn sell(&mut self, engine: &Engine, buyers: std::ops::Range<u64>) {
        if buyers.start == 0 {
            engine.create_product(product("1", STOCK)).await.unwrap();
        }
        for buyer in buyers {
            let name = if buyer % 9 == 5 { REFUSED } else { "buyer" };
            let (customer, quantity) = (format!("{name}-{buyer}"), u32::try_from(buyer % 3 + 1).unwrap());
            if let Ok(bought) = engine.purchase(buy(&customer, "1", quantity, Some("k"))).await {
                let step = self.disk.steps();
                self.accepted.push(Answered { step, order: bought.order, customer, quantity });
            }
            if buyer % 7 == 6 {
                let order = self.accepted[self.accepted.len() / 2].order;
                // One that failed meanwhile cannot be cancelled.
                if engine.cancel(order, "not wanted".into()).await.is_ok() {
                    self.cancelled.push((self.disk.steps(), order));
                }
            }
            if buyer % 4 == 3 {
                assert_eq!(engine.wait_delivered(engine.last_seq(), PATIENCE).await, Confirmed::Yes);
            }
            if buyer % 10 == 9 {
                self.wait_for_beacon(engine).await;
            }
        }
    }

    /// Waits until the beacon promises all that the log has by now. It may have done so already, so this waits for what
    /// it says and not for a change.
    async fn wait_for_beacon(&mut self, engine: &Engine) {
        let file = DiskBeacon(self.disk.file("/beacon"));
        let reaches = engine.last_seq();
        let promised = tokio::time::timeout(PATIENCE, async {
            loop {
                let promised = promised_by(&file.read_all().unwrap());
                if promised >= reaches {
                    return promised;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let promised = promised.await.expect("the beacon is written");
        self.beacons += u64::from(promised > self.promised);
        self.promised = promised;
    }

    /// What does not hold on the disk that is left when the power goes after `step`.
    fn violation(&self, runtime: &Runtime, step: u64, image: &Disk) -> Result<(), String> {
        let (folder, mount) = (tempfile::tempdir().unwrap(), image.mount().unwrap());
        let engine = open(image, &mount, folder.path())?;
        runtime.block_on(self.violation_of(&engine, step))
    }

    async fn violation_of(&self, engine: &Engine, step: u64) -> Result<(), String> {
        rest(engine).await?;
        let log = orders_in_log(engine).await?;
        let ledger = engine.delivery().export_orders(0, 4_096).await.unwrap();
        let live = |status: &OrderStatus| *status == OrderStatus::Confirmed;
        let rows: BTreeMap<_, _> =
            ledger.orders.iter().map(|row| (row.id.0, (row.status, row.quantity))).collect();
        holds(rows.len() == ledger.orders.len(), || "the ledger has an order twice".to_owned())?;
        let filter = DeadLetterFilter { limit: 1_000, ..DeadLetterFilter::default() };
        let dead = engine.delivery().dead_letters(filter).await.unwrap();
        for (order, expected) in &log {
            let letters = dead.iter().filter(|letter| letter.order.is_some_and(|id| id.0 == *order)).count();
            let is_there = match (rows.get(order), letters) {
                (Some(row), 0) => row == expected,
                (None, 1) => !live(&expected.0),
                _ => false,
            };
            let what =
                || format!("{expected:?} in the log, {:?} and {letters} dead letters", rows.get(order));
            holds(is_there, || format!("{}: {}", OrderId(*order), what()))?;
        }
        holds(rows.keys().all(|order| log.contains_key(order)), || {
            "the ledger has more than the log".to_owned()
        })?;
        let sold: u64 =
            log.values().filter(|(status, _)| live(status)).map(|(_, units)| u64::from(*units)).sum();
        if let Some(shelf) = engine.storefront().product(&id("1")) {
            let figures = shelf.figures;
            holds(figures.sold == sold && sold <= STOCK, || {
                format!("{sold} units in live orders, {figures:?}")
            })?;
        }
        for promised in self.accepted.iter().filter(|answered| answered.step <= step) {
            let Answered { order, customer, quantity, .. } = promised;
            let found = log.get(&order.0);
            holds(found.is_some_and(|(_, units)| units == quantity), || {
                format!("{order} is lost: {found:?}")
            })?;
            let again = engine.purchase(buy(customer, "1", *quantity, Some("k"))).await;
            let is_same =
                again.as_ref().is_ok_and(|again| again.order == *order && again.replayed == Replayed::Yes);
            holds(is_same, || format!("the key of {order} is answered with {again:?}"))?;
        }
        for (_, order) in self.cancelled.iter().filter(|(answered, _)| *answered <= step) {
            let found = log.get(&order.0);
            holds(found.is_some_and(|(status, _)| !live(status)), || {
                format!("{order} is cancelled: {found:?}")
            })?;
        }
        let reconciled = engine.reconcile().await.unwrap();
        holds(reconciled.ok, || format!("{reconciled:?}"))
    }
}

/// Waits until the ledger has everything, and the units of every dead letter are back.
async fn rest(engine: &Engine) -> Result<(), String> {
    let rested = tokio::time::timeout(PATIENCE, async {
        loop {
            engine.wait_delivered(engine.last_seq(), PATIENCE).await;
            // Counted between two transactions: the status may be told of a batch in two steps.
            let counts = engine.delivery().counts().await.unwrap();
            let is_open = counts.retrying > 0 || counts.dead_letters_open > 0;
            if !is_open && counts.position == engine.last_seq() {
                return;
            }
        }
    });
    rested.await.map_err(|_| format!("delivery does not come to rest: {:?}", engine.delivery().status()))
}

/// Orders by their ids: how each stands, and its units.
type Orders = BTreeMap<[u8; 16], (OrderStatus, u32)>;

/// An order ends, which it may do once.
fn end(orders: &mut Orders, order: OrderId, how: OrderStatus) -> Result<(), String> {
    match orders.get_mut(&order.0) {
        Some((status @ OrderStatus::Confirmed, _)) => *status = how,
        other => return Err(format!("{order} ends as {how:?} and is {other:?}")),
    }
    Ok(())
}

/// Every order in the log.
async fn orders_in_log(engine: &Engine) -> Result<Orders, String> {
    let mut orders = BTreeMap::new();
    for event in engine.events(0, 4_096).await.unwrap() {
        match event.fact {
            Fact::OrderAccepted(accepted) => {
                let before = orders.insert(accepted.order.0, (OrderStatus::Confirmed, accepted.quantity));
                holds(before.is_none(), || format!("{} is in the log twice", accepted.order))?;
            }
            Fact::OrderCancelled { order, .. } => end(&mut orders, order, OrderStatus::Cancelled)?,
            Fact::OrderFailed { order, .. } => end(&mut orders, order, OrderStatus::Failed)?,
            _ => {}
        }
    }
    Ok(orders)
}

fn holds(is_so: bool, violation: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(violation()) }
}

/// Takes the power away at every `every`-th step in each of these ways; what does not hold, and how often it was looked.
fn walk(run: &Run, losses: &[Loss], every: usize) -> (Vec<String>, u64) {
    let cuts =
        (0..=run.disk.steps()).step_by(every).flat_map(|step| losses.iter().map(move |loss| (step, *loss)));
    // Images are cheapest when asked for in order.
    let cuts = Mutex::new(cuts);
    let next = || {
        let mut cuts = cuts.lock();
        cuts.next().map(|(step, loss)| (step, loss, run.disk.image_at(step, loss, SEED ^ step).unwrap()))
    };
    let (violations, looked) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let runtime = runtime();
                while let Some((step, loss, image)) = next() {
                    looked.fetch_add(1, Ordering::Relaxed);
                    if let Err(violation) = run.violation(&runtime, step, &image) {
                        violations.lock().push(format!("step {step}, {loss:?} (seed {SEED}): {violation}"));
                    }
                }
            });
        }
    });
    (violations.into_inner(), looked.into_inner())
}

#[test]
fn every_order_survives_a_power_loss_at_every_step_of_log_beacon_and_ledger() {
    let run = Run::new(SyncHonesty::Honest);
    let written = |path: &str| run.disk.trace().iter().filter(|step| step.path.contains(path)).count();
    let (beacon, log, ledger) = (written("beacon"), written("log.db"), written("ledger.db"));
    println!("{} steps: {log} of the log, {ledger} of the ledger, {beacon} of the beacon", run.disk.steps());
    assert!(run.accepted.len() >= 40 && run.beacons >= 5, "the run was too short");
    assert!(run.failed >= 4 && run.cancelled.len() >= 4, "{} orders failed", run.failed);
    assert!(beacon >= 10 && log >= 100 && ledger >= 50, "one of the files is not on the disk");
    let (violations, looked) = walk(&run, &[Loss::DropAll, Loss::DropRandomSubset, Loss::TearLastSector], 1);
    println!("{looked} power losses");
    assert!(violations.is_empty(), "{} violations; the first: {}", violations.len(), violations[0]);
    assert!(looked >= 1_000, "only {looked} power losses were looked at");
}

/// Shows that the test above can fail: a disk that lies about syncing loses promises, and it is seen.
#[test]
fn a_disk_that_lies_about_syncing_is_seen_to_lose_orders() {
    let run = Run::new(SyncHonesty::Lies);
    let (violations, _) = walk(&run, &[Loss::DropAll], 40);
    assert!(!violations.is_empty(), "no promise was lost, so the test of power losses proves nothing");
}
