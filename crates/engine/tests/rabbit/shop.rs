//! A shop on private servers, behind proxies; people who buy there and write down what they were told; and the comparison
//! of that record with the ledger.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::runtime::Runtime;
use yoink_core::{NewProduct, OrderId, Rejection};
use yoink_engine::postgres::migrate;
use yoink_engine::{
    CallError, Confirmed, DeadLetter, DeadLetterFilter, Engine, PurchaseRequest, RabbitOptions,
    RabbitProcessed, Reconciliation,
};
use yoink_testkit::{Postgres, Proxy, RabbitServer, RedisServer, Rows, SqlSession};

use crate::common;

/// The product that everybody wants.
pub const SHOE: &str = "shoe";
/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
const DATABASE: &str = "shop";
/// A decision that waits for a row that a test occupies is not given up, also on a slow machine.
const PATIENT: &str = "?options=-c%20lock_timeout%3D14s%20-c%20statement_timeout%3D14s";

/// A request that the broker has confirmed.
#[derive(Clone, Debug)]
pub struct Asked {
    pub customer: String,
    pub order: OrderId,
}

/// What became of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Became {
    pub confirmed: usize,
    pub rejected: usize,
    pub ended: usize,
}

/// Servers, and the edges to them.
pub struct Shop {
    pub rabbit: RabbitServer,
    pub redis: RedisServer,
    pub postgres: Postgres,
    pub rabbit_edge: Proxy,
    runtime: Runtime,
    /// The ledger's id, once somebody has asked for it.
    ledger: OnceLock<String>,
}

impl Shop {
    pub fn start() -> Self {
        let (rabbit, redis) = (RabbitServer::start().unwrap(), RedisServer::start().unwrap());
        let postgres = Postgres::start().unwrap();
        let rabbit_edge = Proxy::start(rabbit.address()).unwrap();
        let url = postgres.create_database(DATABASE).unwrap();
        let runtime = common::runtime();
        runtime.block_on(migrate(&url)).unwrap();
        Self { rabbit, redis, postgres, rabbit_edge, runtime, ledger: OnceLock::new() }
    }

    /// A node with one worker, behind the proxy.
    pub fn open(&self, change: impl FnOnce(&mut RabbitOptions)) -> Engine {
        let amqp = self.rabbit.url_at(self.rabbit_edge.address());
        let postgres = format!("{}{PATIENT}", self.postgres.url_of(DATABASE));
        let mut options = RabbitOptions::new(amqp, self.redis.url(), postgres);
        change(&mut options);
        Engine::open_rabbit(options).unwrap()
    }

    /// A node without workers, beside the proxy.
    pub fn open_edge(&self) -> Engine {
        self.open(|options| (options.workers, options.amqp) = (0, self.rabbit.url()))
    }

    /// Puts shoes on sale.
    pub fn stock(&self, engine: &Engine, stock: u64, limit_per_customer: Option<u32>) {
        let shoe = NewProduct { max_per_order: 1_000, limit_per_customer, ..common::product(SHOE, stock) };
        self.run(engine.create_product(shoe)).unwrap();
    }

    /// Waits until a node knows of the shoes: another one may have made them a moment ago.
    fn wait_on_sale(&self, engine: &Engine) {
        until("the shoes are known", || self.run(engine.product(&common::id(SHOE))).is_some());
    }

    /// Waits until what is bought at a node can be queued.
    pub fn wait_publishing(&self, engine: &Engine) {
        until("the broker takes messages", || engine.rabbit_status().unwrap().is_publishing);
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// One shoe for each of `count` people who come at once, at one node each; who is told at once that there is
    /// nothing left is not in the answer.
    pub fn crowd(&self, engines: &[&Engine], name: &str, count: usize) -> Vec<Asked> {
        engines.iter().for_each(|engine| self.wait_on_sale(engine));
        let each = (0..count).map(|number| {
            let engine = engines[number % engines.len()].clone();
            async move { ask(&engine, &format!("{name}-{number}"), "key").await }
        });
        self.run(join_all(each)).into_iter().flatten().collect()
    }

    pub fn session(&self) -> SqlSession {
        self.postgres.session(DATABASE).unwrap()
    }

    pub fn sql(&self, statement: &str) -> Rows {
        self.session().query(statement).unwrap()
    }

    pub fn count(&self, statement: &str) -> i64 {
        self.sql(statement)[0][0].as_deref().unwrap().parse().unwrap()
    }

    /// Waits until everything is decided and acknowledged; then every invariant must hold, and each request must have
    /// become one thing.
    pub fn judge(&self, engines: &[&Engine], asked: &[Asked]) -> Became {
        for engine in engines {
            let settled = self.run(engine.wait_delivered(0, PATIENCE));
            assert_eq!(settled, Confirmed::Yes, "{:?}", engine.rabbit_status());
        }
        for queue in [self.queue(), self.named("dead")] {
            until("nothing is in the queues or in hand", || {
                self.rabbit.queue_messages(&queue).unwrap() == (0, 0)
            });
        }
        let reconciliation = self.reconcile(engines[0]);
        assert!(reconciliation.ok, "{reconciliation:#?}");
        let figures =
            [reconciliation.oversold, reconciliation.lost, reconciliation.duplicated, reconciliation.stuck];
        assert_eq!(figures, [0; 4], "{reconciliation:#?}");
        self.compare(asked)
    }

    pub fn reconcile(&self, engine: &Engine) -> Reconciliation {
        self.run(engine.reconcile()).unwrap()
    }

    /// Each request is one order, and no order is there that nobody asked for.
    fn compare(&self, asked: &[Asked]) -> Became {
        let mut orders: HashMap<String, (String, String)> = HashMap::new();
        for row in self.sql("SELECT id, customer, status FROM orders") {
            let mut row = row.into_iter().map(Option::unwrap);
            let (id, customer, status) = (row.next().unwrap(), row.next().unwrap(), row.next().unwrap());
            assert_eq!(orders.insert(id, (customer, status)), None, "an order is there twice");
        }
        let mut became = Became::default();
        for one in asked {
            let id = uuid::Uuid::from_bytes(one.order.0).to_string();
            let (customer, status) = orders.remove(&id).unwrap_or_else(|| panic!("{one:?} is nowhere"));
            assert_eq!(customer, one.customer);
            match status.as_str() {
                "confirmed" => became.confirmed += 1,
                "rejected" => became.rejected += 1,
                _ => became.ended += 1,
            }
        }
        assert!(orders.is_empty(), "orders that nobody asked for: {orders:?}");
        became
    }

    /// Waits until nothing waits in the queue any more and something is in the hands of workers; it says how many
    /// messages, each of which has one request or several.
    pub fn wait_in_hand(&self) -> u64 {
        let mut in_hand = 0;
        until("all of it is in hand", || {
            let messages = self.rabbit.queue_messages(&self.queue()).unwrap();
            in_hand = messages.1;
            messages.0 == 0 && in_hand > 0
        });
        in_hand
    }

    pub fn dead_letters(&self, engine: &Engine) -> Vec<DeadLetter> {
        let filter = DeadLetterFilter { limit: 1_000, ..DeadLetterFilter::default() };
        self.run(engine.delivery().dead_letters(filter)).unwrap()
    }
}

/// Names, as the engine makes them.
impl Shop {
    fn ledger(&self) -> &str {
        let ask = || self.sql("SELECT replace(id::text, '-', '') FROM ledger")[0][0].clone().unwrap();
        self.ledger.get_or_init(ask)
    }

