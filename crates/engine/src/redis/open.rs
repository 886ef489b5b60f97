//! Opening and closing the engine.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::keeper::Keeper;
use super::lane::{Lane, LaneDriver};
use super::loader::Loader;
use super::servers::{Servers, shown};
use super::{Mistakes, RedisEngine, Shared, checks};
use crate::RateLimit;
use crate::delivery::DeliveryOptions;
use crate::node::{Background, ClaimError, Desk, Node, NodeOptions, open_ledger};
use crate::postgres::{CONNECTIONS_MAX_DEFAULT, Postgres, PostgresOpenError, SettingsCheck};

/// Grants of one product that may wait for the ledger.
const BACKLOG_MAX: u64 = 1_000_000;
/// Entries that another worker has had in hand for this long are taken over.
const CLAIM_AFTER: Duration = Duration::from_secs(5);
/// How often the servers are asked for their settings.
const SETTINGS_EVERY: Duration = Duration::from_secs(10);

/// How to open a redis engine.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port[/database]`; several of one cluster, separated by commas.
    pub redis: String,
    /// `postgres://user[:password]@host:port/database`.
    pub postgres: String,
    /// Connections to PostgreSQL, from 1.
    pub postgres_connections_max: usize,
    /// Whether servers whose settings can lose orders are used.
    pub settings: SettingsCheck,
    /// Workers for each product in this process; 0 leaves delivery to others.
    pub workers: usize,
    /// How the ledger's refusals are handled.
    pub delivery: DeliveryOptions,
    /// Grants of one product that may wait for the ledger; above it nothing is sold.
    pub backlog_max: u64,
    /// How often a customer may be granted an order of one product, on whichever node he asks; the same on every node.
    /// Kept in Redis: it begins anew when Redis is filled anew. `None` does not limit it.
    pub rate_limit: Option<RateLimit>,
    /// Entries that another worker has had in hand for this long are taken over.
    pub claim_after: Duration,
    /// How often the servers are asked for their settings, at most once a second.
    pub settings_every: Duration,
    /// Mistakes to make on purpose.
    pub mistakes: Mistakes,
}

impl RedisOptions {
    /// The defaults, for these servers.
    pub fn new(redis: impl Into<String>, postgres: impl Into<String>) -> Self {
        Self {
            redis: redis.into(),
            postgres: postgres.into(),
            postgres_connections_max: CONNECTIONS_MAX_DEFAULT,
            settings: SettingsCheck::default(),
            workers: 1,
            delivery: DeliveryOptions::default(),
            backlog_max: BACKLOG_MAX,
            rate_limit: None,
            claim_after: CLAIM_AFTER,
            settings_every: SETTINGS_EVERY,
            mistakes: Mistakes::default(),
        }
    }
}

/// Why a redis engine did not open.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    /// The ledger cannot be used.
    #[error(transparent)]
    Postgres(#[from] PostgresOpenError),
    /// The ledger is sold from by another engine.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Redis cannot be reached.
    #[error("{what}; start it, or give another address with --redis")]
    Redis {
        /// What happened, to which server.
        what: String,
    },
    /// Redis would lose orders.
    #[error("{}. Set it right, or start with --durability relaxed and say so to your customers", complaints.join(". "))]
    Settings {
        /// One sentence for each setting.
        complaints: Vec<String>,
    },
    /// The operating system gave no threads.
    #[error("cannot start the engine's threads")]
    Threads(#[source] std::io::Error),
}

/// What all clones of an engine share.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) desk: Desk,
    pub(crate) servers: Arc<Servers>,
    pub(crate) redis_url: String,
    pub(crate) keeper: Arc<Keeper>,
    /// Dropped when the engine is closed.
    background: Mutex<Option<Background>>,
}

impl RedisEngine {
    /// Connects, checks, and starts what goes on in the background.
    ///
    /// # Errors
    /// See [`RedisOpenError`].
    pub(crate) fn open(options: RedisOptions) -> Result<Self, RedisOpenError> {
        let (background, handle) = Background::start().map_err(RedisOpenError::Threads)?;
        let (postgres, servers) = handle.block_on(connect(&options))?;
        let node_options = NodeOptions {
            settings: options.settings,
            workers: options.workers,
            delivery: options.delivery.clone(),
        };
        let identity = postgres.identity();
        let node = Arc::new(Node::new(node_options, &identity.secret));
        let shared = Arc::new(Shared::new(options.clone(), Arc::clone(&node), identity.id));
        let me = Uuid::new_v4();
        let loader = Arc::new(Loader {
            me,
            postgres: postgres.clone(),
            servers: Arc::clone(&servers),
            shared: Arc::clone(&shared),
        });
        let lane = Arc::new(Lane::default());
        let keeper = Arc::new(Keeper {
            postgres: postgres.clone(),
            servers: Arc::clone(&servers),
            shared: Arc::clone(&shared),
            lane: Arc::clone(&lane),
            loader,
            loading: Arc::new(Mutex::new(HashSet::new())),
        });
        let driver = LaneDriver::new(&lane, Servers::new(&options.redis), Arc::clone(&shared));
        handle.spawn(driver.run());
        handle.block_on(async {
            // What cannot be read now is read a moment later.
            let _ = shared.node.catalogue.refresh(&postgres).await;
            keeper.look_at_all().await;
        });
        handle.spawn(Arc::clone(&keeper).watch_redis());
        handle.spawn(Arc::clone(&keeper).watch_ledger());
        handle.spawn(Arc::clone(&keeper).watch_servers());
        handle.spawn(Arc::clone(&node).tell_waiters(postgres.clone()));
        if options.workers > 0 {
            handle.spawn(Arc::clone(&keeper).employ_workers(options.workers));
        }
        let parts = Parts {
            shared,
            desk: Desk { runtime: handle, postgres, node },
            servers,
            redis_url: options.redis,
            keeper,
            background: Mutex::new(Some(background)),
        };
        Ok(Self { parts: Arc::new(parts), lane })
    }

    /// Refuses new calls, and ends what goes on in the background. Whatever is under way is in Redis and the ledger:
    /// nothing here is needed again. Blocks; calling it again does nothing.
    pub(crate) fn close_blocking(&self, drain: Duration) {
        self.shared().node.close();
        if let Some(background) = self.parts.background.lock().take() {
            background.end(drain.min(Duration::from_secs(2)));
        }
    }
}

async fn connect(options: &RedisOptions) -> Result<(Postgres, Arc<Servers>), RedisOpenError> {
    let connections_max = options.postgres_connections_max;
    let postgres =
        open_ledger::<RedisOpenError>("redis", &options.postgres, connections_max, options.settings).await?;
    let servers = Servers::new(&options.redis);
    let mut complaints = Vec::new();
    let mut is_reached = false;
    let mut last = format!("no address of Redis was given ({})", shown(&options.redis));
    for server in servers.all().await {
        match server {
            Ok(server) => {
                is_reached = true;
                let asked = checks::redis_complaints(&server).await;
                complaints.extend(asked.map_err(|error| RedisOpenError::Redis { what: error.to_string() })?);
            }
            Err(error) => last = error.to_string(),
        }
    }
    if !is_reached {
        return Err(RedisOpenError::Redis { what: last });
    }
    if options.settings == SettingsCheck::Strict && !complaints.is_empty() {
        return Err(RedisOpenError::Settings { complaints });
    }
    Ok((postgres, Arc::new(servers)))
}
