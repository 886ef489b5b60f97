//! Connections to Redis, one per server, each knowing which incarnation of the server it talks to.
//!
//! No connection mends itself: one that broke is dropped and made anew, and what it talks to is asked again. A server
//! that was restarted, replaced or flushed in between is another incarnation, and what was loaded into the one before
//! is not sold from (PROTOCOL.md D.1.7).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, IntoConnectionInfo as _, RedisError};

use crate::node::hash_tag;

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// How long an answer may take. Above it the outcome is unknown.
pub(crate) const ANSWER_MAX: Duration = Duration::from_millis(800);
/// After a failed attempt to connect nobody tries again for this long.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no connection. Nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NoServer {
    #[error("cannot connect to Redis at {address}: {source}")]
    Connect { address: String, source: RedisError },
    #[error("Redis at {address} is a replica and may not be written to")]
    Replica { address: String },
    #[error("Redis at {address} could not be reached a moment ago")]
    Resting { address: String },
}

/// One server of Redis, as long as one connection to it lasts.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: Arc<str>,
    /// `run_id:master_replid`: another after a restart and after a promotion.
    pub(crate) identity: Arc<str>,
    pub(crate) connection: MultiplexedConnection,
    is_of_cluster: bool,
    /// Its clock, in microseconds since 1970, at an instant of ours.
    clock: (i64, Instant),
}

impl Server {
    /// The time on its clock, or close to it.
    pub(crate) fn now_us(&self) -> i64 {
        let (us, at) = self.clock;
        us.saturating_add(i64::try_from(at.elapsed().as_micros()).unwrap_or(i64::MAX))
    }
}

/// The way from a product to the server that has it. One of these per runtime: connections belong to one.
pub(crate) struct Servers {
    /// As given: one server, or some of a cluster's.
    seeds: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<String, Server>,
    failed: HashMap<String, (Instant, NoServer)>,
    /// Where each product's slot is; empty without a cluster.
    homes: HashMap<i32, String>,
}

