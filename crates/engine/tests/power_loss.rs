//! The power goes at every step of a run of 200 commits, and the disk keeps, drops, tears or reorders what was not
//! synced. Afterwards every acknowledged commit is there, whole, and at most the one under way besides.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::path::PathBuf;

use common::{id, product};
use yoink_core::{
    Command, CustomerId, Decision, Event, IdempotencyKey, Inventory, OrderId, Purchase, Seq, Timestamp,
};
use yoink_engine::Durability;
use yoink_engine::embedded::log::{Log, LogError, LogFile};
use yoink_faultfs::{Disk, Loss, SyncHonesty};

const COMMITS: u64 = 200;
const SEED: u64 = 20_260_105;
/// More than is written between two fold-backs.
const WAL_BYTES: usize = 4 << 20;

fn file(vfs: &str) -> LogFile {
    LogFile { path: PathBuf::from("/log.db"), vfs: Some(vfs.to_owned()) }
}

/// One run: all events in order, and after which step of the disk which event was acknowledged.
struct Run {
    disk: Disk,
    events: Vec<Event>,
    acknowledged: Vec<(u64, Seq)>,
}

/// What the commits write to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wal {
    /// A file that grows with every commit, as under a fresh log.
    Grows,
    /// A file that was filled up with zeros before, so that commits overwrite it (decision 11).
    Lengthened,
}

impl Run {
    fn new(honesty: SyncHonesty, wal: Wal) -> Self {
        let disk = Disk::new(SEED);
        disk.set_sync_honesty(honesty);
        let mount = disk.mount().unwrap();
        let mut log = Log::open(&file(mount.name()), Durability::Fsync).unwrap();
        if wal == Wal::Lengthened {
            let file = disk.file("/log.db-wal");
            let length = file.read_all().unwrap().len() as u64;
            file.write_at(length, &[0; WAL_BYTES]).unwrap();
            file.sync().unwrap();
        }
        let mut inventory = Inventory::new();
        let mut events = Vec::new();
        let mut acknowledged = Vec::new();
        for commit in 0..COMMITS {
            // Commits of one event and of many, so that rows of one page and of several are written.
            for number in 0..=(commit * commit) % 37 {
                let event = next_event(&inventory, commit, number);
                inventory.apply(&event);
                log.stage(&event);
                events.push(event);
            }
            log.commit().unwrap();
            acknowledged.push((disk.steps(), log.last_seq()));
            if commit % 23 == 22 {
                log.checkpoint().unwrap();
            }
        }
        drop(log);
        Self { disk, events, acknowledged }
    }

    fn acknowledged_at(&self, step: u64) -> Seq {
        let count = self.acknowledged.partition_point(|(done, _)| *done <= step);
        if count == 0 { 0 } else { self.acknowledged[count - 1].1 }
    }

    fn under_way_at(&self, step: u64) -> Seq {
        let next = self.acknowledged.partition_point(|(done, _)| *done <= step);
        self.acknowledged.get(next).map_or(u64::MAX, |(_, seq)| *seq)
    }
}

fn next_event(inventory: &Inventory, commit: u64, number: u64) -> Event {
    let at = Timestamp(i64::try_from(commit).unwrap());
    let command = if inventory.last_seq() == 0 {
        Command::CreateProduct(product("1", 1_000_000))
    } else {
        let name = format!("customer-{commit}-{number}");
        Command::Purchase(Purchase {
            order: OrderId((u128::from(commit) << 64 | u128::from(number)).to_be_bytes()),
            customer: CustomerId::parse(&name).unwrap(),
            product: id("1"),
            quantity: 1,
            key: Some(IdempotencyKey::parse(&format!("{name}-{}", "k".repeat(100))).unwrap()),
        })
    };
    match inventory.decide(at, &command) {
        Decision::Accept(event) => event,
        other => panic!("{other:?}"),
    }
}

/// What the log holds after the power came back; the error if it is damaged.
fn read_back(disk: &Disk) -> Result<Vec<Event>, LogError> {
    let mount = disk.mount().unwrap();
    let log = Log::open(&file(mount.name()), Durability::Fsync).expect("the log opens after a power loss");
    let mut events = Vec::new();
    let mut inventory = Inventory::new();
    log.read(0, |row| {
        for event in row.events {
            inventory.check(&event).expect("the events fit together");
            inventory.apply(&event);
            events.push(event);
        }
        true
    })?;
    Ok(events)
}

