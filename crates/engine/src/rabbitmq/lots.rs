//! What a worker has in hand, by product, and which of it comes next.
//!
//! Requests of one product are decided together, in their order. If that fails for a reason that may lie in one of
//! them, all of them are doubtful: each is tried alone. One that fails alone waits a little, and the others go on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;
use yoink_core::OrderId;

use crate::node::Patience;
use crate::node::order_id::product_of;
use crate::postgres::Request;

/// Requests that one transaction decides at most.
pub(super) const BATCH_MAX: usize = 512;
/// A request that failed so often alone, while others were decided in between, can never be decided.
const FAILURES_MAX: u32 = 20;
/// The longest wait between two attempts with one request.
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// If so many fail, one after the other, it is perhaps not for what they are …
const FAILURES_IN_A_ROW: u32 = 8;
/// … and then each waits so long for the one before.
const REST: Duration = Duration::from_millis(50);

/// A request in hand.
pub(crate) struct Taken {
    pub(crate) request: Request,
    /// The number that the channel gave to its message.
    pub(crate) tag: u64,
    /// When it was handed out.
    pub(crate) at: Instant,
}

impl Taken {
    /// The requests of one message, which was handed out now.
    pub(crate) fn all(requests: Vec<Request>, tag: u64) -> Vec<Self> {
        let at = Instant::now();
        requests.into_iter().map(|request| Self { request, tag, at }).collect()
    }

    /// What only a copy of the same message has in common with it: the order, who queued it, and under which number.
    fn identity(&self) -> (OrderId, Uuid, i64) {
        (self.request.order, self.request.publisher, self.request.sequence)
    }
}

/// A request that was not decided together with others.
pub(super) struct Doubtful {
    pub(super) taken: Taken,
    /// How often it failed alone; failures between which nothing else was decided count as one.
    failures: u32,
    /// How many requests had been decided when a failure was counted last.
    decided: u64,
    /// Before that it is not tried again.
    not_before: Instant,
    patience: Patience,
}

impl Doubtful {
    pub(super) fn new(taken: Taken) -> Self {
        let (not_before, patience) = (taken.at, Patience::up_to(AGAIN_MAX));
        Self { taken, failures: 0, decided: 0, not_before, patience }
    }

    /// It failed alone. `decided`: how many requests this node has decided so far. True: it will always fail, as far as
    /// can be told.
    pub(super) fn fail(&mut self, decided: u64, now: Instant) -> bool {
        if self.failures == 0 || decided != self.decided {
            (self.failures, self.decided) = (self.failures.saturating_add(1), decided);
        }
        self.not_before = now.checked_add(self.patience.next()).unwrap_or(now);
        self.failures >= FAILURES_MAX
    }
}

/// What is to be done for a product.
pub(super) enum Next {
    /// Decide these together.
    Batch(Vec<Taken>),
    /// Decide this one alone.
    Alone(Box<Doubtful>),
    /// Wait: all that is left failed a moment ago. It has been in hand since then.
    Later { wait: Duration, since: Instant },
    /// Nothing is left.
    Nothing,
}

/// What is in hand of all products. A product has an entry while a task is busy with it.
#[derive(Default)]
pub(super) struct Lots {
    by_product: Mutex<HashMap<i32, Waiting>>,
}

/// What is in hand of one product.
#[derive(Default)]
struct Waiting {
    /// Nothing is known against these.
    fresh: VecDeque<Taken>,
    doubtful: VecDeque<Box<Doubtful>>,
    failures_in_a_row: u32,
    /// When the next doubtful one may be tried, if they are to rest.
    rested_at: Option<Instant>,
}

impl Waiting {
    fn next(&mut self, now: Instant) -> Next {
        let has_rested = self.rested_at.is_none_or(|at| at <= now);
        let due = self.doubtful.iter().position(|doubtful| doubtful.not_before <= now);
        if let Some(doubtful) = due.filter(|_| has_rested).and_then(|at| self.doubtful.remove(at)) {
            return Next::Alone(doubtful);
        }
        if !self.fresh.is_empty() {
            return Next::Batch(self.fresh.drain(..self.fresh.len().min(BATCH_MAX)).collect());
        }
        let first = self.doubtful.iter().map(|doubtful| doubtful.not_before).min();
        let since = self.doubtful.iter().map(|doubtful| doubtful.taken.at).min();
        match first.zip(since) {
            Some((first, since)) => {
                let at = self.rested_at.map_or(first, |rested_at| rested_at.max(first));
                Next::Later { wait: at.saturating_duration_since(now), since }
            }
            None => Next::Nothing,
        }
    }
}

impl Lots {
    /// The requests of one more message. Gives the products that no task is busy with.
    pub(super) fn add(&self, message: Vec<Taken>) -> Vec<i32> {
        self.place(message, |lot, taken| lot.fresh.push_back(taken))
    }

