//! One connection to the broker that messages are sent on, and what the broker says to each.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lapin::uri::AMQPUri;
use lapin::{Channel, Confirmation, ConnectionStatus, ErrorKind};

use super::broker::{self, Link, within};
use super::making;
use super::shared::Shared;
use super::topology::{self, Queue};

/// How often the queue is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A queue that takes so long to say how many messages it has does not know: after a restart of the broker a quorum queue
/// has no leader for some seconds, and the broker says that it is empty.
const LOOK_MAX: Duration = Duration::from_millis(200);
/// How long it is left alone then: the wait for a leader begins anew whenever such a queue is asked for something.
const LEAVE_ALONE: Duration = Duration::from_secs(12);

/// What the broker said to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in the queue, on disk.
    Confirmed,
    /// The queue did not take it.
    Refused,
    /// There is no queue.
    Returned,
    /// It was not handed over to the end.
    NotWritten,
    /// It was handed over, and the connection ended before the broker said anything.
    Unanswered,
}

/// A connection that is ready to send.
pub(crate) struct Line {
    link: Link,
    channel: Channel,
    shared: Arc<Shared>,
    pub(crate) opened_at: Instant,
    /// Looks at the queue; ends with the connection.
    watch: tokio::task::JoinHandle<()>,
    /// The queue was not there at the last look.
    is_queue_gone: Arc<AtomicBool>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Line {
    /// Waits, connects, and, if `ensures` is true, makes sure that the queue is there. That is not done at every
    /// connection, because it asks the queue.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses.
    pub(crate) async fn open(
        shared: Arc<Shared>,
        uri: AMQPUri,
        wait: Duration,
        ensures: bool,
    ) -> lapin::Result<Self> {
        tokio::time::sleep(wait).await;
        let link = Link::connect(&uri, "yoink publisher").await?;
        let ready = async {
            let queue = match ensures {
                true => making::everything(&shared, &link.connection).await?,
                false => Queue::Known,
            };
            let channel = broker::confirming_channel(&link.connection).await?;
            Ok((channel, link.connection.create_channel().await?, queue))
        };
        let (channel, looking, queue) = within(ready).await?;
        if queue == Queue::New {
            tokio::time::sleep(shared.options.new_queue_rest).await;
        }
        let status = link.connection.status().clone();
        let is_queue_gone = Arc::new(AtomicBool::new(false));
        let watch = tokio::spawn(watch(Arc::clone(&shared), looking, status, Arc::clone(&is_queue_gone)));
        Ok(Self { link, channel, shared, opened_at: Instant::now(), watch, is_queue_gone })
    }

    /// Whether the broker takes nothing, for want of memory or disk.
    pub(crate) fn is_blocked(&self) -> bool {
        self.link.connection.status().blocked()
    }

    /// Whether the queue could not be looked at: it is not there any more, or the broker is not.
    pub(crate) fn has_ended(&self) -> bool {
        self.watch.is_finished()
    }

    /// Whether the broker has said that there is no queue.
    pub(crate) fn is_queue_gone(&self) -> bool {
        self.is_queue_gone.load(Ordering::Acquire)
    }

    /// Hands a message over, in the order of the first polls; the answer comes with the broker's.
    pub(crate) fn send(&self, message: String) -> impl Future<Output = Outcome> + Send + use<> {
        let (exchange, key) = (self.shared.names.exchange.clone(), self.shared.names.orders.clone());
        let channel = self.channel.clone();
        async move {
            let written = broker::publish(&channel, exchange, key, message.as_bytes()).await;
            let Ok(confirm) = written else { return Outcome::NotWritten };
            match confirm.await {
                Ok(Confirmation::Ack(None)) => Outcome::Confirmed,
                // An unroutable message is confirmed behind its return.
                Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => Outcome::Returned,
                Ok(Confirmation::Nack(None)) => Outcome::Refused,
                Ok(Confirmation::NotRequested) | Err(_) => Outcome::Unanswered,
            }
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(&self) {
        self.link.close().await;
    }
}

/// Looks at the queue again and again, until that fails.
async fn watch(shared: Arc<Shared>, channel: Channel, status: ConnectionStatus, is_gone: Arc<AtomicBool>) {
    loop {
        // While the broker takes nothing, it is not asked anything either.
        let is_blocked = status.blocked();
        let begun = Instant::now();
        let looked = if is_blocked { Ok(None) } else { look(&shared, &channel).await.map(Some) };
        let was_slow = begun.elapsed() >= LOOK_MAX;
        let queued = looked.as_ref().ok().copied().flatten().filter(|_| !was_slow);
        shared.publisher.retained.note_queue(queued, Instant::now());
        shared.gauges.note_queued(queued);
        if let Err(error) = looked
            && !status.blocked()
        {
            is_gone.store(matches!(error.kind(), ErrorKind::ProtocolError(_)), Ordering::Release);
            return;
        }
        tokio::time::sleep(if was_slow { LEAVE_ALONE } else { LOOK_EVERY }).await;
    }
}

/// How many messages wait in the queue.
async fn look(shared: &Shared, channel: &Channel) -> lapin::Result<u64> {
    let queue = within(topology::look_at(channel, &shared.names.orders)).await?;
    Ok(u64::from(queue.message_count()))
}