    pub fn named(&self, what: &str) -> String {
        format!("yoink.{}.{what}", &self.ledger()[..8])
    }

    /// The queue of requests.
    pub fn queue(&self) -> String {
        self.named("orders")
    }

    /// The lock of the first product.
    pub fn lock(&self) -> String {
        format!("yoink:{}:{{1}}:lock", &self.ledger()[..12])
    }
}

/// What somebody does who can reach the broker.
impl Shop {
    /// Puts messages into a queue by its exchange.
    pub fn publish(&self, exchange: &str, queue: &str, messages: &[Vec<u8>]) {
        let (exchange, queue) = (self.named(exchange), self.named(queue));
        self.run(async {
            let connection =
                Connection::connect(&self.rabbit.url(), ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            for message in messages {
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let (to, key) = (exchange.as_str().into(), queue.as_str().into());
                let sent = channel.basic_publish(to, key, options, message, BasicProperties::default());
                let confirmation = sent.await.unwrap().await.unwrap();
                assert!(confirmation.is_ack() && confirmation.take_message().is_none());
            }
            connection.close(200, "done".into()).await.unwrap();
        });
    }

    /// Takes away what leads from an exchange to its queue.
    pub fn unbind(&self, exchange: &str, queue: &str) {
        let (exchange, queue) = (self.named(exchange), self.named(queue));
        self.run(async {
            let connection =
                Connection::connect(&self.rabbit.url(), ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            let (name, from, key) = (queue.as_str().into(), exchange.as_str().into(), queue.as_str().into());
            channel.queue_unbind(name, from, key, FieldTable::default()).await.unwrap();
            connection.close(200, "done".into()).await.unwrap();
        });
    }

    /// Copies of the messages in the queue of requests, which stay there.
    pub fn copy_messages(&self) -> Vec<Vec<u8>> {
        let queue = self.queue();
        self.run(async {
            let connection =
                Connection::connect(&self.rabbit.url(), ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            let mut copies = Vec::new();
            while let Some(message) =
                channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap()
            {
                copies.push(message.delivery.data);
            }
            // What was not acknowledged goes back.
            connection.close(200, "done".into()).await.unwrap();
            copies
        })
    }
}

/// The row of the only product is somebody's until the session is dropped: no decision ends.
pub fn occupy(shop: &Shop) -> SqlSession {
    let mut session = shop.session();
    session.query("BEGIN").unwrap();
    session.query("SELECT FROM products WHERE number = 1 FOR UPDATE").unwrap();
    session
}

/// How many statements wait for somebody's row.
pub fn deciding(shop: &Shop) -> i64 {
    shop.count(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%decide(%'",
    )
}

pub fn processed(engine: &Engine) -> RabbitProcessed {
    engine.rabbit_status().unwrap().processed
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn request(customer: &str, key: &str) -> PurchaseRequest {
    common::buy(customer, SHOE, 1, Some(key))
}

/// Asks until the broker has confirmed the request. `None`: told at once that there is nothing left.
pub async fn ask(engine: &Engine, customer: &str, key: &str) -> Option<Asked> {
    let begun = Instant::now();
    let mut was_unknown = false;
    loop {
        match engine.purchase(request(customer, key)).await {
            Ok(purchased) => return Some(Asked { customer: customer.to_owned(), order: purchased.order }),
            Err(CallError::Refused(Rejection::SoldOut { .. })) if !was_unknown => return None,
            // What was asked for first may be in the queue.
            Err(CallError::OutcomeUnknown) => was_unknown = true,
            Err(CallError::Unreachable | CallError::Overloaded | CallError::Expired) => {}
            // Another node has put it on sale a moment ago.
            Err(CallError::Refused(Rejection::ProductNotFound)) => {}
            Err(other) => panic!("{customer}: {other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "{customer} got no answer in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
