//! Selling comes first: while this node has purchases decided, its workers take less of a small machine, and the ledger
//! catches up when the rush is over.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// In a rush a worker rests this many times as long as it worked.
const REST_PER_WORK: u32 = 3;
/// The longest rest, so that who waits for the ledger is not forgotten.
const REST_MAX: Duration = Duration::from_millis(100);
/// Without an answered purchase for this long the rush is over.
const QUIET: Duration = Duration::from_millis(10);

/// When this node last had purchases decided.
#[derive(Debug, Default)]
pub(crate) struct Rush {
    decided_at: Mutex<Option<Instant>>,
}

impl Rush {
    /// Purchases were decided now.
    pub(crate) fn decided(&self) {
        *self.decided_at.lock() = Some(Instant::now());
    }

    /// Lets a worker rest that has worked for so long.
    pub(crate) async fn rest_after(&self, work: Duration) {
        let rest = work.saturating_mul(REST_PER_WORK).min(REST_MAX);
        let begun = Instant::now();
        while let Some(turn) = self.left_of(rest, begun, Instant::now()) {
            tokio::time::sleep(turn).await;
        }
    }

    /// How long to rest before looking again whether the rush is over. None: the rest has ended, or the rush has.
    fn left_of(&self, rest: Duration, begun: Instant, now: Instant) -> Option<Duration> {
        let since_decided = now.saturating_duration_since((*self.decided_at.lock())?);
        let left = rest.saturating_sub(now.saturating_duration_since(begun));
        (since_decided < QUIET && !left.is_zero()).then(|| left.min(QUIET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_rests_while_purchases_are_decided_and_no_longer() {
        let (rush, begun) = (Rush::default(), Instant::now());
        let rest = Duration::from_millis(50);
        assert_eq!(rush.left_of(rest, begun, begun), None, "nothing was decided");
        let decided = |after_ms| *rush.decided_at.lock() = Some(begun + Duration::from_millis(after_ms));
        let left_at = |ms| rush.left_of(rest, begun, begun + Duration::from_millis(ms));
        decided(0);
        assert_eq!(left_at(0), Some(QUIET));
        assert_eq!(left_at(10), None, "the rush is over");
        decided(44);
        assert_eq!(left_at(45), Some(Duration::from_millis(5)));
        assert_eq!(left_at(50), None, "it has rested");
    }
}
