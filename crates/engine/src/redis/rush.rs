//! Selling comes first: while this node sells, its workers take less of a small machine, and the ledger catches up when the
//! rush is over, or when no more may be granted until it has.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// In a rush a worker rests this many times as long as it worked.
const REST_PER_WORK: u32 = 3;
/// The longest rest, so that who waits for the ledger is not forgotten.
const REST_MAX: Duration = Duration::from_millis(100);
/// Without a grant for this long the rush is over.
const QUIET: Duration = Duration::from_millis(10);

/// When this node last granted units.
#[derive(Debug, Default)]
pub(crate) struct Rush {
    granted_at: Mutex<Option<Instant>>,
}

impl Rush {
    /// Units were granted now.
    pub(crate) fn granted(&self) {
        *self.granted_at.lock() = Some(Instant::now());
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
        let since_granted = now.saturating_duration_since((*self.granted_at.lock())?);
        let left = rest.saturating_sub(now.saturating_duration_since(begun));
        (since_granted < QUIET && !left.is_zero()).then(|| left.min(QUIET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_rests_while_units_are_granted_and_no_longer() {
        let (rush, begun) = (Rush::default(), Instant::now());
        let rest = Duration::from_millis(50);
        assert_eq!(rush.left_of(rest, begun, begun), None, "nothing was granted");
        let granted = |after_ms| *rush.granted_at.lock() = Some(begun + Duration::from_millis(after_ms));
        let left_at = |ms| rush.left_of(rest, begun, begun + Duration::from_millis(ms));
        granted(0);
        assert_eq!(left_at(0), Some(QUIET));
        assert_eq!(left_at(10), None, "the rush is over");
        granted(44);
        assert_eq!(left_at(45), Some(Duration::from_millis(5)));
        assert_eq!(left_at(50), None, "it has rested");
    }
}
