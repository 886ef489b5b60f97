//! Look-ups of orders that the ledger may have already: whoever repeats a request is told of the first. Those who come
//! while one look-up is under way go together in the next, so a crowd costs one trip each time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use yoink_core::OrderId;

use crate::postgres::{KeptConnection, KnownOrder, Postgres};

/// Orders that one look-up asks for at most.
const ASK_MAX: usize = 1_000;
/// Nobody waits longer for the ledger: it decides a repetition once all the same.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// A connection that was not used for so long is given back.
const KEEP_MAX: Duration = Duration::from_millis(100);
/// A ledger that gave no answer is left alone for so long.
const REST: Duration = Duration::from_millis(500);

/// What the ledger says about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It has it.
    Yes(KnownOrder),
    /// It has no such order.
    No,
    /// It cannot be asked just now.
    NobodyKnows,
}

/// What waits to be looked up.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    waiting: Mutex<Vec<(OrderId, oneshot::Sender<Known>)>>,
    wake: Notify,
    is_resting: AtomicBool,
}

impl Replays {
    /// Looks an order up.
    pub(crate) async fn look_up(&self, order: OrderId) -> Known {
        if self.is_resting.load(Ordering::Acquire) {
            return Known::NobodyKnows;
        }
        match tokio::time::timeout(ANSWER_MAX, self.ask_for(order)).await {
            Ok(Ok(known)) => known,
            Ok(Err(_)) | Err(_) => Known::NobodyKnows,
        }
    }

    fn ask_for(&self, order: OrderId) -> oneshot::Receiver<Known> {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.push((order, tell));
        if waiting.len() == 1 {
            self.wake.notify_one();
        }
        told
    }

    /// Answers, for ever.
    pub(crate) async fn answer(&self, postgres: &Postgres) {
        let mut kept = KeptConnection::default();
        loop {
            if tokio::time::timeout(KEEP_MAX, self.wake.notified()).await.is_err() {
                kept = KeptConnection::default();
                self.wake.notified().await;
            }
            loop {
                let mut asked = std::mem::take(&mut *self.waiting.lock());
                if asked.is_empty() {
                    break;
                }
                while !asked.is_empty() {
                    let rest = asked.split_off(asked.len().min(ASK_MAX));
                    self.ask(postgres, &mut kept, asked).await;
                    asked = rest;
                }
            }
        }
    }

    async fn ask(
        &self,
        postgres: &Postgres,
        kept: &mut KeptConnection,
        asked: Vec<(OrderId, oneshot::Sender<Known>)>,
    ) {
        let ids: Vec<OrderId> = asked.iter().map(|(order, _)| *order).collect();
        let begun = Instant::now();
        let found = tokio::time::timeout(ANSWER_MAX, postgres.known_orders(kept, &ids)).await;
        let Ok(Ok(found)) = found else {
            // Who waits, and who comes meanwhile, is not kept waiting.
            self.is_resting.store(true, Ordering::Release);
            drop(asked);
            self.waiting.lock().clear();
            tokio::time::sleep(REST.saturating_sub(begun.elapsed())).await;
            self.is_resting.store(false, Ordering::Release);
            return;
        };
        let mut found: HashMap<OrderId, KnownOrder> =
            found.into_iter().map(|order| (order.id, order)).collect();
        for (order, tell) in asked {
            // Nobody asks twice for the same: whoever does so on this node shares the answer.
            let known = match found.remove(&order) {
                Some(order) => Known::Yes(order),
                None => Known::No,
            };
            let _ = tell.send(known);
        }
    }
}
