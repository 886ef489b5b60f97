//! Latency and outcomes over time, in a bounded amount of memory.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Beyond this many intervals they are merged in pairs, so that an hour takes no more memory than ten minutes.
const INTERVALS_MAX: usize = 600;

/// A histogram of microseconds with three significant digits; grows as needed.
#[expect(clippy::expect_used, reason = "three digits is a constant that the library accepts")]
pub(crate) fn histogram() -> Histogram<u32> {
    Histogram::new(3).expect("3 significant digits are within the allowed 0 to 5")
}

/// What ended within one stretch of time.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Latencies in microseconds.
    pub latency_us: Histogram<u32>,
    /// Purchases accepted.
    pub accepted: u64,
    /// Purchases refused.
    pub refused: u64,
    /// Purchases with neither answer.
    pub errors: u64,
}

impl Interval {
    fn new() -> Interval {
        Interval { latency_us: histogram(), accepted: 0, refused: 0, errors: 0 }
    }

    fn add(&mut self, other: &Interval) {
        add(&mut self.latency_us, &other.latency_us);
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.errors += other.errors;
    }
}

/// Records a time. A histogram that grows by itself takes any, which its saturating methods would not let it do.
pub(crate) fn record(histogram: &mut Histogram<u32>, us: u64) {
    /// Nothing here lasts longer, and the memory that a histogram takes grows with its largest value.
    const DAY_US: u64 = 86_400_000_000;
    let recorded = histogram.record(us.min(DAY_US));
    debug_assert!(recorded.is_ok(), "an auto-resizing histogram takes every value");
}

/// Adds a histogram to another. Both grow by themselves, so that cannot fail.
pub(crate) fn add(to: &mut Histogram<u32>, from: &Histogram<u32>) {
    let added = to.add(from);
    debug_assert!(added.is_ok(), "an auto-resizing histogram takes every value");
}

/// Intervals of equal length from the storm's start.
#[derive(Clone, Debug)]
pub struct Timeline {
    interval_s: u64,
    intervals: Vec<Interval>,
}

impl Timeline {
    /// Empty, with intervals of one second.
    pub(crate) fn new() -> Timeline {
        Timeline { interval_s: 1, intervals: Vec::new() }
    }

    /// Length of an interval in seconds: 1, or a power of two for storms of more than ten minutes.
    #[must_use]
    pub fn interval_s(&self) -> u64 {
        self.interval_s
    }

    /// The intervals, the first one beginning at the storm's start.
    #[must_use]
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// The interval that `at` falls into.
    pub(crate) fn at(&mut self, at: Duration) -> &mut Interval {
        while at.as_secs() / self.interval_s >= INTERVALS_MAX as u64 {
            self.double();
        }
        let index = (at.as_secs() / self.interval_s) as usize;
        if index >= self.intervals.len() {
            self.intervals.resize_with(index + 1, Interval::new);
        }
        #[expect(clippy::indexing_slicing, reason = "the line above makes the index exist")]
        &mut self.intervals[index]
    }

    /// Everything that `other` saw happened here too.
    pub(crate) fn merge(&mut self, mut other: Timeline) {
        while self.interval_s < other.interval_s {
            self.double();
        }
        while other.interval_s < self.interval_s {
            other.double();
        }
        if self.intervals.len() < other.intervals.len() {
            self.intervals.resize_with(other.intervals.len(), Interval::new);
        }
        for (mine, theirs) in self.intervals.iter_mut().zip(&other.intervals) {
            mine.add(theirs);
        }
    }

    /// All latencies.
    pub(crate) fn total(&self) -> Histogram<u32> {
        let mut total = histogram();
        for interval in &self.intervals {
            add(&mut total, &interval.latency_us);
        }
        total
    }

    fn double(&mut self) {
        self.interval_s *= 2;
        let mut merged = Vec::with_capacity(self.intervals.len().div_ceil(2));
        let mut intervals = std::mem::take(&mut self.intervals).into_iter();
        while let Some(mut first) = intervals.next() {
            if let Some(second) = intervals.next() {
                first.add(&second);
            }
            merged.push(first);
        }
        self.intervals = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_storm_keeps_every_sample_in_wider_intervals() {
        let mut timeline = Timeline::new();
        for second in 0..5_000_u64 {
            record(&mut timeline.at(Duration::from_secs(second)).latency_us, second + 1);
        }
        assert_eq!(timeline.interval_s(), 16);
        assert!(timeline.intervals().len() <= INTERVALS_MAX);
        assert_eq!((timeline.total().len(), timeline.total().max()), (5_000, 5_003));
        let mut short = Timeline::new();
        short.at(Duration::from_secs(3)).accepted = 7;
        timeline.merge(short.clone());
        short.merge(timeline);
        assert_eq!(short.intervals()[0].accepted, 14);
        assert_eq!(short.total().len(), 5_000);
    }
}
