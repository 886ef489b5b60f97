//! A connection that messages of one queue come over, from its beginning to its end, again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::task::{JoinError, JoinSet};

use super::broker::{self, Link};
use super::hand::Hand;
use super::making;
use super::shared::Shared;
use super::topology;
use crate::node::Patience;

/// The longest wait between two attempts to connect, or to find the ledger well.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// A connection that lasted for so long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(1);
/// How long what is on its way from the broker is waited for after it was asked for no more.
const LAST_ONES_MAX: Duration = Duration::from_millis(500);

/// How long a queue may take to have a leader.
const LEADER_MAX: Duration = Duration::from_secs(15);
/// How often it is looked whether a connection is still there.
const CONNECTED_EVERY: Duration = Duration::from_millis(200);

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The node closes.
    Closing,
    /// The channel is over.
    Gone,
}

/// Runs sessions, one after the other, until the node closes. `what` they are for is told in the log.
pub(super) async fn again_and_again<F>(shared: &Shared, what: &str, session: impl Fn() -> F)
where
    F: Future<Output = lapin::Result<End>>,
{
    let mut patience = Patience::up_to(WAIT_MAX);
    let mut is_told = false;
    loop {
        let begun = Instant::now();
        let ended = session().await;
        if begun.elapsed() >= GOOD_AFTER {
            patience.reset();
            is_told = false;
        }
        match ended {
            Ok(End::Closing) => return,
            Ok(End::Gone) => {
                tracing::info!(what, "a worker lost its connection to the broker and connects again")
            }
            Err(error) if !std::mem::replace(&mut is_told, true) => {
                tracing::warn!(what, %error, "a worker cannot use the broker; it tries again for ever");
            }
            Err(error) => tracing::debug!(what, %error, "a worker cannot use the broker"),
        }
        if !wait_unless_closing(shared, patience.next()).await {
            return;
        }
    }
}

/// Waits for so long. False: the node closes.
async fn wait_unless_closing(shared: &Shared, wait: Duration) -> bool {
    tokio::time::timeout(wait, closing(shared)).await.is_err()
}

/// Waits until the node closes.
pub(super) async fn closing(shared: &Shared) {
    // The sender is in `shared`, so it is not dropped meanwhile.
    let _ = shared.closing.subscribe().wait_for(|is_closing| *is_closing).await;
}

/// Waits for an answer of a queue's. After a restart of the broker its leader is elected first, which takes some seconds and
/// begins anew whenever the queue is asked again: so it is asked once, unless the connection ends.
async fn patiently<T>(link: &Link, asked: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    let ended = async {
        while link.connection.status().connected() {
            tokio::time::sleep(CONNECTED_EVERY).await;
        }
    };
    tokio::select! {
        answer = asked => answer,
        () = ended => Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()),
        () = tokio::time::sleep(LEADER_MAX) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// Messages of one queue, over one channel.
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) hand: Arc<Hand>,
    channel: Channel,
    consumer: Consumer,
}

/// What comes next.
enum Next {
    Message(Box<Delivery>),
    Closing,
    Gone,
}

impl Session {
    /// Begins to take messages, at most `prefetch` at once, as soon as the ledger could decide them: a message that is
    /// taken and held for too long counts as handed out in vain. `None`: the node closes.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses.
    pub(super) async fn open(
        shared: &Shared,
        queue: &ShortString,
        prefetch: u16,
    ) -> lapin::Result<Option<Self>> {
        let mut patience = Patience::up_to(WAIT_MAX);
        while shared.desk.postgres.delivery_is_paused().await.unwrap_or(true) {
            if !wait_unless_closing(shared, patience.next()).await {
                return Ok(None);
            }
        }
        tokio::select! {
            begun = Self::begin(shared, queue, prefetch) => begun.map(Some),
            () = closing(shared) => Ok(None),
        }
    }

    async fn begin(shared: &Shared, queue: &ShortString, prefetch: u16) -> lapin::Result<Self> {
        let uri = broker::parse(&shared.options.amqp).map_err(std::io::Error::other)?;
        let link = Link::connect(&uri, "yoink worker").await?;
        let ready = async {
            let found = topology::look_for(&link.connection, queue).await;
            let is_dead = *queue == shared.names.dead;
            match found {
                Err(error) if !(is_dead && topology::is_missing(&error)) => return Err(error),
                // Also if it is there: perhaps nothing leads to it any more.
                _ if is_dead => making::dead_letters(shared, &link.connection).await?,
                // Whoever publishes makes the queue of requests, and gives it time to be on disk.
                _ => {}
            }
            let channel = link.connection.create_channel().await?;
            channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await?;
            let consuming = channel.basic_consume(
                queue.clone(),
                ShortString::default(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            let consumer = consuming.await?;
            Ok((channel, consumer))
        };
        let (channel, consumer) = patiently(&link, ready).await?;
        let hand = Arc::new(Hand::new(channel.clone()));
        shared.hands.add(&hand);
        Ok(Self { link, hand, channel, consumer })
    }

    /// Gives what comes to `take`, which may leave work to `tasks`, until the node closes or the channel is over.
    pub(super) async fn serve(
        &mut self,
        shared: &Shared,
        tasks: &mut JoinSet<()>,
        mut take: impl FnMut(Delivery, &mut JoinSet<()>),
    ) -> End {
        loop {
            tokio::select! {
                next = self.next(shared) => match next {
                    Next::Message(message) => take(*message, tasks),
                    Next::Closing => return End::Closing,
                    Next::Gone => return End::Gone,
                },
                Some(ended) = tasks.join_next() => self.see_to(ended),
            }
        }
    }

    /// Waits until all of `tasks` are done.
    pub(super) async fn finish(&self, tasks: &mut JoinSet<()>) {
        while let Some(ended) = tasks.join_next().await {
            self.see_to(ended);
        }
    }

    /// A task that was torn down leaves its product to nobody: begin anew with everything.
    fn see_to(&self, ended: Result<(), JoinError>) {
        if ended.is_err() {
            self.hand.end();
        }
    }

    /// The next message, which is in hand then.
    async fn next(&mut self, shared: &Shared) -> Next {
        let next = tokio::select! {
            biased;
            () = closing(shared) => Next::Closing,
            () = self.hand.wait_over() => Next::Gone,
            found = self.consumer.next() => match found {
                Some(Ok(message)) => Next::Message(Box::new(message)),
                Some(Err(error)) => {
                    tracing::debug!(%error, "the channel of a worker is over");
                    Next::Gone
                }
                // The broker says so when the queue was deleted.
                None => Next::Gone,
            },
        };
        match &next {
            Next::Message(message) => self.hand.take(message.delivery_tag),
            Next::Gone => self.hand.end(),
            Next::Closing => {}
        }
        next
    }

    /// Asks for no more. Gives what had been sent by then; it is in hand.
    pub(super) async fn last_ones(&mut self) -> Vec<Delivery> {
        let mut messages = Vec::new();
        let all = async {
            let cancel = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
            if cancel.await.is_err() {
                return;
            }
            while let Some(Ok(message)) = self.consumer.next().await {
                self.hand.take(message.delivery_tag);
                messages.push(message);
            }
        };
        // What comes later is handed out anew.
        let _ = tokio::time::timeout(LAST_ONES_MAX, all).await;
        messages
    }
}
