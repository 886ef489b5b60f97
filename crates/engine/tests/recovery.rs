//! Every kind of damage that `recovery.rs` lists: found and refused with a sentence that says what and where, or
//! everything promised is there. Never something in between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{buy, id, open, product, restock, runtime};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use yoink_core::{OrderId, Rejection};
use yoink_engine::limits::LOSS_MARGIN_EVENTS;
use yoink_engine::{
    AcceptLoss, CallError, Engine, OpenError, Options, OrderFilter, OrderStatus, ProductFigures, Replayed,
    audit_data_folder,
};

const ORDERS: u64 = 300;

/// A folder as a kill leaves it: the write-ahead file is full, nothing was folded back.
fn killed_folder() -> TempDir {
    let live = tempfile::tempdir().unwrap();
    let engine = open(live.path());
    runtime().block_on(async {
        engine.create_product(product("1", 1_000)).await.unwrap();
        for order in 0..ORDERS {
            engine.purchase(buy(&format!("buyer-{order}"), "1", 1, Some("k"))).await.unwrap();
        }
        until_beacon_and_ledger(&engine, live.path()).await;
    });
    copy(live.path())
}

/// The beacon may lag by 50 ms and the ledger by a batch; damage is told apart best when both are up to date.
async fn until_beacon_and_ledger(engine: &Engine, folder: &Path) {
    engine.wait_delivered(engine.last_seq(), Duration::from_secs(30)).await;
    let last_seq = engine.last_seq();
    for _ in 0..10_000 {
        let beacon = fs::read(folder.join("beacon")).unwrap();
        let seqs = beacon
            .chunks(512)
            .filter_map(|slot| Some(u64::from_le_bytes(slot.get(24..32)?.try_into().ok()?)));
        if seqs.max() == Some(last_seq) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the beacon never reached event {last_seq}");
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "lock" {
            fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
    }
    to
}

/// How many bytes of a file are more than the zeros that make it long.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

fn try_open(folder: &Path) -> Result<Engine, OpenError> {
    Engine::open(Options::new(folder))
}

/// A start that is refused, and that changed nothing.
fn refusal(folder: &Path) -> OpenError {
    let before = contents(folder);
    let error = match try_open(folder) {
        Ok(_) => panic!("the folder was opened"),
        Err(error) => error,
    };
    // An empty file more does no harm; what was there must be there, untouched.
    let after = contents(folder);
    for (name, hash) in &before {
        assert_eq!(after.get(name), Some(hash), "a refused start changed {name}: {error}");
    }
    error
}

/// Every file of a folder but the lock, and a hash of what is in it.
fn contents(folder: &Path) -> std::collections::BTreeMap<String, u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let Ok(entries) = fs::read_dir(folder) else { return Default::default() };
    let files = entries.map(|entry| entry.unwrap()).filter(|entry| entry.file_name() != "lock");
    let hash = |path: &Path| {
        let mut hasher = DefaultHasher::new();
        fs::read(path).unwrap().hash(&mut hasher);
        hasher.finish()
    };
    files.map(|entry| (entry.file_name().into_string().unwrap(), hash(&entry.path()))).collect()
}

async fn assert_all_orders_are_there(engine: &Engine) {
    for order in 0..ORDERS {
        let again = engine.purchase(buy(&format!("buyer-{order}"), "1", 1, Some("k"))).await.unwrap();
        assert_eq!(again.replayed, Replayed::Yes, "order {order} was promised and is gone");
    }
    assert_eq!(engine.storefront().product(&id("1")).unwrap().figures.sold, ORDERS);
}

#[test]
fn a_killed_engine_has_every_order_when_it_is_opened_again() {
    let folder = killed_folder();
    assert!(folder.path().join("log.db-wal").metadata().unwrap().len() > 0);
    let engine = open(folder.path());
    runtime().block_on(async {
        assert_all_orders_are_there(&engine).await;
        assert!(engine.reconcile().await.unwrap().ok);
    });
}

