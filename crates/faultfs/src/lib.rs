//! A disk in memory that forgets what was not synced.
//!
//! [`Disk`] keeps every file twice: as the program sees it, and as the platter holds it. Between the two stand the
//! writes since the last sync, each with a number. Cutting the power ([`Disk::power_cut`], [`Disk::image_at`]) builds
//! the disk that a machine would find after the cut: what was synced, plus whatever part of the rest the chosen
//! [`Loss`] lets through.
//!
//! SQLite runs on it through [`Disk::mount`] or [`Disk::register`]; any other file of the same program goes through
//! [`Disk::file`], so that one numbering covers both.
//!
//! ```
//! use rusqlite::{Connection, OpenFlags};
//! use yoink_faultfs::{Disk, Loss};
//!
//! let disk = Disk::new(7);
//! let mount = disk.mount()?;
//! let log = Connection::open_with_flags_and_vfs("/log.db", OpenFlags::default(), mount.name())?;
//! log.execute_batch("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
//!                    CREATE TABLE event (seq INTEGER PRIMARY KEY); INSERT INTO event VALUES (1);")?;
//!
//! let after = disk.power_cut(Loss::DropAll);
//! let mount = after.mount()?;
//! let log = Connection::open_with_flags_and_vfs("/log.db", OpenFlags::default(), mount.name())?;
//! log.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
//! let count: i64 = log.query_row("SELECT count(*) FROM event", [], |row| row.get(0))?;
//! assert_eq!(count, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What the model says of names: a new file's name is durable once that file was synced, as on the common journalling
//! file systems. The first sync of a new journal or WAL, and a delete that asks for it, also make every earlier change
//! of names durable, because SQLite syncs the directory at those points. Every other delete is pending.
//!
//! What it does not model: shared memory (so WAL needs `locking_mode=EXCLUSIVE`), memory maps, and renames.

mod disk;
mod error;
mod fault;
mod file;
mod handle;
mod loss;
mod random;
mod settings;
mod state;
mod step;
mod vfs;

pub use disk::Disk;
pub use error::DiskError;
pub use fault::{Fault, SyncHonesty};
pub use file::DiskFile;
pub use loss::Loss;
pub use settings::{Overwrite, Recording, SectorSize, Settings};
pub use step::{Outcome, Step, StepKind};
pub use vfs::Mount;
