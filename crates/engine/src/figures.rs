//! What the engine counts about itself. Plain atomics and arrays: counting must cost nothing next to selling.

use std::sync::atomic::{AtomicU64, Ordering};

use yoink_core::{ProductId, Rejection};

/// Upper bounds of commit and ledger write durations, in seconds.
pub const DURATION_BOUNDS_SECONDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.003_2, 0.006_4, 0.012_8, 0.025, 0.05, 0.1, 0.25,
    1.0,
];

/// Upper bounds of events per commit.
pub const BATCH_BOUNDS_EVENTS: [f64; 12] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0];

/// A histogram as exported: how many observations fell into each bucket (not cumulative; the last one is above every
/// bound), and their sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramFigures {
    /// Upper bounds, ascending.
    pub bounds: Vec<f64>,
    /// One more than there are bounds.
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: f64,
}

/// A histogram that any thread may observe into.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    counts: Vec<AtomicU64>,
    /// In millionths of the unit.
    sum_millionths: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        let counts =
            std::iter::repeat_with(AtomicU64::default).take(bounds.len().saturating_add(1)).collect();
        Self { bounds, counts, sum_millionths: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| value > *bound);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_millionths.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    pub(crate) fn figures(&self) -> HistogramFigures {
        HistogramFigures {
            bounds: self.bounds.to_vec(),
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum_millionths.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

/// Counted by the engine and its writer.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// By [`Rejection::rank`]; purchases only.
    rejected: [AtomicU64; Rejection::NAMES.len()],
    pub(crate) too_often: AtomicU64,
    pub(crate) overloaded: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) storage_full: AtomicU64,
    pub(crate) rebuilding: AtomicU64,
    pub(crate) unsafe_settings: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) closing: AtomicU64,
    pub(crate) outcome_unknown: AtomicU64,
    pub(crate) commit_seconds: Histogram,
    pub(crate) batch_events: Histogram,
    pub(crate) checkpoints: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejected: std::array::from_fn(|_| AtomicU64::new(0)),
            too_often: AtomicU64::new(0),
            overloaded: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            storage_full: AtomicU64::new(0),
            rebuilding: AtomicU64::new(0),
            unsafe_settings: AtomicU64::new(0),
            unreachable: AtomicU64::new(0),
            closing: AtomicU64::new(0),
            outcome_unknown: AtomicU64::new(0),
            commit_seconds: Histogram::new(&DURATION_BOUNDS_SECONDS),
            batch_events: Histogram::new(&BATCH_BOUNDS_EVENTS),
            checkpoints: AtomicU64::new(0),
        }
    }

    pub(crate) fn reject(&self, rejection: &Rejection) {
        if let Some(count) = self.rejected.get(rejection.rank()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What every engine counts; the rest is the engine's to fill in.
    pub(crate) fn figures(&self) -> EngineFigures {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EngineFigures {
            accepted: count(&self.accepted),
            replayed: count(&self.replayed),
            cancelled: count(&self.cancelled),
            failed: count(&self.failed),
            rejected: self.rejections(),
            too_often: count(&self.too_often),
            overloaded: count(&self.overloaded),
            expired: count(&self.expired),
            storage_full: count(&self.storage_full),
            rebuilding: count(&self.rebuilding),
            unsafe_settings: count(&self.unsafe_settings),
            unreachable: count(&self.unreachable),
            closing: count(&self.closing),
            outcome_unknown: count(&self.outcome_unknown),
            commit_seconds: self.commit_seconds.figures(),
            batch_events: self.batch_events.figures(),
            checkpoints: count(&self.checkpoints),
            ..EngineFigures::default()
        }
    }

    fn rejections(&self) -> Vec<(&'static str, u64)> {
        let counts = self.rejected.iter().map(|count| count.load(Ordering::Relaxed));
        Rejection::NAMES.into_iter().zip(counts).collect()
    }
}

/// What the engine counted since it was opened, for metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineFigures {
    /// Purchases accepted.
    pub accepted: u64,
    /// Purchases that found their order accepted before.
    pub replayed: u64,
    /// Orders cancelled.
    pub cancelled: u64,
    /// Orders failed: units given back for a dead letter.
    pub failed: u64,
    /// Purchases refused, by name; every name is there.
    pub rejected: Vec<(&'static str, u64)>,
    /// Calls turned away because their customer was granted as much as he may be for now.
    pub too_often: u64,
    /// Calls turned away because the inbox was full.
    pub overloaded: u64,
    /// Calls dropped undecided because they had waited too long.
    pub expired: u64,
    /// Calls turned away because the disk was almost full.
    pub storage_full: u64,
    /// Calls turned away because a product was being filled into Redis anew.
    pub rebuilding: u64,
    /// Calls turned away because the settings of a server could lose orders.
    pub unsafe_settings: u64,
    /// Calls turned away because a server that is needed could not be reached.
    pub unreachable: u64,
    /// Calls turned away because the engine was closing.
    pub closing: u64,
    /// Calls whose outcome nobody knows.
    pub outcome_unknown: u64,
    /// Duration of commits, in seconds.
    pub commit_seconds: HistogramFigures,
    /// Events per commit.
    pub batch_events: HistogramFigures,
    /// Calls waiting for the writer.
    pub inbox_tickets: u64,
    /// How often the wall clock jumped.
    pub clock_steps: u64,
    /// How often the write-ahead file was folded back.
    pub checkpoints: u64,
    /// `stocked - (available + held + sold + withheld)` by product; must be 0.
    pub conservation_error_units: Vec<(ProductId, i64)>,
}
