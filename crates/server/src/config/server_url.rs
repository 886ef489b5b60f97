//! The address of a server, which may hold a password.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

const HIDDEN: &str = "(secret)";

/// The address of a server as it was given; what is shown of it has no password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// Takes a URL, or several separated by commas. Whether it is one is for its server's client to say.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The address with its password; keep it out of logs, messages and arguments.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it asks Redis, or one server of a cluster, for TLS.
    pub(super) fn is_redis_with_tls(&self) -> bool {
        let schemes = self.0.split(',').filter_map(|url| url.split_once("://"));
        schemes.into_iter().any(|(scheme, _)| {
            ["rediss", "valkeys"].iter().any(|tls| scheme.trim().eq_ignore_ascii_case(tls))
        })
    }

    /// Whether it asks PostgreSQL for TLS and takes nothing else. (`sslmode=prefer` takes what there is.)
    pub(super) fn is_postgres_with_tls(&self) -> bool {
        // Options stand behind a URL, or are all there is: words such as `host=db`.
        let mut options = match self.0.rsplit_once('?') {
            Some((_, options)) => options.split(['&', ' ']),
            None => self.0.split(['&', ' ']),
        };
        options
            .any(|option| matches!(option, "sslmode=require" | "sslmode=verify-ca" | "sslmode=verify-full"))
    }
}

impl FromStr for ServerUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text.trim()))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password may hold a comma, so only one that is followed by a scheme is taken for the end of an address.
        let mut rest = self.0.as_str();
        while let Some(at) = end_of_first(rest) {
            let (first, others) = rest.split_at(at);
            write!(f, "{},", shown(first))?;
            rest = others.strip_prefix(',').unwrap_or(others);
        }
        f.write_str(&shown(rest))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for ServerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn end_of_first(text: &str) -> Option<usize> {
    [",redis://", ",rediss://", ",unix://", ",redis+unix://"]
        .iter()
        .filter_map(|scheme| text.find(scheme))
        .min()
}

/// One address without its password. What cannot be understood is not shown at all.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return HIDDEN.to_owned() };
    // Passwords may hold anything, also what ends one elsewhere: everything before the last @ is credentials.
    let (credentials, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, rest),
    };
    let place = match place.split_once('?') {
        Some((place, query)) if query.to_ascii_lowercase().contains("pass") => format!("{place}?{HIDDEN}"),
        _ => place.to_owned(),
    };
    match credentials.map(|credentials| credentials.split_once(':')) {
        None => format!("{scheme}://{place}"),
        Some(None) => format!("{scheme}://{}@{place}", credentials.unwrap_or_default()),
        Some(Some((user, _))) => format!("{scheme}://{user}:{HIDDEN}@{place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_asked_for_by_scheme_and_by_option() {
        for (given, of_redis, of_postgres) in [
            ("redis://u:p@a:1,redis://b:2", false, false),
            ("rediss://u:p@a:1", true, false),
            ("redis://a:1, REDISS://b:2", true, false),
            ("valkeys://a:1", true, false),
            ("redis://u:rediss@a:1", false, false),
            ("postgres://u:p@db/yoink", false, false),
            ("postgres://u:sslmode=require@db/yoink?sslmode=prefer", false, false),
            ("postgres://db/yoink?sslmode=require", false, true),
            ("postgres://db/yoink?connect_timeout=2&sslmode=verify-full", false, true),
            ("host=db sslmode=verify-ca dbname=yoink", false, true),
            ("host=db sslmode=disable", false, false),
        ] {
            let url = ServerUrl::new(given);
            assert_eq!(
                (url.is_redis_with_tls(), url.is_postgres_with_tls()),
                (of_redis, of_postgres),
                "{given}"
            );
        }
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (given, expected) in [
            ("redis://10.0.0.1:6379/2", "redis://10.0.0.1:6379/2"),
            ("postgres://yoink@db/yoink", "postgres://yoink@db/yoink"),
            ("postgres://yoink:canary@db:5432/yoink", "postgres://yoink:(secret)@db:5432/yoink"),
            ("redis://:can@ary,x@a:1,redis://u:canary@b:2", "redis://:(secret)@a:1,redis://u:(secret)@b:2"),
            ("postgres://db/yoink?user=a&password=canary", "postgres://db/yoink?(secret)"),
            ("amqp://u:canary@mq:5672/%2f", "amqp://u:(secret)@mq:5672/%2f"),
            ("host=db password=canary", "(secret)"),
        ] {
            let url = ServerUrl::new(given);
            let serialized = serde_json::to_value(&url).unwrap();
            assert_eq!((url.to_string().as_str(), serialized.as_str().unwrap()), (expected, expected));
            assert!(!format!("{url:?}").contains("canary"));
        }
    }
}
