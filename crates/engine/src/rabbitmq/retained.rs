//! What the broker has confirmed and no worker is known to have seen: kept, so that a broker which loses it loses no order
//! while this node is alive.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use yoink_core::{OrderId, Timestamp};

use crate::postgres::{Request, Sequences};

/// A message is passed over if one that was sent so much later was seen …
const SENT_LATER_BY: Duration = Duration::from_secs(2);
/// … and this long ago.
const SEEN_SINCE: Duration = Duration::from_secs(5);
/// A message is gone if the queue has been empty for so long, and it was sent before that.
const EMPTY_SINCE: Duration = Duration::from_secs(5);
/// A message that was queued again is left alone for so long.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A message that is kept.
#[derive(Debug)]
struct Kept {
    request: Request,
    /// When it was handed to the broker, the last time.
    sent_at: Instant,
    /// Before that it is not queued again.
    not_before: Instant,
    /// Somebody was told that the order is decided.
    is_decided: bool,
}

/// What one publisher keeps.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Every number that the broker ever confirmed.
    confirmed: Sequences,
    /// Those of them that workers have seen, as of the last report.
    seen: Sequences,
    kept: HashMap<i64, Kept>,
    by_order: HashMap<OrderId, i64>,
    /// What is kept by when it was sent; what was seen or sent again since is passed over.
    by_time: VecDeque<(Instant, i64)>,
    /// Up to where the queue was seen to be worked off: when it was noticed, and when what was seen was sent.
    progress: VecDeque<(Instant, Instant)>,
    /// Since when the queue has been empty at every look.
    empty_since: Option<Instant>,
    /// Since when every report got its answer.
    reporting_since: Option<Instant>,
}

/// How many numbers there are, and since when the oldest waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) confirmed: u64,
    pub(crate) seen: u64,
    pub(crate) oldest_at: Option<Timestamp>,
}

impl Retained {
    /// The broker has confirmed a message that was sent at `sent_at`, perhaps again.
    pub(crate) fn confirm(&self, request: Request, sent_at: Instant) {
        let mut state = self.state.lock();
        let number = request.sequence;
        state.confirmed.add(number);
        if state.seen.has(number) {
            return;
        }
        let not_before = state.kept.get(&number).map_or(sent_at, |kept| kept.not_before);
        let is_decided = state.kept.get(&number).is_some_and(|kept| kept.is_decided);
        state.by_order.insert(request.order, number);
        state.by_time.push_back((sent_at, number));
        state.kept.insert(number, Kept { request, sent_at, not_before, is_decided });
    }

    /// The request of an order that is kept.
    pub(crate) fn find(&self, order: OrderId) -> Option<Request> {
        self.state.lock().of_order(order).map(|kept| kept.request.clone())
    }

    /// As [`Self::find`], of an order that nobody was told is decided.
    pub(crate) fn find_undecided(&self, order: OrderId) -> Option<Request> {
        let state = self.state.lock();
        state.of_order(order).filter(|kept| !kept.is_decided).map(|kept| kept.request.clone())
    }

    /// Somebody is told that an order is decided: nobody is told any more that it is queued. If it is kept, it stays so
    /// until a report says that a worker has seen it.
    pub(crate) fn note_decided(&self, order: OrderId) {
        let mut state = self.state.lock();
        let Some(number) = state.by_order.get(&order).copied() else { return };
        if let Some(kept) = state.kept.get_mut(&number) {
            kept.is_decided = true;
        }
    }

    /// What to report: every number that was ever confirmed.
    pub(crate) fn confirmed(&self) -> Sequences {
        self.state.lock().confirmed.clone()
    }

