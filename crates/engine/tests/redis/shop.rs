//! A shop on private servers, behind proxies that fail as told; its crowd, which writes down what it was promised; and
//! the comparison of that record with the ledger.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use yoink_core::{NewProduct, OrderId, Rejection};
use yoink_engine::postgres::migrate;
use yoink_engine::redis::RedisOptions;
use yoink_engine::{CallError, Confirmed, Engine, PurchaseRequest, Purchased, Reconciliation, Replayed};
use yoink_testkit::{Mode, Postgres, Proxy, RedisServer, Reply, Rows};

use crate::common;

/// The product that everybody wants.
pub const SHOE: &str = "shoe";
/// How long healing and draining may take.
const QUIET_WITHIN: Duration = Duration::from_secs(30);
/// How long one buyer tries.
const PATIENCE: Duration = Duration::from_secs(40);
/// An attempt without an answer is not executed any more after this long.
const UNDECIDED_MAX: Duration = Duration::from_millis(1_700);

/// How often a scenario is played: `count`, or that times `YOINK_REPEAT`.
pub fn rounds(count: usize) -> usize {
    let more = std::env::var("YOINK_REPEAT").ok().and_then(|text| text.parse::<usize>().ok());
    count * more.unwrap_or(1).max(1)
}

/// A unit that was promised to somebody.
#[derive(Clone, Debug)]
pub struct Bought {
    pub customer: String,
    pub key: String,
    pub quantity: u32,
    pub order: OrderId,
}

/// What became of what was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub confirmed: usize,
    pub ended: usize,
}

/// Servers, and the edges to them.
pub struct Shop {
    pub redis: RedisServer,
    pub postgres: Postgres,
    pub redis_edge: Proxy,
    pub postgres_edge: Proxy,
    runtime: Runtime,
}

const DATABASE: &str = "shop";

impl Shop {
    pub fn start() -> Self {
        let (redis, postgres) = (RedisServer::start().unwrap(), Postgres::start().unwrap());
        let (redis_edge, postgres_edge) =
            (Proxy::start(redis.address()).unwrap(), Proxy::start(postgres.address()).unwrap());
        let url = postgres.create_database(DATABASE).unwrap();
        let runtime = common::runtime();
        runtime.block_on(migrate(&url)).unwrap();
        Self { redis, postgres, redis_edge, postgres_edge, runtime }
    }

    /// The first shop of another ledger, on the same servers.
    pub fn open_another(&self, database: &str) -> Engine {
        let url = self.postgres.create_database(database).unwrap();
        self.run(migrate(&url)).unwrap();
        Engine::open_redis(RedisOptions::new(self.redis.url(), url)).unwrap()
    }

    /// A node.
    pub fn open(&self, change: impl FnOnce(&mut RedisOptions)) -> Engine {
        let redis = format!("redis://{}", self.redis_edge.address());
        let postgres = format!("postgres://postgres@{}/{DATABASE}", self.postgres_edge.address());
        let mut options = RedisOptions::new(redis, postgres);
        change(&mut options);
        Engine::open_redis(options).unwrap()
    }

    /// A node that sells `stock` shoes.
    pub fn open_with_shoes(&self, stock: u64, change: impl FnOnce(&mut RedisOptions)) -> Engine {
        let engine = self.open(change);
        let shoe = NewProduct { max_per_order: 1_000, ..common::product(SHOE, stock) };
        self.run(engine.create_product(shoe)).unwrap();
        engine
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(work)
    }

    /// The way to the ledger that no proxy is on.
    pub fn postgres_url(&self) -> String {
        self.postgres.url_of(DATABASE)
    }

    pub fn sql(&self, statement: &str) -> Rows {
        self.postgres.session(DATABASE).unwrap().query(statement).unwrap()
    }

    pub fn count(&self, statement: &str) -> i64 {
        self.sql(statement)[0][0].as_deref().unwrap().parse().unwrap()
    }

    /// Copies the ledger, as a backup does.
    pub fn copy_ledger(&self, name: &str) {
        self.while_nobody_is_connected(&[format!("CREATE DATABASE {name} TEMPLATE {DATABASE}")]);
    }

    /// Puts a copy in the ledger's place.
    pub fn restore_ledger(&self, name: &str) {
        self.while_nobody_is_connected(&[
            format!("ALTER DATABASE {DATABASE} RENAME TO before_{name}"),
            format!("ALTER DATABASE {name} RENAME TO {DATABASE}"),
        ]);
    }

    fn while_nobody_is_connected(&self, statements: &[String]) {
        self.postgres_edge.set(Mode::Refuse).unwrap();
        self.postgres_edge.cut_all();
        let mut session = self.postgres.session("postgres").unwrap();
        let sessions = format!("FROM pg_stat_activity WHERE datname = '{DATABASE}'");
        session.query(&format!("SELECT pg_terminate_backend(pid) {sessions}")).unwrap();
        let begun = Instant::now();
        while session.value(&format!("SELECT count(*) {sessions}")).unwrap().as_deref() != Some("0") {
            assert!(begun.elapsed() < QUIET_WITHIN, "somebody stays connected");
            std::thread::sleep(Duration::from_millis(2));
        }
        statements.iter().for_each(|statement| drop(session.query(statement).unwrap()));
        self.postgres_edge.set(Mode::Pass).unwrap();
    }

