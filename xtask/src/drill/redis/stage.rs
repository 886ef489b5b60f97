//! The shop of the redis engine's drill: one Redis, one PostgreSQL, nodes and workers, and the proxies between them.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::SmallRng;
use yoink_testkit::{Postgres, Proxy, RedisServer, Reply};

use super::fault::{Broken, Fault, mend, strike};
use crate::drill::shop::buyer::Promise;
use crate::drill::shop::judge::Judge;
use crate::drill::shop::processes::{DATABASE, Shop, Told};
use crate::drill::shop::rounds::Stage;
use crate::drill::shop::tally::Tallies;

/// Processes that carry orders to the ledger.
pub(super) const WORKERS: usize = 2;
/// Entries of a silent worker are taken over after this long.
pub(super) const CLAIM_AFTER: Duration = Duration::from_millis(400);

/// Everything that runs.
pub(super) struct RedisStage {
    pub(super) shop: Shop,
    pub(super) redis: RedisServer,
    pub(super) nodes_to_redis: Proxy,
    pub(super) nodes_to_postgres: Proxy,
    pub(super) workers_to_redis: Proxy,
    pub(super) workers_to_postgres: Proxy,
}

impl RedisStage {
    /// Starts everything, with records and logs in `folder`.
    pub(super) fn open(binary: &Path, folder: &Path) -> Result<RedisStage> {
        let (postgres, redis) = (Postgres::start()?, RedisServer::start()?);
        let nodes_to_redis = Proxy::start(redis.address())?;
        let nodes_to_postgres = Proxy::start(postgres.address())?;
        let workers_to_redis = Proxy::start(redis.address())?;
        let workers_to_postgres = Proxy::start(postgres.address())?;
        let redis_at = |proxy: &Proxy| format!("redis://{}", proxy.address());
        let postgres_at = |proxy: &Proxy| format!("postgres://postgres@{}/{DATABASE}", proxy.address());
        let told = Told {
            promise: Promise::Units,
            workers: WORKERS,
            serve: ["--engine", "redis", "--workers", "0", "--redis"]
                .map(str::to_owned)
                .into_iter()
                .chain([redis_at(&nodes_to_redis), "--postgres".to_owned(), postgres_at(&nodes_to_postgres)])
                .collect(),
            work: vec![
                "--redis".to_owned(),
                redis_at(&workers_to_redis),
                "--postgres".to_owned(),
                postgres_at(&workers_to_postgres),
            ],
            settings: vec![("YOINK_REDIS_CLAIM_AFTER_MS", CLAIM_AFTER.as_millis().to_string())],
        };
        let shop = Shop::open(binary, folder, postgres, told)?;
        Ok(RedisStage {
            shop,
            redis,
            nodes_to_redis,
            nodes_to_postgres,
            workers_to_redis,
            workers_to_postgres,
        })
    }
}

impl Stage for RedisStage {
    type Fault = Fault;
    type Broken = Broken;

    fn shop(&mut self) -> &mut Shop {
        &mut self.shop
    }

    fn strike(
        &mut self,
        fault: Fault,
        tallies: &mut Tallies,
        random: &mut SmallRng,
    ) -> Result<Option<Broken>> {
        strike(fault, self, tallies, random)
    }

    fn is_server(broken: &Broken) -> bool {
        matches!(broken, Broken::Redis | Broken::Postgres)
    }

    fn mend(&mut self, broken: Broken) -> Result<()> {
        mend(broken, self)
    }

    fn with_judge<T>(&mut self, work: impl FnOnce(&Judge<'_>) -> Result<T>) -> Result<T> {
        work(&Judge { shop: &self.shop, on_its_way: &|| Ok(None), unreadable: 0 })
    }

    fn keep_state(&self) -> Result<()> {
        let mut text = String::new();
        let mut redis = self.redis.client()?;
        for key in redis.command(&["KEYS", "*"])?.items().iter().filter_map(Reply::text) {
            let is_stream = redis.command(&["TYPE", &key])?.text().as_deref() == Some("stream");
            let (length, content) = match is_stream {
                true => (
                    redis.command(&["XLEN", &key])?,
                    redis.command(&["XRANGE", &key, "-", "+", "COUNT", "20"])?,
                ),
                false => (redis.command(&["HLEN", &key])?, redis.command(&["HGETALL", &key])?),
            };
            let content: Vec<String> =
                content.items().iter().take(60).map(|item| format!("{item:?}")).collect();
            text.push_str(&format!("{key} {length:?}\n  {}\n", content.join("\n  ")));
        }
        let tables =
            ["products", "allocations", "adjustments WHERE NOT done", "credits WHERE NOT applied", "refused"];
        self.shop.keep_state(&tables, &text)
    }
}
