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

/// The longest wait between two attempts to put something aside.
const ASIDE_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long the broker may take to confirm what is put aside.
const CONFIRM_MAX: Duration = Duration::from_secs(5);

/// Takes requests from the queue and has them decided until the node closes. Connects again by itself.
pub(crate) async fn work(shared: Arc<Shared>) {
    let (options, ledger) = (&shared.options, shared.desk.postgres.identity().id);
    let locks = Arc::new(Locks::new(&options.redis, ledger, options.lock_life));
    again_and_again(&shared, "requests", || session(Arc::clone(&shared), Arc::clone(&locks))).await;
}

async fn session(shared: Arc<Shared>, locks: Arc<Locks>) -> lapin::Result<End> {
    let opened = Session::open(&shared, &shared.names.orders, shared.options.prefetch).await?;
    let Some(mut session) = opened else { return Ok(End::Closing) };
    let aside = broker::within(broker::confirming_channel(&session.link.connection)).await?;
    // As many as can be in hand.
    let (sender, receiver) = mpsc::channel(usize::from(shared.options.prefetch.max(1)));
    let worker = Worker::new(Arc::clone(&shared), Arc::clone(&session.hand), locks);
    let mut desk = Desk { shared: Arc::clone(&shared), worker, aside: sender, tasks: JoinSet::new() };
    let aside = Aside { shared: Arc::clone(&shared), hand: Arc::clone(&session.hand), channel: aside };
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

/// Puts aside what cannot be read.
struct Aside {
    shared: Arc<Shared>,
    hand: Arc<Hand>,
    channel: Channel,
}

impl Aside {
    async fn run(self, mut messages: mpsc::Receiver<Delivery>) {
        loop {
            let message = tokio::select! {
                () = self.hand.wait_over() => return,
                message = messages.recv() => message,
            };
            let Some(message) = message else { return };
            if self.put(&message).await.is_err() {
                return;
            }
        }
    }

    /// Puts a message into the other queue, however long that takes, and then acknowledges it here.
    async fn put(&self, message: &Delivery) -> Result<(), Gone> {
        let mut patience = Patience::up_to(ASIDE_WAIT_MAX);
        loop {
            match tokio::time::timeout(CONFIRM_MAX, self.publish(&message.data)).await {
                Ok(Ok(Confirmation::Ack(None))) => break,
                // The queue or the channel is not there any more; a new session sees to both.
                Ok(Ok(Confirmation::Ack(Some(_))) | Err(_)) => {
                    self.hand.end();
                    return Err(Gone);
                }
                // It is full, or the broker takes nothing now.
                Ok(Ok(_)) | Err(_) => self.hand.pause(patience.next()).await?,
            }
        }
        Gauges::add(&self.shared.gauges.unreadable, 1);
        self.hand.acknowledge(vec![message.delivery_tag]).await
    }

    async fn publish(&self, bytes: &[u8]) -> lapin::Result<Confirmation> {
        let names = &self.shared.names;
        let (exchange, key) = (names.dead_exchange.clone(), names.dead.clone());
        broker::publish(&self.channel, exchange, key, bytes).await?.await
    }
}
