//! The log: an append-only SQLite table with only an integer primary key. The truth of the embedded engine.
//!
//! One row is one commit: all events that one fsync made durable, so a batch of a thousand orders costs one insert.
//! Every row carries a hash over its content and the hash of the row before (a chain), so damage at rest shows at the
//! first event behind it.
//!
//! One connection, exclusively locked, is the only one that ever opens the file.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;
use yoink_core::{Event, Seq, Timestamp};

use super::codec;
use crate::{Durability, OpenError, failpoint, limits};

/// The format of the log's rows. Raised when an older version could no longer read them.
pub const FORMAT: i64 = 1;
/// "YNKL", in the file's header: this is a Yoink log.
const APPLICATION_ID: i64 = 0x594e_4b4c;
/// The first SQLite version without the bug that could corrupt a database when its write-ahead file was reset.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Where the log is.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// The file.
    pub path: PathBuf,
    /// The file layer that SQLite goes through; `None` is the operating system's.
    pub vfs: Option<String>,
}

/// Why the log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// SQLite refused.
    #[error("cannot {operation} the log")]
    Sqlite {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A row is not what was written.
    #[error("the log is damaged at event {seq}: {what}")]
    Damaged {
        /// The first event of the row.
        seq: Seq,
        /// How it shows.
        what: String,
    },
}

/// One commit, read back and verified.
#[derive(Debug)]
pub struct Row {
    /// Its last event.
    pub last_seq: Seq,
    /// The chain hash after it.
    pub chain: u64,
    /// Its events. None where it records a loss: then all events after the commit before it, up to `last_seq`, are
    /// gone.
    pub events: Vec<Event>,
}

/// What comes after some event.
#[derive(Debug, PartialEq)]
pub enum Stretch {
    /// These events, oldest first; none if it was the last.
    Events(Vec<Event>),
    /// Nothing up to event `to`: these events are lost, which an operator accepted (decision 12).
    Lost {
        /// The last lost event.
        to: Seq,
    },
}

/// A loss that was accepted, as the log records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The last event before it.
    pub(crate) after: Seq,
    /// What the beacon promised when it was accepted.
    pub(crate) beacon_seq: Seq,
    /// The chain hash that the beacon promised there.
    pub(crate) beacon_chain: u64,
}

/// The log, open for appending.
#[derive(Debug)]
pub struct Log {
    connection: Connection,
    path: PathBuf,
    last_seq: Seq,
    chain: u64,
    staged: Staged,
    wal_bytes: u64,
}

/// A page of the log's file, in bytes. A commit writes its last page anew and, when the file grows, two more, each
/// with two calls to the system; with four times SQLite's default that is about half as many calls per commit.
const PAGE_BYTES: u64 = 16_384;

/// Events that wait for the commit.
#[derive(Debug, Default)]
struct Staged {
    facts: Vec<u8>,
    count: u64,
    at: i64,
}

