//! The queue of dead letters. A request in it was handed out too often while workers died: it is decided alone. Whatever
//! else is in it is written down in the ledger, where operators see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use lapin::message::Delivery;

use super::hand::{Gone, Hand};
use super::lock::Locks;
use super::lot::{Worker, decide_alone};
use super::lots::Taken;
use super::message;
use super::session::{End, Next, Session, again_and_again, closing};
use super::shared::Shared;
use super::trouble;

/// Messages in hand at most. They are seen to one by one.
const PREFETCH: u16 = 16;
/// What the ledger did not take comes again after so long; the others go on meanwhile.
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
    let worker = Worker::new(Arc::clone(&shared), Arc::clone(&session.hand), locks);
    // When something stayed in hand for the first time.
    let mut left_at: Option<Instant> = None;
    loop {
        let rest = left_at.map(|at| AGAIN_AFTER.saturating_sub(at.elapsed()));
        let next = tokio::select! {
            next = session.next(&shared) => next,
            // With the connection it leaves this hand.
            () = tokio::time::sleep(rest.unwrap_or_default()), if rest.is_some() => return Ok(End::Gone),
        };
        match next {
            Next::Message(message) => {
                let seen_to = tokio::select! {
                    seen_to = see_to(&shared, &session.hand, &worker, *message) => seen_to,
                    // Perhaps the ledger is away; all of it comes again.
                    () = closing(&shared) => continue,
                };
                match seen_to {
                    Ok(Seen::Done) => {}
                    Ok(Seen::Left) => drop(left_at.get_or_insert_with(Instant::now)),
                    Err(Gone) => return Ok(End::Gone),
                }
            }
            Next::Closing => {
                session.link.close().await;
                return Ok(End::Closing);
            }
            Next::Gone => return Ok(End::Gone),
        }
    }
}

/// What became of a dead letter.
enum Seen {
    /// It is decided or written down, and acknowledged.
    Done,
    /// The ledger does not take it. It stays in hand.
    Left,
}

async fn see_to(shared: &Shared, hand: &Hand, worker: &Arc<Worker>, message: Delivery) -> Result<Seen, Gone> {
    let what = match message::decode(&message.data, &shared.node.order_ids) {
        Ok(requests) => {
            tracing::warn!(
                requests = requests.len(),
                "requests were handed out too often; each is decided alone"
            );
            return decide_alone(worker, Taken::all(requests, message.delivery_tag))
                .await
                .map(|()| Seen::Done);
        }
        Err(what) => what,
    };
    let bytes = message.data.as_slice();
    let error = match bytes.len() > KEPT_BYTES_MAX {
        true => format!("{what} ({} bytes, of which the first {KEPT_BYTES_MAX} are kept)", bytes.len()),
        false => what.to_owned(),
    };
    // The same bytes are kept once, also if they come again because this worker died.
    let entry: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let kept = bytes.get(..KEPT_BYTES_MAX).unwrap_or(bytes);
    let (postgres, queue) = (&shared.desk.postgres, shared.names.dead.as_str());
    let note = || postgres.note_unreadable(queue, &entry, kept, &error, shared.node.now());
    if let Err(refusal) = trouble::insist(&shared.node, note, |wait| hand.pause(wait)).await? {
        tracing::error!(what, entry, %refusal, "the ledger does not take a dead letter; it stays in the queue");
        return Ok(Seen::Left);
    }
    hand.acknowledge(vec![message.delivery_tag]).await.map(|()| Seen::Done)
}