#[test]
fn three_hundred_flipped_bits_are_refused_or_harmless_and_never_lose_a_promise() {
    let seed = std::env::var("YOINK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_301);
    println!("seed {seed} (set YOINK_SEED to change it)");
    let mut random = StdRng::seed_from_u64(seed);
    let killed = killed_folder();
    let runtime = runtime();
    let (mut refused, mut harmless) = (0, 0);
    for flip in 0..300 {
        let folder = copy(killed.path());
        let name = if flip % 3 == 0 { "log.db" } else { "log.db-wal" };
        let path = folder.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let at = random.random_range(0..used(&bytes));
        bytes[at] ^= 1 << random.random_range(0..8);
        fs::write(&path, bytes).unwrap();
        match try_open(folder.path()) {
            Err(OpenError::Damaged { .. } | OpenError::Truncated { .. } | OpenError::Sqlite { .. }) => {
                refused += 1
            }
            Err(error) => panic!("seed {seed}, flip {flip} in {name} at {at}: {error}"),
            Ok(engine) => {
                runtime.block_on(assert_all_orders_are_there(&engine));
                harmless += 1;
            }
        }
    }
    assert!(refused > 50, "{refused} refused, {harmless} harmless");
    assert!(harmless > 0, "{refused} refused, {harmless} harmless");
}

/// A killed folder of which the second half of the log is gone.
fn truncated_folder() -> TempDir {
    let folder = killed_folder();
    let wal = folder.path().join("log.db-wal");
    let length = used(&fs::read(&wal).unwrap()) as u64;
    fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(length / 2).unwrap();
    folder
}

fn accept_loss(folder: &Path) -> Result<Engine, OpenError> {
    Engine::open(Options { accept_loss: AcceptLoss::Yes, ..Options::new(folder) })
}

#[test]
fn a_truncated_write_ahead_file_is_refused_and_opened_only_when_told_to_accept_the_loss() {
    let folder = truncated_folder();
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::Truncated { promised: 301, .. }), "{error}");
    assert!(error.to_string().contains("--accept-loss"), "{error}");
    // Refused again: looking does not change anything.
    assert!(matches!(refusal(folder.path()), OpenError::Truncated { promised: 301, .. }));
    let engine = accept_loss(folder.path()).unwrap();
    let sold = engine.storefront().product(&id("1")).unwrap().figures.sold;
    assert!(sold > 0 && sold < ORDERS);
    runtime().block_on(async {
        engine.purchase(buy("late", "1", 1, None)).await.unwrap();
        engine.wait_delivered(engine.last_seq(), Duration::from_secs(30)).await;
        assert!(engine.reconcile().await.unwrap().ok);
    });
    engine.close_blocking(Duration::from_secs(5));
    drop(engine);
    open(folder.path());
}

#[test]
fn numbers_of_lost_events_are_never_given_again() {
    let folder = truncated_folder();
    let engine = accept_loss(folder.path()).unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        let sold = engine.storefront().product(&id("1")).unwrap().figures.sold;
        assert_eq!(engine.events(0, 4_096).await.unwrap().len() as u64, sold + 1);
        let late = engine.purchase(buy("late", "1", 1, None)).await.unwrap();
        assert_eq!(late.seq, 301 + LOSS_MARGIN_EVENTS + 1);
        // Whoever reads the feed sees the new event once, and never in the place of a lost one.
        for after in [sold + 1, sold + 2, 300, 301, 302, late.seq - 1] {
            let seqs: Vec<_> =
                engine.events(after, 10).await.unwrap().iter().map(|event| event.seq).collect();
            assert_eq!(seqs, [late.seq], "after {after}");
        }
        assert_eq!(engine.events(late.seq, 10).await.unwrap(), []);
    });
    engine.close_blocking(Duration::from_secs(5));
    drop(engine);
    let audited = audit_data_folder(folder.path()).unwrap();
    assert!(audited.ok, "{audited:?}");
    // The flag again, without a new loss, changes nothing.
    let engine = accept_loss(folder.path()).unwrap();
    let next = runtime.block_on(engine.purchase(buy("later", "1", 1, None))).unwrap();
    assert_eq!(next.seq, 301 + LOSS_MARGIN_EVENTS + 2);
    assert!(runtime.block_on(engine.reconcile()).unwrap().ok);
}

