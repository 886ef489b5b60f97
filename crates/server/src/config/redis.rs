//! What the redis engine is told, and what goes for every engine on servers.

use std::time::Duration;

use yoink_engine::RateLimit;
use yoink_engine::postgres::SettingsCheck;
use yoink_engine::redis::RedisOptions;

use super::{Config, DurabilityName, EngineName, Refusal, ServerUrl};
use crate::settings::{Mode, Role, Scope, Settings};

impl Config {
    /// Refuses what the redis engine cannot be started with.
    pub(super) fn check_redis(&self) -> Result<(), Refusal> {
        self.check_no_broker()?;
        self.check_on_servers()
    }

    /// Refuses what no engine on servers can be started with.
    pub(super) fn check_on_servers(&self) -> Result<(), Refusal> {
        self.servers()?;
        let refuse =
            |setting, instead| Err(Refusal::OtherEngine { setting, engine: self.engine.name(), instead });
        if self.durability == DurabilityName::OsBuffer {
            return refuse("durability \"os-buffer\"", "it has \"fsync\" and \"relaxed\"");
        }
        if self.accept_loss {
            return refuse(
                "accept_loss",
                "leave it out: there is no log of its own that could end too early",
            );
        }
        Ok(())
    }

    /// A development server makes itself a key and keeps it in its folder; this engine has none.
    pub(super) fn check_admin_key_is_given(&self) -> Result<(), Refusal> {
        let is_admin = |scopes: &[String]| scopes.iter().any(|scope| scope == Scope::Admin.name());
        if self.dev && self.admin_key.is_none() && !self.keys.iter().any(|key| is_admin(&key.scopes)) {
            return Err(Refusal::NoAdminKey);
        }
        Ok(())
    }

    /// The settings of a worker's edge. Checks first.
    ///
    /// # Errors
    /// The first [`Refusal`] found.
    pub fn worker_settings(&self) -> Result<Settings, Refusal> {
        match self.engine {
            EngineName::Embedded => return Err(Refusal::NoWorkers),
            EngineName::Redis => self.check_redis()?,
            EngineName::Rabbitmq => self.check_rabbit()?,
        }
        self.check_secrets()?;
        self.check_keys()?;
        self.check_numbers()?;
        let (listen, has_keys) = (self.worker_listen, self.admin_key.is_some() || !self.keys.is_empty());
        if !has_keys && !listen.ip().is_loopback() {
            return Err(Refusal::NoWorkerKeys(listen));
        }
        Ok(Settings {
            role: Role::Worker,
            listen,
            admin_listen: None,
            // Who asks how it is must not take a core from its work.
            threads: 1,
            mode: if has_keys { Mode::Guarded } else { Mode::Dev },
            ..self.edge()?
        })
    }

    /// The addresses of Redis and PostgreSQL.
    ///
    /// # Errors
    /// [`Refusal::ServerMissing`] or [`Refusal::Tls`].
    pub fn servers(&self) -> Result<(&ServerUrl, &ServerUrl), Refusal> {
        let redis = self.redis.url.as_ref().filter(|url| !url.expose().is_empty());
        let redis = redis.ok_or(Refusal::ServerMissing {
            who: self.who(),
            needs: "a Redis",
            flag: "--redis redis://HOST:PORT",
            variable: "YOINK_REDIS_URL",
        })?;
        if redis.is_redis_with_tls() {
            return Err(Refusal::Tls { url: redis.clone(), plain: "redis://" });
        }
        Ok((redis, self.postgres_url()?))
    }

    /// The address of PostgreSQL.
    ///
    /// # Errors
    /// [`Refusal::ServerMissing`] or [`Refusal::Tls`].
    pub fn postgres_url(&self) -> Result<&ServerUrl, Refusal> {
        let url = self.postgres.url.as_ref().filter(|url| !url.expose().is_empty());
        let url = url.ok_or(Refusal::ServerMissing {
            who: self.who(),
            needs: "a PostgreSQL",
            flag: "--postgres postgres://USER@HOST/DATABASE",
            variable: "YOINK_POSTGRES_URL",
        })?;
        if url.is_postgres_with_tls() {
            return Err(Refusal::Tls { url: url.clone(), plain: "sslmode=disable" });
        }
        Ok(url)
    }

