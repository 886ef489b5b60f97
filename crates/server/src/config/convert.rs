//! From what people write to what the edge and the engine take.

use std::time::Duration;

use yoink_engine::{AcceptLoss, DeliveryOptions, Durability, OnDeadLetter, Options};

use super::{Config, DurabilityName, OnDeadLetterName, Refusal};
use crate::settings::{
    ApiKey, IdempotencyKeyRule, JwtSecret, JwtSettings, KeyHash, Mode, RateLimits, RequestLog, Role, Scope,
    Settings,
};

/// The delay where others connect, if none is set.
const DRAIN_DELAY_MS: u64 = 1_000;

impl Config {
    /// The edge's settings. Checks first.
    ///
    /// # Errors
    /// The first [`Refusal`] of [`Config::check`].
    pub fn settings(&self) -> Result<Settings, Refusal> {
        self.check()?;
        self.edge()
    }

    /// What the edge is told, unchecked.
    pub(super) fn edge(&self) -> Result<Settings, Refusal> {
        let http = &self.http;
        Ok(Settings {
            role: Role::Shop,
            listen: self.listen,
            admin_listen: self.admin_listen,
            threads: self.threads,
            mode: if self.dev { Mode::Dev } else { Mode::Guarded },
            keys: self.api_keys(),
            admin_key: self.admin_key.as_ref().map(|key| KeyHash::of(key.expose())),
            jwt: self.jwt(),
            trusted_proxies: self.networks()?,
            rate_limits: RateLimits {
                per_customer: self.rate_limits.per_customer.0,
                per_address: self.rate_limits.per_address.0,
                per_network: self.rate_limits.per_network.0,
                purchase_compat: self.rate_limits.purchase_compat.0,
            },
            idempotency_key: match self.require_idempotency_key {
                true => IdempotencyKeyRule::Required,
                false => IdempotencyKeyRule::Optional,
            },
            body_bytes_max: http.body_bytes_max,
            headers_max: http.headers_max,
            header_bytes_max: http.header_bytes_max,
            header_read_timeout: Duration::from_millis(http.header_read_timeout_ms),
            body_timeout: Duration::from_millis(http.body_timeout_ms),
            idle_timeout: Duration::from_millis(http.idle_timeout_ms),
            write_timeout: Duration::from_millis(http.write_timeout_ms),
            connections_max: http.connections_max,
            connections_per_address_max: http.connections_per_address_max,
            in_flight_max: http.in_flight_max,
            drain_delay: Duration::from_millis(self.drain_delay_ms()),
            drain_timeout: Duration::from_millis(http.drain_timeout_ms),
            request_log: if self.log.requests { RequestLog::On } else { RequestLog::Off },
        })
    }

    /// `http.drain_delay_ms`; if that is not set, none where nobody but this machine connects.
    pub(super) fn drain_delay_ms(&self) -> u64 {
        let is_local = self.dev || self.listen.ip().is_loopback();
        self.http.drain_delay_ms.unwrap_or(if is_local { 0 } else { DRAIN_DELAY_MS })
    }

    /// The options of the embedded engine. Call after [`Config::check`].
    pub fn engine_options(&self) -> Options {
        let mut options = Options::new(&self.data);
        options.durability = match self.durability {
            DurabilityName::Fsync => Durability::Fsync,
            DurabilityName::OsBuffer => Durability::OsBuffer,
            DurabilityName::Relaxed => Durability::Relaxed,
        };
        options.accept_loss = if self.accept_loss { AcceptLoss::Yes } else { AcceptLoss::No };
        options.inbox_tickets_max = self.storage.inbox_tickets_max;
        options.free_bytes_min = self.storage.free_bytes_min;
        self.set_delivery(&mut options.delivery);
        options
    }

    /// How the ledger's refusals are handled, with every engine.
    pub(super) fn set_delivery(&self, delivery: &mut DeliveryOptions) {
        let wanted = &self.delivery;
        delivery.attempts_max = wanted.attempts_max;
        delivery.backoff_base = Duration::from_millis(wanted.backoff_base_ms);
        delivery.backoff_max = Duration::from_millis(wanted.backoff_max_ms);
        delivery.batch_orders_max = wanted.batch_orders_max;
        delivery.on_dead_letter = match wanted.on_dead_letter {
            OnDeadLetterName::Release => OnDeadLetter::Release,
            OnDeadLetterName::Park => OnDeadLetter::Park,
        };
    }

    fn api_keys(&self) -> Vec<ApiKey> {
        let convert = |entry: &super::KeyEntry| {
            Some(ApiKey {
                name: entry.name.clone(),
                hash: KeyHash::from_hex(&entry.sha256)?,
                scopes: entry.scopes.iter().filter_map(|scope| Scope::parse(scope)).collect(),
            })
        };
        self.keys.iter().filter_map(convert).collect()
    }

    fn jwt(&self) -> Option<JwtSettings> {
        if self.jwt.secrets.is_empty() {
            return None;
        }
        let secret = |entry: &super::JwtSecretEntry| JwtSecret {
            kid: entry.kid.clone(),
            secret: entry.secret.expose().as_bytes().to_vec(),
        };
        Some(JwtSettings {
            secrets: self.jwt.secrets.iter().map(secret).collect(),
            audience: self.jwt.audience.clone(),
            issuer: self.jwt.issuer.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use confique::{Config as _, Layer as _};

    #[test]
    fn the_defaults_of_the_edge_and_of_the_configuration_are_the_same() {
        let mut config = Config::from_layer(crate::config::ConfigLayer::default_values()).unwrap();
        config.admin_key = Some(crate::config::Secret::new("k".repeat(32)));
        let edge = Settings::default();
        // The configuration names a port, and refuses to start without any key.
        let settings = Settings { listen: edge.listen, admin_key: None, ..config.settings().unwrap() };
        assert_eq!(format!("{settings:#?}"), format!("{edge:#?}"));
    }
}
