//! The engines that the contract is held against: `YOINK_TEST_ENGINE` is `embedded` (the default), `redis`,
//! `redis-cluster`, `rabbitmq` or `rabbitmq-no-lock`. Each server of a test has an engine, a folder, and Redis and
//! PostgreSQL of its own. RabbitMQ takes seconds to start, so the tests of a process share one; each ledger has queues of
//! its own there. Run these with `cargo test`, which runs all tests in one process.

use std::io::Write;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tempfile::TempDir;
use yoink_engine::delivery::DeliveryOptions;
use yoink_engine::postgres::{SettingsCheck, migrate};
use yoink_engine::redis::RedisOptions;
use yoink_engine::{Engine, Options, RabbitOptions, RateLimit};
use yoink_testkit::{Postgres, RabbitServer, RedisCluster, RedisServer, Reply};

#[cfg(feature = "faults")]
use yoink_engine::ledger::{LedgerFault, Times};

const VARIABLE: &str = "YOINK_TEST_ENGINE";
const DATABASE: &str = "yoink";

/// Which engine the tests run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    Embedded,
    Redis,
    RedisCluster,
    Rabbit,
    RabbitWithoutLock,
}

impl EngineKind {
    pub fn asked_for() -> Self {
        match std::env::var(VARIABLE).as_deref() {
            Err(_) | Ok("" | "embedded") => Self::Embedded,
            Ok("redis") => Self::Redis,
            Ok("redis-cluster") => Self::RedisCluster,
            Ok("rabbitmq") => Self::Rabbit,
            Ok("rabbitmq-no-lock") => Self::RabbitWithoutLock,
            Ok(other) => panic!(
                "{VARIABLE} is {other:?}; it must be embedded, redis, redis-cluster, rabbitmq or rabbitmq-no-lock"
            ),
        }
    }
}

/// For tests of what only the embedded engine has: whether that is the engine asked for. If not, says why the test ends
/// here.
#[must_use]
pub fn only_embedded(reason: &str) -> bool {
    let kind = EngineKind::asked_for();
    if kind != EngineKind::Embedded {
        let mut stderr = std::io::stderr();
        writeln!(stderr, "not for {kind:?}: {reason}").unwrap();
    }
    kind == EngineKind::Embedded
}

/// The same for tests of what only the redis engine has.
#[must_use]
pub fn only_redis(reason: &str) -> bool {
    let kind = EngineKind::asked_for();
    let is_redis = matches!(kind, EngineKind::Redis | EngineKind::RedisCluster);
    if !is_redis {
        let mut stderr = std::io::stderr();
        writeln!(stderr, "not for {kind:?}: {reason}").unwrap();
    }
    is_redis
}

/// One Redis, or three that share the products.
enum RedisServers {
    Single(RedisServer),
    Cluster(RedisCluster),
}

impl RedisServers {
    fn url(&self) -> String {
        match self {
            Self::Single(server) => server.url(),
            Self::Cluster(cluster) => cluster.urls().join(","),
        }
    }

    fn all(&self) -> &[RedisServer] {
        match self {
            Self::Single(server) => std::slice::from_ref(server),
            Self::Cluster(cluster) => cluster.nodes(),
        }
    }
}

/// The broker of this process, while a test has it.
static BROKER: Mutex<Weak<RabbitServer>> = Mutex::new(Weak::new());

/// The broker that others have already, or a new one. It ends with the last test that has it.
fn broker() -> Arc<RabbitServer> {
    let mut shared = BROKER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let started = Arc::new(RabbitServer::start().unwrap());
        *shared = Arc::downgrade(&started);
        started
    })
}

/// A broker, and whether workers take a lock.
struct Queue {
    broker: Arc<RabbitServer>,
    has_lock: bool,
}

/// Servers that hold what an engine knows.
struct Servers {
    queue: Option<Queue>,
    redis: RedisServers,
    postgres: Postgres,
}

