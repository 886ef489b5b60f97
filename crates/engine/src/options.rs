//! How to open an engine.

use std::path::PathBuf;
use std::time::Duration;

use crate::delivery::DeliveryOptions;
use crate::embedded::beacon::BeaconFile;
use crate::embedded::recovery::AcceptLoss;
use crate::{Durability, limits};

/// How to open an engine.
#[derive(Debug)]
pub struct Options {
    /// The data folder; made, readable by its owner only, if it is not there.
    pub data: PathBuf,
    /// What an answer survives.
    pub durability: Durability,
    /// Whether to go on where the log ends before what was promised.
    pub accept_loss: AcceptLoss,
    /// Calls that may wait for the writer.
    pub inbox_tickets_max: usize,
    /// Below this much free space selling stops, in bytes.
    pub free_bytes_min: u64,
    /// How orders are carried to the ledger.
    pub delivery: DeliveryOptions,
    /// How often the ledger is counted and held against memory, while nobody is buying.
    pub watch_every: Duration,
    /// The file layer under the log; `None` is the operating system's. For tests that take the power away.
    pub log_vfs: Option<String>,
    /// The file of the beacon; `None` is the one in the data folder. For the same tests.
    pub beacon: Option<Box<dyn BeaconFile>>,
}

impl Options {
    /// The defaults, for this data folder.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            durability: Durability::default(),
            accept_loss: AcceptLoss::default(),
            inbox_tickets_max: limits::INBOX_TICKETS_MAX,
            free_bytes_min: limits::FREE_BYTES_MIN,
            delivery: DeliveryOptions::default(),
            watch_every: limits::WATCH_EVERY,
            log_vfs: None,
            beacon: None,
        }
    }
}