#[test]
fn every_acknowledged_commit_survives_a_power_loss_at_every_step() {
    walk(&Run::new(SyncHonesty::Honest, Wal::Grows), &Loss::ALL);
}

#[test]
fn every_acknowledged_commit_survives_at_every_step_where_commits_overwrite() {
    walk(
        &Run::new(SyncHonesty::Honest, Wal::Lengthened),
        &[Loss::DropAll, Loss::DropRandomSubset, Loss::TearLastSector],
    );
}

/// Takes the power away at every step of a run, in each of these ways.
fn walk(run: &Run, losses: &[Loss]) {
    let mut images = 0;
    for step in 0..=run.disk.steps() {
        for loss in losses {
            let image = run.disk.image_at(step, *loss, SEED ^ step).unwrap();
            let events = read_back(&image).unwrap_or_else(|error| panic!("step {step}, {loss:?}: {error}"));
            let found = events.len() as Seq;
            let (promised, under_way) = (run.acknowledged_at(step), run.under_way_at(step));
            assert!(found >= promised, "step {step}, {loss:?}: {found} of {promised} promised events");
            assert!(found <= under_way, "step {step}, {loss:?}: {found} events, {under_way} were under way");
            assert_eq!(events, run.events[..events.len()], "step {step}, {loss:?} (seed {SEED})");
            images += 1;
        }
    }
    let least = 1_000 * losses.len();
    assert!(images >= least, "only {images} images were looked at, {least} are the least");
}

/// Shows that the test above can fail: a disk that lies about syncing loses promises, and it is seen.
#[test]
fn a_disk_that_lies_about_syncing_is_seen_to_lose_promises() {
    let run = Run::new(SyncHonesty::Lies, Wal::Grows);
    let lost = (0..=run.disk.steps()).step_by(7).any(|step| {
        let image = run.disk.image_at(step, Loss::DropAll, SEED).unwrap();
        let mount = image.mount().unwrap();
        let Ok(log) = Log::open(&file(mount.name()), Durability::Fsync) else { return true };
        let mut found = 0;
        log.read(0, |row| {
            found = row.last_seq;
            true
        })
        .is_err()
            || found < run.acknowledged_at(step)
    });
    assert!(lost, "no promise was lost, so the test of power losses proves nothing");
}

#[test]
fn a_commit_whose_sync_fails_is_reported_and_never_acknowledged() {
    let disk = Disk::new(SEED);
    let mount = disk.mount().unwrap();
    let mut log = Log::open(&file(mount.name()), Durability::Fsync).unwrap();
    let mut inventory = Inventory::new();
    for commit in 0..3 {
        let event = next_event(&inventory, commit, 0);
        inventory.apply(&event);
        log.stage(&event);
        if commit == 2 {
            disk.fail_next_sync();
            assert!(matches!(log.commit(), Err(LogError::Sqlite { .. })));
        } else {
            log.commit().unwrap();
        }
    }
    assert_eq!(log.last_seq(), 2);
    drop(log);
    let events = read_back(&disk.power_cut(Loss::DropAll)).unwrap();
    assert!(events.len() >= 2, "what was acknowledged before is there");
}

#[test]
fn a_full_disk_is_reported_and_what_was_acknowledged_before_is_there() {
    let disk = Disk::new(SEED);
    let mount = disk.mount().unwrap();
    let mut log = Log::open(&file(mount.name()), Durability::Fsync).unwrap();
    let mut inventory = Inventory::new();
    disk.set_capacity_bytes(Some(400_000));
    let mut acknowledged = 0;
    let failed = (0..10_000).any(|commit| {
        let event = next_event(&inventory, commit, 0);
        inventory.apply(&event);
        log.stage(&event);
        let result = log.commit();
        acknowledged = log.last_seq();
        result.is_err()
    });
    assert!(failed && acknowledged > 0, "the disk was never full");
    drop(log);
    disk.set_capacity_bytes(None);
    assert!(read_back(&disk).unwrap().len() as Seq >= acknowledged);
}
