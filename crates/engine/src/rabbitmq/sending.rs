//! One connection to the broker that messages are sent on, and what the broker says to each.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{try_join, try_join_all};
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{Channel, Confirmation, ConnectionStatus, ErrorKind};
use parking_lot::Mutex;

use super::broker::{self, Link, within};
use super::making;
use super::shared::Shared;
use super::topology::{self, Queue};

/// Messages that wait for the broker's confirm at most: what comes meanwhile is gathered.
pub(super) const UNDER_WAY_MAX: usize = 4;
/// How often the queues are looked at.
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
    /// On which nothing is unanswered. Every message that is under way has a channel for itself: the client gives a message
    /// that the broker returned to whichever confirm of its channel it comes upon next, and of several that come in one
    /// that is any of them.
    channels: Arc<Mutex<Vec<Channel>>>,
    shared: Arc<Shared>,
    pub(crate) opened_at: Instant,
    /// Looks at the queues; ends with the connection.
    watch: tokio::task::JoinHandle<()>,
    /// One of the queues was not there at the last look.
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
            let channels = (0..UNDER_WAY_MAX).map(|_| broker::confirming_channel(&link.connection));
            let channels = try_join_all(channels).await?;
            let names = &shared.names;
            let looks = [Look::open(&link, &names.orders).await?, Look::open(&link, &names.dead).await?];
            Ok((Arc::new(Mutex::new(channels)), looks, queue))
        };
        let (channels, looks, queue) = within(ready).await?;
        if queue == Queue::New {
            tokio::time::sleep(shared.options.new_queue_rest).await;
        }
        let status = link.connection.status().clone();
        let is_queue_gone = Arc::new(AtomicBool::new(false));
        let watch = tokio::spawn(watch(Arc::clone(&shared), looks, status, Arc::clone(&is_queue_gone)));
        Ok(Self { link, channels, shared, opened_at: Instant::now(), watch, is_queue_gone })
    }

    /// Whether the broker takes nothing, for want of memory or disk.
    pub(crate) fn is_blocked(&self) -> bool {
        self.link.connection.status().blocked()
    }

    /// Whether the queues could not be looked at: one is not there any more, or the broker is not.
    pub(crate) fn has_ended(&self) -> bool {
        self.watch.is_finished()
    }

    /// Whether the broker has said that there is no such queue.
    pub(crate) fn is_queue_gone(&self) -> bool {
        self.is_queue_gone.load(Ordering::Acquire)
    }

    /// Hands a message over when it is first polled; the answer comes with the broker's. No more than [`UNDER_WAY_MAX`]
    /// may be unanswered.
    pub(crate) fn send(&self, message: String) -> impl Future<Output = Outcome> + Send + use<> {
        let (exchange, key) = (self.shared.names.exchange.clone(), self.shared.names.orders.clone());
        let channels = Arc::clone(&self.channels);
        async move {
            let Some(channel) = channels.lock().pop() else { return Outcome::NotWritten };
            let written = broker::publish(&channel, exchange, key, message.as_bytes()).await;
            let Ok(confirm) = written else { return Outcome::NotWritten };
            let outcome = match confirm.await {
                Ok(Confirmation::Ack(None)) => Outcome::Confirmed,
                // An unroutable message is confirmed behind its return.
                Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => Outcome::Returned,
                Ok(Confirmation::Nack(None)) => Outcome::Refused,
                Ok(Confirmation::NotRequested) | Err(_) => return Outcome::Unanswered,
            };
            channels.lock().push(channel);
            outcome
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(&self) {
        self.link.close().await;
    }
}

/// Looks at one queue.
struct Look {
    channel: Channel,
    queue: ShortString,
    /// It is left alone until then.
    not_before: Instant,
}

impl Look {
    async fn open(link: &Link, queue: &ShortString) -> lapin::Result<Self> {
        let channel = link.connection.create_channel().await?;
        Ok(Self { channel, queue: queue.clone(), not_before: Instant::now() })
    }

    /// How many messages wait in the queue; `None` if it does not know.
    async fn look(&mut self) -> lapin::Result<Option<u64>> {
        let begun = Instant::now();
        if begun < self.not_before {
            return Ok(None);
        }
        let looked = within(topology::look_at(&self.channel, &self.queue)).await;
        if begun.elapsed() < LOOK_MAX {
            return Ok(Some(u64::from(looked?.message_count())));
        }
        self.not_before = Instant::now().checked_add(LEAVE_ALONE).unwrap_or(begun);
        looked.map(|_| None)
    }

    /// As [`Look::look`], of a queue that nothing is sent to from here: only that it is not there is an error.
    async fn look_if_there(&mut self) -> lapin::Result<Option<u64>> {
        match self.look().await {
            Err(error) if !topology::is_missing(&error) => Ok(None),
            looked => looked,
        }
    }
}

/// Somebody looks at the queues. Once nobody does, also because the connection was given up in the middle of a look, what
/// was seen last says nothing any more.
struct Looking(Arc<Shared>);

impl Looking {
    fn note(&self, queued: Option<u64>, dead: Option<u64>) {
        self.0.publisher.retained.note_queue(queued, Instant::now());
        self.0.gauges.note_queued(queued, dead);
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.note(None, None);
    }
}

/// Looks at the queues again and again, until that fails.
async fn watch(
    shared: Arc<Shared>,
    mut looks: [Look; 2],
    status: ConnectionStatus,
    is_gone: Arc<AtomicBool>,
) {
    let looking = Looking(shared);
    loop {
        let [orders, dead] = &mut looks;
        // While the broker takes nothing, it is not asked anything either.
        let looked = match status.blocked() {
            true => Ok((None, None)),
            false => try_join(orders.look(), dead.look_if_there()).await,
        };
        let (queued, dead) = looked.as_ref().ok().copied().unwrap_or_default();
        looking.note(queued, dead);
        if let Err(error) = looked
            && !status.blocked()
        {
            is_gone.store(matches!(error.kind(), ErrorKind::ProtocolError(_)), Ordering::Release);
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