#[test]
fn a_ledger_that_knows_lost_orders_is_set_aside_and_is_refused_when_it_is_put_back() {
    let folder = truncated_folder();
    drop(accept_loss(folder.path()).unwrap());
    let aside = folder.path().join("ledger-until-301.db");
    let ledger = rusqlite::Connection::open(&aside).unwrap();
    let orders: i64 = ledger.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(orders.cast_unsigned(), ORDERS, "it names those whose orders were lost");
    ledger.close().unwrap();
    fs::copy(&aside, folder.path().join("ledger.db")).unwrap();
    let audited = audit_data_folder(folder.path()).unwrap();
    assert!(!audited.ok, "{audited:?}");
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::LedgerAhead { ledger: 301, log, .. } if log < 301), "{error}");
    let taken = accept_loss(folder.path()).unwrap_err();
    assert!(std::error::Error::source(&taken).unwrap().to_string().contains("is there already"), "{taken}");
    fs::remove_file(&aside).unwrap();
    let engine = accept_loss(folder.path()).unwrap();
    assert_eq!(engine.last_seq(), 301 + LOSS_MARGIN_EVENTS, "no second loss was recorded");
    assert!(aside.exists());
}

#[test]
fn a_loss_that_only_the_ledger_shows_is_refused_and_its_numbers_are_not_given_again_either() {
    let folder = truncated_folder();
    fs::remove_file(folder.path().join("beacon")).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::LedgerAhead { ledger: 301, .. }), "{error}");
    assert!(error.to_string().contains("--accept-loss"), "{error}");
    let engine = accept_loss(folder.path()).unwrap();
    let late = runtime().block_on(engine.purchase(buy("late", "1", 1, None))).unwrap();
    assert_eq!(late.seq, 301 + LOSS_MARGIN_EVENTS + 1);
}

/// As a kill between the two leaves it: the log knows of the loss, the beacon still promises what is lost.
#[test]
fn a_beacon_that_promises_what_was_accepted_as_lost_is_believed_no_more_and_any_other_is() {
    let folder = truncated_folder();
    let promised = fs::read(folder.path().join("beacon")).unwrap();
    accept_loss(folder.path()).unwrap().close_blocking(Duration::from_secs(5));
    fs::write(folder.path().join("beacon"), promised).unwrap();
    open(folder.path()).close_blocking(Duration::from_secs(5));
    // Times differ, so another folder with as many events has another history.
    fs::copy(killed_folder().path().join("beacon"), folder.path().join("beacon")).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::Damaged { seq: 301, .. }), "{error}");
}

/// Only the log's own record makes a gap a loss that was accepted.
#[test]
fn a_gap_that_nobody_accepted_is_damage() {
    let folder = truncated_folder();
    accept_loss(folder.path()).unwrap().close_blocking(Duration::from_secs(5));
    let log = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    assert_eq!(log.execute("UPDATE log SET last_seq = last_seq + 5 WHERE count = 0", []).unwrap(), 1);
    drop(log);
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn an_older_backup_of_the_log_beside_a_newer_beacon_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let runtime = runtime();
    runtime.block_on(engine.create_product(product("1", 10))).unwrap();
    engine.close_blocking(Duration::from_secs(5));
    drop(engine);
    let backup = fs::read(folder.path().join("log.db")).unwrap();
    let engine = open(folder.path());
    runtime.block_on(engine.purchase(buy("ann", "1", 1, None))).unwrap();
    engine.close_blocking(Duration::from_secs(5));
    drop(engine);
    fs::write(folder.path().join("log.db"), backup).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::Truncated { found: 1, promised: 2, .. }), "{error}");
}

#[test]
fn a_log_with_another_history_than_the_beacon_saw_is_refused() {
    let (one, other) = (killed_folder(), tempfile::tempdir().unwrap());
    let engine = open(other.path());
    runtime().block_on(async {
        engine.create_product(product("1", 1_000)).await.unwrap();
        for order in 0..=ORDERS {
            engine.purchase(buy(&format!("other-{order}"), "1", 1, None)).await.unwrap();
        }
    });
    engine.close_blocking(Duration::from_secs(5));
    drop(engine);
    fs::copy(other.path().join("log.db"), one.path().join("log.db")).unwrap();
    fs::remove_file(one.path().join("log.db-wal")).unwrap();
    let error = refusal(one.path());
    assert!(matches!(error, OpenError::Damaged { seq: 301, .. }), "{error}");
}

#[test]
fn a_log_of_a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).close_blocking(Duration::ZERO);
    let log = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    log.pragma_update(None, "user_version", 99).unwrap();
    drop(log);
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::NewerFormat { found: 99, known: 1, .. }), "{error}");
}

#[test]
fn a_file_that_is_no_log_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("log.db"), "my holiday pictures ".repeat(500)).unwrap();
    assert!(matches!(refusal(folder.path()), OpenError::Sqlite { .. } | OpenError::Damaged { .. }));
    assert!(fs::read_to_string(folder.path().join("log.db")).unwrap().starts_with("my holiday pictures"));
}

