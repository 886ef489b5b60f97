//! From what is on disk to the state it stands for, or a refusal that says what is wrong and where.
//!
//! What is recognised as damage:
//! - a row whose hash does not follow from its content and the row before (bit flips, edits, rows lost in the middle);
//! - a gap in `seq`, an event of unknown kind, a field that is not what it may be;
//! - an event that cannot have followed the ones before it (an order before its product, units that would not add up);
//! - a log that ends before what the beacon or a snapshot saw (a truncated write-ahead file, an older backup);
//! - a log of a newer format.
//!
//! Nothing is changed here. What an operator accepts as lost is written down by `loss.rs`, once the ledger is checked.

use std::path::Path;
use std::time::Instant;

use tracing::{info, warn};
use yoink_core::{Inventory, Seq};

use super::beacon::{Beacon, BeaconFile, Promise};
use super::log::{Log, LogError, LogFile};
use super::snapshot;
use crate::{Durability, OpenError};

/// Whether to go on where the log ends before what was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptLoss {
    /// Refuse, and say what is missing.
    #[default]
    No,
    /// Go on with what is there; orders beyond it are gone.
    Yes,
}

/// What recovery did, for the start-up message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecoveryReport {
    /// The last event that a snapshot had; 0 if none was used.
    pub snapshot_seq: Seq,
    /// Events that were replayed from the log.
    pub replayed_events: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

pub(crate) struct Recovered {
    pub(crate) inventory: Inventory,
    pub(crate) log: Log,
    pub(crate) beacon: Beacon,
    pub(crate) incarnation: u64,
    pub(crate) report: RecoveryReport,
    /// What the beacon said.
    pub(crate) promise: Promise,
    /// The last event that anything saw in the log; beyond its end only where a loss is to be accepted.
    pub(crate) promised: Seq,
}

/// Reads log, beacon and snapshot of a data folder.
///
/// # Errors
/// Anything from the list at the head of this file; nothing on disk was changed then.
pub(crate) fn recover(
    folder: &Path,
    file: &LogFile,
    durability: Durability,
    accept_loss: AcceptLoss,
    beacon: Option<Box<dyn BeaconFile>>,
) -> Result<Recovered, OpenError> {
    let started = Instant::now();
    let mut log = Log::open(file, durability)?;
    let beacon_path = folder.join("beacon");
    let beacon = beacon.map_or_else(|| Beacon::open(&beacon_path), Beacon::read);
    let (beacon, promise) = beacon.map_err(|source| OpenError::DataFolder { path: beacon_path, source })?;
    let mut start = start_state(folder, &log)?;
    let mut inventory = std::mem::take(&mut start.inventory);
    let snapshot_seq = start.position.seq;
    let end = replay(&log, &mut inventory, start.position)?;
    log.set_end(end.seq, end.chain);
    if promise == Promise::default() && end.seq > 0 {
        warn!(
            last_seq = end.seq,
            "there is no beacon, so a truncated log could not be told from a shorter one"
        );
    }
    reaches(&log, start.promised, accept_loss)?;
    let incarnation = keep_promise(&log, promise, accept_loss)?;
    let report = RecoveryReport {
        snapshot_seq,
        replayed_events: end.seq.saturating_sub(snapshot_seq),
        seconds: started.elapsed().as_secs_f64(),
    };
    info!(
        last_seq = end.seq,
        snapshot_seq,
        replayed_events = report.replayed_events,
        seconds = report.seconds,
        "the log was read back"
    );
    let promised = start.promised.max(promise.seq);
    Ok(Recovered { inventory, log, beacon, incarnation, report, promise, promised })
}

/// What replaying begins with.
struct Start {
    inventory: Inventory,
    position: snapshot::Position,
    /// The log was seen to reach this event.
    promised: Seq,
}

/// The newest usable snapshot, or nothing.
fn start_state(folder: &Path, log: &Log) -> Result<Start, OpenError> {
    let nothing = |promised| Start {
        inventory: Inventory::new(),
        position: snapshot::Position { seq: 0, chain: 0 },
        promised,
    };
    let path = folder.join("snapshot");
    let (inventory, position) = match snapshot::read(&path) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(nothing(0)),
        Err(error) => {
            warn!(path = %path.display(), %error, "a snapshot is ignored; the whole log is replayed instead");
            return Ok(nothing(0));
        }
    };
    if log.chain_at(position.seq).map_err(|error| open_error(log.path(), error))? == Some(position.chain) {
        return Ok(Start { inventory, position, promised: position.seq });
    }
    warn!(path = %path.display(), seq = position.seq, "a snapshot is not of this log; the whole log is replayed");
    Ok(nothing(position.seq))
}

/// Holds the log against the event that something saw in it.
fn reaches(log: &Log, promised: Seq, accept_loss: AcceptLoss) -> Result<(), OpenError> {
    let found = log.last_seq();
    if found >= promised {
        return Ok(());
    }
    match accept_loss {
        AcceptLoss::No => Err(OpenError::Truncated { path: log.path().to_path_buf(), found, promised }),
        AcceptLoss::Yes => Ok(()),
    }
}

fn replay(
    log: &Log,
    inventory: &mut Inventory,
    start: snapshot::Position,
) -> Result<snapshot::Position, OpenError> {
    let mut end = start;
    let mut inconsistency = None;
    let read = log.read(start.seq, |row| {
        if row.events.is_empty() {
            inventory.skip_lost(row.last_seq);
        }
        for event in &row.events {
            if let Err(what) = inventory.check(event) {
                inconsistency = Some((event.seq, what));
                return false;
            }
            inventory.apply(event);
        }
        end = snapshot::Position { seq: row.last_seq, chain: row.chain };
        true
    });
    read.map_err(|error| open_error(log.path(), error))?;
    match inconsistency {
        None => Ok(end),
        Some((seq, what)) => {
            Err(OpenError::Damaged { path: log.path().to_path_buf(), seq, what: what.to_string() })
        }
    }
}

/// Holds the log against the beacon; returns the incarnation to go on with.
fn keep_promise(log: &Log, promise: Promise, accept_loss: AcceptLoss) -> Result<u64, OpenError> {
    let is_kept =
        log.chain_at(promise.seq).map_err(|error| open_error(log.path(), error))? == Some(promise.chain);
    if is_kept {
        return Ok(promise.incarnation);
    }
    let lost = log.lost(promise.seq).map_err(|error| open_error(log.path(), error))?;
    if lost.is_some_and(|loss| (loss.beacon_seq, loss.beacon_chain) == (promise.seq, promise.chain)) {
        // This very promise was given up, and the process ended before the beacon said so.
        return Ok(promise.incarnation.saturating_add(1));
    }
    if log.last_seq() >= promise.seq {
        return Err(OpenError::Damaged {
            path: log.path().to_path_buf(),
            seq: promise.seq,
            what: "the beacon saw another history up to there; log and beacon are not from the same folder"
                .to_owned(),
        });
    }
    reaches(log, promise.seq, accept_loss)?;
    Ok(promise.incarnation.saturating_add(1))
}

pub(crate) fn open_error(path: &Path, error: LogError) -> OpenError {
    match error {
        LogError::Sqlite { operation, source } => {
            OpenError::Sqlite { operation, path: path.to_path_buf(), source }
        }
        LogError::Damaged { seq, what } => OpenError::Damaged { path: path.to_path_buf(), seq, what },
    }
}
