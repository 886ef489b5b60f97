//! The ledger: the durable table of orders, a SQLite file beside the log.
//!
//! The log is the truth and the ledger follows it, so losing `ledger.db` loses no order: without the file, delivery
//! begins again at the first event. What is lost with it are the dead letters and how often they were tried.
//!
//! There is one connection, owned by the delivery thread: concurrency towards the file is one by construction, and
//! the file is locked for everybody else while it is open.

mod dead_letters;
mod failure;
mod fault;
mod orders;
mod read;
mod retries;
mod row;
#[cfg(test)]
mod upgrade;

use std::path::{Path, PathBuf};

use refinery::error::Kind;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, config::DbConfig};
use yoink_core::Seq;

pub use self::failure::{ErrorClass, WriteError};
#[cfg(feature = "faults")]
pub use self::fault::{CommitFault, FaultSettingError, LedgerFault, Step, Times};
#[cfg(not(feature = "faults"))]
pub(crate) use self::fault::{LedgerFault, Step};
pub use self::read::{EXPORT_ROWS_MAX, LedgerCounts, LedgerProduct, Movement, MovementKind};
pub(crate) use self::{
    dead_letters::{DeadLetterRow, ThenState},
    orders::{Ended, Inserted},
    retries::{Due, Retry},
    row::{OrderEndRow, OrderRow},
};
use crate::{OpenError, failpoint};

/// The ledger's file in the data folder.
pub const FILE_NAME: &str = "ledger.db";
/// The format of the ledger: its last migration. Older versions refuse a file with a migration that they do not know.
pub const FORMAT: i64 = 2;
/// "YNKO", in the file's header: this is a Yoink ledger (of orders).
const APPLICATION_ID: i64 = 0x594e_4b4f;
/// Pages that SQLite keeps in memory, in KiB (SQLite wants it negative).
const CACHE_KIB: i64 = 16 << 10;
/// Pages in the write-ahead file after which a commit folds it back: 16 MiB. The default of 4 MiB folds the same pages
/// of the index by customer back four times as often.
const WAL_PAGES_MAX: i64 = 4_096;

mod migrations {
    refinery::embed_migrations!("src/ledger/migrations");
}

/// The ledger, open. All its SQL is in this folder.
#[derive(Debug)]
pub(crate) struct Ledger {
    connection: Connection,
    fault: LedgerFault,
    /// What the connection is set to.
    sync: Synced,
}

/// When a transaction of the ledger is on disk, and not only in the operating system's cache. It survives the end of
/// the process either way, and what was written before it is on disk before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Synced {
    /// With its COMMIT. For what only the ledger knows: dead letters, attempts, an operator's word.
    AtOnce,
    /// With the next one that is, or the next checkpoint. For what the log knows: after a power loss the position,
    /// which is part of the same transaction, has gone back too, and delivery carries the same events again. An fsync
    /// for each of these batches would be paid by the log, which is on the same disk.
    WithTheNext,
}

impl Synced {
    fn pragma(self) -> &'static str {
        match self {
            Self::AtOnce => "PRAGMA synchronous = FULL",
            Self::WithTheNext => "PRAGMA synchronous = NORMAL",
        }
    }
}

/// What delivery keeps in memory of the ledger; read when it opens.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The last event whose effect is in the ledger.
    pub position: Seq,
    /// Whether an operator paused delivery.
    pub paused: bool,
    /// Orders at or before `position` that are live and not in the ledger.
    pub undelivered: Vec<Seq>,
    /// Those of them that will be tried again.
    pub retries: Vec<Due>,
    /// Dead letters that are not settled.
    pub dead_letters_open: u64,
}

impl Ledger {
    /// Opens the ledger of a data folder, or makes one, and checks all of it.
    ///
    /// # Errors
    /// It cannot be opened, is not a ledger, is damaged, or was written by a newer version.
    pub fn open(folder: &Path, vfs: Option<&str>, fault: LedgerFault) -> Result<Self, OpenError> {
        let path = folder.join(FILE_NAME);
        let connection = connect(&path, vfs, OpenFlags::SQLITE_OPEN_CREATE)?;
        recognise(&connection, &path)?;
        check(&connection, &path)?;
        let mut ledger = Self { connection, fault, sync: Synced::AtOnce };
        ledger.migrate(&path)?;
        Ok(ledger)
    }

