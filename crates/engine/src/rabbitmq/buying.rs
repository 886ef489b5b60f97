//! Requests with a key that are under way on this node: the same request at the same time is made once, and all who
//! made it get its answer.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use yoink_core::OrderId;

use crate::CallError;
use crate::views::Purchased;

/// What becomes of a purchase.
pub(crate) type Bought = Result<Purchased, CallError>;

/// Orders that are being made.
#[derive(Debug, Default)]
pub(crate) struct Buying {
    under_way: Mutex<HashMap<OrderId, Others>>,
}

/// Who else asked for it.
#[derive(Debug)]
struct Others {
    /// Units of the first who asked.
    quantity: u32,
    waiting: Vec<oneshot::Sender<Bought>>,
}

/// Whose turn it is.
pub(crate) enum Turn<'a> {
    /// The caller's.
    Mine(Mine<'a>),
    /// Somebody's who asked for so many units and will tell, unless he goes.
    Anothers(u32, oneshot::Receiver<Bought>),
}

/// The right to make an order. Whoever drops it lets another try.
pub(crate) struct Mine<'a> {
    buying: &'a Buying,
    order: OrderId,
    is_told: bool,
}

impl Buying {
    /// Asks for the right to make an order of so many units.
    pub(crate) fn begin(&self, order: OrderId, quantity: u32) -> Turn<'_> {
        let mut under_way = self.under_way.lock();
        match under_way.get_mut(&order) {
            Some(others) => {
                let (tell, told) = oneshot::channel();
                others.waiting.push(tell);
                Turn::Anothers(others.quantity, told)
            }
            None => {
                under_way.insert(order, Others { quantity, waiting: Vec::new() });
                Turn::Mine(Mine { buying: self, order, is_told: false })
            }
        }
    }
}

impl Mine<'_> {
    /// Tells all who wait.
    pub(crate) fn tell(mut self, bought: &Bought) {
        self.is_told = true;
        let others = self.buying.under_way.lock().remove(&self.order);
        for waiting in others.map(|others| others.waiting).unwrap_or_default() {
            let _ = waiting.send(bought.clone());
        }
    }
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        // Otherwise it may be another's by now.
        if !self.is_told {
            self.buying.under_way.lock().remove(&self.order);
        }
    }
}