impl Log {
    /// Opens or makes the log. It is positioned by [`Log::set_end`] once recovery has read it.
    ///
    /// # Errors
    /// The file is not a log, is of a newer format, or SQLite refuses it.
    pub fn open(file: &LogFile, durability: Durability) -> Result<Self, OpenError> {
        let failed =
            |operation| move |source| OpenError::Sqlite { operation, path: file.path.clone(), source };
        assert!(
            rusqlite::version_number() >= SQLITE_VERSION_MIN,
            "SQLite {} is too old",
            rusqlite::version()
        );
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match &file.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(&file.path, flags, vfs.as_str()),
            None => Connection::open_with_flags(&file.path, flags),
        }
        .map_err(failed("open the log"))?;
        // A connection that closes folds the write-ahead file back and deletes it. Where the start is refused, or where
        // a sync has failed, that would destroy what is left of the evidence, so it is allowed by `close` only.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(failed("configure the log"))?;
        configure(&connection, durability).map_err(failed("configure the log"))?;
        check_format(&connection, &file.path)?;
        Ok(Self {
            connection,
            path: file.path.clone(),
            last_seq: 0,
            chain: 0,
            staged: Staged::default(),
            wal_bytes: 0,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last committed event; 0 before the first.
    pub fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// The chain hash at the last committed event.
    pub fn chain(&self) -> u64 {
        self.chain
    }

    /// How much was written to the write-ahead file since it was last folded back, about, in bytes.
    pub fn wal_bytes(&self) -> u64 {
        self.wal_bytes
    }

    /// Gets the file ready for fast commits. To be called when recovery has accepted it, and not before.
    pub fn prepare_commits(&self, file: &LogFile, durability: Durability) {
        if file.vfs.is_none() && durability == Durability::Fsync {
            lengthen_wal(&file.path);
        }
    }

    /// Folds the write-ahead file back and closes the log. A log that is merely dropped is left as it is.
    ///
    /// # Errors
    /// SQLite refuses; nothing is lost, the next start folds it back.
    pub fn close(self) -> Result<(), LogError> {
        let failed = |source| LogError::Sqlite { operation: "close", source };
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
        self.connection.close().map_err(|(_, source)| failed(source))
    }

    /// Where appending goes on: after what recovery read.
    pub fn set_end(&mut self, last_seq: Seq, chain: u64) {
        (self.last_seq, self.chain) = (last_seq, chain);
    }

    /// Adds an event to the next commit. All events of one commit have one time.
    pub fn stage(&mut self, event: &Event) {
        codec::encode_fact(&event.fact, &mut self.staged.facts);
        self.staged.count = self.staged.count.saturating_add(1);
        self.staged.at = event.at.0;
        failpoint::hit("log.staged");
    }

    /// Makes the staged events durable with one fsync; does nothing if there are none.
    ///
    /// # Errors
    /// Whether the events are durable is then unknown: the caller must stop and read the log again.
    pub fn commit(&mut self) -> Result<(), LogError> {
        if self.staged.count == 0 {
            return Ok(());
        }
        let mut staged = std::mem::take(&mut self.staged);
        let last_seq = self.last_seq.saturating_add(staged.count);
        failpoint::hit("log.before-commit");
        self.append(last_seq, staged.count, staged.at, &staged.facts)?;
        failpoint::hit("log.after-commit");
        staged.facts.clear();
        staged.count = 0;
        self.staged = staged;
        Ok(())
    }

    /// Records, durably, that the events after the last one up to `to` are lost and that an operator accepted it: a
    /// row without events, which no commit makes. The next event is the one after `to`.
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub(crate) fn accept_loss(
        &mut self,
        to: Seq,
        at: Timestamp,
        (beacon_seq, beacon_chain): (Seq, u64),
    ) -> Result<(), LogError> {
        let mut beacon = Vec::with_capacity(16);
        beacon.extend_from_slice(&beacon_seq.to_le_bytes());
        beacon.extend_from_slice(&beacon_chain.to_le_bytes());
        self.append(to, 0, at.0, &beacon)
    }

    fn append(&mut self, last_seq: Seq, count: u64, at: i64, facts: &[u8]) -> Result<(), LogError> {
        let failed = |source| LogError::Sqlite { operation: "append to", source };
        let chain = chain(self.chain, last_seq, count, at, facts);
        let insert = "INSERT INTO log (last_seq, count, at, chain, facts) VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut insert = self.connection.prepare_cached(insert).map_err(failed)?;
        let row = params![last_seq.cast_signed(), count.cast_signed(), at, chain.cast_signed(), facts];
        insert.execute(row).map_err(failed)?;
        (self.last_seq, self.chain) = (last_seq, chain);
        // A commit writes its leaf page anew, what does not fit into it, and now and then a page above.
        let pages = (facts.len() as u64 / PAGE_BYTES).saturating_add(1);
        self.wal_bytes = self.wal_bytes.saturating_add(pages.saturating_mul(PAGE_BYTES));
        Ok(())
    }

    /// Reads rows whose last event is after `after`, oldest first, verifying each; `visit` stops it by returning
    /// `false`.
    ///
    /// # Errors
    /// SQLite refuses, or a row is damaged.
    pub fn read(&self, after: Seq, mut visit: impl FnMut(Row) -> bool) -> Result<(), LogError> {
        let failed = |source| LogError::Sqlite { operation: "read", source };
        let mut before = self.row_end_at_or_before(after)?;
        let select =
            "SELECT last_seq, count, at, chain, facts FROM log WHERE last_seq > ?1 ORDER BY last_seq";
        let mut select = self.connection.prepare_cached(select).map_err(failed)?;
        let mut rows = select.query([after.cast_signed()]).map_err(failed)?;
        loop {
            let row = rows.next().map_err(|source| damaged_or(source, before.0))?;
            let Some(row) = row else { return Ok(()) };
            let row = verify(row, before)?;
            before = (row.last_seq, row.chain);
            if !visit(row) {
                return Ok(());
            }
        }
    }

    /// What comes after event `after`: events, oldest first, at most `limit`, and none from behind a loss; or a loss.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn events_after(&self, after: Seq, limit: usize) -> Result<Stretch, LogError> {
        let mut events = Vec::new();
        let mut lost_to = None;
        self.read(after, |row| {
            if row.events.is_empty() {
                lost_to = Some(row.last_seq);
                return false;
            }
            events.extend(row.events.into_iter().filter(|event| event.seq > after));
            events.len() < limit
        })?;
        events.truncate(limit);
        Ok(match lost_to.filter(|_| events.is_empty()) {
            Some(to) => Stretch::Lost { to },
            None => Stretch::Events(events),
        })
    }

    /// The loss that took event `seq`, if one did.
    ///
    /// # Errors
    /// SQLite refuses, or the row is damaged.
    pub(crate) fn lost(&self, seq: Seq) -> Result<Option<Loss>, LogError> {
        let select = "SELECT last_seq, count, facts FROM log WHERE last_seq >= ?1 ORDER BY last_seq LIMIT 1";
        let row = self
            .connection
            .query_row(select, [seq.cast_signed()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .optional()
            .map_err(|source| damaged_or(source, seq))?;
        // The last number of a loss counts as there: who has been told of the loss stands at it.
        let Some((_, _, beacon)) =
            row.filter(|(last_seq, count, _)| *count == 0 && last_seq.cast_unsigned() != seq)
        else {
            return Ok(None);
        };
        let number = |from: usize| {
            let bytes = beacon.get(from..from.saturating_add(8)).and_then(|bytes| bytes.try_into().ok());
            let what = || "a row that records a loss is too short".to_owned();
            bytes.map(u64::from_le_bytes).ok_or_else(|| LogError::Damaged { seq, what: what() })
        };
        let (after, _) = self.row_end_at_or_before(seq)?;
        Ok(Some(Loss { after, beacon_seq: number(0)?, beacon_chain: number(8)? }))
    }

    /// The chain hash at the commit that ends with event `seq`, if one does.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn chain_at(&self, seq: Seq) -> Result<Option<u64>, LogError> {
        if seq == 0 {
            return Ok(Some(0));
        }
        self.connection
            .query_row("SELECT chain FROM log WHERE last_seq = ?1", [seq.cast_signed()], |row| {
                row.get::<_, i64>(0)
            })
            .optional()
            .map(|chain| chain.map(i64::cast_unsigned))
            .map_err(|source| damaged_or(source, seq))
    }

    /// Folds the write-ahead file back into the log.
    ///
    /// # Errors
    /// SQLite refuses; nothing is lost, the file only stays long.
    pub fn checkpoint(&mut self) -> Result<(), LogError> {
        failpoint::hit("checkpoint.before");
        // Also if it fails: trying again at once would fail again.
        self.wal_bytes = 0;
        self.connection
            .query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
            .map_err(|source| LogError::Sqlite { operation: "checkpoint", source })?;
        failpoint::hit("checkpoint.after");
        Ok(())
    }

    fn row_end_at_or_before(&self, seq: Seq) -> Result<(Seq, u64), LogError> {
        self.connection
            .prepare_cached(
                "SELECT last_seq, chain FROM log WHERE last_seq <= ?1 ORDER BY last_seq DESC LIMIT 1",
            )
            .and_then(|mut select| {
                select
                    .query_row([seq.cast_signed()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
                    .optional()
            })
            .map(|end| end.map_or((0, 0), |(seq, chain)| (seq.cast_unsigned(), chain.cast_unsigned())))
            .map_err(|source| damaged_or(source, seq))
    }
}

fn configure(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    // Exclusive first: the write-ahead index then lives in this process's memory, and no second connection can open
    // the file.
    connection.pragma_update(None, "page_size", PAGE_BYTES.cast_signed())?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", durability.synchronous())?;
    // The writer decides when, between two batches.
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

/// Fills the write-ahead file up with zeros to the size at which it is folded back.
///
/// A commit that makes a file longer waits for the file system's own journal too: twice as long as one that overwrites
/// (measured here: 0.2 ms against 0.1 ms). SQLite reads the file up to the first frame that is not sound, and zeros are
/// none, so they mean nothing to it; after a fold-back it overwrites the file from its beginning.
fn lengthen_wal(log: &Path) {
    let mut path = log.as_os_str().to_owned();
    path.push("-wal");
    let lengthened = (|| {
        let file = OpenOptions::new().write(true).open(&path)?;
        let (mut length, wanted) =
            (file.metadata()?.len(), limits::WAL_BYTES_MAX + limits::WAL_BYTES_MAX / 8);
        let zeros = vec![0; 1 << 20];
        while length < wanted {
            let piece =
                zeros.get(..usize::try_from(wanted - length).unwrap_or(zeros.len())).unwrap_or(&zeros);
            file.write_all_at(piece, length)?;
            length = length.saturating_add(piece.len() as u64);
        }
        file.sync_all()
    })();
    if let Err(error) = lengthened {
        let error: std::io::Error = error;
        tracing::debug!(%error, "the write-ahead file grows as it is written; commits take a little longer");
    }
}

/// Makes the table in a new file, and refuses a file that is not ours or is of a newer format.
fn check_format(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed =
        |source| OpenError::Sqlite { operation: "read the format of", path: path.to_path_buf(), source };
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    match (pragma("application_id")?, pragma("user_version")?) {
        // One transaction: a file whose making was cut short is empty again.
        (0, 0) => connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE;
                 CREATE TABLE log (
                   last_seq INTEGER PRIMARY KEY,
                   count    INTEGER NOT NULL,
                   at       INTEGER NOT NULL,
                   chain    INTEGER NOT NULL,
                   facts    BLOB    NOT NULL
                 ) STRICT;
                 PRAGMA application_id = {APPLICATION_ID};
                 PRAGMA user_version = {FORMAT};
                 COMMIT"
            ))
            .map_err(failed),
        (APPLICATION_ID, FORMAT) => Ok(()),
        (APPLICATION_ID, found) if found > FORMAT => {
            Err(OpenError::NewerFormat { path: path.to_path_buf(), found, known: FORMAT })
        }
        (application, format) => Err(OpenError::Damaged {
            path: path.to_path_buf(),
            seq: 0,
            what: format!("it is not a Yoink log (application id {application:#x}, format {format})"),
        }),
    }
}

fn verify(row: &rusqlite::Row<'_>, before: (Seq, u64)) -> Result<Row, LogError> {
    let first_seq = before.0.saturating_add(1);
    let damaged = |what: String| LogError::Damaged { seq: first_seq, what };
    let unreadable = |source: rusqlite::Error| damaged(format!("a row cannot be read ({source})"));
    let last_seq = row.get::<_, i64>(0).map_err(unreadable)?.cast_unsigned();
    let count = row.get::<_, i64>(1).map_err(unreadable)?.cast_unsigned();
    let at = row.get::<_, i64>(2).map_err(unreadable)?;
    let hash = row.get::<_, i64>(3).map_err(unreadable)?.cast_unsigned();
    let facts = row.get_ref(4).map_err(unreadable)?.as_blob().map_err(|error| damaged(error.to_string()))?;
    let is_loss = count == 0 && last_seq > before.0;
    if !is_loss && (count == 0 || before.0.checked_add(count) != Some(last_seq)) {
        return Err(damaged(format!("a commit of {count} events ends at {last_seq}")));
    }
    if hash != chain(before.1, last_seq, count, at, facts) {
        return Err(damaged("its hash is not the one that was written".to_owned()));
    }
    if is_loss {
        return Ok(Row { last_seq, chain: hash, events: Vec::new() });
    }
    let facts = codec::decode_facts(facts, count).map_err(|error| damaged(error.to_string()))?;
    let events = facts
        .into_iter()
        .zip(first_seq..)
        .map(|(fact, seq)| Event { seq, at: Timestamp(at), fact })
        .collect();
    Ok(Row { last_seq, chain: hash, events })
}

/// SQLite's own word for damage is damage to us too.
fn damaged_or(source: rusqlite::Error, seq: Seq) -> LogError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            LogError::Damaged { seq: seq.saturating_add(1), what: source.to_string() }
        }
        _ => LogError::Sqlite { operation: "read", source },
    }
}

/// The chain hash after a commit: xxh3-64 of its fields, seeded with the hash before. It finds damage, not forgery.
fn chain(before: u64, last_seq: Seq, count: u64, at: i64, facts: &[u8]) -> u64 {
    let mut header = [0_u8; 24];
    for (to, from) in header.chunks_exact_mut(8).zip([last_seq, count, at.cast_unsigned()]) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    xxh3_64_with_seed(facts, xxh3_64_with_seed(&header, before))
}
