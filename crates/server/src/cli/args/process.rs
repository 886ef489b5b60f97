//! What can be typed for every process with an engine: a node or a worker.

use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigLayer, DurabilityName, EngineName, LogFormat, ServerUrl, empty_layer};

/// What every process with an engine is told. A worker explains some of it in words of its own, at places of its own: the
/// order leaves room for the flags that only one of the two has.
#[derive(Debug, Default, Args)]
pub struct ProcessArgs {
    /// Read settings from this file [env: YOINK_CONFIG] [default: yoink.toml if it is there]
    #[arg(long, value_name = "FILE", env = "YOINK_CONFIG", hide_env = true, display_order = 0)]
    pub config: Option<PathBuf>,
    /// How it sells [env: YOINK_ENGINE] [default: embedded]
    #[arg(long, value_name = "NAME", hide_possible_values = true, display_order = 4)]
    pub engine: Option<EngineName>,
    /// When an accepted order is on disk: fsync, os-buffer with --dev, or relaxed with an engine on servers
    /// [env: YOINK_DURABILITY] [default: fsync]
    #[arg(long, value_name = "NAME", hide_possible_values = true, display_order = 6)]
    pub durability: Option<DurabilityName>,
    /// The rabbitmq engine's RabbitMQ [env: YOINK_AMQP_URL]
    #[arg(long, value_name = "URL", display_order = 7)]
    pub amqp: Option<ServerUrl>,
    /// The Redis; with the redis engine, servers of a cluster are separated by commas [env: YOINK_REDIS_URL]
    #[arg(long, value_name = "URL", display_order = 8)]
    pub redis: Option<ServerUrl>,
    /// The PostgreSQL [env: YOINK_POSTGRES_URL]
    #[arg(long, value_name = "URL", display_order = 9)]
    pub postgres: Option<ServerUrl>,
    /// The rabbitmq engine's workers take no lock; nothing that is promised rests on it [env: YOINK_LOCK=false]
    #[arg(long, display_order = 10)]
    pub no_lock: bool,
    /// Connections to PostgreSQL [env: YOINK_POSTGRES_CONNECTIONS] [default: 5]
    #[arg(long, value_name = "N", display_order = 11)]
    pub postgres_connections: Option<usize>,
    /// Workers in this process, with the redis engine per product; 0 leaves the work to `yoink worker`
    /// [env: YOINK_WORKERS] [default: 1]
    #[arg(long, value_name = "N", display_order = 12)]
    pub workers: Option<usize>,
    /// What to log: error, warn, info, debug, trace, or a filter [env: YOINK_LOG] [default: info]
    #[arg(long, value_name = "LEVEL", display_order = 15)]
    pub log_level: Option<String>,
    /// How log lines look: text or json [env: YOINK_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true, display_order = 16)]
    pub log_format: Option<LogFormat>,
}

impl ProcessArgs {
    /// What the flags say, as the first layer of the configuration.
    pub(super) fn layer(&self) -> ConfigLayer {
        let mut layer = empty_layer();
        layer.engine = self.engine;
        layer.durability = self.durability;
        layer.amqp.url.clone_from(&self.amqp);
        layer.lock.enabled = self.no_lock.then_some(false);
        layer.redis.url.clone_from(&self.redis);
        layer.postgres.url.clone_from(&self.postgres);
        layer.postgres.connections_max = self.postgres_connections;
        layer.workers = self.workers;
        layer.log.level.clone_from(&self.log_level);
        layer.log.format = self.log_format;
        layer
    }
}
