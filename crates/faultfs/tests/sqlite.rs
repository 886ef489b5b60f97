//! SQLite on a disk that works, that reports errors, and that was damaged while it lay still.

mod support;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use support::{append, body_of, open, open_for_writing, recover};
use yoink_faultfs::{Disk, DiskError, Fault, Loss, Outcome, Recording, Settings, StepKind};

fn extended_code(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().map_or(0, |error| error.extended_code)
}

#[test]
fn an_ordinary_workload_reads_back_what_it_wrote() {
    let disk = Disk::new(1);
    let log = open_for_writing(&disk, "FULL").unwrap();
    (1..=300).for_each(|seq| append(&log, seq).unwrap());
    log.connection.execute("DELETE FROM event WHERE seq > 250", []).unwrap();
    log.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); VACUUM;").unwrap();
    assert_eq!(disk.files(), ["/data/log.db", "/data/log.db-wal"]);
    drop(log);

    assert_eq!(disk.files(), ["/data/log.db"], "a clean close removes the WAL");
    assert_eq!(recover(&disk), Ok(250));
}

#[test]
fn rollback_journals_and_temporary_files_work_too() {
    let disk = Disk::new(2);
    let mount = disk.register("journal-mode-delete").unwrap();
    let connection =
        Connection::open_with_flags_and_vfs("/j.db", OpenFlags::default(), mount.name()).unwrap();
    connection
        .execute_batch(
            "PRAGMA temp_store=FILE; PRAGMA cache_size=5; PRAGMA temp.cache_size=5;
             CREATE TABLE t (a, b);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
             INSERT INTO t SELECT i, randomblob(2000) FROM n;
             CREATE TEMP TABLE u AS SELECT * FROM t ORDER BY b;
             BEGIN; DELETE FROM t; ROLLBACK;",
        )
        .unwrap();
    let count: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 400);
    assert!(disk.trace().iter().any(|step| step.path == "/j.db-journal" && step.kind == StepKind::Delete));
    assert!(disk.trace().iter().any(|step| step.path.starts_with("temporary-")));
    drop(connection);
    assert_eq!(disk.files(), ["/j.db"], "temporary files go when they are closed");
}

#[test]
fn a_second_connection_is_told_that_the_log_is_busy() {
    let disk = Disk::new(3);
    let first = open_for_writing(&disk, "FULL").unwrap();
    append(&first, 1).unwrap();
    let second = open(&disk).unwrap();
    let error = second.connection.query_row("SELECT count(*) FROM event", [], |_| Ok(())).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
    drop(first);
    second.connection.query_row("SELECT count(*) FROM event", [], |_| Ok(())).unwrap();
}

#[test]
fn a_failed_sync_is_reported_to_the_caller_of_commit() {
    let disk = Disk::new(4);
    let log = open_for_writing(&disk, "FULL").unwrap();
    append(&log, 1).unwrap();
    disk.fail_next_sync();
    let error = append(&log, 2).unwrap_err();
    assert_eq!(extended_code(&error), rusqlite::ffi::SQLITE_IOERR_FSYNC);
    let failed = disk.trace().into_iter().find(|step| step.outcome == Outcome::Failed).unwrap();
    assert_eq!(failed.kind, StepKind::Sync);
    for loss in Loss::ALL {
        let found = recover(&disk.power_cut(loss)).unwrap();
        assert!((1..=2).contains(&found), "{loss:?}: {found}");
    }
}

#[test]
fn a_failed_write_is_reported_and_the_log_stays_whole() {
    let disk = Disk::new(5);
    let log = open_for_writing(&disk, "FULL").unwrap();
    append(&log, 1).unwrap();
    disk.fail_step(disk.steps() + 1, Fault::InputOutput);
    let error = append(&log, 2).unwrap_err();
    assert_eq!(extended_code(&error), rusqlite::ffi::SQLITE_IOERR_WRITE);
    append(&log, 2).unwrap();
    assert_eq!(recover(&disk.power_cut(Loss::DropAll)), Ok(2));
}

#[test]
fn a_full_disk_is_reported_as_full_and_sells_on_after_space_is_freed() {
    let disk = Disk::new(6);
    let log = open_for_writing(&disk, "FULL").unwrap();
    append(&log, 1).unwrap();
    disk.fail_step(disk.steps() + 1, Fault::Full);
    let error = append(&log, 2).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));

    disk.set_capacity_bytes(Some(0));
    let error = append(&log, 2).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
    assert_eq!(recover(&disk.power_cut(Loss::KeepAll)), Ok(1));

    disk.set_capacity_bytes(None);
    append(&log, 2).unwrap();
    assert_eq!(recover(&disk.power_cut(Loss::DropAll)), Ok(2));
}

