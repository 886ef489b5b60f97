//! Where the storm goes: an `http://` address, taken apart once.

use std::net::SocketAddr;

use http::HeaderValue;

use crate::error::{StormError, plain_reason};

/// A parsed target.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `http://host:port/base`, without a trailing slash.
    pub(crate) url: String,
    /// `host:port` as the `Host` header wants it.
    pub(crate) host: HeaderValue,
    /// What comes before every path; empty or starting with a slash.
    pub(crate) base: String,
    /// Resolved once, so that no name look-up is in the measured path.
    pub(crate) address: SocketAddr,
}

impl Target {
    /// Takes `url` apart and looks its host up.
    ///
    /// # Errors
    /// [`StormError::Target`] if it is not a plain `http://host[:port][/base]`, [`StormError::Unreachable`] if the name
    /// cannot be resolved.
    pub(crate) async fn resolve(url: &str) -> Result<Target, StormError> {
        let parts = split(url).map_err(|reason| StormError::Target { url: url.to_owned(), reason })?;
        let unreachable =
            |reason: String| StormError::Unreachable { url: url.trim_end_matches('/').to_owned(), reason };
        let mut addresses = tokio::net::lookup_host((parts.host.trim_matches(['[', ']']), parts.port))
            .await
            .map_err(|error| unreachable(plain_reason(&error)))?;
        let address = addresses.next().ok_or_else(|| unreachable("the name has no address".to_owned()))?;
        let authority = format!("{}:{}", parts.host, parts.port);
        let host = HeaderValue::from_str(&authority).map_err(|_| StormError::Target {
            url: url.to_owned(),
            reason: "the host holds characters that cannot be sent",
        })?;
        Ok(Target { url: format!("http://{authority}{}", parts.base), host, base: parts.base, address })
    }
}

struct Parts {
    host: String,
    port: u16,
    base: String,
}

fn split(url: &str) -> Result<Parts, &'static str> {
    if url.starts_with("https://") {
        return Err(
            "the storm speaks plain http only (put it on the same side of the TLS proxy as the server)",
        );
    }
    let uri: http::Uri = url.parse().map_err(|_| "it is not a URL")?;
    if uri.scheme_str() != Some("http") {
        return Err("it must start with http://");
    }
    if uri.query().is_some() {
        return Err("it must not carry a query");
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or("it names no host")?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("it must not carry a user name; give a key instead");
    }
    let base = uri.path().trim_end_matches('/').to_owned();
    Ok(Parts { host: host.to_owned(), port: uri.port_u16().unwrap_or(80), base })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_address_is_taken_apart() {
        let parts = split("http://127.0.0.1:3000/").unwrap();
        assert_eq!((parts.host.as_str(), parts.port, parts.base.as_str()), ("127.0.0.1", 3000, ""));
        let parts = split("http://shop.example/sale/").unwrap();
        assert_eq!((parts.host.as_str(), parts.port, parts.base.as_str()), ("shop.example", 80, "/sale"));
    }

    #[test]
    fn what_cannot_be_a_target_is_refused_with_the_reason() {
        for (url, word) in [
            ("https://127.0.0.1", "plain http only"),
            ("127.0.0.1:3000", "http://"),
            ("http://a/?x=1", "query"),
            ("http://me@a/", "user name"),
            ("ftp://a/", "http://"),
        ] {
            let reason = split(url).err().unwrap();
            assert!(reason.contains(word) || reason.contains("URL"), "{url}: {reason}");
        }
    }
}
