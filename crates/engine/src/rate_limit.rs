//! How often a customer may buy.

/// `requests` at once, and then one more every `window_s / requests` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many.
    pub requests: u32,
    /// In how many seconds.
    pub window_s: u32,
}

impl RateLimit {
    /// The time after which one more is allowed, in microseconds, and how many are allowed at once. `None` if it limits
    /// nothing: one of its figures is 0, or there are more than one in a microsecond.
    pub(crate) fn interval_us(self) -> Option<(u64, u32)> {
        let interval_us = (u64::from(self.window_s) * 1_000_000).checked_div(u64::from(self.requests))?;
        (interval_us > 0).then_some((interval_us, self.requests))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_an_interval_and_a_number_at_once() {
        let interval = |requests, window_s| RateLimit { requests, window_s }.interval_us();
        assert_eq!(interval(2, 60), Some((30_000_000, 2)));
        assert_eq!(interval(7, 1), Some((142_857, 7)));
        assert_eq!(interval(u32::MAX, u32::MAX), Some((1_000_000, u32::MAX)));
        for limits_nothing in [(0, 60), (5, 0), (1_000_001, 1)] {
            assert_eq!(interval(limits_nothing.0, limits_nothing.1), None, "{limits_nothing:?}");
        }
    }
}
