//! Configuration: flag, environment, file, default, in that order.
//!
//! `config.default.toml` at the root of the repository documents every setting. It is embedded here, and a test
//! compares it with the defaults below, so neither can drift.

mod check;
mod convert;
mod rabbit;
mod redis;
mod server_url;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use confique::{Config as _, File, FileFormat, Layer as _};
use serde::Serialize;

pub use check::{CLOSING_MS_MAX, Refusal};
pub use server_url::ServerUrl;
pub use values::{
    DurabilityName, EngineName, JwtSecretEntry, KeyEntry, LogFormat, OnDeadLetterName, RateLimit, Secret,
};

/// The commented file with every setting and its default.
pub const DEFAULT_FILE: &str = include_str!("../../../config.default.toml");

/// The file that is read if it is there and no other is named.
pub const FILE_NAME: &str = "yoink.toml";

/// Settings of which some are set: what the flags, the environment or a file say.
pub type ConfigLayer = <Config as confique::Config>::Layer;

/// What can be wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file or an environment variable holds something that is not a setting.
    #[error("the configuration cannot be read")]
    Load(#[source] confique::Error),
    /// The settings contradict each other or promise what they cannot keep.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// Everything that can be set. `config.default.toml` says what each means.
#[derive(Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct Config {
    /// Where buyers connect.
    #[config(env = "YOINK_LISTEN", default = "127.0.0.1:3000")]
    pub listen: SocketAddr,
    /// Where operators connect; with them on `listen` if not given.
    #[config(env = "YOINK_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,
    /// The data folder.
    #[config(env = "YOINK_DATA", default = "yoink-data")]
    pub data: PathBuf,
    /// How it sells.
    #[config(env = "YOINK_ENGINE", default = "embedded")]
    pub engine: EngineName,
    /// When an accepted order is on disk.
    #[config(env = "YOINK_DURABILITY", default = "fsync")]
    pub durability: DurabilityName,
    /// Development on this machine.
    #[config(env = "YOINK_DEV", default = false)]
    pub dev: bool,
    /// Threads that serve HTTP; 0 is one per core.
    #[config(env = "YOINK_THREADS", default = 0)]
    pub threads: usize,
    /// Workers in this process, with the redis engine per product; 0 leaves the work to `yoink worker`.
    #[config(env = "YOINK_WORKERS", default = 1)]
    pub workers: usize,
    /// Where `yoink worker` is watched.
    #[config(env = "YOINK_WORKER_LISTEN", default = "127.0.0.1:3100")]
    pub worker_listen: SocketAddr,
    /// Start although the log ends before what was promised.
    #[config(env = "YOINK_ACCEPT_LOSS", default = false)]
    pub accept_loss: bool,
    /// A key with every scope.
    #[config(env = "YOINK_ADMIN_KEY")]
    pub admin_key: Option<Secret>,
    /// Keys for programs.
    #[config(env = "YOINK_KEYS", parse_env = values::parse_keys, default = [])]
    pub keys: Vec<KeyEntry>,
    /// Refuse a purchase that has no `Idempotency-Key`.
    #[config(env = "YOINK_REQUIRE_IDEMPOTENCY_KEY", default = false)]
    pub require_idempotency_key: bool,
    /// Networks whose `X-Forwarded-For` is believed.
    #[config(env = "YOINK_TRUSTED_PROXIES", parse_env = confique::env::parse::list_by_comma, default = [])]
    pub trusted_proxies: Vec<String>,
    /// The RabbitMQ of the rabbitmq engine.
    #[config(nested)]
    pub amqp: AmqpConfig,
    /// The rabbitmq engine's lock in Redis.
    #[config(nested)]
    pub lock: LockConfig,
    /// The Redis of the redis engine, and of the rabbitmq engine's lock.
    #[config(nested)]
    pub redis: RedisConfig,
    /// The PostgreSQL of the engines that have one.
    #[config(nested)]
    pub postgres: PostgresConfig,
    /// What is written to standard error.
    #[config(nested)]
    pub log: LogConfig,
    /// Bounds of the engine.
    #[config(nested)]
    pub storage: StorageConfig,
    /// Carrying orders to the ledger.
    #[config(nested)]
    pub delivery: DeliveryConfig,
    /// Who may ask how often.
    #[config(nested)]
    pub rate_limits: RateLimitsConfig,
    /// Bounds of requests and connections.
    #[config(nested)]
    pub http: HttpConfig,
    /// Customer tokens.
    #[config(nested)]
    pub jwt: JwtConfig,
}

