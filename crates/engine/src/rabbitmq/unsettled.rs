//! Orders that this node tried to queue and of which it does not know whether they are: the broker said nothing in
//! time, or the caller went away meanwhile. Until the ledger has such an order, no "no" to its key is certain.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use yoink_core::OrderId;

/// Orders that are remembered. Above it the oldest is forgotten, and is answered as one that was never tried.
const ORDERS_MAX: usize = 100_000;

/// What is not known to be queued or not.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    numbers: HashMap<OrderId, u64>,
    /// By age.
    orders: BTreeMap<u64, OrderId>,
    last_number: u64,
}

impl Unsettled {
    /// From now on it may be queued. True: so it was before.
    pub(crate) fn add(&self, order: OrderId) -> bool {
        let mut state = self.state.lock();
        if state.numbers.contains_key(&order) {
            return true;
        }
        state.last_number = state.last_number.wrapping_add(1);
        let number = state.last_number;
        state.numbers.insert(order, number);
        state.orders.insert(number, order);
        if state.orders.len() > ORDERS_MAX
            && let Some((_, oldest)) = state.orders.pop_first()
        {
            state.numbers.remove(&oldest);
        }
        false
    }

    /// Whether it may be queued without anybody knowing.
    pub(crate) fn has(&self, order: OrderId) -> bool {
        self.state.lock().numbers.contains_key(&order)
    }

    /// Its fate is known.
    pub(crate) fn remove(&self, order: OrderId) {
        let mut state = self.state.lock();
        if let Some(number) = state.numbers.remove(&order) {
            state.orders.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(number: usize) -> OrderId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        OrderId(id)
    }

    #[test]
    fn so_many_are_remembered_and_the_oldest_is_forgotten_first() {
        let unsettled = Unsettled::default();
        for number in 0..ORDERS_MAX {
            assert!(!unsettled.add(order(number)));
        }
        assert!(unsettled.add(order(0)), "it is there");
        unsettled.remove(order(7));
        assert!(!unsettled.add(order(ORDERS_MAX)) && unsettled.has(order(0)), "there was room");
        assert!(!unsettled.add(order(ORDERS_MAX + 1)));
        assert!(!unsettled.has(order(0)) && !unsettled.has(order(7)) && unsettled.has(order(1)));
        let state = unsettled.state.lock();
        assert_eq!((state.numbers.len(), state.orders.len()), (ORDERS_MAX, ORDERS_MAX));
    }
}
