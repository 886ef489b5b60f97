//! The queue of dead letters. A request in it was handed out too often while workers died: it is decided alone. Whatever
//! else is in it is written down in the ledger, where operators see it. What can be neither decided nor written down stays
//! in hand and is tried again; the others go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use lapin::message::Delivery;
use tokio::task::JoinSet;

use super::hand::{Gone, Hand};
use super::lock::Locks;
use super::lot::Worker;
use super::lots::Taken;
use super::message;
use super::session::{End, Session, again_and_again};
use super::shared::Shared;
use super::trouble;

/// Messages in hand at most. Above all those that stay there.
const PREFETCH: u16 = 512;
/// What the ledger did not take is tried again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Bytes of a message that are kept.
const KEPT_BYTES_MAX: usize = 4_096;

/// Sees to dead letters until the node closes. Connects again by itself.
pub(crate) async fn work(shared: Arc<Shared>) {
    again_and_again(&shared, "dead letters", || session(Arc::clone(&shared))).await;
}

async fn session(shared: Arc<Shared>) -> lapin::Result<End> {
    let Some(mut session) = Session::open(&shared, &shared.names.dead, PREFETCH).await? else {
        return Ok(End::Closing);
    };
    let (options, ledger) = (&shared.options, shared.desk.postgres.identity().id);
    let locks = Arc::new(Locks::new(&options.redis, ledger, options.lock_life));
    let worker = Worker::one_by_one(Arc::clone(&shared), Arc::clone(&session.hand), locks);
    let desk = Desk { shared: Arc::clone(&shared), hand: Arc::clone(&session.hand), worker };
    let mut tasks = JoinSet::new();
    let end = session.serve(&shared, &mut tasks, |message, tasks| desk.take(message, tasks)).await;
    match end {
        // What is being decided now is decided to its end, and known when it comes again.
        End::Gone => tasks.detach_all(),
        End::Closing => {
            // Perhaps the ledger is away, or never takes what is in hand: it comes again.
            session.hand.end();
            session.finish(&mut tasks).await;
            session.link.close().await;
        }
    }
    Ok(end)
}

/// What comes in goes from here to whom it concerns.
struct Desk {
    shared: Arc<Shared>,
    hand: Arc<Hand>,
    worker: Arc<Worker>,
}

impl Desk {
    fn take(&self, message: Delivery, tasks: &mut JoinSet<()>) {
        match message::decode(&message.data, &self.shared.node.order_ids) {
            Ok(requests) => {
                tracing::warn!(
                    requests = requests.len(),
                    "requests were handed out too often; each is decided alone"
                );
                for lot in self.worker.add_alone(Taken::all(requests, message.delivery_tag)) {
                    tasks.spawn(lot.run());
                }
            }
            Err(what) => {
                let letter = Unreadable {
                    shared: Arc::clone(&self.shared),
                    hand: Arc::clone(&self.hand),
                    worker: Arc::clone(&self.worker),
                    message,
                    what,
                };
                tasks.spawn(async move {
                    // If the channel is over, it comes again.
                    let _ = letter.write_down().await;
                });
            }
        }
    }
}

/// A message that is no request.
struct Unreadable {
    shared: Arc<Shared>,
    hand: Arc<Hand>,
    worker: Arc<Worker>,
    message: Delivery,
    /// What is wrong with it, for people.
    what: &'static str,
}

impl Unreadable {
    /// Writes it down in the ledger, however long that takes, and acknowledges it.
    async fn write_down(&self) -> Result<(), Gone> {
        let (what, bytes, since) = (self.what, self.message.data.as_slice(), Instant::now());
        let error = match bytes.len() > KEPT_BYTES_MAX {
            true => {
                format!("{what} ({} bytes, of which the first {KEPT_BYTES_MAX} are kept)", bytes.len())
            }
            false => what.to_owned(),
        };
        // The same bytes are kept once, also if they come again because this worker died.
        let entry: String =
            digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let kept = bytes.get(..KEPT_BYTES_MAX).unwrap_or(bytes);
        let (postgres, queue) = (&self.shared.desk.postgres, self.shared.names.dead.as_str());
        let note = || async {
            let _turn = self.worker.turn().await;
            postgres.note_unreadable(queue, &entry, kept, &error, self.shared.node.now()).await
        };
        let hold = |wait| self.hand.hold(since, wait);
        while let Err(refusal) = trouble::insist(&self.shared.node, note, hold).await? {
            tracing::error!(what, entry, %refusal, "the ledger does not take a dead letter; it stays in hand");
            hold(AGAIN_AFTER).await?;
        }
        self.hand.acknowledge(vec![self.message.delivery_tag]).await
    }
}
