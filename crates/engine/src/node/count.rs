//! Counting what became of purchases.

use std::sync::atomic::Ordering;

use super::Node;
use crate::CallError;
use crate::views::{Purchased, Replayed};

impl Node {
    /// Counts what a purchase was answered.
    pub(crate) fn count_purchase(&self, result: &Result<Purchased, CallError>) {
        let counters = &self.counters;
        let counter = match result {
            Ok(purchased) if purchased.replayed == Replayed::Yes => &counters.replayed,
            Ok(_) => &counters.accepted,
            Err(CallError::Refused(rejection)) => return counters.reject(rejection),
            Err(CallError::TooOften { .. }) => &counters.too_often,
            Err(CallError::Overloaded) => &counters.overloaded,
            Err(CallError::Expired) => &counters.expired,
            Err(CallError::StorageFull) => &counters.storage_full,
            Err(CallError::Rebuilding) => &counters.rebuilding,
            Err(CallError::UnsafeSettings) => &counters.unsafe_settings,
            Err(CallError::Unreachable) => &counters.unreachable,
            Err(CallError::Closing) => &counters.closing,
            Err(CallError::OutcomeUnknown) => &counters.outcome_unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use yoink_core::Rejection;

    use super::*;
    use crate::RateLimit;
    use crate::node::NodeOptions;
    use crate::postgres::SettingsCheck;

    #[test]
    fn each_answer_is_counted_as_what_it_is() {
        let options =
            NodeOptions { settings: SettingsCheck::Strict, workers: 0, delivery: Default::default() };
        let node = Node::new(options, b"secret");
        let times = |error: CallError, times: usize| {
            (0..times).for_each(|_| node.count_purchase(&Err(error.clone())));
        };
        times(CallError::Overloaded, 1);
        times(CallError::Expired, 2);
        times(CallError::StorageFull, 3);
        times(CallError::Rebuilding, 4);
        times(CallError::UnsafeSettings, 5);
        times(CallError::Unreachable, 6);
        times(CallError::Closing, 7);
        times(CallError::OutcomeUnknown, 8);
        times(Rejection::SalePaused.into(), 9);
        let limit = RateLimit { requests: 1, window_s: 60 };
        times(CallError::TooOften { limit, wait: Duration::from_secs(1) }, 10);
        let figures = node.counters.figures();
        let turned_away = [
            figures.overloaded,
            figures.expired,
            figures.storage_full,
            figures.rebuilding,
            figures.unsafe_settings,
            figures.unreachable,
            figures.closing,
            figures.outcome_unknown,
            figures.too_often,
        ];
        assert_eq!(turned_away, [1, 2, 3, 4, 5, 6, 7, 8, 10]);
        assert_eq!(figures.rejected.iter().map(|(_, count)| count).sum::<u64>(), 9);
        assert_eq!((figures.accepted, figures.replayed), (0, 0));
    }
}
