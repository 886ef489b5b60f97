//! What the parts of one node share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::buying::Buying;
use super::hand::Hands;
use super::publisher::Publisher;
use super::replays::Replays;
use super::status::Gauges;
use super::topology::Names;
use super::unsettled::Unsettled;
use crate::delivery::DeliveryOptions;
use crate::node::{Desk, Node};
use crate::postgres::{CONNECTIONS_MAX_DEFAULT, SettingsCheck};

/// Messages that may wait in the queue.
const QUEUE_MAX: u64 = 1_000_000;
/// Requests of one node that may be queued without a worker being known to have seen them.
const UNSEEN_MAX: u64 = 1_000_000;
/// Messages that a worker has in hand at most.
const PREFETCH: u16 = 256;
/// How long a queue that was just made is left alone: see [`super::topology::Queue::New`].
const NEW_QUEUE_REST: Duration = Duration::from_millis(1_500);
/// How long a lock lives unless its holder renews it.
const LOCK_LIFE: Duration = Duration::from_secs(5);

/// How to open a rabbitmq engine.
#[derive(Clone, Debug)]
pub struct RabbitOptions {
    /// `amqp://user:password@host:port/vhost`.
    pub amqp: String,
    /// `redis://[user:password@]host:port[/database]`, for the lock.
    pub redis: String,
    /// `postgres://user[:password]@host:port/database`.
    pub postgres: String,
    /// Connections to PostgreSQL, from 1.
    pub postgres_connections_max: usize,
    /// Whether a PostgreSQL whose settings can lose orders is used.
    pub settings: SettingsCheck,
    /// Workers in this process; 0 leaves decisions to others.
    pub workers: usize,
    /// How the ledger's refusals are handled.
    pub delivery: DeliveryOptions,
    /// Whether workers take a lock before they decide. Nothing that must hold rests on it.
    pub lock: bool,
    /// How long the lock lives unless it is renewed.
    pub lock_life: Duration,
    /// Messages that a worker has in hand at most, from 1. Each has one request or several.
    pub prefetch: u16,
    /// Messages that may wait in the queue, if this node is the one that makes it.
    pub queue_max: u64,
    /// Requests of this node that may be queued without a worker being known to have seen them. This node keeps each of
    /// them in memory, so that a broker which loses them loses no order; above it, it queues no more.
    pub unseen_max: u64,
    /// How long a queue that was just made is left alone before anything is put into it.
    pub new_queue_rest: Duration,
}

impl RabbitOptions {
    /// The defaults, for these servers.
    pub fn new(amqp: impl Into<String>, redis: impl Into<String>, postgres: impl Into<String>) -> Self {
        Self {
            amqp: amqp.into(),
            redis: redis.into(),
            postgres: postgres.into(),
            postgres_connections_max: CONNECTIONS_MAX_DEFAULT,
            settings: SettingsCheck::default(),
            workers: 1,
            delivery: DeliveryOptions::default(),
            lock: true,
            lock_life: LOCK_LIFE,
            prefetch: PREFETCH,
            queue_max: QUEUE_MAX,
            unseen_max: UNSEEN_MAX,
            new_queue_rest: new_queue_rest(),
        }
    }
}

/// Tests make many queues; those of them that kill no broker right afterwards say that it need not rest.
fn new_queue_rest() -> Duration {
    let given = std::env::var("YOINK_FAULT_NEW_QUEUE_REST_MS").ok().filter(|_| cfg!(feature = "faults"));
    given.and_then(|ms| ms.parse().ok()).map_or(NEW_QUEUE_REST, Duration::from_millis)
}

/// What the parts of one node share.
pub(crate) struct Shared {
    pub(crate) options: RabbitOptions,
    pub(crate) node: Arc<Node>,
    pub(crate) desk: Desk,
    pub(crate) names: Names,
    pub(crate) gauges: Gauges,
    /// The way to the queue.
    pub(crate) publisher: Publisher,
    /// Look-ups of orders that may be known.
    pub(crate) replays: Replays,
    /// Keys that are being bought with on this node.
    pub(crate) buying: Buying,
    /// Orders that may be queued without this node knowing.
    pub(crate) unsettled: Unsettled,
    /// What the workers of this node have in hand.
    pub(crate) hands: Hands,
    /// How many decisions may be under way at once: some connections to the ledger are left to those who only ask.
    pub(crate) turnstile: Semaphore,
    /// True once the node is closing: who waits for something to do ends.
    pub(crate) closing: watch::Sender<bool>,
}
