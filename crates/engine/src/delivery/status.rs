//! What delivery lets others see without asking its thread.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use yoink_core::{Seq, Timestamp};

use crate::figures::{Histogram, HistogramFigures};

/// Where delivery is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeliveryStatus {
    /// Whether its thread runs.
    pub running: bool,
    /// Why it runs no longer; `None` while it runs.
    pub ended: Option<DeliveryEnd>,
    /// Whether an operator paused it.
    pub paused: bool,
    /// The last event whose effect is in the ledger.
    pub position: Seq,
    /// Orders that the ledger refused and that will be tried again.
    pub retrying: u64,
    /// Dead letters that are not settled: parked, or their units on their way back.
    pub dead_letters_open: u64,
    /// Why the ledger cannot be written just now; `None` while it can.
    pub last_error: Option<String>,
    /// When the oldest order that delivery knows of and that is not in the ledger was accepted; while delivery cannot
    /// work, the oldest event. Dead letters do not count: they wait for a person.
    pub oldest_undelivered_at: Option<Timestamp>,
    /// Orders that the ledger took since this process started. Those of a COMMIT that was done although it reported an
    /// error are not counted; [`crate::ledger::LedgerCounts`] counts rows.
    pub confirmed_total: u64,
    /// Orders that became dead letters since this process started.
    pub failed_total: u64,
    /// Orders whose units were given back since this process started.
    pub rolled_back_total: u64,
    /// Orders whose units could not be given back, and will be after the next start.
    pub rollback_failed_total: u64,
    /// How long transactions of the ledger took, COMMIT included, those that failed too.
    pub write_duration: DurationHistogram,
}

/// Why the delivery thread runs no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryEnd {
    /// It was told to stop, or nobody holds its handle any more.
    Asked,
    /// The engine, where it gets its events from, closed or failed, and nobody had told it to stop: nothing is carried
    /// to the ledger until the next start.
    SourceClosed,
    /// A bug: the thread panicked. Nothing is carried to the ledger until the next start.
    Panicked,
}

/// Durations, counted by size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DurationHistogram {
    /// How many were at most [`Self::BOUNDS_SECONDS`] of the same place and more than the bound before; the last
    /// counts those above every bound.
    pub counts: [u64; Self::BOUNDS_SECONDS.len() + 1],
    /// Their sum, in seconds.
    pub sum_seconds: f64,
}

impl DurationHistogram {
    /// The upper bounds, in seconds.
    pub const BOUNDS_SECONDS: [f64; 14] =
        [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

    pub(crate) fn of(recorded: &Histogram) -> Self {
        let HistogramFigures { counts, sum, .. } = recorded.figures();
        let mut histogram = Self { sum_seconds: sum, ..Self::default() };
        histogram.counts.iter_mut().zip(counts).for_each(|(to, count)| *to = count);
        histogram
    }
}

/// Says that the thread runs, until it is dropped, by a panic too.
pub(super) struct Running {
    shared: Arc<Shared>,
    end: DeliveryEnd,
}

impl Running {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, end: DeliveryEnd::Panicked }
    }

    /// It runs no longer, and this is why.
    pub fn end(mut self, end: DeliveryEnd) {
        self.end = end;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let end = self.end;
        self.shared.update(|status| {
            status.running = false;
            status.ended = Some(end);
        });
    }
}

/// What the delivery thread and its handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    position: watch::Sender<Seq>,
    undelivered: Undelivered,
    status: Mutex<DeliveryStatus>,
    write_duration: Histogram,
}

/// Live orders at or before the position that the ledger does not have.
#[derive(Debug, Default)]
struct Undelivered {
    /// Lets the ordinary case, none, be seen without taking the lock.
    count: AtomicUsize,
    seqs: RwLock<HashSet<Seq>>,
}

impl Shared {
    pub fn new() -> Self {
        Self {
            position: watch::Sender::new(0),
            undelivered: Undelivered::default(),
            status: Mutex::new(DeliveryStatus { running: true, ..DeliveryStatus::default() }),
            write_duration: Histogram::new(&DurationHistogram::BOUNDS_SECONDS),
        }
    }

    pub fn watch(&self) -> watch::Receiver<Seq> {
        self.position.subscribe()
    }

    pub fn position(&self) -> Seq {
        *self.position.borrow()
    }

    /// Does the ledger have the order that was accepted by event `seq`?
    pub fn is_confirmed(&self, seq: Seq) -> bool {
        // IMPORTANT: the position is read first. An order joins the undelivered before the position passes it, so the
        // other way round an order could look confirmed that is not.
        self.position() >= seq && !self.undelivered.contains(seq)
    }

    pub fn status(&self) -> DeliveryStatus {
        let mut status = self.status.lock().clone();
        status.position = self.position();
        status.write_duration = DurationHistogram::of(&self.write_duration);
        status
    }

    /// A transaction of the ledger took this long.
    pub fn note_write(&self, duration: Duration) {
        self.write_duration.observe(duration.as_secs_f64());
    }

    pub fn update(&self, change: impl FnOnce(&mut DeliveryStatus)) {
        change(&mut self.status.lock());
    }

    /// The ledger was read: it is at `position`, and lacks exactly these.
    pub fn load(&self, position: Seq, undelivered: impl IntoIterator<Item = Seq>) {
        self.undelivered.replace(undelivered.into_iter().collect());
        self.position.send_replace(position);
    }

    /// The ledger committed everything up to `position` except `refused`.
    pub fn advance(&self, position: Seq, refused: impl IntoIterator<Item = Seq>) {
        self.undelivered.change(|seqs| seqs.extend(refused));
        self.position.send_replace(position);
    }

    /// These are not undelivered any more: the ledger has them, or they are not live.
    pub fn settle(&self, settled: impl IntoIterator<Item = Seq>) {
        self.undelivered.change(|seqs| {
            for seq in settled {
                seqs.remove(&seq);
            }
        });
        // Those who wait for one of these look again.
        self.position.send_modify(|_| ());
    }
}

impl Undelivered {
    fn contains(&self, seq: Seq) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.seqs.read().contains(&seq)
    }

    fn replace(&self, with: HashSet<Seq>) {
        self.change(|seqs| *seqs = with);
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<Seq>)) {
        let mut seqs = self.seqs.write();
        change(&mut seqs);
        self.count.store(seqs.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_confirmed_only_behind_the_position_and_only_if_the_ledger_has_it() {
        let shared = Shared::new();
        shared.advance(3, [2]);
        assert!(shared.is_confirmed(1));
        assert!(!shared.is_confirmed(2));
        assert!(!shared.is_confirmed(4));
        shared.settle([2]);
        assert!(shared.is_confirmed(2));
    }

    #[test]
    fn a_duration_is_counted_under_the_first_bound_that_holds_it() {
        let shared = Shared::new();
        shared.note_write(Duration::from_micros(500));
        shared.note_write(Duration::from_millis(1));
        shared.note_write(Duration::from_secs(60));
        let histogram = shared.status().write_duration;
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[14]), (1, 1, 1));
        assert!((histogram.sum_seconds - 60.0015).abs() < 1e-6);
    }
}