/// Where an engine keeps what it knows. Outlives it, so that another one can be opened on the same.
enum Ground {
    Folder(TempDir),
    Servers(Box<Servers>),
}

/// How delivery is set up; a function, so that a restart can do it again.
pub type ChangeDelivery = fn(&mut DeliveryOptions);

/// Opens engines on one ground, and makes their ledger refuse orders.
pub struct Opener {
    ground: Ground,
    #[cfg(feature = "faults")]
    fault: LedgerFault,
    change: ChangeDelivery,
    settings: SettingsCheck,
}

impl Opener {
    /// On new ground of the kind asked for.
    pub fn new(change: ChangeDelivery) -> Self {
        Self::of_kind(EngineKind::asked_for(), change)
    }

    /// The same for engines that are told that servers may forget orders. Where the embedded engine is asked for, which
    /// has no servers, the redis engine.
    pub fn relaxed() -> Self {
        let kind = match EngineKind::asked_for() {
            EngineKind::Embedded => EngineKind::Redis,
            kind => kind,
        };
        Self { settings: SettingsCheck::Relaxed, ..Self::of_kind(kind, |_| {}) }
    }

    fn of_kind(kind: EngineKind, change: ChangeDelivery) -> Self {
        let ground = match kind {
            EngineKind::Embedded => Ground::Folder(tempfile::tempdir().unwrap()),
            EngineKind::Redis => with_postgres(RedisServers::Single(RedisServer::start().unwrap()), None),
            EngineKind::RedisCluster => {
                with_postgres(RedisServers::Cluster(RedisCluster::start().unwrap()), None)
            }
            kind @ (EngineKind::Rabbit | EngineKind::RabbitWithoutLock) => {
                let queue = Queue { broker: broker(), has_lock: kind == EngineKind::Rabbit };
                with_postgres(RedisServers::Single(RedisServer::start().unwrap()), Some(queue))
            }
        };
        Self {
            ground,
            #[cfg(feature = "faults")]
            fault: LedgerFault::default(),
            change,
            settings: SettingsCheck::Strict,
        }
    }

    pub fn open(&self) -> Engine {
        self.open_with(None)
    }

    /// With a rate limit for all engines on this ground together, if they are of the kind that has one.
    pub fn open_with(&self, rate_limit: Option<RateLimit>) -> Engine {
        let mut delivery = DeliveryOptions::default();
        (self.change)(&mut delivery);
        match &self.ground {
            Ground::Folder(folder) => {
                #[cfg(feature = "faults")]
                {
                    delivery.fault = self.fault.clone();
                }
                let mut options = Options::new(folder.path().join("data"));
                options.delivery = delivery;
                Engine::open(options).unwrap()
            }
            Ground::Servers(servers) => {
                let Servers { queue, redis, postgres } = &**servers;
                let (redis, postgres) = (redis.url(), postgres.url_of(DATABASE));
                let Some(Queue { broker, has_lock }) = queue else {
                    let mut options = RedisOptions::new(redis, postgres);
                    options.delivery = delivery;
                    (options.settings, options.rate_limit) = (self.settings, rate_limit);
                    return Engine::open_redis(options).unwrap();
                };
                let mut options = RabbitOptions::new(broker.url(), redis, postgres);
                (options.delivery, options.lock, options.settings) = (delivery, *has_lock, self.settings);
                let engine = Engine::open_rabbit(options).unwrap();
                wait_for_broker(&engine);
                engine
            }
        }
    }

    /// How many keys each Redis has; empty if there is none.
    pub fn keys_per_redis(&self) -> Vec<i64> {
        match &self.ground {
            Ground::Folder(_) => Vec::new(),
            // They hold locks, and no products.
            Ground::Servers(servers) if servers.queue.is_some() => Vec::new(),
            Ground::Servers(servers) => servers.redis.all().iter().map(key_count).collect(),
        }
    }