    /// As [`Lots::add`]; each of these is to be tried alone, behind those that are.
    pub(super) fn add_alone(&self, message: Vec<Taken>) -> Vec<i32> {
        self.place(message, |lot, taken| lot.doubtful.push_back(Box::new(Doubtful::new(taken))))
    }

    fn place(&self, message: Vec<Taken>, put: impl Fn(&mut Waiting, Taken)) -> Vec<i32> {
        let mut new = Vec::new();
        let mut lots = self.by_product.lock();
        for taken in message {
            let product = product_of(taken.request.order);
            let lot = lots.entry(product).or_insert_with(|| {
                new.push(product);
                Waiting::default()
            });
            put(lot, taken);
        }
        new
    }

    /// What is to be done now for a product.
    pub(super) fn next(&self, product: i32, now: Instant) -> Next {
        self.by_product.lock().get_mut(&product).map_or(Next::Nothing, |lot| lot.next(now))
    }

    /// Requests of a product that wait to be decided together.
    pub(super) fn fresh(&self, product: i32) -> usize {
        self.by_product.lock().get(&product).map_or(0, |lot| lot.fresh.len())
    }

    /// These could not be decided together: each is to be tried alone, in their order, before all others. Gives the
    /// numbers of messages of those that are doubtful already: who queued them took them for lost. One of each is
    /// enough. What somebody else queued with the same key, or the same node once more, is another one: until it counts
    /// as seen, whoever queued it keeps it.
    #[must_use = "what is not kept is to be acknowledged"]
    pub(super) fn doubt(&self, product: i32, batch: Vec<Taken>) -> Vec<u64> {
        let mut lots = self.by_product.lock();
        let lot = lots.entry(product).or_default();
        let mut known: HashSet<(OrderId, Uuid, i64)> =
            lot.doubtful.iter().map(|doubtful| doubtful.taken.identity()).collect();
        let (new, copies): (Vec<Taken>, Vec<Taken>) =
            batch.into_iter().partition(|taken| known.insert(taken.identity()));
        for taken in new.into_iter().rev() {
            lot.doubtful.push_front(Box::new(Doubtful::new(taken)));
        }
        copies.into_iter().map(|copy| copy.tag).collect()
    }

    /// This one could not be decided alone: it comes again, behind the others.
    pub(super) fn put_back(&self, product: i32, doubtful: Box<Doubtful>, now: Instant) {
        let mut lots = self.by_product.lock();
        let lot = lots.entry(product).or_default();
        lot.failures_in_a_row = lot.failures_in_a_row.saturating_add(1);
        let rests = lot.failures_in_a_row >= FAILURES_IN_A_ROW;
        lot.rested_at = now.checked_add(REST).filter(|_| rests);
        lot.doubtful.push_back(doubtful);
    }

    /// Something of the product was decided.
    pub(super) fn went_well(&self, product: i32) {
        if let Some(lot) = self.by_product.lock().get_mut(&product) {
            (lot.failures_in_a_row, lot.rested_at) = (0, None);
        }
    }