impl Servers {
    /// `urls`: one server's, or several of one cluster, separated by commas.
    pub(crate) fn new(urls: &str) -> Self {
        let seeds = urls.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty());
        Self { seeds: seeds.collect(), state: Mutex::default() }
    }

    /// The server that has this product.
    pub(crate) async fn of(&self, product: i32) -> Result<Server, NoServer> {
        let home = self.state.lock().homes.get(&product).cloned();
        if let Some(address) = home {
            return self.at(&address).await;
        }
        let first = self.any().await?;
        if !first.is_of_cluster {
            return Ok(first);
        }
        match slot_home(&first, product).await {
            Some(url) if !url.is_empty() => {
                self.state.lock().homes.insert(product, url.clone());
                self.at(&url).await
            }
            _ => Ok(first),
        }
    }

    /// Where a server is, as far as is known.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> = self.state.lock().homes.values().cloned().collect();
        addresses.extend(self.seeds.iter().cloned());
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Every server that is known and answers.
    pub(crate) async fn all(&self) -> Vec<Result<Server, NoServer>> {
        let mut servers = Vec::new();
        for address in self.addresses() {
            servers.push(self.at(&address).await);
        }
        servers
    }

    /// A connection failed in a way that another one may not: forget it, and where the product is.
    pub(crate) fn forget(&self, server: &Server, product: i32) {
        let mut state = self.state.lock();
        state.homes.remove(&product);
        let is_same = state.open.get(&*server.address).is_some_and(|open| open.clock.1 == server.clock.1);
        if is_same {
            state.open.remove(&*server.address);
        }
    }

    /// Looks whether a server is still what it was when it was connected to. One that was made a replica and promoted
    /// again keeps its connections, and may have other data.
    pub(crate) async fn forget_changed(&self, server: &Server, product: i32) {
        let info = redis::cmd("INFO").arg("everything").query_async(&mut server.connection.clone()).await;
        if info.is_ok_and(|info: String| identity(&info) != *server.identity) {
            self.forget(server, product);
        }
    }

    async fn any(&self) -> Result<Server, NoServer> {
        let mut last = NoServer::Resting { address: "(no address was given)".to_owned() };
        for seed in &self.seeds {
            match self.at(seed).await {
                Ok(server) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn at(&self, url: &str) -> Result<Server, NoServer> {
        {
            let state = self.state.lock();
            if let Some(server) = state.open.get(url) {
                return Ok(server.clone());
            }
            if let Some((at, error)) = state.failed.get(url)
                && at.elapsed() < CONNECT_PAUSE
            {
                return Err(error.clone());
            }
        }
        let connected = connect(url).await;
        let mut state = self.state.lock();
        match connected {
            Ok(server) => {
                state.failed.remove(url);
                // Another task may have connected meanwhile: one connection is enough.
                Ok(state.open.entry(url.to_owned()).or_insert(server).clone())
            }
            Err(error) => {
                state.failed.insert(url.to_owned(), (Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

async fn connect(url: &str) -> Result<Server, NoServer> {
    let fail = |source: RedisError| NoServer::Connect { address: shown(url), source };
    let info = url.into_connection_info().map_err(fail)?;
    let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(ANSWER_MAX.saturating_mul(2));
    let client = redis::Client::open(info.set_tcp_settings(tcp)).map_err(fail)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_MAX))
        .set_response_timeout(Some(ANSWER_MAX))
        .set_pipeline_buffer_size(1_024);
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connecting.await.map_err(fail)?;
    let (info, time): (String, (i64, i64)) = redis::pipe()
        .cmd("INFO")
        .arg("everything")
        .cmd("TIME")
        .query_async(&mut connection)
        .await
        .map_err(fail)?;
    if info_field(&info, "role") != Some("master") {
        return Err(NoServer::Replica { address: shown(url) });
    }
    Ok(Server {
        address: url.into(),
        identity: identity(&info).into(),
        connection,
        is_of_cluster: info_field(&info, "cluster_enabled") == Some("1"),
        clock: (time.0.saturating_mul(1_000_000).saturating_add(time.1), Instant::now()),
    })
}

/// Which incarnation of which server says this of itself.
fn identity(info: &str) -> String {
    let field = |name| info_field(info, name).unwrap_or("");
    format!("{}:{}", field("run_id"), field("master_replid"))
}

/// What INFO says of one field; `None` if it says nothing of it.
pub(crate) fn info_field<'info>(info: &'info str, name: &str) -> Option<&'info str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The address of the cluster's server that has a product; `None` if there is no cluster.
async fn slot_home(server: &Server, product: i32) -> Option<String> {
    // All keys of the product are in the slot of their tag.
    let key = hash_tag(product);
    let mut connection = server.connection.clone();
    let slot: i64 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query_async(&mut connection).await.ok()?;
    let ranges: Vec<Vec<redis::Value>> =
        redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await.ok()?;
    for range in ranges {
        let [from, to, master, ..] = range.as_slice() else { continue };
        let (Ok(from), Ok(to)) =
            (redis::from_redis_value_ref::<i64>(from), redis::from_redis_value_ref::<i64>(to))
        else {
            continue;
        };
        if !(from..=to).contains(&slot) {
            continue;
        }
        let redis::Value::Array(master) = master else { continue };
        let [host, port, ..] = master.as_slice() else { continue };
        let host: String = redis::from_redis_value_ref(host).ok()?;
        let port: u16 = redis::from_redis_value_ref(port).ok()?;
        return Some(with_address(&server.address, &host, port));
    }
    None
}

/// The same URL with another host and port: user, password and database stay.
fn with_address(url: &str, host: &str, port: u16) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
    let (credentials, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => (format!("{credentials}@"), place),
        None => (String::new(), rest),
    };
    let path = place.find(['/', '?']).map_or("", |at| place.get(at..).unwrap_or(""));
    format!("{scheme}://{credentials}{host}:{port}{path}")
}

/// A URL without its password, for people.
pub(crate) fn shown(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, place)) => place.to_owned(),
        None => url.split_once("://").map_or(url, |(_, place)| place).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_replaces_host_and_port_only() {
        let moved = with_address("redis://:secret@10.0.0.1:7000/2?protocol=resp3", "10.0.0.2", 7001);
        assert_eq!(moved, "redis://:secret@10.0.0.2:7001/2?protocol=resp3");
        assert_eq!(with_address("redis://10.0.0.1:7000", "10.0.0.2", 7001), "redis://10.0.0.2:7001");
    }

    #[test]
    fn no_password_is_shown() {
        assert_eq!(shown("redis://user:secret@10.0.0.1:7000/2"), "10.0.0.1:7000/2");
        assert_eq!(shown("redis://10.0.0.1:7000"), "10.0.0.1:7000");
    }
}
