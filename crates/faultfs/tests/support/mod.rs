//! A small event log on a `Disk`, and a judge of what is left of it after a power cut.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::expect_used, reason = "helpers of tests may panic too")]

use rusqlite::{Connection, OpenFlags};
use yoink_faultfs::{Disk, Loss, Mount, Settings};

pub const LOG: &str = "/data/log.db";

/// A connection and the mount that it needs; the connection is closed first.
pub struct Log {
    pub connection: Connection,
    _mount: Mount,
}

pub fn open(disk: &Disk) -> rusqlite::Result<Log> {
    let mount = disk.mount().expect("a fresh name can be registered");
    let connection = Connection::open_with_flags_and_vfs(LOG, OpenFlags::default(), mount.name())?;
    connection.query_row("PRAGMA locking_mode=EXCLUSIVE", [], |_| Ok(()))?;
    Ok(Log { connection, _mount: mount })
}

/// Opens the log for writing: WAL, `synchronous` as given, and checkpoints often, so that a short run has many.
pub fn open_for_writing(disk: &Disk, synchronous: &str) -> rusqlite::Result<Log> {
    let log = open(disk)?;
    let mode: String = log.connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    assert_eq!(mode, "wal", "the file layer must be good enough for WAL");
    log.connection.pragma_update(None, "synchronous", synchronous)?;
    log.connection.query_row("PRAGMA wal_autocheckpoint=40", [], |_| Ok(()))?;
    log.connection
        .execute_batch("CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    Ok(log)
}

/// What event `seq` says: from a few bytes to more than a page, and nowhere the same as elsewhere.
pub fn body_of(seq: usize) -> Vec<u8> {
    let length = if seq.is_multiple_of(7) { 5000 } else { 40 + seq % 50 };
    let mut mixed = (seq as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next_byte = || {
        mixed ^= mixed << 13;
        mixed ^= mixed >> 7;
        mixed ^= mixed << 17;
        mixed.to_le_bytes()[3]
    };
    (0..length).map(|_| next_byte()).collect()
}

pub fn append(log: &Log, seq: usize) -> rusqlite::Result<()> {
    log.connection.execute("INSERT INTO event VALUES (?1, ?2)", (seq as i64, body_of(seq)))?;
    Ok(())
}

/// A finished run: the disk, and after which step each commit was acknowledged.
pub struct Run {
    pub disk: Disk,
    pub acknowledged_at: Vec<u64>,
    _log: Log,
}

impl Run {
    pub fn of(settings: Settings, synchronous: &str, commits: usize) -> Run {
        Run::on(Disk::with_settings(settings), synchronous, commits)
    }

    pub fn on(disk: Disk, synchronous: &str, commits: usize) -> Run {
        let log = open_for_writing(&disk, synchronous).expect("an empty disk takes a new log");
        let mut acknowledged_at = Vec::new();
        for seq in 1..=commits {
            append(&log, seq).expect("no fault is armed");
            acknowledged_at.push(disk.steps());
        }
        Run { disk, acknowledged_at, _log: log }
    }

    pub fn acknowledged_by(&self, step: u64) -> usize {
        self.acknowledged_at.iter().filter(|acknowledged| **acknowledged <= step).count()
    }

    /// Cuts the power after `step`, restarts, and judges.
    pub fn judge(&self, step: u64, loss: Loss, seed: u64) -> Verdict {
        let image = self.disk.image_at(step, loss, seed).expect("the run is recorded");
        let acknowledged = self.acknowledged_by(step);
        match recover(&image) {
            Err(reason) => Verdict::Damaged(reason),
            Ok(found) if found < acknowledged => Verdict::Lost { acknowledged, found },
            Ok(found) if found > acknowledged + 1 => Verdict::Invented { acknowledged, found },
            Ok(_) => Verdict::Good,
        }
    }

    /// Judges every step from before the first to the last, and returns what is not good.
    pub fn judge_every_step(&self, loss: Loss, seed: u64) -> Vec<(u64, Verdict)> {
        let verdicts = (0..=self.disk.steps()).map(|step| (step, self.judge(step, loss, seed)));
        verdicts.filter(|(_, verdict)| *verdict != Verdict::Good).collect()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// SQLite refused the image, or found rubbish in it.
    Damaged(String),
    Lost {
        acknowledged: usize,
        found: usize,
    },
    Invented {
        acknowledged: usize,
        found: usize,
    },
}

/// Opens an image as after a restart and counts its events; each must be whole and none may be missing in between.
/// The log must also take another event.
pub fn recover(image: &Disk) -> Result<usize, String> {
    let describe = |error: rusqlite::Error| error.to_string();
    let log = open_for_writing(image, "FULL").map_err(describe)?;
    let check: String =
        log.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(describe)?;
    if check != "ok" {
        return Err(check);
    }
    let mut statement =
        log.connection.prepare("SELECT seq, body FROM event ORDER BY seq").map_err(describe)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(describe)?;
    let mut found = 0;
    for row in rows {
        let (seq, body): (i64, Vec<u8>) = row.map_err(describe)?;
        found += 1;
        if seq != found as i64 || body != body_of(found) {
            return Err(format!("event {seq} at position {found} is not what was written"));
        }
    }
    append(&log, found + 1).map_err(describe)?;
    Ok(found)
}
