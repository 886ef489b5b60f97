//! A worker: takes requests from the queue and has them decided, lot by lot. What cannot be read is put aside.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lapin::message::Delivery;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::aside::Aside;
use super::lock::Locks;
use super::lot::Worker;
use super::lots::Taken;
use super::message;
use super::session::{End, Session, again_and_again};
use super::shared::Shared;
use crate::failpoint;

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
    let desk = Desk { shared: Arc::clone(&shared), worker, aside: sender };
    let aside = Aside::new(Arc::clone(&shared), Arc::clone(&session.hand));
    let mut tasks = JoinSet::new();
    tasks.spawn(aside.run(receiver));
    shared.gauges.is_consuming.store(true, Ordering::Relaxed);
    let end = session.serve(&shared, &mut tasks, |delivery, tasks| desk.take(delivery, tasks)).await;
    shared.gauges.is_consuming.store(false, Ordering::Relaxed);
    match end {
        // What is being decided now is decided to its end, and known when it comes again.
        End::Gone => tasks.detach_all(),
        End::Closing => {
            session.last_ones().await.into_iter().for_each(|delivery| desk.take(delivery, &mut tasks));
            drop(desk);
            session.finish(&mut tasks).await;
            session.link.close().await;
        }
    }
    Ok(end)
}

/// What comes in goes from here to whom it concerns.
struct Desk {
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    aside: mpsc::Sender<Delivery>,
}

impl Desk {
    fn take(&self, delivery: Delivery, tasks: &mut JoinSet<()>) {
        match message::decode(&delivery.data, &self.shared.node.order_ids) {
            Ok(requests) => {
                failpoint::hit("consumer.decoded");
                for lot in self.worker.add(Taken::all(requests, delivery.delivery_tag)) {
                    tasks.spawn(lot.run());
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