    /// Forgets a product of which nothing is left. False: something is.
    pub(super) fn finish(&self, product: i32) -> bool {
        let mut lots = self.by_product.lock();
        let is_empty = lots.get(&product).is_none_or(|lot| lot.fresh.is_empty() && lot.doubtful.is_empty());
        if is_empty {
            lots.remove(&product);
        }
        is_empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of an order of its own.
    fn taken(tag: u64) -> Taken {
        let mut order = [0; 16];
        order[8..].copy_from_slice(&tag.to_be_bytes());
        let request = Request {
            order: OrderId(order),
            customer: "ann".to_owned(),
            quantity: 1,
            price: 1,
            currency: "EUR".to_owned(),
            accepted_at: 0,
            publisher: Uuid::nil(),
            sequence: 1,
        };
        Taken { request, tag, at: Instant::now() }
    }

    fn product() -> i32 {
        product_of(OrderId([0; 16]))
    }

    fn tags(next: Next) -> Vec<u64> {
        match next {
            Next::Batch(batch) => batch.into_iter().map(|taken| taken.tag).collect(),
            _ => panic!("it is no batch"),
        }
    }

    fn alone(next: Next) -> Box<Doubtful> {
        match next {
            Next::Alone(doubtful) => doubtful,
            _ => panic!("it is not for one alone"),
        }
    }

    #[test]
    fn those_of_a_batch_that_failed_come_alone_and_those_that_fail_alone_let_others_go_on() {
        let (lots, product) = (Lots::default(), product());
        assert_eq!(lots.add(vec![taken(1), taken(2), taken(3)]), [product]);
        let Next::Batch(batch) = lots.next(product, Instant::now()) else { panic!("they come together") };
        assert_eq!(lots.add(vec![taken(4)]), [0; 0]);
        assert_eq!(lots.doubt(product, batch), [0; 0]);

        let mut now = Instant::now();
        let mut first = alone(lots.next(product, now));
        assert_eq!(first.taken.tag, 1);
        assert!(!first.fail(7, now));
        lots.put_back(product, first, now);
        for tag in [2, 3] {
            assert_eq!(alone(lots.next(product, now)).taken.tag, tag);
        }
        assert_eq!(tags(lots.next(product, now)), [4]);
        let Next::Later { wait, .. } = lots.next(product, now) else { panic!("1 is to wait") };
        assert!(wait > Duration::ZERO && wait <= AGAIN_MAX, "{wait:?}");
        assert!(!lots.finish(product), "1 is in hand");
        now += wait;
        assert_eq!(alone(lots.next(product, now)).taken.tag, 1);
        assert!(matches!(lots.next(product, now), Next::Nothing) && lots.finish(product));
    }

    #[test]
    fn those_that_are_to_come_alone_do_so_and_those_that_fail_let_later_ones_go_on() {
        let (lots, product, later) = (Lots::default(), product(), taken(3));
        assert_eq!(lots.add_alone(vec![taken(1), taken(2)]), [product]);
        let now = Instant::now();
        let mut first = alone(lots.next(product, now));
        assert!(!first.fail(0, now));
        lots.put_back(product, first, now);
        assert_eq!(lots.add_alone(vec![later]), [0; 0]);
        assert_eq!([(); 2].map(|()| alone(lots.next(product, now)).taken.tag), [2, 3]);
        assert!(matches!(lots.next(product, now), Next::Later { .. }));
    }

    #[test]
    fn if_all_fail_they_are_tried_slowly_until_one_does_not() {
        let (lots, product) = (Lots::default(), product());
        assert_eq!(lots.doubt(product, (0..100).map(taken).collect()), [0; 0]);
        let now = Instant::now();
        let mut tried = 0;
        while let Next::Alone(mut doubtful) = lots.next(product, now) {
            doubtful.fail(0, now);
            lots.put_back(product, doubtful, now);
            tried += 1;
        }
        assert_eq!(tried, FAILURES_IN_A_ROW);
        lots.add(vec![taken(1_000)]);
        assert_eq!(tags(lots.next(product, now)), [1_000], "others need not rest");
        assert_eq!(alone(lots.next(product, now + REST)).taken.tag, u64::from(FAILURES_IN_A_ROW));
        lots.went_well(product);
        for tag in 1..40 {
            assert_eq!(alone(lots.next(product, now)).taken.tag, u64::from(FAILURES_IN_A_ROW) + tag);
        }
    }

    #[test]
    fn one_of_each_is_enough() {
        let (lots, product) = (Lots::default(), product());
        assert_eq!(lots.doubt(product, vec![taken(1), taken(2)]), [0; 0]);
        let copy = |of: u64, tag: u64| Taken { tag, ..taken(of) };
        assert_eq!(lots.doubt(product, vec![copy(1, 11), taken(3), copy(3, 13)]), [11, 13]);
        let now = Instant::now();
        assert_eq!([(); 3].map(|()| alone(lots.next(product, now)).taken.tag), [3, 1, 2]);
    }

    #[test]
    fn the_same_order_from_somebody_else_or_under_another_number_is_no_copy() {
        let (lots, product) = (Lots::default(), product());
        assert_eq!(lots.doubt(product, vec![taken(1)]), [0; 0]);
        let queued = |publisher: Uuid, sequence: i64, tag: u64| {
            let request = Request { publisher, sequence, ..taken(1).request };
            Taken { request, tag, at: Instant::now() }
        };
        let others = vec![queued(Uuid::max(), 1, 11), queued(Uuid::nil(), 2, 12), queued(Uuid::max(), 1, 13)];
        assert_eq!(lots.doubt(product, others), [13]);
        let now = Instant::now();
        assert_eq!([(); 3].map(|()| alone(lots.next(product, now)).taken.tag), [11, 12, 1]);
    }

    #[test]
    fn only_failures_while_others_are_decided_count() {
        let (mut doubtful, mut now) = (Doubtful::new(taken(1)), Instant::now());
        for _ in 0..1_000 {
            assert!(!doubtful.fail(5, now), "nothing else was decided meanwhile");
            now = doubtful.not_before;
        }
        for decided in 6..24 {
            assert!(!doubtful.fail(decided, now), "{decided}");
            assert!(!doubtful.fail(decided, now), "{decided}");
        }
        assert!(doubtful.fail(24, now));
    }
}
