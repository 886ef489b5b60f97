//! Callers that wait until the ledger has their order: asked for together, a few times a second.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use yoink_core::OrderId;

use crate::OrderStatus;

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: Mutex<HashMap<OrderId, Vec<oneshot::Sender<OrderStatus>>>>,
}

impl Waiters {
    /// To be told what the ledger says of an order once it knows it.
    pub(crate) fn wait(&self, order: OrderId) -> oneshot::Receiver<OrderStatus> {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().entry(order).or_default().push(tell);
        told
    }

    /// What is waited for. Forgets callers who are gone.
    pub(crate) fn orders(&self) -> Vec<OrderId> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, callers| {
            callers.retain(|caller| !caller.is_closed());
            !callers.is_empty()
        });
        waiting.keys().copied().collect()
    }

    /// The ledger knows an order.
    pub(crate) fn tell(&self, order: OrderId, status: OrderStatus) {
        for caller in self.waiting.lock().remove(&order).unwrap_or_default() {
            let _ = caller.send(status);
        }
    }
}
