//! One clock for all processes of a run.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds on the machine's monotonic clock: the same in every process, so that what the shop and the lab write
/// down can be put into one order.
#[must_use]
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward() {
        let first = now_us();
        let second = now_us();
        assert!(first > 0 && second >= first);
    }
}