#[test]
fn an_edited_event_is_refused_at_its_place() {
    let folder = killed_folder();
    open(folder.path()).close_blocking(Duration::ZERO);
    let log = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    let edited = log
        .execute("UPDATE log SET facts = CAST(replace(CAST(facts AS TEXT), 'buyer-7', 'buyer-8') AS BLOB) WHERE last_seq = 9", [])
        .unwrap();
    assert_eq!(edited, 1);
    drop(log);
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::Damaged { seq: 9, .. }), "{error}");
    assert!(matches!(audit_data_folder(folder.path()).unwrap_err(), OpenError::Damaged { seq: 9, .. }));
}

#[test]
fn a_missing_commit_is_refused_at_its_place() {
    let folder = killed_folder();
    open(folder.path()).close_blocking(Duration::ZERO);
    let log = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    assert_eq!(log.execute("DELETE FROM log WHERE last_seq = 9", []).unwrap(), 1);
    drop(log);
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::Damaged { seq: 9, .. }), "{error}");
}

#[test]
fn a_second_opener_of_the_folder_is_refused_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    assert!(matches!(refusal(folder.path()), OpenError::InUse { .. }));
    assert!(matches!(audit_data_folder(folder.path()).unwrap_err(), OpenError::InUse { .. }));
    runtime().block_on(engine.create_product(product("1", 1))).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let error = refusal(&folder.path().join("file").join("data"));
    assert!(matches!(error, OpenError::DataFolder { .. }), "{error}");
    assert!(error.to_string().contains("file/data"), "{error}");
}

/// A closed folder with a snapshot, the order that was cancelled in it, and its figures.
fn folder_with_snapshot() -> (TempDir, OrderId, Vec<ProductFigures>) {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let (cancelled, figures) = runtime().block_on(async {
        let mut limited = product("1", 200_000);
        limited.limit_per_customer = Some(2);
        engine.create_product(limited).await.unwrap();
        let first = engine.purchase(buy("ann", "1", 2, Some("k"))).await.unwrap();
        engine.cancel(first.order, "no".into()).await.unwrap();
        engine.adjust_stock(restock("1", 7, "more")).await.unwrap();
        engine.pause(id("1")).await.unwrap();
        engine.resume(id("1")).await.unwrap();
        let (lane, driver) = engine.with_own_lane();
        tokio::spawn(driver.run());
        let buyers: Vec<_> = (0..100)
            .map(|lane_number| {
                let lane = lane.clone();
                tokio::spawn(async move {
                    for order in 0..1_000 {
                        let name = format!("buyer-{lane_number}-{order}");
                        lane.purchase(buy(&name, "1", 1, Some("k"))).await.unwrap();
                    }
                })
            })
            .collect();
        for buyer in buyers {
            buyer.await.unwrap();
        }
        (first.order, engine.reconcile().await.unwrap().products)
    });
    engine.close_blocking(Duration::from_secs(60));
    assert!(folder.path().join("snapshot").exists(), "closing wrote no snapshot");
    (folder, cancelled, figures)
}

/// Everything that a snapshot keeps, and what comes after it in the log.
async fn assert_state_is_whole(engine: &Engine, cancelled: OrderId, figures: &[ProductFigures]) {
    let reconciliation = engine.reconcile().await.unwrap();
    assert_eq!((reconciliation.ok, reconciliation.products.as_slice()), (true, figures));
    let order = engine.order(cancelled).await.unwrap().unwrap();
    assert_eq!((order.status, order.reason.as_deref()), (OrderStatus::Cancelled, Some("no")));
    let again = engine.purchase(buy("ann", "1", 2, Some("k"))).await.unwrap();
    assert_eq!((again.order, again.replayed), (cancelled, Replayed::Yes));
    let again = engine.adjust_stock(restock("1", 7, "more")).await.unwrap();
    assert_eq!(again.replayed, Replayed::Yes);
    let mine = engine.purchase(buy("buyer-3-999", "1", 1, Some("k"))).await.unwrap();
    assert_eq!(mine.replayed, Replayed::Yes);
    engine.purchase(buy("buyer-3-999", "1", 1, Some("k2"))).await.unwrap();
    engine.purchase(buy("buyer-3-999", "1", 1, Some("k3"))).await.expect_err("two is the limit");
    let page = OrderFilter { limit: 10, after: 90_000, ..OrderFilter::default() };
    assert_eq!(engine.orders(page).await.unwrap().orders.len(), 10);
}

