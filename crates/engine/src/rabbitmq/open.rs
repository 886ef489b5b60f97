//! Opening and closing the engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::uri::AMQPUri;
use parking_lot::Mutex;
use redis::IntoConnectionInfo as _;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::buying::Buying;
use super::hand::Hands;
use super::publisher::Publisher;
use super::publishing::PublisherTask;
use super::replays::Replays;
use super::shared::{RabbitOptions, Shared};
use super::status::Gauges;
use super::topology::Names;
use super::unsettled::Unsettled;
use super::{RabbitEngine, broker};
use crate::node::{Background, ClaimError, Desk, Node, NodeOptions, open_ledger};
use crate::postgres::PostgresOpenError;

/// What is left to be done once workers and publisher have ended.
const LAST_REPORT_MAX: Duration = Duration::from_secs(1);

/// Connections to PostgreSQL that workers leave to those who only ask.
const LEFT_TO_OTHERS: usize = 2;

/// Why a rabbitmq engine did not open.
#[derive(Debug, thiserror::Error)]
pub enum RabbitOpenError {
    /// The ledger cannot be used.
    #[error(transparent)]
    Postgres(#[from] PostgresOpenError),
    /// The ledger is sold from by another engine.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The broker's URL cannot be read.
    #[error(
        "the RabbitMQ URL cannot be used ({what}); it should look like amqp://user:password@host:5672/vhost"
    )]
    Amqp {
        /// What is wrong with it.
        what: String,
    },
    /// Redis's URL cannot be read.
    #[error("the Redis URL cannot be used; it should look like redis://user:password@host:6379")]
    Redis {
        /// What is wrong with it.
        #[source]
        source: redis::RedisError,
    },
    /// The operating system gave no threads.
    #[error("cannot start the engine's threads")]
    Threads(#[source] std::io::Error),
}

/// What all clones of an engine share.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) broker: AMQPUri,
    /// Taken when the engine is closed.
    owned: Mutex<Option<Owned>>,
}

struct Owned {
    background: Background,
    publisher: JoinHandle<()>,
    workers: Option<JoinHandle<()>>,
}

impl RabbitEngine {
    /// Connects to PostgreSQL and starts what goes on in the background. The broker and Redis need not be there yet.
    ///
    /// # Errors
    /// See [`RabbitOpenError`].
    pub(crate) fn open(options: RabbitOptions) -> Result<Self, RabbitOpenError> {
        let broker = broker::parse(&options.amqp).map_err(|what| RabbitOpenError::Amqp { what })?;
        let redis = options.redis.as_str().into_connection_info();
        redis.map_err(|source| RabbitOpenError::Redis { source })?;
        let (background, handle) = Background::start().map_err(RabbitOpenError::Threads)?;
        let postgres = handle.block_on(open_ledger::<RabbitOpenError>(
            "rabbitmq",
            &options.postgres,
            options.postgres_connections_max,
            options.settings,
        ))?;
        let node_options = NodeOptions {
            settings: options.settings,
            workers: options.workers,
            delivery: options.delivery.clone(),
        };
        let identity = postgres.identity();
        let node = Arc::new(Node::new(node_options, &identity.secret));
        let shared = Arc::new(Shared {
            desk: Desk { runtime: handle.clone(), postgres: postgres.clone(), node: Arc::clone(&node) },
            node: Arc::clone(&node),
            names: Names::new(identity.id),
            gauges: Gauges::default(),
            publisher: Publisher::new(options.unseen_max),
            replays: Replays::default(),
            buying: Buying::default(),
            unsettled: Unsettled::default(),
            hands: Hands::default(),
            turnstile: Semaphore::new(options.postgres_connections_max.saturating_sub(LEFT_TO_OTHERS).max(1)),
            closing: watch::Sender::new(false),
            options,
        });
        // What cannot be read now is read a moment later.
        let _ = handle.block_on(shared.follow_products());
        let publisher = handle.spawn(PublisherTask::new(Arc::clone(&shared), broker.clone()).run());
        handle.spawn(Arc::clone(&shared).watch_ledger());
        handle.spawn(Arc::clone(&shared).watch_queue());
        handle.spawn(Arc::clone(&shared).watch_settings());
        handle.spawn(Arc::clone(&shared).answer_replays());
        handle.spawn(Arc::clone(&node).tell_waiters(postgres));
        let workers =
            (shared.options.workers > 0).then(|| handle.spawn(Arc::clone(&shared).employ_workers()));
        let owned = Mutex::new(Some(Owned { background, publisher, workers }));
        Ok(Self { parts: Arc::new(Parts { shared, broker, owned }) })
    }

    /// Refuses new calls, waits at most `drain` until the broker has answered for what is under way and workers have
    /// decided what they have in hand, and ends what goes on in the background. What is in the queue is decided by
    /// whoever works next. Blocks; calling it again does nothing.
    pub(crate) fn close_blocking(&self, drain: Duration) {
        let shared = self.shared();
        shared.node.close();
        let Some(owned) = self.parts.owned.lock().take() else { return };
        shared.publisher.close();
        shared.closing.send_replace(true);
        let until = Instant::now().checked_add(drain);
        let ended = async {
            // A publisher that was torn down has nothing under way either.
            let _ = owned.publisher.await;
            if let Some(workers) = owned.workers {
                let _ = workers.await;
            }
        };
        shared.desk.runtime.block_on(async {
            let left = until.map_or(drain, |until| until.saturating_duration_since(Instant::now()));
            if tokio::time::timeout(left, ended).await.is_err() {
                tracing::warn!("closing before everything under way was answered");
            }
            // Who reads the ledger next knows then what was confirmed, and that nothing is in hand.
            let last = async { (shared.report().await, shared.report_in_hand().await) };
            let _ = tokio::time::timeout(LAST_REPORT_MAX, last).await;
        });
        owned.background.end(Duration::from_millis(500));
    }
}
