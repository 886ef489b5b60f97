//! How far delivery is, as this node sees it.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use yoink_core::{OrderId, Timestamp};

use super::Node;
use crate::delivery::{DeliveryStatus, DurationHistogram};
use crate::figures::Histogram;
use crate::postgres::{Delivered, PostgresError, Retried};

/// The grants of one product that wait for the ledger.
#[derive(Clone, Copy, Debug, Default)]
struct Backlog {
    granted: u64,
    settled: u64,
    oldest_at: Option<Timestamp>,
}

/// How often this node has paused or resumed delivery itself. What was read in the ledger before the last time is out
/// of date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switched(u64);

/// What is noted of delivery.
pub(super) struct Progress {
    /// Whoever writes whether delivery is paused holds it.
    switched: Mutex<Switched>,
    /// By product.
    backlogs: Mutex<HashMap<i32, Backlog>>,
    status: Mutex<DeliveryStatus>,
    ledger_write: Histogram,
}

impl Progress {
    pub(super) fn new(running: bool) -> Self {
        Self {
            switched: Mutex::default(),
            backlogs: Mutex::default(),
            status: Mutex::new(DeliveryStatus { running, ..DeliveryStatus::default() }),
            ledger_write: Histogram::new(&DurationHistogram::BOUNDS_SECONDS),
        }
    }
}

impl Node {
    pub(crate) fn delivery_is_paused(&self) -> bool {
        self.delivery_paused.load(Ordering::Acquire)
    }

    /// This node has paused or resumed delivery in the ledger.
    pub(crate) fn switch_delivery(&self, paused: bool) {
        let mut switched = self.progress.switched.lock();
        switched.0 = switched.0.wrapping_add(1);
        self.set_delivery_paused(paused);
    }

    /// To be asked before the ledger is, for [`Self::saw_delivery_paused`].
    pub(crate) fn delivery_switched(&self) -> Switched {
        *self.progress.switched.lock()
    }

    /// What a look at the ledger found that began after `switched`; nothing if this node has paused or resumed delivery
    /// since.
    pub(crate) fn saw_delivery_paused(&self, switched: Switched, paused: bool) {
        let now = self.progress.switched.lock();
        if *now == switched {
            self.set_delivery_paused(paused);
        }
    }

    fn set_delivery_paused(&self, paused: bool) {
        self.delivery_paused.store(paused, Ordering::Release);
        self.progress.status.lock().paused = paused;
    }

    pub(crate) fn delivery_status(&self) -> DeliveryStatus {
        let mut status = self.progress.status.lock().clone();
        status.write_duration = DurationHistogram::of(&self.progress.ledger_write);
        status
    }

    /// How many grants of a product were made and settled, and since when the oldest of the others waits.
    pub(crate) fn note_backlog(
        &self,
        product: i32,
        granted: u64,
        settled: u64,
        oldest_at: Option<Timestamp>,
    ) {
        let mut backlogs = self.progress.backlogs.lock();
        backlogs.insert(product, Backlog { granted, settled, oldest_at });
        let oldest_at = backlogs.values().filter_map(|backlog| backlog.oldest_at).min();
        let position = backlogs.values().map(|backlog| backlog.settled).sum();
        drop(backlogs);
        let mut status = self.progress.status.lock();
        status.position = position;
        status.oldest_undelivered_at = oldest_at;
    }

    /// Forgets products that the ledger does not have any more.
    pub(crate) fn forget_backlogs(&self, is_gone: impl Fn(i32) -> bool) {
        self.progress.backlogs.lock().retain(|product, _| !is_gone(*product));
    }

    /// Grants made in the epochs that are on sale.
    pub(crate) fn granted(&self) -> u64 {
        self.progress.backlogs.lock().values().map(|backlog| backlog.granted).sum()
    }

    pub(crate) fn note_delivered(&self, took: Duration, delivered: &[(OrderId, Delivered)]) {
        self.progress.ledger_write.observe(took.as_secs_f64());
        let confirmed = delivered
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Delivered::Confirmed | Delivered::Collided))
            .count();
        let mut status = self.progress.status.lock();
        status.confirmed_total = status.confirmed_total.saturating_add(confirmed as u64);
        status.last_error = None;
    }

    pub(crate) fn note_retried(&self, tried: Retried) {
        let mut status = self.progress.status.lock();
        match tried {
            Retried::Confirmed => status.confirmed_total += 1,
            Retried::Parked => status.failed_total += 1,
            Retried::Released => {
                status.failed_total += 1;
                status.rolled_back_total += 1;
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
            Retried::Retrying | Retried::Settled => {}
        }
    }

    pub(crate) fn note_refused(&self, retrying: u64, dead_letters_open: u64) {
        let mut status = self.progress.status.lock();
        status.retrying = retrying;
        status.dead_letters_open = dead_letters_open;
    }

    pub(crate) fn note_delivery_error(&self, error: &dyn Display) {
        let text = error.to_string();
        let mut status = self.progress.status.lock();
        // Once per trouble: a worker tries again several times a second.
        if status.last_error.as_ref() != Some(&text) {
            tracing::warn!(%error, "delivery waits; every accepted order is kept until it goes on");
        }
        status.last_error = Some(text);
    }

    pub(crate) fn note_ledger(&self, error: Option<&PostgresError>) {
        if let Some(error) = error {
            tracing::debug!(%error, "the ledger could not be asked");
        }
        let has_nothing_to_do = self.granted() == self.progress.status.lock().position;
        let mut status = self.progress.status.lock();
        match error {
            Some(error) => status.last_error = Some(error.to_string()),
            // While something waits, only what is delivered shows that the trouble is over.
            None if self.options.workers == 0 || has_nothing_to_do => status.last_error = None,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::delivery::DeliveryOptions;
    use crate::node::{Node, NodeOptions};
    use crate::postgres::SettingsCheck;

    #[test]
    fn what_was_read_before_delivery_was_paused_or_resumed_here_undoes_neither() {
        let options =
            NodeOptions { settings: SettingsCheck::Strict, workers: 1, delivery: DeliveryOptions::default() };
        let node = Node::new(options, b"secret");
        let is_paused = || (node.delivery_is_paused(), node.delivery_status().paused);
        for paused in [true, false, true] {
            // The look that finds the opposite is under way.
            let before = node.delivery_switched();
            node.switch_delivery(paused);
            node.saw_delivery_paused(before, !paused);
            assert_eq!(is_paused(), (paused, paused), "it was read before and told later");
        }
        // Another node has resumed it.
        node.saw_delivery_paused(node.delivery_switched(), false);
        assert_eq!(is_paused(), (false, false));
    }
}