#[test]
fn a_flipped_bit_is_seen() {
    let disk = Disk::new(7);
    let log = open_for_writing(&disk, "FULL").unwrap();
    (1..=30).for_each(|seq| append(&log, seq).unwrap());
    drop(log);
    // A disk at rest: the WAL is gone for good, so that nothing can repair the main file.
    let disk = disk.power_cut(Loss::KeepAll);
    assert_eq!(disk.files(), [support::LOG]);

    let before = disk.read_file(support::LOG).unwrap();
    let body = body_of(11);
    // SQLite may leave stale copies in unused parts of pages, so every copy is hit.
    let copies = before.windows(body.len()).enumerate().filter(|(_, window)| *window == body);
    for (at, _) in copies {
        disk.flip_bit(support::LOG, at as u64 + 5, 3).unwrap();
        assert_eq!(disk.read_file(support::LOG).unwrap()[at + 5], before[at + 5] ^ 8);
    }
    let rebuilt = disk.image_at(0, Loss::DropAll, 7).unwrap();
    for image in Loss::ALL.map(|loss| disk.power_cut(loss)).into_iter().chain([rebuilt]) {
        assert_eq!(recover(&image).unwrap_err(), "event 11 at position 11 is not what was written");
    }
}

#[test]
fn a_wal_that_was_cut_off_loses_only_its_end() {
    let disk = Disk::new(8);
    let log = open_for_writing(&disk, "FULL").unwrap();
    (1..=5).for_each(|seq| append(&log, seq).unwrap());
    let image = disk.power_cut(Loss::DropAll);
    let wal = "/data/log.db-wal";
    let length = image.read_file(wal).unwrap().len() as u64;
    image.truncate(wal, length / 2).unwrap();
    let found = recover(&image).unwrap();
    assert!(found < 5, "half of the WAL is gone, and all {found} events are there");
}

#[test]
fn damage_outside_a_file_is_refused_by_name() {
    let disk = Disk::new(9);
    assert_eq!(disk.flip_bit("/no", 0, 0), Err(DiskError::NotFound { path: "/no".into() }));
    disk.file("/yes").write_at(0, b"abc").unwrap();
    let outside = DiskError::OutOfRange { path: "/yes".into(), offset: 3, length_bytes: 3 };
    assert_eq!(disk.flip_bit("/yes", 3, 0), Err(outside));
}

#[test]
fn a_name_is_given_once_and_comes_back_when_the_mount_is_dropped() {
    let disk = Disk::new(10);
    let mount = disk.register("one-name").unwrap();
    assert_eq!(disk.register("one-name").unwrap_err(), DiskError::NameTaken { name: "one-name".into() });
    assert!(matches!(disk.register("a\0b"), Err(DiskError::NameRefused { .. })));
    drop(mount);
    assert!(Connection::open_with_flags_and_vfs("/x", OpenFlags::default(), "one-name").is_err());
    disk.register("one-name").unwrap();
}

#[test]
fn a_connection_outlives_its_mount_and_moves_between_threads() {
    let disk = Disk::new(11);
    let mount = disk.mount().unwrap();
    let connection =
        Connection::open_with_flags_and_vfs("/c.db", OpenFlags::default(), mount.name()).unwrap();
    drop(mount);
    let worker = std::thread::spawn(move || {
        connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1);")?;
        connection.close().map_err(|(_, error)| error)
    });
    worker.join().unwrap().unwrap();
    assert!(disk.read_file("/c.db").unwrap().starts_with(b"SQLite format 3"));
}

#[test]
fn time_on_the_disk_is_its_own() {
    let log = open(&Disk::new(12)).unwrap();
    let day: String = log.connection.query_row("SELECT date('now')", [], |row| row.get(0)).unwrap();
    assert_eq!(day, "2026-01-01");
}

#[test]
fn a_disk_without_a_recording_can_be_cut_only_now() {
    let disk = Disk::with_settings(Settings { recording: Recording::Off, ..Settings::new(13) });
    let log = open_for_writing(&disk, "FULL").unwrap();
    append(&log, 1).unwrap();
    assert_eq!(disk.image_at(0, Loss::DropAll, 0).unwrap_err(), DiskError::NotRecorded);
    assert_eq!(recover(&disk.power_cut(Loss::DropAll)), Ok(1));
    let steps = disk.steps();
    let ahead = DiskError::StepAhead { step: steps + 1, steps };
    assert_eq!(disk.image_at(steps + 1, Loss::DropAll, 0).unwrap_err(), ahead);
}
