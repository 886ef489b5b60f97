//! Private Redis and PostgreSQL, and the redis engine on them.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::atomic::{AtomicU32, Ordering};

use yoink_engine::Engine;
use yoink_engine::postgres::migrate;
use yoink_engine::redis::RedisOptions;
use yoink_testkit::{Postgres, RedisServer};

/// One of each.
pub struct Servers {
    pub redis: RedisServer,
    pub postgres: Postgres,
    databases: AtomicU32,
}

impl Servers {
    pub fn start() -> Self {
        Self {
            redis: RedisServer::start().unwrap(),
            postgres: Postgres::start().unwrap(),
            databases: AtomicU32::new(0),
        }
    }

    /// An engine on a new database and an empty Redis.
    pub fn open_engine(&self, change: impl FnOnce(&mut RedisOptions)) -> Engine {
        self.redis.command(&["FLUSHALL"]).unwrap();
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let postgres = self.postgres.create_database(&format!("yoink_{number}")).unwrap();
        super::runtime().block_on(migrate(&postgres)).unwrap();
        let mut options = RedisOptions::new(self.redis.url(), postgres);
        change(&mut options);
        Engine::open_redis(options).unwrap()
    }
}
