//! Grants that the ledger failed to take, and nobody knows whether for what they are: a trigger of somebody's own may be
//! broken for one order, or the ledger for all. What tells is whether it takes others of the same product meanwhile.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use yoink_core::OrderId;

use crate::node::order_id::product_of;
use crate::postgres::Delivered;

/// A grant that failed so often alone, while others were taken in between, will always fail, as far as can be told.
pub(crate) const FAILURES_MAX: u32 = 20;
/// Grants that are remembered. Above it all are forgotten and counted anew.
const GRANTS_MAX: usize = 100_000;

/// A grant that failed alone.
#[derive(Debug)]
struct Doubt {
    /// How often; failures between which no other was taken count as one.
    failures: u32,
    /// How many had been taken when a failure was counted last.
    taken: u64,
}

#[derive(Debug, Default)]
struct State {
    /// How many grants of each product this node saw the ledger take.
    taken: HashMap<i32, u64>,
    doubts: HashMap<OrderId, Doubt>,
}

impl State {
    fn taken(&self, product: i32) -> u64 {
        self.taken.get(&product).copied().unwrap_or(0)
    }
}

/// What is doubtful, and what speaks for it being the grant's own fault.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    state: Mutex<State>,
}

impl Doubts {
    /// How many grants of a product the ledger took so far.
    pub(crate) fn taken(&self, product: i32) -> u64 {
        self.state.lock().taken(product)
    }

    /// Those of these orders that failed before.
    pub(crate) fn among(&self, orders: impl Iterator<Item = OrderId>) -> BTreeSet<OrderId> {
        let state = self.state.lock();
        if state.doubts.is_empty() {
            return BTreeSet::new();
        }
        orders.filter(|order| state.doubts.contains_key(order)).collect()
    }

    /// What the ledger says of these.
    pub(crate) fn settle(&self, product: i32, delivered: &[(OrderId, Delivered)]) {
        let is_new =
            |outcome| matches!(outcome, Delivered::Confirmed | Delivered::Collided | Delivered::Refused);
        let new = delivered.iter().filter(|(_, outcome)| is_new(*outcome)).count();
        let mut state = self.state.lock();
        *state.taken.entry(product).or_default() += new as u64;
        if !state.doubts.is_empty() {
            for (order, _) in delivered.iter().filter(|(_, outcome)| *outcome != Delivered::Sealed) {
                state.doubts.remove(order);
            }
        }
    }

    /// It failed alone, in an attempt that began when `taken` had been taken. True: it will always fail.
    pub(crate) fn fail(&self, order: OrderId, taken: u64) -> bool {
        let mut state = self.state.lock();
        let now = state.taken(product_of(order));
        if state.doubts.len() >= GRANTS_MAX && !state.doubts.contains_key(&order) {
            state.doubts.clear();
        }
        let doubt = state.doubts.entry(order).or_insert(Doubt { failures: 0, taken });
        if doubt.failures == 0 {
            doubt.failures = 1;
        } else if doubt.taken != now {
            (doubt.failures, doubt.taken) = (doubt.failures.saturating_add(1), now);
        }
        doubt.failures >= FAILURES_MAX
    }

    /// Whether others were taken since it failed first: then it is not the ledger that has trouble.
    pub(crate) fn fails_alone(&self, order: OrderId) -> bool {
        let state = self.state.lock();
        let is_clear = |doubt: &Doubt| doubt.failures > 1 || doubt.taken != state.taken(product_of(order));
        state.doubts.get(&order).is_some_and(is_clear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: OrderId = OrderId([7; 16]);

    fn take(doubts: &Doubts, order: OrderId, outcome: Delivered) {
        doubts.settle(product_of(ODD), &[(order, outcome)]);
    }

    #[test]
    fn only_failures_while_others_of_the_product_are_taken_count() {
        let doubts = Doubts::default();
        let other = OrderId([7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for _ in 0..1_000 {
            assert!(!doubts.fail(ODD, 0), "nothing else was taken meanwhile");
        }
        doubts.settle(product_of(ODD) + 1, &[(other, Delivered::Confirmed)]);
        take(&doubts, other, Delivered::Known);
        assert!(
            !doubts.fails_alone(ODD),
            "neither another product's nor what was there before tells anything"
        );
        for _ in 0..FAILURES_MAX - 2 {
            take(&doubts, other, Delivered::Confirmed);
            assert!(doubts.fails_alone(ODD));
            for _ in 0..5 {
                assert!(!doubts.fail(ODD, 0));
            }
        }
        take(&doubts, other, Delivered::Refused);
        assert!(doubts.fail(ODD, 0));
    }

    #[test]
    fn what_is_taken_in_the_same_attempt_tells_too() {
        let doubts = Doubts::default();
        let other = OrderId([8; 16]);
        let before = doubts.taken(product_of(ODD));
        take(&doubts, other, Delivered::Confirmed);
        doubts.fail(ODD, before);
        assert!(doubts.fails_alone(ODD));
        assert_eq!(doubts.among([ODD, other].into_iter()), BTreeSet::from([ODD]));
        take(&doubts, ODD, Delivered::Confirmed);
        assert!(
            !doubts.fails_alone(ODD) && doubts.among([ODD].into_iter()).is_empty(),
            "it was taken after all"
        );
    }
}
