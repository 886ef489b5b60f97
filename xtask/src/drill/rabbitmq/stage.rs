//! The shop of the rabbitmq engine's drill: one RabbitMQ, one Redis, one PostgreSQL, nodes and workers, and the proxies
//! between them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::SmallRng;
use serde_json::Value;
use yoink_testkit::{Postgres, Proxy, RabbitServer, RedisServer};

use super::broker::Names;
use super::fault::{Broken, Fault, mend, strike};
use crate::drill::shop::buyer::Promise;
use crate::drill::shop::judge::Judge;
use crate::drill::shop::processes::{DATABASE, Shop, Told};
use crate::drill::shop::rounds::Stage;
use crate::drill::shop::tally::Tallies;

/// Processes that decide.
pub(super) const WORKERS: usize = 3;
/// A lock whose holder is silent is free after this long.
pub(super) const LOCK_LIFE: Duration = Duration::from_millis(400);
/// Messages that a worker has in hand at most: few, so that the queue fills while workers stand still.
const PREFETCH: &str = "8";

/// Everything that runs.
pub(super) struct RabbitStage {
    pub(super) shop: Shop,
    pub(super) rabbit: RabbitServer,
    pub(super) redis: RedisServer,
    pub(super) nodes_to_rabbit: Proxy,
    pub(super) workers_to_rabbit: Proxy,
    pub(super) workers_to_redis: Proxy,
    pub(super) workers_to_postgres: Proxy,
    pub(super) names: Names,
    /// Messages that were put into the queues and that nobody can read.
    pub(super) poison: u64,
}

impl RabbitStage {
    /// Starts everything, with records and logs in `folder`.
    pub(super) fn open(binary: &Path, folder: &Path) -> Result<RabbitStage> {
        let (rabbit, redis, postgres) = std::thread::scope(|scope| {
            let rabbit = scope.spawn(RabbitServer::start);
            let others = (RedisServer::start(), Postgres::start());
            (rabbit.join(), others.0, others.1)
        });
        let rabbit = rabbit.map_err(|_| anyhow::anyhow!("starting RabbitMQ panicked"))??;
        let (redis, postgres) = (redis?, postgres?);
        let proxy = Proxy::start;
        let nodes_to_rabbit = proxy(rabbit.address())?;
        let workers_to_rabbit = proxy(rabbit.address())?;
        let workers_to_redis = proxy(redis.address())?;
        let workers_to_postgres = proxy(postgres.address())?;
        let servers = |amqp: &Proxy, redis: &str, postgres: String| {
            let flags = ["--engine", "rabbitmq", "--amqp", &rabbit.url_at(amqp.address()), "--redis", redis];
            let flags = flags.into_iter().map(str::to_owned);
            flags.chain(["--postgres".to_owned(), postgres]).collect::<Vec<_>>()
        };
        let mut serve = servers(&nodes_to_rabbit, &redis.url(), postgres.url());
        serve.extend(["--workers".to_owned(), "0".to_owned()]);
        let to_postgres = format!("postgres://postgres@{}/{DATABASE}", workers_to_postgres.address());
        let to_redis = format!("redis://{}", workers_to_redis.address());
        let told = Told {
            promise: Promise::Decision,
            workers: WORKERS,
            serve,
            work: servers(&workers_to_rabbit, &to_redis, to_postgres),
            settings: vec![
                ("YOINK_LOCK_LIFE_MS", LOCK_LIFE.as_millis().to_string()),
                ("YOINK_AMQP_PREFETCH", PREFETCH.to_owned()),
            ],
        };
        let shop = Shop::open(binary, folder, postgres, told)?;
        let ledger = shop.query("SELECT id FROM ledger")?;
        let ledger = ledger.first().and_then(|row| row.first()).cloned().flatten();
        let names = Names::of(&ledger.context("the ledger has no id")?);
        Ok(RabbitStage {
            shop,
            rabbit,
            redis,
            nodes_to_rabbit,
            workers_to_rabbit,
            workers_to_redis,
            workers_to_postgres,
            names,
            poison: 0,
        })
    }

    /// What is still on its way, in words: in a queue, in somebody's hands, or confirmed and not seen by a worker.
    fn on_its_way(&self) -> Result<Option<String>> {
        for queue in [&self.names.orders, &self.names.dead] {
            let (ready, in_hand) = self.rabbit.queue_messages(queue)?;
            if ready + in_hand > 0 {
                return Ok(Some(format!(
                    "{queue} has {ready} messages, and {in_hand} are in somebody's hands"
                )));
            }
        }
        let unseen = "SELECT coalesce(sum(upper(r) - lower(r)), 0)
                      FROM publishers p, unnest(p.confirmed - p.seen) r";
        let unseen = self.shop.count(unseen)?;
        Ok((unseen > 0).then(|| format!("{unseen} messages were confirmed and not seen by a worker")))
    }

    /// Poison, as every node lists it.
    fn check_dead_letters(&self) -> Result<()> {
        for mut client in self.shop.clients() {
            let (mut listed, mut after) = (0, Some(0));
            while let Some(from) = after {
                let page = client.get(&format!("/v1/admin/dead-letters?after={from}&limit=100"))?;
                ensure!(
                    page.status == 200,
                    "the dead letters cannot be listed: {} {}",
                    page.status,
                    page.text()
                );
                let page = page.json();
                let letters = page.get("dead_letters").and_then(Value::as_array);
                listed += letters.context("the page has no dead letters")?.len() as u64;
                after = page.get("next_after").and_then(Value::as_u64);
            }
            let poison = self.poison;
            ensure!(listed == poison, "{listed} dead letters are listed, and {poison} messages were poison");
        }
        Ok(())
    }
}

impl Stage for RabbitStage {
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
        matches!(broken, Broken::Broker | Broken::Redis | Broken::Postgres)
    }

    fn mend(&mut self, broken: Broken) -> Result<()> {
        mend(broken, self)
    }

    fn with_judge<T>(&mut self, work: impl FnOnce(&Judge<'_>) -> Result<T>) -> Result<T> {
        let stage = &*self;
        work(&Judge { shop: &stage.shop, on_its_way: &|| stage.on_its_way(), unreadable: stage.poison })
    }

    fn judge_servers(&mut self) -> Result<()> {
        self.check_dead_letters()
    }

    fn keep_state(&self) -> Result<()> {
        let tables = ["products", "allocations", "adjustments WHERE NOT done", "publishers", "refused"];
        let queues = self.rabbit.ctl(&[
            "list_queues",
            "name",
            "messages_ready",
            "messages_unacknowledged",
            "consumers",
            "policy",
        ]);
        self.shop.keep_state(&tables, &queues.unwrap_or_else(|error| error.to_string()))
    }
}
