//! When what failed is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use yoink_core::{Seq, Timestamp};

use crate::ledger::Due;

/// How long to wait after so many failures in a row: `base`, doubled for each further one, at most `max`. The later
/// half of it is left to chance, so that those who failed together do not all come back together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub base: Duration,
    pub max: Duration,
}

impl Backoff {
    /// The wait after the `failures`-th failure in a row, from 1.
    pub fn delay(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.base.saturating_mul(1 << doublings).min(self.max);
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// The orders that will be tried again, by when. Kept beside the ledger's table on the monotonic clock, so that a step
/// of the wall clock neither forgets an order nor tries it all at once.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    by_time: BTreeSet<(Instant, Seq)>,
    by_seq: BTreeMap<Seq, (Instant, Timestamp)>,
}

impl Schedule {
    /// What a ledger that was just opened says, at `now` on both clocks. Nothing waits longer than `wait_max`.
    pub fn load(dues: &[Due], now: (Instant, Timestamp), wait_max: Duration) -> Self {
        let mut schedule = Self::default();
        for due in dues {
            schedule.put(*due, now, wait_max);
        }
        schedule
    }

    /// Puts an order on the schedule, or moves it.
    pub fn put(&mut self, due: Due, (instant, now): (Instant, Timestamp), wait_max: Duration) {
        let wait_us = u64::try_from(due.next_at.0.saturating_sub(now.0)).unwrap_or(0);
        let at = instant.checked_add(Duration::from_micros(wait_us).min(wait_max)).unwrap_or(instant);
        self.remove(due.seq);
        self.by_time.insert((at, due.seq));
        self.by_seq.insert(due.seq, (at, due.accepted_at));
    }

    /// Takes an order off the schedule.
    pub fn remove(&mut self, seq: Seq) {
        if let Some((at, _)) = self.by_seq.remove(&seq) {
            self.by_time.remove(&(at, seq));
        }
    }

    /// Whether an order is on the schedule.
    pub fn contains(&self, seq: Seq) -> bool {
        self.by_seq.contains_key(&seq)
    }

    /// Up to `limit` orders whose time has come.
    pub fn due(&self, now: Instant, limit: usize) -> Vec<Seq> {
        self.by_time.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(_, seq)| *seq).collect()
    }

    /// When the next one's time comes.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_seq.len()
    }

    /// When the oldest order among them was accepted.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.by_seq.first_key_value().map(|(_, (_, accepted_at))| *accepted_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_is_never_less_than_half() {
        let backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(5) };
        for (failures, whole_ms) in [(1, 100), (2, 200), (3, 400), (6, 3_200), (7, 5_000), (u32::MAX, 5_000)]
        {
            let whole = Duration::from_millis(whole_ms);
            for _ in 0..100 {
                let delay = backoff.delay(failures);
                assert!(delay >= whole / 2 && delay <= whole, "{delay:?} after {failures} failures");
            }
        }
    }

    #[test]
    fn nothing_waits_longer_than_the_limit_whatever_the_wall_clock_did() {
        let now = Instant::now();
        let due = |seq, next_at| Due { seq, accepted_at: Timestamp(0), next_at: Timestamp(next_at) };
        let hour_us = 3_600_000_000;
        let wait_max = Duration::from_secs(5);
        let schedule = Schedule::load(&[due(1, hour_us), due(2, -hour_us)], (now, Timestamp(0)), wait_max);
        assert_eq!(schedule.due(now, 10), [2]);
        assert_eq!(schedule.due(now + wait_max, 10), [2, 1]);
    }

    #[test]
    fn an_order_that_is_moved_is_due_once() {
        let now = Instant::now();
        let wait_max = Duration::from_secs(5);
        let mut schedule = Schedule::default();
        for next_at in [0, 1_000_000] {
            let due = Due { seq: 7, accepted_at: Timestamp(3), next_at: Timestamp(next_at) };
            schedule.put(due, (now, Timestamp(0)), wait_max);
        }
        assert!(schedule.due(now, 10).is_empty());
        assert_eq!(schedule.due(now + wait_max, 10), [7]);
        assert_eq!(schedule.oldest(), Some(Timestamp(3)));
        schedule.remove(7);
        assert_eq!((schedule.len(), schedule.next()), (0, None));
    }
}