    pub fn redis(&self, parts: &[&str]) -> Reply {
        self.redis.command(parts).unwrap()
    }

    /// A key of the first product.
    pub fn key(&self, name: &str) -> String {
        self.key_of(1, name)
    }

    /// A key of the product with this number.
    pub fn key_of(&self, number: i64, name: &str) -> String {
        let epoch = match name {
            "grants" => {
                format!(":{}", self.count(&format!("SELECT epoch FROM products WHERE number = {number}")))
            }
            _ => String::new(),
        };
        let ledger =
            self.sql("SELECT left(replace(id::text, '-', ''), 12) FROM ledger")[0][0].clone().unwrap();
        format!("yoink:{ledger}:{{{number}}}:{name}{epoch}")
    }

    /// `buyers` people who buy one after the other until they are told to stop.
    pub fn crowd(&self, engines: &[&Engine], buyers: usize) -> Crowd {
        static CROWDS: AtomicU64 = AtomicU64::new(0);
        let crowd = CROWDS.fetch_add(1, Ordering::Relaxed);
        let (is_over, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let shop = |buyer: usize| {
            let (engine, is_over) = (engines[buyer % engines.len()].clone(), Arc::clone(&is_over));
            let accepted = Arc::clone(&accepted);
            self.runtime.spawn(async move {
                let mut bought = Vec::new();
                for visit in 0_u32.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let customer = format!("c{crowd}-{buyer}-{visit}");
                    if let Some(unit) = insist(&engine, &customer, 1).await {
                        accepted.fetch_add(1, Ordering::Relaxed);
                        bought.push(unit);
                    }
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                bought
            })
        };
        Crowd { buying: (0..buyers).map(shop).collect(), is_over, accepted }
    }

    /// Tells the crowd to stop, and gives what it was promised.
    pub fn disperse(&self, crowd: Crowd) -> Vec<Bought> {
        crowd.is_over.store(true, Ordering::Relaxed);
        let mut bought = Vec::new();
        for buyer in crowd.buying {
            bought.extend(self.run(buyer).unwrap());
        }
        bought
    }

    /// Buys as somebody new until somebody gets a shoe, or there is none; gives how long that took.
    pub fn wait_until_selling(&self, engine: &Engine, bought: &mut Vec<Bought>) -> Duration {
        static PROBES: AtomicU64 = AtomicU64::new(0);
        let begun = Instant::now();
        let customer = format!("probe-{}", PROBES.fetch_add(1, Ordering::Relaxed));
        bought.extend(self.run(insist(engine, &customer, 1)));
        begun.elapsed()
    }

    /// Pauses delivery, and waits until nothing is on its way any more that a worker had read before. Meanwhile the node
    /// must not forget it, although it has looked at the ledger before.
    pub fn pause_delivery(&self, engine: &Engine) {
        self.run(engine.delivery().pause()).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(400) {
            assert!(engine.delivery().status().paused, "{:?} after delivery was paused", begun.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until all is healed and drained; then every invariant must hold.
    pub fn reconcile(&self, engine: &Engine) -> Reconciliation {
        let settled = self.run(engine.wait_delivered(0, QUIET_WITHIN));
        let status = engine.delivery().status();
        assert_eq!(settled, Confirmed::Yes, "not quiet after {QUIET_WITHIN:?}: {status:?}");
        let reconciliation = self.run(engine.reconcile()).unwrap();
        assert!(reconciliation.ok, "{reconciliation:#?}");
        let figures =
            [reconciliation.oversold, reconciliation.lost, reconciliation.duplicated, reconciliation.stuck];
        assert_eq!(figures, [0; 4], "{reconciliation:#?}");
        reconciliation
    }

    /// Holds the record of the crowd against the ledger, sells what is left, and looks again: nothing was lost, nothing
    /// sticks, and nobody got more than there was.
    pub fn close_the_books(&self, engine: &Engine, stock: u64, bought: &mut Vec<Bought>) -> Kept {
        self.reconcile(engine);
        let kept = self.compare(engine, bought);
        self.sell_out(engine, bought);
        self.reconcile(engine);
        self.compare(engine, bought);
        let sold = self.count(
            "SELECT coalesce(sum(quantity), 0) FROM (
                 SELECT quantity FROM orders WHERE status = 'confirmed'
                 UNION ALL SELECT quantity FROM refused WHERE ended IS NULL AND state <> 'retried') live",
        );
        assert_eq!(sold, i64::try_from(stock).unwrap(), "every unit is sold, and none twice");
        let oversold = "SELECT count(*) FROM allocations WHERE sold > units";
        assert_eq!(self.count(oversold), 0);
        kept
    }

    /// Where nobody kept a record: all is sold, in orders of one unit.
    pub fn close_the_books_of_strangers(&self, engine: &Engine, stock: u64) {
        self.reconcile(engine);
        let orders = self.count("SELECT count(*) FROM orders WHERE status = 'confirmed' AND quantity = 1");
        assert_eq!(orders, i64::try_from(stock).unwrap());
    }

    fn sell_out(&self, engine: &Engine, bought: &mut Vec<Bought>) {
        let mut quantity = 500;
        for number in 0_u32.. {
            let customer = format!("rest-{}-{number}", bought.len());
            match self.run(insist(engine, &customer, quantity)) {
                Some(unit) => bought.push(unit),
                None if quantity == 1 => return,
                None => quantity = (quantity / 2).max(1),
            }
        }
    }

    /// Every promise is in the ledger exactly once, kept or visibly broken; nothing else is; keys name their orders.
    fn compare(&self, engine: &Engine, bought: &[Bought]) -> Kept {
        let rows = self.sql(
            "SELECT id, customer, quantity, status, coalesce(reason, '') FROM orders
             UNION ALL SELECT id, customer, quantity, coalesce(ended, 'accepted'), coalesce(ended_reason, '')
             FROM refused WHERE state <> 'retried'",
        );
        let mut in_ledger: HashMap<String, Vec<Vec<String>>> = HashMap::new();
        for row in rows {
            let mut row: Vec<String> = row.into_iter().map(Option::unwrap).collect();
            in_ledger.entry(row.remove(0)).or_default().push(row);
        }
        let mut kept = Kept::default();
        for unit in bought {
            let id = uuid::Uuid::from_bytes(unit.order.0).to_string();
            let found = in_ledger.remove(&id).unwrap_or_else(|| panic!("{unit:?} is nowhere"));
            let [row] = found.as_slice() else { panic!("{unit:?} is there {} times", found.len()) };
            assert_eq!((&row[0], &row[1]), (&unit.customer, &unit.quantity.to_string()), "{unit:?}");
            match row[2].as_str() {
                "confirmed" => kept.confirmed += 1,
                "failed" | "cancelled" => {
                    assert!(!row[3].is_empty(), "{unit:?} ended without a reason");
                    kept.ended += 1;
                }
                other => panic!("{unit:?} is {other}"),
            }
        }
        assert!(in_ledger.is_empty(), "orders that nobody was promised: {in_ledger:?}");
        self.replay_some(engine, bought);
        kept
    }

    fn replay_some(&self, engine: &Engine, bought: &[Bought]) {
        for unit in bought.iter().step_by(bought.len() / 20 + 1) {
            self.run(engine.order(unit.order)).unwrap().expect("it is in the ledger");
            let again = self.run(engine.purchase(request(&unit.customer, unit.quantity, &unit.key))).unwrap();
            assert_eq!((again.order, again.replayed), (unit.order, Replayed::Yes), "{unit:?}");
        }
    }
}

/// People who are buying.
pub struct Crowd {
    buying: Vec<JoinHandle<Vec<Bought>>>,
    is_over: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
}

impl Crowd {
    /// How many units they were promised so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until they were promised so many units more.
    pub fn wait_for(&self, more: u64) {
        let (from, begun) = (self.accepted(), Instant::now());
        while self.accepted() < from + more {
            assert!(begun.elapsed() < PATIENCE, "{} of {more} units", self.accepted() - from);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub fn request(customer: &str, quantity: u32, key: &str) -> PurchaseRequest {
    common::buy(customer, SHOE, quantity, Some(key))
}

/// Asks until there is a definite answer, always with the same key. `None`: sold out.
pub async fn insist(engine: &Engine, customer: &str, quantity: u32) -> Option<Bought> {
    let key = format!("key-{customer}");
    let purchased = insist_with_key(engine, customer, quantity, &key).await?;
    Some(Bought { customer: customer.to_owned(), key, quantity, order: purchased.order })
}

pub async fn insist_with_key(engine: &Engine, customer: &str, quantity: u32, key: &str) -> Option<Purchased> {
    let begun = Instant::now();
    let mut was_unknown = false;
    loop {
        match engine.purchase(request(customer, quantity, key)).await {
            Ok(purchased) => return Some(purchased),
            Err(CallError::Refused(Rejection::SoldOut { .. })) if !was_unknown => return None,
            Err(CallError::Refused(Rejection::SoldOut { .. })) => {
                // An earlier attempt may still be on its way to Redis.
                tokio::time::sleep(UNDECIDED_MAX).await;
                was_unknown = false;
            }
            Err(CallError::OutcomeUnknown) => was_unknown = true,
            Err(
                CallError::Refused(Rejection::ConservationBroken)
                | CallError::Rebuilding
                | CallError::UnsafeSettings
                | CallError::Unreachable
                | CallError::Overloaded
                | CallError::Expired,
            ) => {}
            Err(other) => panic!("{customer}: {other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "{customer} got no answer in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
