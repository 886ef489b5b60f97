//! What the rabbitmq engine is told.

use std::time::Duration;

use yoink_engine::RabbitOptions;

use super::{Config, EngineName, Refusal, ServerUrl};

impl Config {
    /// Refuses what the rabbitmq engine cannot be started with.
    pub(super) fn check_rabbit(&self) -> Result<(), Refusal> {
        self.broker()?;
        self.check_on_servers()
    }

    /// Refuses a broker and a lock where the engine has none.
    pub(super) fn check_no_broker(&self) -> Result<(), Refusal> {
        let (engine, other) = (self.engine.name(), EngineName::Rabbitmq.name());
        if self.amqp.url.is_some() {
            return Err(Refusal::ServerUnused { flag: "--amqp", engine, other });
        }
        if !self.lock.enabled {
            let instead = "leave it out: only the rabbitmq engine has a lock";
            return Err(Refusal::OtherEngine { setting: "--no-lock", engine, instead });
        }
        Ok(())
    }

    /// The address of RabbitMQ.
    ///
    /// # Errors
    /// [`Refusal::ServerMissing`], [`Refusal::Tls`] or [`Refusal::NotAmqp`].
    pub fn broker(&self) -> Result<&ServerUrl, Refusal> {
        let url = self.amqp.url.as_ref().filter(|url| !url.expose().is_empty());
        let url = url.ok_or(Refusal::ServerMissing {
            who: self.who(),
            needs: "a RabbitMQ",
            flag: "--amqp amqp://USER@HOST:PORT/VHOST",
            variable: "YOINK_AMQP_URL",
        })?;
        match url.expose().split_once("://").map(|(scheme, _)| scheme) {
            Some("amqp") => Ok(url),
            Some("amqps") => Err(Refusal::Tls { url: url.clone(), plain: "amqp://" }),
            _ => Err(Refusal::NotAmqp(url.clone())),
        }
    }

    /// The options of the rabbitmq engine, with this many workers.
    ///
    /// # Errors
    /// As [`Config::broker`] and [`Config::servers`].
    pub fn rabbit_options(&self, workers: usize) -> Result<RabbitOptions, Refusal> {
        let (redis, postgres) = self.servers()?;
        let mut options = RabbitOptions::new(self.broker()?.expose(), redis.expose(), postgres.expose());
        options.postgres_connections_max = self.postgres.connections_max;
        options.settings = self.settings_check();
        options.workers = workers;
        self.set_delivery(&mut options.delivery);
        options.lock = self.lock.enabled;
        options.lock_life = Duration::from_millis(self.lock.life_ms);
        options.prefetch = self.amqp.prefetch;
        options.queue_max = self.amqp.queue_messages_max;
        options.unseen_max = self.amqp.unseen_requests_max;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigLayer, DurabilityName, Secret};
    use crate::settings::Role;
    use confique::{Config as _, Layer as _};

    fn of_rabbit() -> Config {
        let mut config = Config::from_layer(ConfigLayer::default_values()).unwrap();
        config.engine = EngineName::Rabbitmq;
        config.admin_key = Some(Secret::new("k".repeat(32)));
        config.amqp.url = Some(ServerUrl::new("amqp://yoink:canary@127.0.0.1:1/shop"));
        config.redis.url = Some(ServerUrl::new("redis://127.0.0.1:1"));
        config.postgres.url = Some(ServerUrl::new("postgres://127.0.0.1:1/yoink"));
        config
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Config), words: &str) {
        let mut config = of_rabbit();
        config.check().unwrap();
        change(&mut config);
        let said = config.check().unwrap_err().to_string();
        assert!(said.contains(words) && !said.contains("canary"), "{said}");
    }

    #[test]
    fn the_rabbitmq_engine_says_what_it_lacks() {
        let amqp = "the rabbitmq engine needs a RabbitMQ: give it with --amqp amqp://USER@HOST:PORT/VHOST, or set \
                    YOINK_AMQP_URL";
        refused(|config| config.amqp.url = None, amqp);
        refused(|config| config.amqp.url = Some(ServerUrl::new("")), amqp);
        refused(|config| config.redis.url = None, "the rabbitmq engine needs a Redis");
        refused(|config| config.postgres.url = None, "the rabbitmq engine needs a PostgreSQL");
        refused(|config| (config.dev, config.admin_key) = (true, None), "YOINK_ADMIN_KEY on each");
        refused(|config| config.durability = DurabilityName::OsBuffer, "\"relaxed\"");
    }

    #[test]
    fn an_address_that_cannot_be_used_is_named_without_its_password() {
        let address =
            |url: &'static str| move |config: &mut Config| config.amqp.url = Some(ServerUrl::new(url));
        refused(address("amqps://u:canary@broker/shop"), "amqps://u:(secret)@broker/shop asks for TLS");
        refused(address("http://u:canary@broker"), "is not the address of a RabbitMQ");
        refused(address("127.0.0.1"), "is not the address of a RabbitMQ");
    }

    #[test]
    fn a_broker_and_a_lock_are_for_the_rabbitmq_engine() {
        refused(
            |config| config.engine = EngineName::Redis,
            "--amqp is given, but the redis engine uses no such server; add --engine rabbitmq",
        );
        refused(
            |config| (config.engine, config.amqp.url, config.lock.enabled) = (EngineName::Redis, None, false),
            "--no-lock is not for the engine \"redis\"",
        );
    }

    #[test]
    fn a_worker_is_told_the_same_as_a_node() {
        let mut config = of_rabbit();
        config.lock.enabled = false;
        (config.amqp.prefetch, config.amqp.unseen_requests_max) = (7, 70);
        assert_eq!(config.worker_settings().unwrap().role, Role::Worker);
        let options = config.rabbit_options(3).unwrap();
        assert_eq!((options.workers, options.lock, options.prefetch), (3, false, 7));
        assert_eq!(options.unseen_max, 70);
        config.engine = EngineName::Embedded;
        assert!(config.worker_settings().unwrap_err().to_string().contains("has no workers"));
        config.choose_engine_on_servers();
        assert_eq!(config.engine, EngineName::Rabbitmq);
        (config.engine, config.amqp.url) = (EngineName::Embedded, None);
        config.choose_engine_on_servers();
        assert_eq!(config.engine, EngineName::Redis);
    }
}
