//! Connections to the servers.

use std::time::Duration;

use anyhow::{Context as _, Result};
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use lapin::{Channel, Connection, ConnectionProperties};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio_postgres::NoTls;

/// How long anything may take before it counts as failed.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Connections to PostgreSQL, unless a strategy asks for another number.
pub const CONNECTIONS: usize = 10;

/// Where the servers are. What a strategy does not need is not there.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// `postgres://…`, with the run's database.
    pub postgres: Option<String>,
    /// `redis://…`.
    pub redis: Option<String>,
    /// `amqp://…`.
    pub amqp: Option<String>,
}

/// Connections to the servers.
pub struct Stores {
    addresses: Addresses,
    postgres: Option<Pool>,
    redis: Option<ConnectionManager>,
}

/// The shop's connections to PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Open.
    pub total: usize,
    /// Of them, not in use.
    pub idle: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

/// A connection to RabbitMQ, with a channel of it.
pub struct Amqp {
    /// Kept, because dropping it closes the channel.
    pub connection: Connection,
    /// The channel.
    pub channel: Channel,
}

impl Stores {
    pub(super) async fn open(addresses: &Addresses) -> Result<Stores> {
        let postgres = match &addresses.postgres {
            Some(url) => Some(pool(url, CONNECTIONS, ANSWER_MAX)?),
            None => None,
        };
        let redis = match &addresses.redis {
            Some(url) => Some(connect_redis(url).await?),
            None => None,
        };
        Ok(Stores { addresses: addresses.clone(), postgres, redis })
    }

    /// A connection to PostgreSQL from the shop's pool of ten.
    ///
    /// # Errors
    /// None is free or can be made within two seconds.
    pub async fn postgres(&self) -> Result<Object> {
        let pool = self.postgres.as_ref().context("this strategy has no PostgreSQL")?;
        pool.get().await.context("no connection to PostgreSQL")
    }

    /// How many connections to PostgreSQL there are in the shop's own pool.
    #[must_use]
    pub fn pool(&self) -> PoolCounts {
        let status = self.postgres.as_ref().map(Pool::status);
        status.map_or_else(PoolCounts::default, |status| PoolCounts {
            total: status.size,
            idle: status.available,
            waiting: status.waiting,
        })
    }

    /// A pool of another size, whose connections are waited for so long.
    ///
    /// # Errors
    /// There is no PostgreSQL.
    pub fn small_pool(&self, connections: usize, wait: Duration) -> Result<Pool> {
        let url = self.addresses.postgres.as_ref().context("this strategy has no PostgreSQL")?;
        pool(url, connections, wait)
    }

    /// The connection to Redis, shared by all requests; it is made again when it breaks.
    ///
    /// # Errors
    /// There is no Redis.
    pub fn redis(&self) -> Result<ConnectionManager> {
        self.redis.clone().context("this strategy has no Redis")
    }

    /// A new connection to RabbitMQ.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn amqp(&self) -> Result<Amqp> {
        let url = self.addresses.amqp.as_ref().context("this strategy has no RabbitMQ")?;
        let connecting = Connection::connect(url, ConnectionProperties::default());
        let connection = connecting.await.context("no connection to RabbitMQ")?;
        let channel = connection.create_channel().await.context("no channel of RabbitMQ")?;
        Ok(Amqp { connection, channel })
    }
}

fn pool(url: &str, connections: usize, wait: Duration) -> Result<Pool> {
    let config = url.parse().context("the URL of PostgreSQL cannot be read")?;
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let waits = Timeouts { wait: Some(wait), create: Some(ANSWER_MAX), recycle: Some(ANSWER_MAX) };
    Pool::builder(Manager::from_config(config, NoTls, recycling))
        .max_size(connections)
        .timeouts(waits)
        .runtime(Runtime::Tokio1)
        .build()
        .context("no pool of connections")
}

async fn connect_redis(url: &str) -> Result<ConnectionManager> {
    let client = redis::Client::open(url).context("the URL of Redis cannot be read")?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(ANSWER_MAX))
        .set_response_timeout(Some(ANSWER_MAX))
        .set_number_of_retries(1);
    client.get_connection_manager_with_config(config).await.context("no connection to Redis")
}
