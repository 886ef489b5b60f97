//! Everything that can be asked of the writer, on one screen.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use yoink_core::{Command, CustomerId, Figures, IdempotencyKey, OrderId, ProductId, Seq};

use super::log::Stretch;
use crate::CallError;
use crate::views::{
    Adjusted, OrderFilter, OrderPage, OrderView, ProductView, PurchaseRequest, Purchased, Replayed,
};

/// What is asked.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Buy. The writer gives the order its id.
    Purchase(PurchaseRequest),
    /// Change something else.
    Command(Box<Command>),
    /// One order.
    Order(OrderId),
    /// The order that was accepted under this key.
    OrderByKey(CustomerId, IdempotencyKey),
    /// A list of orders.
    Orders(Box<OrderFilter>),
    /// Committed events from the log.
    Events { after: Seq, limit: usize },
    /// The figures of every product and the counts of orders, at one event.
    Books,
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Purchased(Purchased),
    Order(Box<Option<OrderView>>),
    Ended(Box<OrderView>, Replayed),
    Orders(OrderPage),
    Product(Box<ProductView>),
    Adjusted(Adjusted),
    Events(Stretch),
    Books(Box<Books>),
}

/// The inventory's own figures at one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) seq: Seq,
    pub(crate) products: Vec<(ProductId, Figures)>,
}

pub(crate) type Reply = Result<Answer, CallError>;

/// A call on its way to the writer and back.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) ask: Ask,
    pub(crate) reply: oneshot::Sender<Reply>,
    /// On the clock's monotonic time, in microseconds.
    pub(crate) asked_us: i64,
    /// Where the answer goes; `None` is straight to the caller.
    pub(crate) returns: Option<Arc<Returns>>,
}

/// Answers on their way back to one lane. The writer wakes the lane once per commit, not each caller.
#[derive(Debug, Default)]
pub(crate) struct Returns {
    answered: Mutex<Vec<Answered>>,
    pub(crate) wake: Notify,
}

/// An answer and who waits for it.
pub(crate) type Answered = (oneshot::Sender<Reply>, Reply);

impl Returns {
    /// Adds the answers of a commit, wakes the lane, and leaves `answers` empty with room for the next.
    pub(crate) fn give(&self, answers: &mut Vec<Answered>) {
        let mut answered = self.answered.lock();
        if answered.is_empty() {
            std::mem::swap(&mut *answered, answers);
        } else {
            answered.append(answers);
        }
        drop(answered);
        self.wake.notify_one();
    }

    /// Takes what has been answered; `into` must be empty, and its room is used for what comes next.
    pub(crate) fn swap(&self, into: &mut Vec<Answered>) {
        std::mem::swap(&mut *self.answered.lock(), into);
    }
}
