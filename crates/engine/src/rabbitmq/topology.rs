//! What the broker holds: names, and how they are declared.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};
use uuid::Uuid;

/// Times that the broker hands a message out again before it goes to the dead letters. A worker holds what it cannot decide
/// now; so what counts are its deaths, cut connections, and every 20 minutes for which a message was held in vain.
const DELIVERIES_MAX: i64 = 20;

/// The names in the broker: each has the ledger's id, so that two shops can share a broker.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The exchange that requests are published to; the queue's name is the routing key.
    pub(crate) exchange: ShortString,
    /// The queue of requests.
    pub(crate) orders: ShortString,
    /// The exchange of dead letters.
    pub(crate) dead_exchange: ShortString,
    /// The queue of what could not be read, or was handed out too often.
    pub(crate) dead: ShortString,
}

impl Names {
    pub(crate) fn new(ledger: Uuid) -> Self {
        let id = ledger.simple().to_string();
        let id = id.get(..8).unwrap_or_default();
        let name = |what: &str| ShortString::from(format!("yoink.{id}.{what}"));
        Self {
            exchange: name("requests"),
            orders: name("orders"),
            dead_exchange: name("dead-letters"),
            dead: name("dead"),
        }
    }
}

/// Whether a queue was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// It was.
    Known,
    /// It was made now. The broker (seen with 3.10) says so before the queue's place in it is on disk: killed within
    /// about a second, it comes back with a queue that takes nothing. So whoever made it gives it time.
    New,
}

/// Declares everything, unless it is there. `queue_max` is how many messages may wait; above it the broker refuses more. A
/// queue that is there is used as it is: an operator may have made it otherwise. Tells of the queue of requests.
///
/// # Errors
/// The broker does not do it.
pub(crate) async fn ensure(connection: &Connection, names: &Names, queue_max: u64) -> lapin::Result<Queue> {
    ensure_dead(connection, names).await?;
    exchange(connection, &names.exchange).await?;
    let mut orders = quorum();
    // Whoever is above the length is told so; nothing that was accepted is dropped for it.
    orders.insert("x-overflow".into(), text("reject-publish"));
    orders
        .insert("x-max-length".into(), AMQPValue::LongLongInt(i64::try_from(queue_max).unwrap_or(i64::MAX)));
    orders
        .insert("x-dead-letter-exchange".into(), AMQPValue::LongString(names.dead_exchange.as_str().into()));
    orders.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(names.dead.as_str().into()));
    orders.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    orders.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERIES_MAX));
    queue(connection, &names.orders, &names.exchange, orders).await
}

/// Declares what dead letters need, unless it is there. Tells of their queue.
///
/// # Errors
/// The broker does not do it.
pub(crate) async fn ensure_dead(connection: &Connection, names: &Names) -> lapin::Result<Queue> {
    exchange(connection, &names.dead_exchange).await?;
    let mut dead = quorum();
    dead.insert("x-overflow".into(), text("reject-publish"));
    // Newer brokers drop what was handed out twenty times, unless they are told otherwise: nothing is dropped here.
    dead.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(i32::MAX.into()));
    queue(connection, &names.dead, &names.dead_exchange, dead).await
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    // Replicated and fsynced before it confirms, also on a single node.
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Fails unless a queue is there.
///
/// # Errors
/// It is not, or the broker cannot be asked.
pub(crate) async fn look_for(connection: &Connection, queue: &ShortString) -> lapin::Result<()> {
    look_at(&connection.create_channel().await?, queue).await.map(drop)
}

/// Asks for a queue that should be there, and how many messages it has. The broker closes a channel that asked for what
/// is not there.
///
/// # Errors
/// It is not, or the broker cannot be asked.
pub(crate) async fn look_at(channel: &Channel, queue: &ShortString) -> lapin::Result<lapin::Queue> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.clone(), passive, FieldTable::default()).await
}

/// Whether the broker has said that what was asked for is not there.
pub(crate) fn is_missing(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(said) = error.kind() else { return false };
    matches!(said.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}

async fn exchange(connection: &Connection, name: &ShortString) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.clone(), ExchangeKind::Direct, durable, FieldTable::default()).await
}

async fn queue(
    connection: &Connection,
    name: &ShortString,
    exchange: &ShortString,
    arguments: FieldTable,
) -> lapin::Result<Queue> {
    let is_there = look_for(connection, name).await.is_ok();
    let channel = connection.create_channel().await?;
    if !is_there {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.clone(), durable, arguments).await?;
    }
    let (key, options) = (name.clone(), QueueBindOptions::default());
    channel.queue_bind(name.clone(), exchange.clone(), key, options, FieldTable::default()).await?;
    Ok(if is_there { Queue::Known } else { Queue::New })
}
