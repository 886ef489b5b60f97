//! A worker: takes requests from the queue and has them decided, lot by lot. What cannot be read is put aside.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::message::Delivery;
use lapin::{Channel, Confirmation};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::broker;
use super::hand::{Gone, Hand};
use super::lock::Locks;
use super::lot::Worker;
use super::lots::Taken;
use super::message;
use super::session::{End, Next, Session, again_and_again};
use super::shared::Shared;
use super::status::Gauges;
use crate::failpoint;
use crate::node::Patience;

/// Takes requests from the queue and has them decided until the node closes. Connects again by itself.
pub(crate) async fn work(shared: Arc<Shared>) {
    let (options, ledger) = (&shared.options, shared.desk.postgres.identity().id);
    let locks = Arc::new(Locks::new(&options.redis, ledger, options.lock_life));
    again_and_again(&shared, "requests", || session(Arc::clone(&shared), Arc::clone(&locks))).await;
}

async fn session(shared: Arc<Shared>, locks: Arc<Locks>) -> lapin::Result<End> {
    let opened = Session::open(&shared, &shared.names.orders, shared.options.prefetch).await?;
    let Some(mut session) = opened else { return Ok(End::Closing) };
    // As many as can be in hand.
    let (sender, receiver) = mpsc::channel(usize::from(shared.options.prefetch.max(1)));
    let worker = Worker::new(Arc::clone(&shared), Arc::clone(&session.hand), locks);
    let mut desk = Desk { shared: Arc::clone(&shared), worker, aside: sender, tasks: JoinSet::new() };
    let aside = Aside::new(Arc::clone(&shared), Arc::clone(&session.hand), Arc::clone(&session.link));
    desk.tasks.spawn(aside.run(receiver));
    shared.gauges.is_consuming.store(true, Ordering::Relaxed);
    let end = loop {
        tokio::select! {
            next = session.next(&shared) => match next {
                Next::Message(delivery) => desk.take(*delivery),
                Next::Closing => break End::Closing,
                Next::Gone => break End::Gone,
            },
            Some(ended) = desk.tasks.join_next() => see_to(&session.hand, ended),
        }
    };
    shared.gauges.is_consuming.store(false, Ordering::Relaxed);
    match end {
        // What is being decided now is decided to its end, and known when it comes again.
        End::Gone => desk.tasks.detach_all(),
        End::Closing => {
            session.last_ones().await.into_iter().for_each(|delivery| desk.take(delivery));
            let Desk { aside, mut tasks, .. } = desk;
            drop(aside);
            while let Some(ended) = tasks.join_next().await {
                see_to(&session.hand, ended);
            }
            session.link.close().await;
        }
    }
    Ok(end)
}

/// A task that was torn down leaves its product to nobody: begin anew with everything.
fn see_to(hand: &Hand, ended: Result<(), JoinError>) {
    if ended.is_err() {
        hand.end();
    }
}

/// What comes in goes from here to whom it concerns.
struct Desk {
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    aside: mpsc::Sender<Delivery>,
    tasks: JoinSet<()>,
}

impl Desk {
    fn take(&mut self, delivery: Delivery) {
        match message::decode(&delivery.data, &self.shared.node.order_ids) {
            Ok(requests) => {
                failpoint::hit("consumer.decoded");
                for lot in self.worker.add(Taken::all(requests, delivery.delivery_tag)) {
                    self.tasks.spawn(lot.run());
                }
            }
            Err(what) => {
                tracing::error!(
                    what,
                    bytes = delivery.data.len(),
                    "a message is no request: it is put aside"
                );
                if self.aside.try_send(delivery).is_err() {
                    // Nobody is there to take it, as when the channel is over: it comes again.
                    self.worker.end();
                }
            }
        }
    }
}
