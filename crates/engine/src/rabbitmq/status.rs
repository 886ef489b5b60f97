//! How the rabbitmq engine and its servers are, for those who watch it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join3;

use super::RabbitEngine;
use super::broker::Link;
use crate::CallError;
use crate::node::Ping;
use crate::postgres::Connections;

/// How long Redis may take to give a sign of life.
const REDIS_ANSWER_MAX: Duration = Duration::from_secs(1);

/// What the parts of a node count for those who watch it.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Requests that became orders.
    pub(crate) confirmed: AtomicU64,
    /// Requests that were rejected.
    pub(crate) rejected: AtomicU64,
    /// Times that a worker found the lock taken.
    pub(crate) locked: AtomicU64,
    /// Times that a worker came back with an old token and decided nothing.
    pub(crate) stale: AtomicU64,
    /// Messages that could not be read.
    pub(crate) unreadable: AtomicU64,
    /// Messages that were queued again because no worker ever saw them.
    pub(crate) requeued: AtomicU64,
    /// One more than the messages that wait in the queue, as of the last look; 0: that cannot be told.
    queued: AtomicU64,
    /// The same of the queue of dead letters.
    dead: AtomicU64,
    /// Whether the publisher is connected and the broker takes messages.
    pub(crate) is_publishing: AtomicBool,
    /// Whether a worker of this process is connected.
    pub(crate) is_consuming: AtomicBool,
}

impl Gauges {
    /// One more of what is counted.
    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    /// Requests that were decided, either way.
    pub(crate) fn decided(&self) -> u64 {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        count(&self.confirmed).wrapping_add(count(&self.rejected))
    }

    /// How many messages wait in the queue of requests, and how many in the one of dead letters; `None` if that cannot be
    /// told.
    pub(crate) fn note_queued(&self, messages: Option<u64>, dead: Option<u64>) {
        let counted = |messages: Option<u64>| messages.map_or(0, |messages| messages.saturating_add(1));
        self.queued.store(counted(messages), Ordering::Relaxed);
        self.dead.store(counted(dead), Ordering::Relaxed);
    }

    pub(crate) fn queued(&self) -> Option<u64> {
        self.queued.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(crate) fn dead(&self) -> Option<u64> {
        self.dead.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// What became of messages, as this process counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RabbitProcessed {
    /// Requests that became orders.
    pub confirmed: u64,
    /// Requests that were rejected: sold out, or the customer had enough.
    pub rejected: u64,
    /// Times that a worker found a product's lock taken.
    pub locked: u64,
    /// Times that a worker came back with an old token, and decided nothing.
    pub stale: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
    /// Messages that were queued again because no worker ever saw them.
    pub requeued: u64,
}

/// How the rabbitmq engine is. Costs nothing: no server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RabbitStatus {
    /// Whether the broker takes requests: it is connected, and has memory and disk.
    pub is_publishing: bool,
    /// Whether a worker of this process is connected to the broker.
    pub is_consuming: bool,
    /// Whether the settings of PostgreSQL keep what is promised, or less was promised.
    pub may_sell: bool,
    /// Messages that wait in the queue and that no worker has in hand, as of the last look, which is about a second ago;
    /// `None` if that cannot be told.
    pub queued: Option<u64>,
    /// Requests that this node has queued and no worker has been seen to take.
    pub unseen: u64,
    /// What became of messages.
    pub processed: RabbitProcessed,
    /// Connections to PostgreSQL.
    pub connections: Connections,
}

impl RabbitEngine {
    pub(crate) fn status(&self) -> RabbitStatus {
        let shared = self.shared();
        let gauges = &shared.gauges;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RabbitStatus {
            is_publishing: gauges.is_publishing.load(Ordering::Relaxed),
            is_consuming: gauges.is_consuming.load(Ordering::Relaxed),
            may_sell: shared.node.may_sell(),
            queued: gauges.queued(),
            unseen: shared.publisher.retained.count() as u64,
            processed: RabbitProcessed {
                confirmed: count(&gauges.confirmed),
                rejected: count(&gauges.rejected),
                locked: count(&gauges.locked),
                stale: count(&gauges.stale),
                unreadable: count(&gauges.unreadable),
                requeued: count(&gauges.requeued),
            },
            connections: shared.desk.postgres.connections(),
        }
    }

    /// Asks every server for a sign of life.
    pub(crate) async fn ping(&self) -> Result<Vec<Ping>, CallError> {
        self.desk()
            .in_background_with(self, |engine| async move {
                let (rabbitmq, redis, postgres) =
                    join3(engine.ping_rabbitmq(), engine.ping_redis(), engine.desk().ping()).await;
                Ok(vec![rabbitmq, redis, postgres])
            })
            .await
    }

    async fn ping_rabbitmq(&self) -> Ping {
        let begun = Instant::now();
        let link = Link::connect(self.broker(), "yoink ping").await;
        let took = begun.elapsed();
        if let Ok(link) = &link {
            link.close().await;
        }
        Ping { server: "rabbitmq", is_well: link.is_ok(), took }
    }

    async fn ping_redis(&self) -> Ping {
        let begun = Instant::now();
        let asking = async {
            let client = redis::Client::open(self.shared().options.redis.as_str())?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await
        };
        let is_well = matches!(tokio::time::timeout(REDIS_ANSWER_MAX, asking).await, Ok(Ok(_)));
        Ping { server: "redis", is_well, took: begun.elapsed() }
    }
}