    /// How many messages are kept.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().kept.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state.lock();
        let oldest = state.by_time.iter().find_map(|(_, number)| state.kept.get(number));
        Counts {
            confirmed: state.confirmed.count(),
            seen: state.confirmed.count().saturating_sub(state.kept.len() as u64),
            oldest_at: oldest.map(|kept| Timestamp(kept.request.accepted_at)),
        }
    }

    /// The ledger answered a report: workers have seen these.
    pub(crate) fn note_seen(&self, seen: Sequences, now: Instant) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut newest: Option<Instant> = None;
        for number in seen.without(&state.seen) {
            if let Some(kept) = state.kept.remove(&number) {
                newest = newest.max(Some(kept.sent_at));
                if state.by_order.get(&kept.request.order) == Some(&number) {
                    state.by_order.remove(&kept.request.order);
                }
            }
        }
        state.seen = seen;
        state.reporting_since.get_or_insert(now);
        let before = state.progress.back().map(|(_, sent_at)| *sent_at);
        if let Some(sent_at) = newest.filter(|sent_at| before.is_none_or(|before| before < *sent_at)) {
            state.progress.push_back((now, sent_at));
        }
        // The last one that is old enough says everything that those before it say.
        while state.progress.get(1).is_some_and(|(noticed_at, _)| is_past(*noticed_at, SEEN_SINCE, now)) {
            state.progress.pop_front();
        }
        while state.by_time.front().is_some_and(|(sent_at, number)| !state.is_current(*sent_at, *number)) {
            state.by_time.pop_front();
        }
    }

    /// The ledger could not be asked, or workers are paused: nobody sees anything meanwhile.
    pub(crate) fn note_standstill(&self) {
        let mut state = self.state.lock();
        (state.reporting_since, state.empty_since) = (None, None);
    }

    /// How many messages the queue has; `None` if the broker cannot be asked.
    pub(crate) fn note_queue(&self, ready: Option<u64>, now: Instant) {
        let mut state = self.state.lock();
        match ready {
            Some(0) => drop(state.empty_since.get_or_insert(now)),
            _ => state.empty_since = None,
        }
    }

    /// At most `requests_max` requests that the broker has lost, as far as can be told: they are to be queued again, and
    /// are not named again for a while.
    pub(crate) fn overdue(&self, now: Instant, requests_max: usize) -> Vec<Request> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.reporting_since.is_some_and(|since| is_past(since, SEEN_SINCE, now)) {
            return Vec::new();
        }
        let progress = state.progress.iter().filter(|(noticed_at, _)| is_past(*noticed_at, SEEN_SINCE, now));
        let worked_off = progress.map(|(_, sent_at)| *sent_at).next_back();
        let is_empty = state.empty_since.is_some_and(|since| is_past(since, EMPTY_SINCE, now));
        let mut found = Vec::new();
        let mut passed = Vec::new();
        while let Some((sent_at, number)) = state.by_time.front().copied() {
            let is_passed_over = worked_off.is_some_and(|until| is_past(sent_at, SENT_LATER_BY, until));
            let is_gone = is_empty && is_past(sent_at, EMPTY_SINCE, now);
            if found.len() >= requests_max || !(is_passed_over || is_gone) {
                break;
            }
            state.by_time.pop_front();
            if !state.is_current(sent_at, number) {
                continue;
            }
            passed.push((sent_at, number));
            if let Some(kept) = state.kept.get_mut(&number).filter(|kept| kept.not_before <= now) {
                kept.not_before = now.checked_add(AGAIN_AFTER).unwrap_or(now);
                found.push(kept.request.clone());
            }
        }
        // They stay at their place until they were sent again or seen.
        for place in passed.into_iter().rev() {
            state.by_time.push_front(place);
        }
        found
    }
}

impl State {
    fn of_order(&self, order: OrderId) -> Option<&Kept> {
        self.kept.get(self.by_order.get(&order)?)
    }

    /// Whether a place in time is the one at which the message is kept.
    fn is_current(&self, sent_at: Instant, number: i64) -> bool {
        self.kept.get(&number).is_some_and(|kept| kept.sent_at == sent_at)
    }
}

