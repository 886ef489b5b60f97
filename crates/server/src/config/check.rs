//! Start-up argues: what cannot be meant is refused, with a sentence that says what to change.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{Config, DurabilityName, EngineName, ServerUrl};
use crate::settings::{KeyHash, Scope};

/// The shortest admin key or token secret outside development, in characters.
pub const SECRET_CHARS_MIN: usize = 32;

/// The shortest life of a lock that its holder can renew in time.
const LOCK_LIFE_MS_MIN: u64 = 100;

/// How long a shutdown may take before the ledger catches up: the rest of the 10 s that process managers give is for
/// that and for leaving the folder in order.
pub const CLOSING_MS_MAX: u64 = 5_500;

/// Why a configuration is not started with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A server that the engine needs has no address.
    #[error("{who} needs {needs}: give it with {flag}, or set {variable}")]
    ServerMissing {
        /// Who needs it.
        who: &'static str,
        /// What it needs.
        needs: &'static str,
        /// The flag.
        flag: &'static str,
        /// The environment variable.
        variable: &'static str,
    },
    /// An address that the engine would not use.
    #[error(
        "{flag} is given, but the {engine} engine uses no such server; add --engine {other} (YOINK_ENGINE), or leave it \
         out"
    )]
    ServerUnused {
        /// The flag.
        flag: &'static str,
        /// The engine that was asked for.
        engine: &'static str,
        /// The engine that uses it.
        other: &'static str,
    },
    /// A server that only talks through TLS.
    #[error(
        "{url} asks for TLS, which is not supported yet; use {plain} on a network that nobody listens to, or a TLS tunnel \
         on this machine"
    )]
    Tls {
        /// Its address.
        url: ServerUrl,
        /// What an address without TLS has instead.
        plain: &'static str,
    },
    /// Not the address of a broker.
    #[error("{0} is not the address of a RabbitMQ; it should look like amqp://USER:PASSWORD@HOST:5672/VHOST")]
    NotAmqp(ServerUrl),
    /// A worker without servers.
    #[error(
        "the embedded engine delivers by itself and has no workers; add --engine redis or rabbitmq (YOINK_ENGINE)"
    )]
    NoWorkers,
    /// A setting of another engine.
    #[error("{setting} is not for the engine {engine:?}; {instead}")]
    OtherEngine {
        /// The setting and its value.
        setting: &'static str,
        /// The engine's name.
        engine: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// A development server that has nowhere to keep a key.
    #[error(
        "an engine on servers keeps no admin key, because all its nodes need the same one; set YOINK_ADMIN_KEY on each of \
         them, for example to `openssl rand -hex 32`"
    )]
    NoAdminKey,
    /// Development mode where others can reach it.
    #[error(
        "--dev lets everybody buy, so it listens on this machine only, but {setting} is {address}; use 127.0.0.1, or \
         leave --dev out and configure keys"
    )]
    DevNotLoopback {
        /// `listen` or `admin_listen`.
        setting: &'static str,
        /// What it is.
        address: SocketAddr,
    },
    /// Nobody could do anything.
    #[error(
        "no keys are configured, so nobody could buy at {0}; set YOINK_ADMIN_KEY (at least 32 characters), add keys to \
         the configuration (`yoink config --new-key shop --scopes buy`), or try it on this machine with \
         `yoink serve --dev`"
    )]
    NoKeys(SocketAddr),
    /// Everybody could read the figures of a worker.
    #[error(
        "no keys are configured, so anybody could read the metrics at {0}; set YOINK_ADMIN_KEY, add a key with the scope \
         metrics to the configuration (`yoink config --new-key watch --scopes metrics`), or listen on 127.0.0.1"
    )]
    NoWorkerKeys(SocketAddr),
    /// A secret that can be guessed.
    #[error(
        "{what} has {chars} characters; outside --dev it must have at least {SECRET_CHARS_MIN} (try `openssl rand -hex 32`)"
    )]
    SecretTooShort {
        /// Which secret.
        what: String,
        /// How many characters it has.
        chars: usize,
    },
    /// A durability that breaks the promise of a 202.
    #[error(
        "durability \"os-buffer\" forgets accepted orders at a power loss; set durability = \"fsync\", or use --dev if \
         this is only a trial"
    )]
    DurabilityTooWeak,
    /// A number outside its range.
    #[error("{setting} is {value}, and must be {must}")]
    OutOfRange {
        /// The setting's name.
        setting: &'static str,
        /// What it is.
        value: u64,
        /// What it must be.
        must: &'static str,
    },
    /// A proxy setting that believes everybody.
    #[error(
        "trusted_proxies holds {0}, which lets every client choose its own address; name the networks of your proxies"
    )]
    TrustsEverybody(IpNet),
    /// Not a network.
    #[error("trusted_proxies holds {0:?}, which is not a network such as 10.0.0.0/8 or fd00::/8")]
    NotANetwork(String),
    /// An API key entry that cannot work.
    #[error("keys: the entry {name:?} {what}")]
    KeyEntry {
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Two secrets that nothing can tell apart.
    #[error("jwt.secrets: the kid {0:?} is empty or there twice; each secret needs a name of its own")]
    JwtKid(String),
    /// Both listeners on one address.
    #[error("listen and admin_listen are both {0}; give them different ports, or leave admin_listen out")]
    SameListener(SocketAddr),
}

