//! The kinds of values that settings have.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::settings::Policy;

/// How it sells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EngineName {
    /// One process, nothing else needed.
    Embedded,
    /// Many nodes on one Redis (or a cluster) and one PostgreSQL.
    Redis,
    /// Requests wait in RabbitMQ, and workers decide them in one PostgreSQL.
    Rabbitmq,
}

impl EngineName {
    /// The name as it is written in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
            Self::Rabbitmq => "rabbitmq",
        }
    }
}

/// When an accepted order is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DurabilityName {
    /// Before the answer.
    Fsync,
    /// When the operating system writes it; survives a process kill only.
    OsBuffer,
    /// With the engines on servers: whatever the settings of Redis and PostgreSQL keep.
    Relaxed,
}

/// What becomes of the units of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDeadLetterName {
    /// The order fails and the units go back on sale.
    Release,
    /// They stay sold until an operator decides.
    Park,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object per line.
    Json,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; keep it out of logs, messages and arguments.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(secret)")
    }
}

/// An API key as it stands in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// What people call it; appears in logs.
    pub name: String,
    /// What it opens.
    pub scopes: Vec<String>,
    /// SHA-256 of the key, as 64 hexadecimal digits.
    pub sha256: String,
}

/// A secret for customer tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSecretEntry {
    /// The `kid` that selects it.
    pub kid: String,
    /// The secret.
    pub secret: Secret,
}

/// At most so many requests in so many seconds, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RateLimit(pub Option<Policy>);

/// Why a text is not a rate limit.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a rate limit: write requests/seconds such as \"5/60\", or \"off\"")]
pub struct RateLimitError(String);

impl TryFrom<String> for RateLimit {
    type Error = RateLimitError;

    fn try_from(text: String) -> Result<Self, RateLimitError> {
        if text == "off" {
            return Ok(Self(None));
        }
        let parse = || {
            let (requests, seconds) = text.split_once('/')?;
            let policy = Policy { requests: requests.parse().ok()?, window_s: seconds.parse().ok()? };
            (policy.requests > 0 && policy.window_s > 0).then_some(policy)
        };
        parse().map(|policy| Self(Some(policy))).ok_or_else(|| RateLimitError(text.clone()))
    }
}

impl Serialize for RateLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => serializer.serialize_str("off"),
            Some(policy) => serializer.collect_str(&format_args!("{}/{}", policy.requests, policy.window_s)),
        }
    }
}

/// Why a list in an environment variable cannot be read. Says nothing of its content, which may be secret.
#[derive(Debug, thiserror::Error)]
#[error("entry {entry} is not of the form {form}")]
pub struct ListError {
    entry: usize,
    form: &'static str,
}

/// Reads `name:scope+scope:sha256,…`.
pub(super) fn parse_keys(text: &str) -> Result<Vec<KeyEntry>, ListError> {
    parse_list(text, "name:scope+scope:sha256", |entry| {
        let (name, rest) = entry.split_once(':')?;
        // A scope may hold a colon itself (orders:read), so the hash is what follows the last one.
        let (scopes, sha256) = rest.rsplit_once(':')?;
        let scopes = scopes.split('+').map(str::to_owned).collect();
        Some(KeyEntry { name: name.to_owned(), scopes, sha256: sha256.to_owned() })
    })
}

/// Reads `kid:secret,…`.
pub(super) fn parse_jwt_secrets(text: &str) -> Result<Vec<JwtSecretEntry>, ListError> {
    parse_list(text, "kid:secret", |entry| {
        let (kid, secret) = entry.split_once(':')?;
        Some(JwtSecretEntry { kid: kid.to_owned(), secret: Secret::new(secret) })
    })
}

fn parse_list<T>(
    text: &str,
    form: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, ListError> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .enumerate()
        .map(|(index, entry)| parse(entry).ok_or(ListError { entry: index + 1, form }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_is_read_as_it_is_written() {
        for text in ["off", "5/60", "1000/1"] {
            let limit = RateLimit::try_from(text.to_owned()).unwrap();
            assert_eq!(serde_json::to_value(limit).unwrap(), text);
        }
        for text in ["", "5", "0/60", "5/0", "-1/60", "5/60/1", "five/60"] {
            assert!(RateLimit::try_from(text.to_owned()).is_err(), "{text:?} was taken for a rate limit");
        }
    }

    #[test]
    fn keys_in_the_environment_may_have_scopes_with_a_colon() {
        let keys = parse_keys("shop:buy+orders:read:abcd, ops:admin:ef01").unwrap();
        assert_eq!(keys.first().unwrap().scopes, ["buy", "orders:read"]);
        assert_eq!(keys.first().unwrap().sha256, "abcd");
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn a_bad_list_names_the_entry_and_not_its_content() {
        let error = parse_jwt_secrets("a:canary-one,canary-two").unwrap_err().to_string();
        assert!(error.contains("entry 2") && !error.contains("canary"), "{error}");
    }
}
