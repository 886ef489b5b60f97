//! Signs of life of the servers behind a node.

use std::time::Duration;

/// Whether a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// `rabbitmq`, `redis` or `postgres`.
    pub server: &'static str,
    /// Whether it does.
    pub is_well: bool,
    /// How long it took.
    pub took: Duration,
}