impl Config {
    /// Refuses settings that contradict each other or cannot be meant.
    ///
    /// # Errors
    /// The first [`Refusal`] found.
    pub fn check(&self) -> Result<(), Refusal> {
        self.check_engine()?;
        self.check_listeners()?;
        self.check_secrets()?;
        self.check_keys()?;
        self.check_numbers()?;
        self.networks().map(drop)
    }

    fn check_engine(&self) -> Result<(), Refusal> {
        let refuse =
            |setting, instead| Err(Refusal::OtherEngine { setting, engine: self.engine.name(), instead });
        match self.engine {
            EngineName::Rabbitmq => {
                return self.check_rabbit().and_then(|()| self.check_admin_key_is_given());
            }
            EngineName::Redis => return self.check_redis().and_then(|()| self.check_admin_key_is_given()),
            EngineName::Embedded => self.check_no_broker()?,
        }
        for (url, flag) in [(&self.redis.url, "--redis"), (&self.postgres.url, "--postgres")] {
            if url.is_some() {
                let engine = self.engine.name();
                return Err(Refusal::ServerUnused { flag, engine, other: EngineName::Redis.name() });
            }
        }
        match self.durability {
            DurabilityName::Relaxed => {
                refuse("durability \"relaxed\"", "it has \"fsync\", and \"os-buffer\" with --dev")
            }
            DurabilityName::OsBuffer if !self.dev => Err(Refusal::DurabilityTooWeak),
            DurabilityName::OsBuffer | DurabilityName::Fsync => Ok(()),
        }
    }

    fn check_listeners(&self) -> Result<(), Refusal> {
        if let Some(admin) = self.admin_listen
            && admin == self.listen
            && admin.port() != 0
        {
            return Err(Refusal::SameListener(admin));
        }
        if self.dev {
            let listeners = [("listen", Some(self.listen)), ("admin_listen", self.admin_listen)];
            let open = listeners.into_iter().filter_map(|(setting, address)| Some((setting, address?)));
            return match open.into_iter().find(|(_, address)| !address.ip().is_loopback()) {
                Some((setting, address)) => Err(Refusal::DevNotLoopback { setting, address }),
                None => Ok(()),
            };
        }
        if self.admin_key.is_none() && self.keys.is_empty() && self.jwt.secrets.is_empty() {
            return Err(Refusal::NoKeys(self.listen));
        }
        Ok(())
    }