/// Whether at least `long` has passed from `at` to `now`.
fn is_past(at: Instant, long: Duration, now: Instant) -> bool {
    now.checked_duration_since(at).is_some_and(|passed| passed >= long)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn request(number: i64) -> Request {
        let mut order = [0; 16];
        order[..8].copy_from_slice(&number.to_be_bytes());
        Request {
            order: OrderId(order),
            customer: "ann".to_owned(),
            quantity: 1,
            price: 1,
            currency: "EUR".to_owned(),
            accepted_at: number,
            publisher: Uuid::nil(),
            sequence: number,
        }
    }

    fn sequences(numbers: impl IntoIterator<Item = i64>) -> Sequences {
        let mut sequences = Sequences::default();
        numbers.into_iter().for_each(|number| sequences.add(number));
        sequences
    }

    const NOTHING: [i64; 0] = [];

    fn numbers(requests: &[Request]) -> Vec<i64> {
        requests.iter().map(|request| request.sequence).collect()
    }

    /// A second of the life of one, at which `seen` are reported.
    fn second(retained: &Retained, seen: &Sequences, ready: u64, now: Instant) -> Vec<i64> {
        retained.note_seen(seen.clone(), now);
        retained.note_queue(Some(ready), now);
        numbers(&retained.overdue(now, 100))
    }

    #[test]
    fn what_was_seen_is_forgotten() {
        let (retained, begun) = (Retained::default(), Instant::now());
        for number in 1..=3 {
            retained.confirm(request(number), begun);
        }
        assert_eq!(retained.find(request(2).order), Some(request(2)));
        retained.note_seen(sequences([1, 2]), begun);
        assert_eq!(retained.find(request(2).order), None);
        let oldest_at = Some(Timestamp(3));
        assert_eq!(retained.counts(), Counts { confirmed: 3, seen: 2, oldest_at });
        // A worker may be quicker than the broker's confirm.
        retained.note_seen(sequences([1, 2, 3, 4]), begun);
        retained.confirm(request(4), begun);
        assert_eq!(retained.count(), 0);
        assert_eq!(retained.confirmed(), sequences(1..=4));
    }

    #[test]
    fn what_was_passed_over_is_queued_again_after_a_while_and_not_at_once_again() {
        let (retained, begun) = (Retained::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        retained.confirm(request(1), at(0));
        retained.confirm(request(2), at(1));
        retained.confirm(request(3), at(3));
        assert_eq!(second(&retained, &sequences([]), 9, at(3)), NOTHING);
        let seen = sequences([3]);
        for now in 4..9 {
            assert_eq!(second(&retained, &seen, 9, at(now)), NOTHING, "second {now}");
        }
        // 3 has been seen for 5 s, and was sent 2 s behind both.
        assert_eq!(second(&retained, &seen, 9, at(9)), [1, 2]);
        retained.confirm(request(1), at(9));
        for now in 10..19 {
            assert_eq!(second(&retained, &seen, 9, at(now)), NOTHING, "second {now}");
        }
        // 2 was never confirmed again, 1 was: it is behind 3 now.
        assert_eq!(second(&retained, &seen, 9, at(19)), [2]);
        assert_eq!(retained.count(), 2);
    }

    #[test]
    fn what_is_told_to_be_decided_is_not_told_to_be_queued_and_is_queued_again_all_the_same() {
        let (retained, begun) = (Retained::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let order = request(1).order;
        retained.note_decided(order);
        retained.confirm(request(1), at(0));
        retained.confirm(request(2), at(0));
        assert_eq!(retained.find_undecided(order).map(|request| request.sequence), Some(1));
        retained.note_decided(order);
        for now in 0..5 {
            assert_eq!(second(&retained, &Sequences::default(), 0, at(now)), NOTHING, "second {now}");
        }
        assert_eq!(second(&retained, &Sequences::default(), 0, at(5)), [1, 2]);
        // It was sent once more.
        retained.confirm(request(1), at(7));
        assert_eq!(retained.find_undecided(order).map(|request| request.sequence), None);
        assert_eq!(retained.find(order).map(|request| request.sequence), Some(1));
        assert!(retained.find_undecided(request(2).order).is_some());
    }

    #[test]
    fn what_is_in_nobody_s_hands_and_not_in_the_queue_is_queued_again() {
        let (retained, begun) = (Retained::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        retained.confirm(request(1), at(0));
        let seen = Sequences::default();
        assert_eq!(second(&retained, &seen, 1, at(0)), NOTHING);
        for now in 1..6 {
            assert_eq!(second(&retained, &seen, 0, at(now)), NOTHING, "second {now}");
        }
        retained.confirm(request(2), at(5));
        assert_eq!(second(&retained, &seen, 0, at(6)), [1], "2 may be on its way");
        assert_eq!(second(&retained, &seen, 0, at(10)), [2]);
        assert_eq!(second(&retained, &seen, 0, at(15)), NOTHING);
        assert_eq!(second(&retained, &seen, 0, at(16)), [1]);
    }

    #[test]
    fn while_nobody_can_see_anything_nothing_is_missed() {
        let (retained, begun) = (Retained::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        retained.confirm(request(1), at(0));
        let seen = Sequences::default();
        for now in 0..5 {
            assert_eq!(second(&retained, &seen, 0, at(now)), NOTHING);
        }
        retained.note_standstill();
        assert_eq!(numbers(&retained.overdue(at(60), 100)), NOTHING);
        for now in 60..65 {
            assert_eq!(second(&retained, &seen, 0, at(now)), NOTHING);
        }
        assert_eq!(second(&retained, &seen, 0, at(65)), [1]);
        // A look that failed is none at an empty queue.
        retained.note_queue(None, at(66));
        assert_eq!(second(&retained, &seen, 0, at(76)), NOTHING);
    }
}