    /// From now on the ledger takes no order of a customer whose id begins with `prefix`, and means it.
    #[cfg(feature = "faults")]
    pub fn refuse_orders_of(&self, prefix: &str) {
        match &self.ground {
            Ground::Folder(_) => self.fault.refuse_customers(prefix, Times::Always),
            Ground::Servers(servers) => execute(
                &servers.postgres,
                &format!(
                    "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                       RAISE EXCEPTION 'refused for a test' USING ERRCODE = 'check_violation'; END $$;
                     CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW
                       WHEN (starts_with(NEW.customer, '{prefix}')) EXECUTE FUNCTION refuse()"
                ),
            ),
        }
    }

    /// From now on the ledger takes every order again.
    #[cfg(feature = "faults")]
    pub fn take_orders_again(&self) {
        match &self.ground {
            Ground::Folder(_) => self.fault.refuse_customers("", Times::Count(0)),
            Ground::Servers(servers) => execute(&servers.postgres, "DROP TRIGGER refuse ON orders"),
        }
    }
}

#[cfg(feature = "faults")]
impl Opener {
    pub fn stop_ledger(&mut self) {
        match &mut self.ground {
            Ground::Folder(_) => self.fault.refuse_all(Times::Always),
            Ground::Servers(servers) => servers.postgres.terminate().unwrap(),
        }
    }

    pub fn start_ledger(&mut self) {
        match &mut self.ground {
            Ground::Folder(_) => self.fault.refuse_all(Times::Count(0)),
            Ground::Servers(servers) => servers.postgres.restart().unwrap(),
        }
    }
}

#[cfg(feature = "faults")]
fn execute(postgres: &Postgres, statements: &str) {
    postgres.session(DATABASE).unwrap().query(statements).unwrap();
}

fn key_count(server: &RedisServer) -> i64 {
    match server.command(&["DBSIZE"]).unwrap() {
        Reply::Integer(count) => count,
        other => panic!("DBSIZE is {other:?}"),
    }
}

/// A node queues from the moment on that it has connected.
fn wait_for_broker(engine: &Engine) {
    crate::harness::eventually("the broker takes requests", || {
        engine.rabbit_status().is_some_and(|status| status.is_publishing)
    });
}

fn with_postgres(redis: RedisServers, queue: Option<Queue>) -> Ground {
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_database(DATABASE).unwrap();
    block_on(migrate(&url)).unwrap();
    Ground::Servers(Box::new(Servers { queue, redis, postgres }))
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What the engines may do differently, each difference by its meaning.
pub trait Differences {
    /// Whether `seq` counts every event of the engine; otherwise it counts the grants of a product.
    fn seq_counts_all_events(&self) -> bool;
    /// The version of the UUIDs of orders: 7 holds a time, 8 holds what makes a key's order.
    fn order_id_version(&self) -> usize;
    /// Whether a key is one purchase of a customer, of whatever product; otherwise each product has its own.
    fn keys_span_products(&self) -> bool;
    /// Whether the answer to a purchase is the decision. Otherwise the request is queued and decided in the ledger: until
    /// then the order is `queued`, takes no units, and may still be refused.
    fn decides_at_once(&self) -> bool;
    /// Whether stock figures and lists have an order as soon as its buyer has the answer; otherwise a moment later.
    fn shows_at_once(&self) -> bool;
}

impl Differences for Engine {
    fn seq_counts_all_events(&self) -> bool {
        self.name() == "embedded"
    }

    fn order_id_version(&self) -> usize {
        if self.name() == "embedded" { 7 } else { 8 }
    }

    fn keys_span_products(&self) -> bool {
        self.name() == "embedded"
    }

    fn decides_at_once(&self) -> bool {
        self.name() != "rabbitmq"
    }

    fn shows_at_once(&self) -> bool {
        self.name() == "embedded"
    }
}

/// The wait that closing an engine at the end of a test may take.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(5);