    pub(super) fn check_secrets(&self) -> Result<(), Refusal> {
        let admin = self.admin_key.iter().map(|secret| ("the admin key".to_owned(), secret));
        let tokens =
            self.jwt.secrets.iter().map(|entry| (format!("jwt.secrets {:?}", entry.kid), &entry.secret));
        for (what, secret) in admin.chain(tokens) {
            let chars = secret.expose().chars().count();
            if chars == 0 || (chars < SECRET_CHARS_MIN && !self.dev) {
                return Err(Refusal::SecretTooShort { what, chars });
            }
        }
        for (index, entry) in self.jwt.secrets.iter().enumerate() {
            let is_twice = self.jwt.secrets.iter().skip(index + 1).any(|other| other.kid == entry.kid);
            if entry.kid.is_empty() || is_twice {
                return Err(Refusal::JwtKid(entry.kid.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn check_keys(&self) -> Result<(), Refusal> {
        for (index, key) in self.keys.iter().enumerate() {
            let refuse = |what| Err(Refusal::KeyEntry { name: key.name.clone(), what });
            if key.name.is_empty() || self.keys.iter().skip(index + 1).any(|other| other.name == key.name) {
                return refuse("has no name, or its name is there twice");
            }
            if key.scopes.is_empty() || key.scopes.iter().any(|scope| Scope::parse(scope).is_none()) {
                return refuse("must have scopes out of buy, orders:read, admin, metrics");
            }
            if KeyHash::from_hex(&key.sha256).is_none() {
                return refuse(
                    "needs sha256 with 64 hexadecimal digits, the hash of the key and not the key itself",
                );
            }
        }
        Ok(())
    }

    pub(super) fn check_numbers(&self) -> Result<(), Refusal> {
        let (delivery, http) = (&self.delivery, &self.http);
        let at_least_one = [
            ("delivery.attempts_max", u64::from(delivery.attempts_max)),
            ("delivery.batch_orders_max", delivery.batch_orders_max as u64),
            ("storage.inbox_tickets_max", self.storage.inbox_tickets_max as u64),
            ("http.body_bytes_max", http.body_bytes_max as u64),
            ("http.headers_max", http.headers_max as u64),
            ("http.header_read_timeout_ms", http.header_read_timeout_ms),
            ("http.body_timeout_ms", http.body_timeout_ms),
            ("http.idle_timeout_ms", http.idle_timeout_ms),
            ("http.write_timeout_ms", http.write_timeout_ms),
            ("http.connections_max", http.connections_max as u64),
            ("http.connections_per_address_max", http.connections_per_address_max.unwrap_or(1) as u64),
            ("http.in_flight_max", http.in_flight_max as u64),
            ("redis.backlog_orders_max", self.redis.backlog_orders_max),
            ("redis.claim_after_ms", self.redis.claim_after_ms),
            ("postgres.connections_max", self.postgres.connections_max as u64),
            ("amqp.queue_messages_max", self.amqp.queue_messages_max),
            ("amqp.unseen_requests_max", self.amqp.unseen_requests_max),
            ("amqp.prefetch", u64::from(self.amqp.prefetch)),
        ];
        if let Some((setting, value)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(Refusal::OutOfRange { setting, value, must: "at least 1" });
        }
        let refuse = |setting, value, must| Err(Refusal::OutOfRange { setting, value, must });
        if http.header_bytes_max < 8_192 {
            return refuse("http.header_bytes_max", http.header_bytes_max as u64, "at least 8192");
        }
        if self.drain_delay_ms().saturating_add(http.drain_timeout_ms) > CLOSING_MS_MAX {
            let must =
                "at most 5500 together with http.drain_timeout_ms, so that a shutdown ends within 10 s";
            return refuse("http.drain_delay_ms", self.drain_delay_ms(), must);
        }
        if delivery.backoff_base_ms > delivery.backoff_max_ms {
            let must = "at most delivery.backoff_max_ms";
            return refuse("delivery.backoff_base_ms", delivery.backoff_base_ms, must);
        }
        if self.lock.life_ms < LOCK_LIFE_MS_MIN {
            return refuse("lock.life_ms", self.lock.life_ms, "at least 100, to be renewed in time");
        }
        if self.threads > 1_024 {
            return refuse("threads", self.threads as u64, "at most 1024 (0 is one per core)");
        }
        if self.workers > 64 {
            return refuse(
                "workers",
                self.workers as u64,
                "at most 64 (0 leaves the work to `yoink worker`)",
            );
        }
        Ok(())
    }

    /// The trusted networks.
    pub(super) fn networks(&self) -> Result<Vec<IpNet>, Refusal> {
        let parse = |text: &String| {
            let network = text.trim().parse().or_else(|_| text.trim().parse::<IpAddr>().map(IpNet::from));
            let network = network.map_err(|_| Refusal::NotANetwork(text.clone()))?;
            if network.prefix_len() == 0 {
                return Err(Refusal::TrustsEverybody(network));
            }
            Ok(network)
        };
        self.trusted_proxies.iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigLayer, JwtSecretEntry, KeyEntry, Secret};
    use confique::{Config as _, Layer as _};

    fn guarded() -> Config {
        let mut config = Config::from_layer(ConfigLayer::default_values()).unwrap();
        config.admin_key = Some(Secret::new("k".repeat(SECRET_CHARS_MIN)));
        config
    }

    /// Changes a sound configuration by one thing and expects to be told about that thing.
    #[track_caller]
    fn refused(change: impl FnOnce(&mut Config), words: &str) {
        let mut config = guarded();
        config.check().unwrap();
        change(&mut config);
        let said = config.check().unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }

    #[test]
    fn a_weak_durability_is_for_development_only() {
        refused(|config| config.durability = DurabilityName::OsBuffer, "power loss");
        let mut config = guarded();
        (config.dev, config.durability) = (true, DurabilityName::OsBuffer);
        config.check().unwrap();
    }

    #[test]
    fn nobody_listens_to_the_world_without_keys() {
        refused(|config| config.admin_key = None, "no keys are configured");
        let open: SocketAddr = "0.0.0.0:3000".parse().unwrap();
        refused(|config| (config.dev, config.listen) = (true, open), "--dev lets everybody buy");
        refused(
            |config| (config.dev, config.admin_listen) = (true, Some(open)),
            "admin_listen is 0.0.0.0:3000",
        );
    }

    #[test]
    fn short_secrets_are_refused_outside_development() {
        refused(|config| config.admin_key = Some(Secret::new("short")), "has 5 characters");
        let token = |kid: &str, chars: usize| JwtSecretEntry {
            kid: kid.to_owned(),
            secret: Secret::new("s".repeat(chars)),
        };
        refused(|config| config.jwt.secrets = vec![token("a", 31)], "jwt.secrets \"a\" has 31");
        refused(|config| config.jwt.secrets = vec![token("a", 32), token("a", 33)], "there twice");
        let mut config = guarded();
        (config.dev, config.admin_key) = (true, Some(Secret::new("short")));
        config.check().unwrap();
    }

    #[test]
    fn keys_must_be_hashes_with_known_scopes() {
        let key = |scope: &str, sha256: String| {
            vec![KeyEntry { name: "shop".into(), scopes: vec![scope.into()], sha256 }]
        };
        refused(|config| config.keys = key("buy", "hunter2".into()), "not the key itself");
        refused(|config| config.keys = key("sell", "a".repeat(64)), "must have scopes");
        refused(
            |config| config.keys = [key("buy", "a".repeat(64)), key("buy", "b".repeat(64))].concat(),
            "twice",
        );
    }

    #[test]
    fn nobody_is_trusted_without_a_name() {
        refused(
            |config| config.trusted_proxies = vec!["0.0.0.0/0".into()],
            "every client choose its own address",
        );
        refused(|config| config.trusted_proxies = vec!["::/0".into()], "every client choose its own address");
        refused(|config| config.trusted_proxies = vec!["localhost".into()], "not a network");
        let mut config = guarded();
        config.trusted_proxies = vec!["10.0.0.0/8".into(), "192.0.2.1".into(), "fd00::/8".into()];
        assert_eq!(config.networks().unwrap().len(), 3);
    }

    #[test]
    fn without_a_setting_only_the_open_network_has_a_delay_before_the_drain() {
        let mut config = guarded();
        assert_eq!(config.drain_delay_ms(), 0);
        config.listen = "0.0.0.0:3000".parse().unwrap();
        assert_eq!(config.drain_delay_ms(), 1_000);
        config.check().unwrap();
        config.http.drain_delay_ms = Some(0);
        assert_eq!(config.drain_delay_ms(), 0);
    }

    #[test]
    fn numbers_that_cannot_work_are_refused() {
        refused(|config| config.delivery.attempts_max = 0, "delivery.attempts_max is 0");
        refused(|config| config.delivery.backoff_base_ms = 6_000, "at most delivery.backoff_max_ms");
        refused(|config| config.http.header_bytes_max = 100, "at least 8192");
        refused(|config| config.http.drain_delay_ms = Some(1_501), "http.drain_delay_ms is 1501");
        refused(|config| config.http.drain_timeout_ms = 5_501, "within 10 s");
        refused(|config| config.amqp.prefetch = 0, "amqp.prefetch is 0");
        refused(|config| config.lock.life_ms = 99, "lock.life_ms is 99");
        refused(|config| config.http.in_flight_max = 0, "http.in_flight_max is 0");
        refused(|config| config.admin_listen = Some(config.listen), "different ports");
    }
}