/// The RabbitMQ of the rabbitmq engine.
#[derive(Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct AmqpConfig {
    /// Its address and virtual host.
    #[config(env = "YOINK_AMQP_URL")]
    pub url: Option<ServerUrl>,
    /// Messages that may wait in the queue, each with one request or several.
    #[config(env = "YOINK_AMQP_QUEUE_MESSAGES_MAX", default = 1_000_000)]
    pub queue_messages_max: u64,
    /// Requests that one node may have queued without a worker being known to have seen them.
    #[config(env = "YOINK_AMQP_UNSEEN_REQUESTS_MAX", default = 1_000_000)]
    pub unseen_requests_max: u64,
    /// Messages that a worker has in hand at most.
    #[config(env = "YOINK_AMQP_PREFETCH", default = 256)]
    pub prefetch: u16,
}

/// The rabbitmq engine's lock in Redis.
#[derive(Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct LockConfig {
    /// Whether workers take it.
    #[config(env = "YOINK_LOCK", default = true)]
    pub enabled: bool,
    /// How long it lives unless it is renewed.
    #[config(env = "YOINK_LOCK_LIFE_MS", default = 5000)]
    pub life_ms: u64,
}

/// The Redis of the redis engine.
#[derive(Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct RedisConfig {
    /// One server, or several of one cluster, separated by commas.
    #[config(env = "YOINK_REDIS_URL")]
    pub url: Option<ServerUrl>,
    /// Orders of one product that may wait for the ledger.
    #[config(env = "YOINK_REDIS_BACKLOG_ORDERS_MAX", default = 1_000_000)]
    pub backlog_orders_max: u64,
    /// When another worker's orders are taken over.
    #[config(env = "YOINK_REDIS_CLAIM_AFTER_MS", default = 5000)]
    pub claim_after_ms: u64,
}

/// The PostgreSQL of the engines that have one.
#[derive(Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct PostgresConfig {
    /// Its address.
    #[config(env = "YOINK_POSTGRES_URL")]
    pub url: Option<ServerUrl>,
    /// Connections of this process.
    #[config(env = "YOINK_POSTGRES_CONNECTIONS", default = 5)]
    pub connections_max: usize,
}

/// What is written to standard error.
#[derive(Clone, Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct LogConfig {
    /// A level, or a filter such as `info,yoink_engine=debug`.
    #[config(env = "YOINK_LOG", default = "info")]
    pub level: String,
    /// For people or for machines.
    #[config(env = "YOINK_LOG_FORMAT", default = "text")]
    pub format: LogFormat,
    /// One line per request, at level debug.
    #[config(env = "YOINK_LOG_REQUESTS", default = true)]
    pub requests: bool,
}

/// Bounds of the engine.
#[derive(Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct StorageConfig {
    /// Calls that may wait for the writer.
    #[config(env = "YOINK_INBOX_TICKETS_MAX", default = 16384)]
    pub inbox_tickets_max: usize,
    /// Selling stops when the disk has less than this left.
    #[config(env = "YOINK_FREE_BYTES_MIN", default = 67_108_864)]
    pub free_bytes_min: u64,
}

