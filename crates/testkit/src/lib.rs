//! Real processes for tests and drills: starts the real `yoink` privately, talks HTTP to it, ends it.
//!
//! It also starts real Redis, PostgreSQL and RabbitMQ servers, clusters and proxies between them, which a test may
//! kill, pause, crash and cut. `cargo xtask setup` installs the programs. Everything listens on loopback, keeps its data in a folder
//! of its own, and ends with the process that started it, even if that is killed.
//!
//! This crate knows the binary, its command line and its URLs, and depends on no other crate of the project, so what
//! it observes cannot be explained by a shared mistake.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = yoink_testkit::Yoink::new("target/debug/yoink").start()?;
//! let answer = server.client().get("/v1/products")?;
//! assert_eq!(answer.status, 200);
//! # Ok(())
//! # }
//! ```

mod chance;
mod client;
mod leash;
mod memory;
mod message;
mod orphans;
mod port;
mod postgres;
mod postgres_template;
mod process;
mod proxy;
mod rabbit;
mod rabbit_program;
mod redis;
mod redis_cluster;
mod reserved_port;
mod resp;
mod service;
mod sql;

pub use chance::Chance;
pub use client::{Client, ClientError};
pub use memory::resident_bytes;
pub use message::Response;
pub use port::free_port;
pub use postgres::{Postgres, PostgresBuilder};
pub use process::{StartError, Yoink, YoinkProcess, ended_by};
pub use proxy::{Counts, Mode, Proxy};
pub use rabbit::{RabbitBuilder, RabbitServer};
pub use redis::{RedisBuilder, RedisServer};
pub use redis_cluster::RedisCluster;
pub use resp::{RedisClient, RedisError, Reply};
pub use service::ServerError;
pub use sql::{Rows, SqlError, SqlSession};

/// The admin key that [`Yoink`] gives the processes it starts, unless told otherwise.
pub const ADMIN_KEY: &str = "testkit-admin-key-0123456789abcdefghijklmnopqrstuvwxyz";
