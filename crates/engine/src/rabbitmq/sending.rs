//! One connection to the broker that messages are sent on, and what the broker says to each.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, ConnectionStatus};

use super::broker::Link;
use super::message;
use super::shared::Shared;
use super::topology;
use crate::node::order_id::to_hex;
use crate::postgres::Request;

/// AMQP's number for a message that is written to disk.
const PERSISTENT: u8 = 2;
/// How often the queue is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    properties: BasicProperties,
    pub(crate) opened_at: Instant,
    /// Looks at the queue; ends with the connection.
    watch: tokio::task::JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Line {
    /// Waits, connects, and makes sure that the queue is there.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses.
    pub(crate) async fn open(shared: Arc<Shared>, uri: AMQPUri, wait: Duration) -> lapin::Result<Self> {
        tokio::time::sleep(wait).await;
        let link = Link::connect(&uri, "yoink publisher").await?;
        let ready = async {
            topology::ensure(&link.connection, &shared.names, shared.options.queue_max).await?;
            let channel = link.connection.create_channel().await?;
            // Without it every message would count as confirmed.
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok((channel, link.connection.create_channel().await?))
        };
        let (channel, looking) = within(ready).await?;
        let status = link.connection.status().clone();
        let watch = tokio::spawn(watch(Arc::clone(&shared), looking, status));
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        Ok(Self { link, channel, shared, properties, opened_at: Instant::now(), watch })
    }

    /// Whether the broker takes nothing, for want of memory or disk.
    pub(crate) fn is_blocked(&self) -> bool {
        self.link.connection.status().blocked()
    }

    /// Whether the queue could not be looked at: it is not there any more, or the broker is not.
    pub(crate) fn has_ended(&self) -> bool {
        self.watch.is_finished()
    }

    /// Hands a message over, in the order of the first polls; the answer comes with the broker's.
    pub(crate) fn send(&self, request: &Request) -> impl Future<Output = Outcome> + Send + use<> {
        let payload = message::encode(request, &self.shared.node.order_ids);
        let properties = self.properties.clone().with_message_id(to_hex(request.order).into());
        let (exchange, key) = (self.shared.names.exchange.clone(), self.shared.names.orders.clone());
        let channel = self.channel.clone();
        async move {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let written = channel.basic_publish(exchange, key, options, payload.as_bytes(), properties).await;
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
async fn watch(shared: Arc<Shared>, channel: Channel, status: ConnectionStatus) {
    loop {
        let looked = if status.blocked() { None } else { look(&shared, &channel).await };
        shared.publisher.retained.note_queue(looked, Instant::now());
        shared.gauges.note_queued(looked);
        // While the broker takes nothing, it is not asked anything either.
        if looked.is_none() && !status.blocked() {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How many messages wait in the queue; `None` if it cannot be told.
async fn look(shared: &Shared, channel: &Channel) -> Option<u64> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let name = shared.names.orders.clone();
    let queue = within(channel.queue_declare(name, options, FieldTable::default())).await.ok()?;
    Some(u64::from(queue.message_count()))
}

/// A broker that says nothing for two seconds has failed.
async fn within<T>(asked: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    match tokio::time::timeout(Duration::from_secs(2), asked).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}
