//! What an error of Redis says about whether the command was executed.

use redis::{ErrorKind, RedisError};

/// Whether a command that got no result was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executed {
    /// Certainly not: it may be sent again.
    No,
    /// Nobody knows: only a command that may run twice can be sent again.
    Unknown,
}

/// Error codes with which Redis refuses a command before it does anything (redis.io, "Redis serialization protocol"
/// and the sources of each message).
const REFUSED: [&str; 15] = [
    "NOSCRIPT",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "BUSY",
    "NOAUTH",
    "NOPERM",
    "CROSSSLOT",
];

/// Whether a command that failed in this way was executed.
pub(crate) fn executed(error: &RedisError) -> Executed {
    if error.code().is_some_and(|code| REFUSED.contains(&code)) {
        return Executed::No;
    }
    match error.kind() {
        ErrorKind::InvalidClientConfig | ErrorKind::AuthenticationFailed => Executed::No,
        _ => Executed::Unknown,
    }
}

/// Whether another connection may help: this one is broken, or its server has nothing to say any more.
pub(crate) fn wants_new_connection(error: &RedisError) -> bool {
    let moved = ["MOVED", "ASK", "READONLY", "MASTERDOWN", "CLUSTERDOWN"];
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.code().is_some_and(|code| moved.contains(&code))
}
