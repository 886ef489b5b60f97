//! Waiting that grows.

use std::time::Duration;

/// The first wait after a failure.
const FIRST: Duration = Duration::from_millis(50);

/// Waits that double up to a longest one, each a little different from those of others.
#[derive(Debug)]
pub(crate) struct Patience {
    next: Duration,
    longest: Duration,
}

impl Patience {
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: FIRST, longest }
    }

    /// How long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.longest);
        wait.mul_f64(rand::random_range(0.5..1.0))
    }

    /// It went well: the next wait is a short one.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}