#[test]
fn a_snapshot_gives_the_same_state_as_the_whole_log_and_a_damaged_one_is_ignored() {
    let (folder, cancelled, figures) = folder_with_snapshot();
    for damage in ["none", "flipped", "cut", "gone"] {
        let copied = copy(folder.path());
        let snapshot = copied.path().join("snapshot");
        let mut bytes = fs::read(&snapshot).unwrap();
        let middle = bytes.len() / 2;
        match damage {
            "flipped" => {
                bytes[middle] ^= 4;
                fs::write(&snapshot, bytes).unwrap();
            }
            "cut" => fs::write(&snapshot, &bytes[..middle]).unwrap(),
            "gone" => fs::remove_file(&snapshot).unwrap(),
            _ => {}
        }
        let engine = open(copied.path());
        assert_eq!(engine.recovery().snapshot_seq > 0, damage == "none", "snapshot: {damage}");
        runtime().block_on(assert_state_is_whole(&engine, cancelled, &figures));
    }
}

#[test]
fn a_snapshot_that_saw_more_than_the_log_has_is_a_loss() {
    let (folder, shorter) = (folder_with_snapshot().0, killed_folder());
    fs::copy(folder.path().join("snapshot"), shorter.path().join("snapshot")).unwrap();
    let error = refusal(shorter.path());
    assert!(matches!(error, OpenError::Truncated { found: 301, promised: 100_006, .. }), "{error}");
    let engine = accept_loss(shorter.path()).unwrap();
    assert_eq!(engine.last_seq(), 100_006 + LOSS_MARGIN_EVENTS);
    assert_eq!(engine.recovery().snapshot_seq, 0, "a snapshot of another log was used");
    runtime().block_on(assert_all_orders_are_there(&engine));
    drop(engine);
    drop(open(shorter.path()));
}

/// The ledger is counted while nobody is buying; where it differs from what memory sold, the sale stops by itself.
#[test]
fn a_product_whose_books_do_not_balance_is_paused_and_says_so() {
    let folder = killed_folder();
    open(folder.path()).close_blocking(Duration::from_secs(5));
    let ledger = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    assert_eq!(ledger.execute("DELETE FROM orders WHERE customer = 'buyer-3'", []).unwrap(), 1);
    drop(ledger);
    let mut options = Options::new(folder.path());
    options.watch_every = Duration::from_millis(5);
    let engine = Engine::open(options).unwrap();
    runtime().block_on(async {
        engine.create_product(product("2", 5)).await.unwrap();
        for _ in 0..2_000 {
            if engine.figures().conservation_error_units.contains(&(id("1"), 1)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(engine.figures().conservation_error_units, [(id("1"), 1), (id("2"), 0)]);
        let refused = engine.purchase(buy("new", "1", 1, None)).await.unwrap_err();
        assert_eq!(refused, CallError::Refused(Rejection::SalePaused));
        engine.purchase(buy("new", "2", 1, None)).await.expect("other products are sold on");
    });
}

#[test]
fn a_lost_ledger_is_made_again_from_the_log() {
    let folder = killed_folder();
    for name in ["ledger.db", "ledger.db-wal"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    let engine = open(folder.path());
    runtime().block_on(async {
        engine.wait_delivered(engine.last_seq(), Duration::from_secs(30)).await;
        let reconciliation = engine.reconcile().await.unwrap();
        assert!(reconciliation.ok, "{reconciliation:?}");
        assert_eq!(reconciliation.orders.confirmed, ORDERS);
    });
}

#[test]
fn an_order_that_is_missing_in_the_ledger_is_counted_as_lost() {
    let folder = killed_folder();
    open(folder.path()).close_blocking(Duration::from_secs(5));
    let ledger = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    let deleted = ledger.execute("DELETE FROM orders WHERE customer IN ('buyer-3', 'buyer-4')", []).unwrap();
    assert_eq!(deleted, 2);
    drop(ledger);
    let reconciliation = audit_data_folder(folder.path()).unwrap();
    assert_eq!((reconciliation.ok, reconciliation.lost), (false, 2), "{reconciliation:?}");
    let engine = open(folder.path());
    let reconciliation = runtime().block_on(engine.reconcile()).unwrap();
    assert_eq!((reconciliation.ok, reconciliation.lost), (false, 2));
}