    /// Who needs a server. Without an engine on servers only the command that makes their tables does.
    pub(super) fn who(&self) -> &'static str {
        match self.engine {
            EngineName::Embedded => "`yoink migrate`",
            EngineName::Redis => "the redis engine",
            EngineName::Rabbitmq => "the rabbitmq engine",
        }
    }

    /// Whether servers whose settings may lose orders are used.
    pub(super) fn settings_check(&self) -> SettingsCheck {
        match self.durability {
            DurabilityName::Relaxed => SettingsCheck::Relaxed,
            DurabilityName::Fsync | DurabilityName::OsBuffer => SettingsCheck::Strict,
        }
    }

    /// Chooses an engine on servers where none was: the rabbitmq engine if there is a broker, else the redis engine.
    pub fn choose_engine_on_servers(&mut self) {
        if self.engine == EngineName::Embedded {
            let has_broker = self.amqp.url.is_some();
            self.engine = if has_broker { EngineName::Rabbitmq } else { EngineName::Redis };
        }
    }

    /// The options of the redis engine, with `workers` per product.
    ///
    /// # Errors
    /// As [`Config::servers`].
    pub fn redis_options(&self, workers: usize) -> Result<RedisOptions, Refusal> {
        let (redis, postgres) = self.servers()?;
        let mut options = RedisOptions::new(redis.expose(), postgres.expose());
        options.postgres_connections_max = self.postgres.connections_max;
        options.settings = self.settings_check();
        options.workers = workers;
        options.backlog_max = self.redis.backlog_orders_max;
        // What each node keeps by itself for who asks, Redis keeps for all of them together for who is granted.
        let per_customer = self.rate_limits.per_customer.0;
        options.rate_limit =
            per_customer.map(|policy| RateLimit { requests: policy.requests, window_s: policy.window_s });
        options.claim_after = Duration::from_millis(self.redis.claim_after_ms);
        self.set_delivery(&mut options.delivery);
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigLayer, Secret};
    use confique::{Config as _, Layer as _};

    fn of_redis() -> Config {
        let mut config = Config::from_layer(ConfigLayer::default_values()).unwrap();
        config.engine = EngineName::Redis;
        config.admin_key = Some(Secret::new("k".repeat(32)));
        config.redis.url = Some(ServerUrl::new("redis://127.0.0.1:1"));
        config.postgres.url = Some(ServerUrl::new("postgres://127.0.0.1:1/yoink"));
        config
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Config), words: &str) {
        let mut config = of_redis();
        config.check().unwrap();
        change(&mut config);
        let said = config.check().unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }

    #[test]
    fn the_redis_engine_says_what_it_lacks() {
        refused(|config| config.redis.url = None, "--redis redis://HOST:PORT, or set YOINK_REDIS_URL");
        refused(|config| config.postgres.url = None, "YOINK_POSTGRES_URL");
        refused(|config| config.postgres.url = Some(ServerUrl::new("")), "YOINK_POSTGRES_URL");
        refused(|config| (config.dev, config.admin_key) = (true, None), "YOINK_ADMIN_KEY on each");
        refused(|config| config.postgres.connections_max = 0, "postgres.connections_max is 0");
    }

    #[test]
    fn settings_of_one_engine_are_refused_by_the_other() {
        refused(|config| config.accept_loss = true, "accept_loss is not for the engine \"redis\"");
        refused(|config| config.durability = DurabilityName::OsBuffer, "\"relaxed\"");
        refused(|config| config.engine = EngineName::Embedded, "--redis is given, but the embedded engine");
        let relaxed_only = |config: &mut Config| {
            (config.engine, config.durability) = (EngineName::Embedded, DurabilityName::Relaxed);
            (config.redis.url, config.postgres.url) = (None, None);
        };
        refused(relaxed_only, "durability \"relaxed\" is not for the engine \"embedded\"");
    }

    #[test]
    fn a_worker_shows_its_figures_to_everybody_on_its_own_machine_only() {
        let mut config = of_redis();
        assert_eq!(config.worker_settings().unwrap().mode, Mode::Guarded);
        config.admin_key = None;
        let settings = config.worker_settings().unwrap();
        assert_eq!((settings.mode, settings.role, settings.threads), (Mode::Dev, Role::Worker, 1));
        config.worker_listen = "0.0.0.0:3100".parse().unwrap();
        let said = config.worker_settings().unwrap_err().to_string();
        assert!(said.contains("--scopes metrics"), "{said}");
        config.redis.url = None;
        assert!(config.worker_settings().unwrap_err().to_string().contains("YOINK_REDIS_URL"));
    }

    #[test]
    fn the_engine_keeps_the_rate_limit_per_customer_that_the_edge_keeps() {
        let mut config = of_redis();
        assert_eq!(config.redis_options(1).unwrap().rate_limit, None);
        config.rate_limits.per_customer = "5/60".to_owned().try_into().unwrap();
        let edge = config.settings().unwrap().rate_limits.per_customer.unwrap();
        let kept = config.redis_options(1).unwrap().rate_limit.unwrap();
        assert_eq!((kept.requests, kept.window_s), (5, 60));
        assert_eq!((edge.requests, edge.window_s), (5, 60));
    }

    #[test]
    fn relaxed_has_to_be_asked_for() {
        let mut config = of_redis();
        assert_eq!(config.redis_options(1).unwrap().settings, SettingsCheck::Strict);
        config.durability = DurabilityName::Relaxed;
        assert_eq!(config.redis_options(1).unwrap().settings, SettingsCheck::Relaxed);
        config.check().unwrap();
    }
}
