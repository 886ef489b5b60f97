//! A queue of orders on RabbitMQ: durable, its messages kept on disk, acknowledged one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Consumer};

use super::{Amqp, Job, Shop};

/// Messages with this mode are kept on disk.
const PERSISTENT: u8 = 2;
/// How long a queue that nobody uses stays, in milliseconds: a broker that others use too is left clean.
const IDLE_MAX_MS: i32 = 600_000;

/// Whether whoever publishes waits until the broker has said that it keeps the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirms {
    /// It does.
    Wanted,
    /// Sent is sent.
    Ignored,
}

/// The queue of a run, with a connection of its own.
pub struct Queue {
    name: ShortString,
    amqp: Amqp,
    confirms: Confirms,
    /// Published by this process and not settled by it.
    unsettled: AtomicI64,
}

/// A job that a worker has in hand.
pub struct Message {
    /// The job.
    pub job: Job,
    delivery: Delivery,
    queue: Arc<Queue>,
}

/// What comes out of the queue.
pub struct Messages {
    consumer: Consumer,
    /// Kept, because dropping it ends the consumer.
    _channel: Channel,
    queue: Arc<Queue>,
}

impl Queue {
    /// Declares the queue of this run, unless it is there.
    ///
    /// # Errors
    /// RabbitMQ cannot be used.
    pub async fn open(shop: &Shop, confirms: Confirms) -> Result<Arc<Queue>> {
        let amqp = shop.stores.amqp().await?;
        let name = ShortString::from(format!("lab.{}.orders", shop.run));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-expires".into(), AMQPValue::LongInt(IDLE_MAX_MS));
        let declared = amqp.channel.queue_declare(name.clone(), options, arguments).await;
        declared.context("cannot declare the queue")?;
        if confirms == Confirms::Wanted {
            let selected = amqp.channel.confirm_select(ConfirmSelectOptions::default()).await;
            selected.context("RabbitMQ does not confirm")?;
        }
        Ok(Arc::new(Queue { name, amqp, confirms, unsettled: AtomicI64::new(0) }))
    }

    /// Puts a job at the end.
    ///
    /// # Errors
    /// RabbitMQ cannot be used, or does not keep it.
    pub async fn push(&self, job: &Job) -> Result<()> {
        let body = serde_json::to_vec(job)?;
        // Before it is sent, because a worker may have settled it before this goes on.
        self.unsettled.fetch_add(1, Ordering::Relaxed);
        self.publish(&body).await.inspect_err(|_| {
            self.unsettled.fetch_sub(1, Ordering::Relaxed);
        })
    }

    async fn publish(&self, body: &[u8]) -> Result<()> {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let (key, options) = (self.name.clone(), BasicPublishOptions::default());
        let sent = self.amqp.channel.basic_publish("".into(), key, options, body, properties).await;
        let confirm = sent.context("cannot publish")?;
        if self.confirms == Confirms::Ignored {
            return Ok(());
        }
        match confirm.await.context("RabbitMQ does not say whether it keeps a message")? {
            Confirmation::Ack(None) => Ok(()),
            other => bail!("RabbitMQ does not keep a message: {other:?}"),
        }
    }

    /// What is queued, at most `prefetch` of it in hand at once.
    ///
    /// # Errors
    /// RabbitMQ cannot be used.
    pub async fn messages(self: &Arc<Queue>, prefetch: u16) -> Result<Messages> {
        let channel = self.amqp.connection.create_channel().await.context("no channel of RabbitMQ")?;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.context("cannot set the prefetch")?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consuming = channel.basic_consume(self.name.clone(), "".into(), options, arguments);
        let consumer = consuming.await.context("cannot consume")?;
        Ok(Messages { consumer, _channel: channel, queue: Arc::clone(self) })
    }

    /// What waits in the broker, and what this process has published and nobody has settled.
    ///
    /// # Errors
    /// RabbitMQ cannot be used.
    pub async fn backlog(&self) -> Result<u64> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.amqp.channel.queue_declare(self.name.clone(), options, FieldTable::default()).await;
        let ready = asked.context("RabbitMQ does not say how much waits")?.message_count();
        let unsettled = self.unsettled.load(Ordering::Relaxed);
        Ok(u64::from(ready).max(u64::try_from(unsettled).unwrap_or(0)))
    }
}

impl Messages {
    /// The next job; `None` if the broker is gone.
    pub async fn next(&mut self) -> Option<Result<Message>> {
        let delivery = match self.consumer.next().await? {
            Ok(delivery) => delivery,
            Err(error) => return Some(Err(error.into())),
        };
        let job = serde_json::from_slice(&delivery.data).context("what was queued is no job");
        Some(job.map(|job| Message { job, delivery, queue: Arc::clone(&self.queue) }))
    }
}

impl Message {
    /// Acknowledges it: the broker forgets it.
    ///
    /// # Errors
    /// RabbitMQ cannot be used.
    pub async fn acknowledge(&self) -> Result<()> {
        self.delivery.ack(BasicAckOptions::default()).await.context("cannot acknowledge")?;
        self.queue.unsettled.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// Gives it back to the queue: it is delivered again.
    ///
    /// # Errors
    /// RabbitMQ cannot be used.
    pub async fn give_back(&self) -> Result<()> {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        self.delivery.nack(options).await.context("cannot give a message back")?;
        Ok(())
    }
}
