//! One runtime's way to the writer and back: what its connections ask in one turn goes as one message, and the answers
//! of one commit come back as one. Waking one task per request across threads is what makes a naive version slow.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::embedded::ticket::{Answered, Returns, Ticket};
use crate::embedded::writer::Shared;

/// The calls of one runtime on their way to the writer, and the answers on their way back.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    outgoing: Mutex<Vec<Ticket>>,
    pub(crate) returns: Arc<Returns>,
}

impl Lane {
    pub(crate) fn push(&self, ticket: Ticket) {
        let mut outgoing = self.outgoing.lock();
        outgoing.push(ticket);
        // The driver is woken once per turn; it runs behind the connections that were woken before it.
        if outgoing.len() == 1 {
            drop(outgoing);
            self.returns.wake.notify_one();
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.returns.wake.notify_one();
    }
}

/// Moves the calls and answers of one lane. To be spawned on the lane's runtime.
#[derive(Debug)]
pub struct LaneDriver {
    lane: Weak<Lane>,
    returns: Arc<Returns>,
    shared: Arc<Shared>,
}

impl LaneDriver {
    pub(crate) fn new(lane: &Arc<Lane>, shared: Arc<Shared>) -> Self {
        Self { lane: Arc::downgrade(lane), returns: Arc::clone(&lane.returns), shared }
    }

    /// Runs until the last [`Engine`] of this lane is dropped.
    pub async fn run(self) {
        let mut outgoing: Vec<Ticket> = Vec::new();
        let mut answered: Vec<Answered> = Vec::new();
        loop {
            self.returns.wake.notified().await;
            self.returns.swap(&mut answered);
            for (sender, reply) in answered.drain(..) {
                // A caller who is gone asks again, with the same key.
                let _ = sender.send(reply);
            }
            let Some(lane) = self.lane.upgrade() else { return };
            std::mem::swap(&mut *lane.outgoing.lock(), &mut outgoing);
            if !outgoing.is_empty() {
                self.shared.inbox.push(outgoing.drain(..));
            }
        }
    }
}
