//! What becomes of a loss that an operator accepts (decision 12).
//!
//! The log records it in a row of its own, and the numbers of the lost events, and of many beyond them, are not given
//! again: whoever had read further than the log now reaches (the event feed, an old ledger) finds nothing at those
//! numbers, and never another event. A ledger that has orders beyond the end of the log is set aside, not deleted: it
//! knows who the lost orders belong to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;
use yoink_core::Seq;

use super::beacon::Promise;
use super::log::Log;
use super::recovery::{AcceptLoss, Recovered, open_error};
use crate::delivery::{Delivery, DeliveryOptions, Prepared};
use crate::ledger::FILE_NAME;
use crate::{OpenError, limits};

/// Records a loss, if there is one, and returns the ledger to go on with. Without a loss it changes nothing.
///
/// # Errors
/// The ledger is ahead of the log and no loss is accepted: nothing was changed then. Or a file cannot be written.
pub(crate) fn settle(
    recovered: &mut Recovered,
    ledger: Prepared,
    options: &DeliveryOptions,
    accept_loss: AcceptLoss,
    folder: &Path,
) -> Result<Prepared, OpenError> {
    let position = ledger.position();
    let reached = reached(&recovered.log, position)?;
    if reached < position && accept_loss == AcceptLoss::No {
        return Err(OpenError::LedgerAhead { path: folder.join(FILE_NAME), ledger: position, log: reached });
    }
    let promised = recovered.promised.max(position);
    if recovered.log.last_seq() < promised {
        record(recovered, promised, folder)?;
    }
    if reached == position {
        return Ok(ledger);
    }
    // In one file, so that setting it aside is one step.
    ledger.fold_back_and_close()?;
    let aside = set_aside(folder, position)
        .map_err(|source| OpenError::DataFolder { path: folder.to_path_buf(), source })?;
    warn!(path = %aside.display(), log = reached, ledger = position, "the ledger knew more than the log and was set aside");
    Delivery::prepare(folder, options.clone())
}

/// `position`, if the log has that event; otherwise the last event before it that the log has.
fn reached(log: &Log, position: Seq) -> Result<Seq, OpenError> {
    let lost = log.lost(position).map_err(|error| open_error(log.path(), error))?;
    Ok(lost.map_or(position.min(log.last_seq()), |loss| loss.after))
}

fn record(recovered: &mut Recovered, promised: Seq, folder: &Path) -> Result<(), OpenError> {
    let Recovered { inventory, log, beacon, incarnation, promise, .. } = recovered;
    let found = log.last_seq();
    let to = promised.saturating_add(limits::LOSS_MARGIN_EVENTS);
    warn!(found, promised, next = to.saturating_add(1), "going on without events that were promised");
    // The log first: from then on the loss is known, whatever happens to the rest.
    let recorded = log.accept_loss(to, inventory.last_at(), (promise.seq, promise.chain));
    recorded.map_err(|error| open_error(log.path(), error))?;
    inventory.skip_lost(to);
    let path = folder.join("beacon");
    let kept = Promise { incarnation: *incarnation, seq: to, chain: log.chain() };
    beacon.write(kept).map_err(|source| OpenError::DataFolder { path, source })?;
    // One that saw lost events would be read in vain at every start.
    let _ = fs::remove_file(folder.join("snapshot"));
    Ok(())
}

/// Gives the ledger another name, and returns it.
fn set_aside(folder: &Path, position: Seq) -> io::Result<PathBuf> {
    let aside = folder.join(format!("ledger-until-{position}.db"));
    if aside.exists() {
        let taken = format!("{} is there already; move it away", aside.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, taken));
    }
    fs::rename(folder.join(FILE_NAME), &aside)?;
    super::folder::sync_parent(&aside)?;
    Ok(aside)
}
