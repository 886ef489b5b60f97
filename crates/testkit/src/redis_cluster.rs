//! A private Redis Cluster: three masters, no replicas.

use std::net::SocketAddr;

use crate::redis::{RedisServer, field_of, probe};
use crate::resp::{RedisError, Reply};
use crate::service::ServerError;

/// The first and the last slot of each master.
const SLOTS: [(u16, u16); 3] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];
const SLOTS_COUNT: &str = "16384";
/// How often a command may be sent on before the cluster is called confused.
const REDIRECTIONS_MAX: u32 = 5;

/// Three masters that share the slots. A node that is down takes its slots with it, and, unless
/// `cluster-require-full-coverage no` is among the extra lines, soon the whole cluster too.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three nodes with the defaults of [`crate::RedisBuilder`] and waits until all say that the cluster is
    /// well. Takes about 2 s: a node of Redis does not say so any sooner.
    ///
    /// # Errors
    /// [`ServerError`] with the end of a node's log.
    pub fn start() -> Result<RedisCluster, ServerError> {
        RedisCluster::start_with(&[])
    }

    /// The same with more lines of `redis.conf` for each node.
    ///
    /// # Errors
    /// As [`RedisCluster::start`].
    pub fn start_with(lines: &[&str]) -> Result<RedisCluster, ServerError> {
        let mut nodes = Vec::new();
        for _ in SLOTS {
            let builder = RedisServer::builder().in_cluster().config("cluster-node-timeout 2000");
            let builder = lines.iter().fold(builder, |builder, line| builder.config(*line));
            nodes.push(builder.start()?);
        }
        let mut cluster = RedisCluster { nodes };
        cluster.assign_slots()?;
        cluster.introduce()?;
        cluster.wait_until_well()?;
        Ok(cluster)
    }

    /// The URL of each node.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// The nodes, in the order of their slots.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The nodes, to kill, restart, stop and cont them.
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// Waits until every node says that all slots are served.
    ///
    /// # Errors
    /// A node is down, or it takes longer than 30 s.
    pub fn wait_until_well(&mut self) -> Result<(), ServerError> {
        for node in &mut self.nodes {
            node.wait_until("cluster_state:ok", is_well)?;
        }
        Ok(())
    }

    /// Sends one command to the node that serves its key, found as clients do: by asking one and following `MOVED`.
    ///
    /// # Errors
    /// Redis refuses, or there is no answer.
    pub fn command<P: AsRef<[u8]>>(&self, parts: &[P]) -> Result<Reply, RedisError> {
        let mut node = self.nodes.iter().find(|node| node.pid().is_some()).or(self.nodes.first());
        let mut answer = Ok(Reply::Nil);
        for _ in 0..REDIRECTIONS_MAX {
            let Some(asked) = node else { break };
            answer = asked.command(parts);
            let Some(address) = moved_to(&answer) else { break };
            node = self.nodes.iter().find(|node| node.address() == address);
        }
        answer
    }

    fn assign_slots(&self) -> Result<(), ServerError> {
        for (number, (node, (first, last))) in (1..).zip(self.nodes.iter().zip(SLOTS)) {
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &format!("{number}")])?;
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
        }
        Ok(())
    }

    /// Tells the first node about the others; gossip does the rest.
    fn introduce(&self) -> Result<(), ServerError> {
        let Some((first, others)) = self.nodes.split_first() else { return Ok(()) };
        for other in others {
            let port = other.port().to_string();
            let bus_port = other.bus_port().unwrap_or_default().to_string();
            first.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port])?;
        }
        Ok(())
    }
}

fn is_well(address: SocketAddr) -> bool {
    let Some(info) = probe(address, &["CLUSTER", "INFO"]) else { return false };
    let says = |field, value| field_of(&info, field).as_deref() == Some(value);
    says("cluster_state", "ok") && says("cluster_slots_ok", SLOTS_COUNT) && says("cluster_known_nodes", "3")
}

/// The address in `MOVED 1234 127.0.0.1:7000`.
fn moved_to(answer: &Result<Reply, RedisError>) -> Option<SocketAddr> {
    let Err(RedisError::Refused { message, .. }) = answer else { return None };
    let mut words = message.split(' ');
    if words.next() != Some("MOVED") {
        return None;
    }
    words.nth(1)?.parse().ok()
}