/// Carrying orders to the ledger.
#[derive(Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct DeliveryConfig {
    /// Tries before a delivery becomes a dead letter.
    #[config(env = "YOINK_DELIVERY_ATTEMPTS_MAX", default = 3)]
    pub attempts_max: u32,
    /// Pause before the second try.
    #[config(env = "YOINK_DELIVERY_BACKOFF_BASE_MS", default = 100)]
    pub backoff_base_ms: u64,
    /// The longest pause between two tries.
    #[config(env = "YOINK_DELIVERY_BACKOFF_MAX_MS", default = 5000)]
    pub backoff_max_ms: u64,
    /// Orders that one transaction carries.
    #[config(env = "YOINK_DELIVERY_BATCH_ORDERS_MAX", default = 1000)]
    pub batch_orders_max: usize,
    /// What becomes of the units of a dead letter.
    #[config(env = "YOINK_DELIVERY_ON_DEAD_LETTER", default = "release")]
    pub on_dead_letter: OnDeadLetterName,
}

/// Who may ask how often.
#[derive(Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct RateLimitsConfig {
    /// Purchases of one customer.
    #[config(env = "YOINK_RATE_LIMIT_PER_CUSTOMER", default = "off")]
    pub per_customer: RateLimit,
    /// Purchases from one address.
    #[config(env = "YOINK_RATE_LIMIT_PER_ADDRESS", default = "off")]
    pub per_address: RateLimit,
    /// Purchases from one network.
    #[config(env = "YOINK_RATE_LIMIT_PER_NETWORK", default = "off")]
    pub per_network: RateLimit,
    /// The compatible route `/purchase`.
    #[config(env = "YOINK_RATE_LIMIT_PURCHASE_COMPAT", default = "5/60")]
    pub purchase_compat: RateLimit,
}

/// Bounds of requests and connections.
#[derive(Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct HttpConfig {
    /// The largest request body.
    #[config(env = "YOINK_HTTP_BODY_BYTES_MAX", default = 4096)]
    pub body_bytes_max: usize,
    /// The most header lines of a request.
    #[config(env = "YOINK_HTTP_HEADERS_MAX", default = 64)]
    pub headers_max: usize,
    /// The most bytes of a request's head.
    #[config(env = "YOINK_HTTP_HEADER_BYTES_MAX", default = 8192)]
    pub header_bytes_max: usize,
    /// How long a request's head may take to arrive.
    #[config(env = "YOINK_HTTP_HEADER_READ_TIMEOUT_MS", default = 5000)]
    pub header_read_timeout_ms: u64,
    /// How long a request's body may take to arrive.
    #[config(env = "YOINK_HTTP_BODY_TIMEOUT_MS", default = 5000)]
    pub body_timeout_ms: u64,
    /// How long a connection may stay without a request.
    #[config(env = "YOINK_HTTP_IDLE_TIMEOUT_MS", default = 15000)]
    pub idle_timeout_ms: u64,
    /// How long a client may take to read an answer.
    #[config(env = "YOINK_HTTP_WRITE_TIMEOUT_MS", default = 30000)]
    pub write_timeout_ms: u64,
    /// Open connections of the whole process.
    #[config(env = "YOINK_HTTP_CONNECTIONS_MAX", default = 10000)]
    pub connections_max: usize,
    /// Open connections of one address.
    #[config(env = "YOINK_HTTP_CONNECTIONS_PER_ADDRESS_MAX")]
    pub connections_per_address_max: Option<usize>,
    /// Requests being answered at once.
    #[config(env = "YOINK_HTTP_IN_FLIGHT_MAX", default = 50000)]
    pub in_flight_max: usize,
    /// How long a shutdown goes on accepting while `/readyz` is 503.
    #[config(env = "YOINK_HTTP_DRAIN_DELAY_MS")]
    pub drain_delay_ms: Option<u64>,
    /// How long a shutdown then waits for open requests.
    #[config(env = "YOINK_HTTP_DRAIN_TIMEOUT_MS", default = 4000)]
    pub drain_timeout_ms: u64,
}

/// Customer tokens.
#[derive(Debug, Serialize, confique::Config)]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct JwtConfig {
    /// The secrets, each under the name that selects it.
    #[config(env = "YOINK_JWT_SECRETS", parse_env = values::parse_jwt_secrets, default = [])]
    pub secrets: Vec<JwtSecretEntry>,
    /// What `aud` must be.
    #[config(env = "YOINK_JWT_AUDIENCE", default = "yoink")]
    pub audience: String,
    /// What `iss` must be.
    #[config(env = "YOINK_JWT_ISSUER")]
    pub issuer: Option<String>,
}

