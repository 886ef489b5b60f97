//! Is this Redis set up so that an answer survives a crash? Asked before the first sale and every few seconds.

use redis::RedisResult;

use super::servers::{Server, info_field, shown};

/// A setting, what it must be, and why.
const SETTINGS: [(&str, &[&str], &str); 4] = [
    ("appendonly", &["yes"], "without it a restart forgets what was sold"),
    ("appendfsync", &["always"], "otherwise a crash forgets the last orders that were accepted"),
    ("no-appendfsync-on-rewrite", &["no"], "otherwise nothing is synced while the file is rewritten"),
    ("maxmemory-policy", &["noeviction"], "otherwise Redis drops orders when it is full"),
];

/// Whether a server is writing its log anew. One that was a replica until a moment ago acknowledges writes that are in no
/// file before that is done: what it says survives nothing.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn is_rewriting(server: &Server) -> RedisResult<bool> {
    let info: String =
        redis::cmd("INFO").arg("persistence").query_async(&mut server.connection.clone()).await?;
    let is_so = |name| info_field(&info, name) == Some("1");
    Ok(is_so("aof_rewrite_in_progress") || is_so("aof_rewrite_scheduled"))
}

/// What is wrong with a server's settings, in sentences; nothing if all is well.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn redis_complaints(server: &Server) -> RedisResult<Vec<String>> {
    let mut connection = server.connection.clone();
    let address = shown(&server.address);
    let mut complaints = Vec::new();
    for (name, wanted, why) in SETTINGS {
        let found: Vec<String> =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection).await?;
        let value = found.get(1).map_or("", String::as_str);
        if !wanted.contains(&value) {
            let wanted = wanted.join(" or ");
            complaints.push(format!(
                "Redis at {address} has {name} {value}, which must be {wanted}: {why}. \
                 `redis-cli CONFIG SET {name} {wanted}` sets it, and its configuration file keeps it"
            ));
        }
    }
    let persistence: String = redis::cmd("INFO").arg("persistence").query_async(&mut connection).await?;
    for (name, good) in [("aof_last_write_status", "ok"), ("aof_last_bgrewrite_status", "ok")] {
        if let Some(value) = info_field(&persistence, name).filter(|value| *value != good) {
            complaints.push(format!("Redis at {address} says {name}:{value}: look at its disk and its log"));
        }
    }
    Ok(complaints)
}