    /// Opens a ledger again that this process had open; never makes one, because an empty ledger in place of a full
    /// one would be delivered to from the start behind everybody's back.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn reopen(folder: &Path, vfs: Option<&str>, fault: LedgerFault) -> Result<Self, OpenError> {
        let path = folder.join(FILE_NAME);
        let connection = connect(&path, vfs, OpenFlags::empty())?;
        recognise(&connection, &path)?;
        Ok(Self { connection, fault, sync: Synced::AtOnce })
    }

    /// From now on closing the ledger folds its write-ahead file back and removes it. Until then closing leaves the
    /// files as they were found: a start that is refused must not change what a person will want to look at.
    ///
    /// # Errors
    /// SQLite does not know the setting.
    pub fn fold_back_on_close(&self) -> Result<(), rusqlite::Error> {
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map(drop)
    }

    /// Closes the ledger; dropping it does so too, and says nothing if it fails.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn close(self) -> Result<(), rusqlite::Error> {
        self.connection.close().map_err(|(_, error)| error)
    }

    /// Does `work` in one transaction. The only function that commits.
    ///
    /// # Errors
    /// [`ErrorClass::Transient`]: nothing happened. [`ErrorClass::Unknown`]: drop this ledger, open it again and look.
    pub fn write<T>(
        &mut self,
        sync: Synced,
        work: impl FnOnce(&Rows<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, WriteError> {
        self.fault.before_write()?;
        if self.sync != sync {
            self.connection.execute_batch(sync.pragma())?;
            self.sync = sync;
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&Rows { transaction: &transaction, fault: &self.fault })?;
        let fault = self.fault.at_commit();
        // Dropping the transaction rolls it back.
        fault.before()?;
        failpoint::hit("delivery.before-commit");
        transaction.commit().map_err(WriteError::at_commit)?;
        failpoint::hit("delivery.after-commit");
        fault.after()?;
        Ok(done)
    }

    /// Reads what delivery keeps in memory.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self) -> Result<Loaded, rusqlite::Error> {
        let connection = &self.connection;
        let (position, paused) = connection
            .query_row("SELECT position, paused FROM meta", [], |row| Ok((row::seq(row, 0)?, row.get(1)?)))?;
        let retries = retries::schedule(connection)?;
        let mut undelivered = dead_letters::live(connection)?;
        undelivered.extend(retries.iter().map(|due| due.seq));
        let dead_letters_open = dead_letters::count_open(connection)?;
        Ok(Loaded { position, paused, undelivered, retries, dead_letters_open })
    }

    fn migrate(&mut self, path: &Path) -> Result<(), OpenError> {
        // In one transaction with the note that they were made: a power loss between the two would leave tables that
        // every later start wants to make again.
        let migrated = migrations::migrations::runner().set_grouped(true).run(&mut self.connection);
        migrated.map_err(|error| match error.kind() {
            Kind::MissingVersion(migration) => OpenError::NewerFormat {
                path: path.to_owned(),
                found: i64::from(migration.version()),
                known: FORMAT,
            },
            Kind::Connection(_, source) => match source.downcast_ref() {
                Some(rusqlite::Error::SqliteFailure(failure, message)) => {
                    let source = rusqlite::Error::SqliteFailure(*failure, message.clone());
                    sqlite("make the tables of", path, source)
                }
                _ => damaged(path, &format!("its tables cannot be made ({error})")),
            },
            _ => damaged(path, &format!("its tables were made by something else ({error})")),
        })?;
        // Written only when the file is new or was upgraded just now: a start that is refused later leaves the files as
        // they were.
        let known = header(&self.connection).map_err(|source| sqlite("read the header of", path, source))?;
        if known == (APPLICATION_ID, FORMAT) {
            return Ok(());
        }
        let header = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}");
        let written = self.connection.execute_batch(&header);
        written.map_err(|source| sqlite("write the header of", path, source))
    }
}

/// The rows of the ledger inside one transaction.
pub(crate) struct Rows<'a> {
    transaction: &'a Transaction<'a>,
    fault: &'a LedgerFault,
}

impl Rows<'_> {
    /// Says up to which event the ledger has the log.
    pub fn set_position(&self, position: Seq) -> Result<(), rusqlite::Error> {
        let mut statement = self.transaction.prepare_cached("UPDATE meta SET position = ?1")?;
        statement.execute([row::integer(position)?])?;
        Ok(())
    }

    /// Remembers whether delivery is paused.
    pub fn set_paused(&self, paused: bool) -> Result<(), rusqlite::Error> {
        self.transaction.execute("UPDATE meta SET paused = ?1", [paused])?;
        Ok(())
    }
}

fn connect(path: &Path, vfs: Option<&str>, create: OpenFlags) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let opened = match vfs {
        // Another file layer has a root of its own.
        Some(vfs) => Connection::open_with_flags_and_vfs(FILE_NAME, flags, vfs),
        None => Connection::open_with_flags(path, flags),
    };
    let connection = opened.map_err(|source| sqlite("open", path, source))?;
    let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    kept.map_err(|source| sqlite("prepare", path, source))?;
    connection.set_prepared_statement_cache_capacity(64);
    let pragmas = format!(
        "PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA cache_size = -{CACHE_KIB};
         PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX};
         PRAGMA foreign_keys = OFF;
         PRAGMA trusted_schema = OFF;"
    );
    let set = connection.execute_batch(&pragmas);
    set.map_err(|source| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            damaged(path, &format!("SQLite says: {source}"))
        }
        Some(rusqlite::ErrorCode::DatabaseBusy) => OpenError::InUse { path: path.to_owned() },
        _ => sqlite("prepare", path, source),
    })?;
    Ok(connection)
}

/// Is this file a ledger that this version can write?
fn recognise(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let (id, format) = header(connection).map_err(|source| sqlite("read the header of", path, source))?;
    if id != APPLICATION_ID && id != 0 {
        return Err(damaged(path, "it is another program's file"));
    }
    if format > FORMAT {
        return Err(OpenError::NewerFormat { path: path.to_owned(), found: format, known: FORMAT });
    }
    Ok(())
}

/// Whose file it is, and its format.
fn header(connection: &Connection) -> Result<(i64, i64), rusqlite::Error> {
    let read = |pragma: &str| connection.query_row(pragma, [], |row| row.get(0));
    Ok((read("PRAGMA application_id")?, read("PRAGMA user_version")?))
}

fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let verdict = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(damaged(path, &format!("SQLite says: {verdict}"))),
        Err(source) => Err(damaged(path, &format!("SQLite says: {source}"))),
    }
}

fn damaged(path: &Path, what: &str) -> OpenError {
    OpenError::LedgerDamaged { path: path.to_owned(), what: what.to_owned() }
}

fn sqlite(operation: &'static str, path: &Path, source: rusqlite::Error) -> OpenError {
    OpenError::Sqlite { operation, path: PathBuf::from(path), source }
}
