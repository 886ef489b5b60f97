//! What can be typed for engines on servers: Redis, PostgreSQL, RabbitMQ.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{ProcessArgs, TargetArgs};
use crate::config::{ConfigLayer, EngineName, ServerUrl, empty_layer};

pub(super) const AUDIT_HELP: &str = "\
Examples:
  yoink audit                         ask the running server to count everything again
  yoink audit --data yoink-data       count in the data folder of a server that is stopped
  yoink audit --redis redis://10.0.0.5:6379 --postgres postgres://yoink@10.0.0.6/yoink
      count in Redis and PostgreSQL, whether servers run or not
  yoink audit --amqp amqp://yoink@10.0.0.4/yoink --redis redis://10.0.0.5:6379 --postgres postgres://yoink@10.0.0.6/yoink
      the same for the rabbitmq engine
  yoink audit --repair --reason \"hand-edited stock\"
      and fill Redis anew from PostgreSQL where it differs; YOINK_REDIS_URL and YOINK_POSTGRES_URL say which
  yoink audit --json                  one JSON document for machines

Exit code 0 only if nothing was oversold, lost or duplicated and every unit is accounted for.";

pub(super) const WORKER_HELP: &str = "\
Examples:
  yoink worker --redis redis://10.0.0.5:6379 --postgres postgres://yoink@10.0.0.6/yoink
      one of any number of workers, for nodes that serve with --workers 0 or for more speed
  yoink worker --engine rabbitmq --amqp amqp://yoink@10.0.0.4/yoink --redis … --postgres …
      one of any number that decide what is queued
  yoink worker --config /etc/yoink.toml --listen 127.0.0.1:3101
      a second one on the same machine

It answers /metrics, /livez and /readyz. End it with Ctrl-C or SIGTERM, or in any other way: what it had in hand stays
in the stream or the queue, and another worker takes it over.";

pub(super) const MIGRATE_HELP: &str = "\
Examples:
  yoink migrate --postgres postgres://yoink@10.0.0.6/yoink
  YOINK_POSTGRES_URL=postgres://yoink:PASSWORD@10.0.0.6/yoink yoink migrate --json

Run it before the first start and after each update. Running it again, or twice at once, does no harm.";

/// `yoink audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Which server.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Count in this data folder instead; its server must be stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = ["amqp", "redis", "postgres", "repair"])]
    pub data: Option<PathBuf>,
    /// Count behind this RabbitMQ and in its PostgreSQL instead
    #[arg(long, value_name = "URL")]
    pub amqp: Option<ServerUrl>,
    /// Count in this Redis and its PostgreSQL instead
    #[arg(long, value_name = "URL")]
    pub redis: Option<ServerUrl>,
    /// Count in this PostgreSQL and its Redis instead
    #[arg(long, value_name = "URL")]
    pub postgres: Option<ServerUrl>,
    /// Read settings from this file [env: YOINK_CONFIG] [default: yoink.toml if it is there]
    #[arg(long, value_name = "FILE", env = "YOINK_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
    /// Fill Redis anew, under a new epoch, with each product in which it differs from PostgreSQL
    #[arg(long, requires = "reason")]
    pub repair: bool,
    /// Why, for the books
    #[arg(long, value_name = "TEXT", requires = "repair")]
    pub reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

impl AuditArgs {
    /// Whether RabbitMQ, Redis and PostgreSQL are asked, and not a server of ours.
    pub fn asks_servers(&self) -> bool {
        self.repair || self.amqp.is_some() || self.redis.is_some() || self.postgres.is_some()
    }

    /// What the flags say, as the first layer of the configuration.
    pub fn layer(&self) -> ConfigLayer {
        let mut layer = empty_layer();
        layer.engine = self.amqp.is_some().then_some(EngineName::Rabbitmq);
        layer.amqp.url.clone_from(&self.amqp);
        layer.redis.url.clone_from(&self.redis);
        layer.postgres.url.clone_from(&self.postgres);
        layer
    }
}

/// `yoink worker`.
#[derive(Debug, Args)]
#[command(
    mut_arg("engine", |flag| flag.help(
        "Whose work: redis or rabbitmq [env: YOINK_ENGINE] [default: rabbitmq if there is a RabbitMQ, else redis]"
    )),
    mut_arg("workers", |flag| flag.value_parser(parse_workers).help(
        "Workers, with the redis engine per product; at least 1 [env: YOINK_WORKERS] [default: 1]"
    )),
    mut_arg("durability", |flag| flag.display_order(13).help(
        "fsync, or relaxed to use servers whose settings may lose orders [env: YOINK_DURABILITY] [default: fsync]"
    ))
)]
pub struct WorkerArgs {
    /// What every process with an engine is told.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Where it answers /metrics, /livez and /readyz [env: YOINK_WORKER_LISTEN] [default: 127.0.0.1:3100]
    #[arg(long, value_name = "ADDR:PORT", display_order = 5)]
    pub listen: Option<SocketAddr>,
}

impl WorkerArgs {
    /// What the flags say, as the first layer of the configuration.
    pub fn layer(&self) -> ConfigLayer {
        let mut layer = self.process.layer();
        layer.worker_listen = self.listen;
        layer
    }
}

fn parse_workers(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|workers| *workers > 0).ok_or("a worker has at least 1")
}

/// `yoink migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Read settings from this file [env: YOINK_CONFIG] [default: yoink.toml if it is there]
    #[arg(long, value_name = "FILE", env = "YOINK_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
    /// The PostgreSQL [env: YOINK_POSTGRES_URL]
    #[arg(long, value_name = "URL")]
    pub postgres: Option<ServerUrl>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

impl MigrateArgs {
    /// What the flags say, as the first layer of the configuration.
    pub fn layer(&self) -> ConfigLayer {
        let mut layer = empty_layer();
        layer.postgres.url.clone_from(&self.postgres);
        layer
    }
}