/// The layer in which nothing is set.
pub fn empty_layer() -> ConfigLayer {
    ConfigLayer::empty()
}

impl Config {
    /// Puts the layers together: `flags`, then the environment, then `file` (or `./yoink.toml` if that is there), then
    /// the defaults. Does not [`Config::check`].
    ///
    /// # Errors
    /// [`ConfigError::Load`] names the file or variable and what is wrong in it; a `file` that is named must exist.
    pub fn load(flags: ConfigLayer, file: Option<&Path>) -> Result<Config, ConfigError> {
        let environment = ConfigLayer::from_env().map_err(ConfigError::Load)?;
        let file = match file {
            Some(path) => File::with_format(path, FileFormat::Toml).required(),
            None => File::with_format(FILE_NAME, FileFormat::Toml),
        };
        let file = file.load::<ConfigLayer>().map_err(ConfigError::Load)?;
        let merged =
            flags.with_fallback(environment).with_fallback(file).with_fallback(ConfigLayer::default_values());
        Config::from_layer(merged).map_err(ConfigError::Load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use confique::meta::{FieldKind, Meta};

    fn defaults() -> Config {
        Config::from_layer(ConfigLayer::default_values()).unwrap()
    }

    fn from_text(text: &str) -> Result<Config, confique::Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("yoink.toml");
        std::fs::write(&path, text).unwrap();
        let layer: ConfigLayer = File::with_format(path, FileFormat::Toml).required().load()?;
        Config::from_layer(layer)
    }

    fn each_setting(meta: &'static Meta, section: &str, see: &mut impl FnMut(&str, &str, Option<&str>)) {
        for field in meta.fields {
            match field.kind {
                FieldKind::Leaf { env, .. } => see(section, field.name, env),
                FieldKind::Nested { meta } => each_setting(meta, field.name, see),
            }
        }
    }

    #[test]
    fn the_default_file_says_exactly_the_defaults() {
        let from_file = from_text(DEFAULT_FILE).unwrap();
        let from_file = serde_json::to_value(&from_file).unwrap();
        assert_eq!(from_file, serde_json::to_value(defaults()).unwrap());
    }

    #[test]
    fn the_default_file_names_every_setting_and_its_variable() {
        let mut missing = Vec::new();
        each_setting(&Config::META, "", &mut |section, name, env| {
            let section_text = if section.is_empty() {
                DEFAULT_FILE.split("\n[").next()
            } else {
                DEFAULT_FILE.split("\n[").find(|part| part.starts_with(&format!("{section}]")))
            };
            let env = env.unwrap_or("a variable");
            let is_named = section_text.unwrap_or_default().lines().any(|line| {
                line.trim_start_matches('#').starts_with(&format!("{name} = ")) && line.contains(env)
            });
            if !is_named {
                missing.push(format!("[{section}] {name} ({env})"));
            }
        });
        assert!(missing.is_empty(), "config.default.toml lacks {missing:?}");
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_it() {
        for (text, name) in [("lisen = \"127.0.0.1:1\"", "lisen"), ("[http]\nheaders = 3", "headers")] {
            let error = format!("{:#}", from_text(text).unwrap_err());
            assert!(error.contains("unknown field") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_named_must_exist() {
        let error = Config::load(empty_layer(), Some(Path::new("/nowhere/yoink.toml"))).unwrap_err();
        assert!(matches!(error, ConfigError::Load(_)));
    }

    #[test]
    fn secrets_show_neither_in_debug_nor_when_serialized() {
        let mut config = defaults();
        config.admin_key = Some(Secret::new("canary-admin"));
        config.jwt.secrets = vec![JwtSecretEntry { kid: "a".to_owned(), secret: Secret::new("canary-jwt") }];
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
