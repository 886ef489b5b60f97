//! The rabbitmq engine from the command line, on a RabbitMQ, a Redis and a PostgreSQL of each test's own.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};
use yoink_testkit::{ADMIN_KEY, Client, Postgres, RabbitServer, RedisServer, Response, Yoink, YoinkProcess};

use crate::{BINARY, json_of, refusal_of, text_of, yoink};

const WAIT: [(&str, &str); 1] = [("prefer", "wait=20")];
const EXIT_WITHIN: Duration = Duration::from_secs(10);
/// Nothing in these tests takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

struct Servers {
    broker: RabbitServer,
    /// How nodes and workers reach it.
    amqp: String,
    redis: RedisServer,
    postgres: Postgres,
    folder: tempfile::TempDir,
}

impl Servers {
    /// With the tables of the ledger.
    fn start() -> Servers {
        let broker = RabbitServer::start().unwrap();
        let servers = Servers {
            amqp: broker.url(),
            broker,
            redis: RedisServer::start().unwrap(),
            postgres: Postgres::start().unwrap(),
            folder: tempfile::tempdir().unwrap(),
        };
        text_of(&mut servers.command(&["migrate"]));
        servers
    }

    /// A virtual host and a user of Yoink's own, with no more rights than the documents say.
    fn give_own_user(&mut self) {
        let own = r"^yoink\.";
        for words in [
            &["add_vhost", "shop"][..],
            &["add_user", "yoink", "canary"],
            &["set_permissions", "--vhost", "shop", "yoink", own, own, own],
            &["delete_user", "guest"],
        ] {
            self.broker.ctl(words).unwrap();
        }
        self.amqp = format!("amqp://yoink:canary@{}/shop", self.broker.address());
    }

    fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("YOINK_AMQP_URL", self.amqp.clone()),
            ("YOINK_REDIS_URL", self.redis.url()),
            ("YOINK_POSTGRES_URL", self.postgres.url()),
            ("YOINK_ADMIN_KEY", ADMIN_KEY.to_owned()),
        ]
    }

    /// A command that finds the servers in its environment.
    fn command(&self, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = yoink(self.folder.path());
        command.args(arguments).envs(self.environment());
        command
    }

    fn process(&self, arguments: &[&str]) -> Yoink {
        let process = Yoink::new(BINARY).args(arguments.iter().copied()).without_data();
        let process = process.ready_within(PATIENCE);
        self.environment().into_iter().fold(process, |process, (name, value)| process.env(name, value))
    }

    fn node(&self, workers: &str, more: &[&str]) -> Yoink {
        self.process(&[&["serve", "--dev", "--engine", "rabbitmq", "--workers", workers], more].concat())
    }

    /// A client command against a node.
    fn at(&self, node: &YoinkProcess, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = self.command(arguments);
        command.args(["--url", &node.url()]);
        command
    }

    fn worker(&self, more: &[&str]) -> YoinkProcess {
        self.process(&[&["worker", "--engine", "rabbitmq"], more].concat()).start().unwrap()
    }

    /// What the audit finds without a server, and with which code it ends.
    fn audit(&self) -> (i32, Value) {
        let (amqp, redis, postgres) = (&self.amqp, self.redis.url(), self.postgres.url());
        let arguments = ["audit", "--json", "--amqp", amqp, "--redis", &redis, "--postgres", &postgres];
        json_of(yoink(self.folder.path()).args(arguments))
    }
}

fn seed(at: &YoinkProcess, id: &str, units: u64) {
    let product = json!({"id": id, "name": "a", "price": {"amount": 100, "currency": "EUR"}, "stock": units});
    let made = at.client().post("/v1/admin/products", &product).unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
}

fn buy(at: &YoinkProcess, product: &str, customer: &str, headers: &[(&str, &str)]) -> Response {
    buy_with(&mut at.anonymous_client(), product, customer, headers)
}

fn buy_with(client: &mut Client, product: &str, customer: &str, headers: &[(&str, &str)]) -> Response {
    let body = json!({"customer_id": customer, "product_id": product});
    client.request("POST", "/v1/orders", headers, Some(&body)).unwrap()
}

/// Waits for the decision.
fn buy_and_wait(at: &YoinkProcess, product: &str, customer: &str) -> Response {
    buy(at, product, customer, &WAIT)
}

fn get(at: &YoinkProcess, path: &str) -> Response {
    at.client().get(path).unwrap()
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the answer has this status, and gives it.
#[track_caller]
fn until(at: &YoinkProcess, path: &str, status: u16) -> Response {
    let mut last = get(at, path);
    eventually(&format!("{path} answers {status}: {}", last.text()), || {
        last = get(at, path);
        last.status == status
    });
    last
}

#[track_caller]
fn sample(at: &YoinkProcess, series: &str) -> f64 {
    let metrics = get(at, "/metrics").text();
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in\n{metrics}"))
}

#[track_caller]
fn ends_well(mut process: YoinkProcess) -> String {
    process.terminate();
    let status = process.wait_exit(EXIT_WITHIN).expect("it still runs 10 s after SIGTERM");
    assert!(status.success(), "{status}: {}", process.output());
    process.output()
}

/// How many orders of a product have a status.
fn count(at: &YoinkProcess, product: &str, status: &str) -> usize {
    let page = get(at, &format!("/v1/orders?product_id={product}&status={status}&limit=1000")).json();
    page["orders"].as_array().unwrap().len()
}

/// Everybody buys at the same instant; the answers' statuses.
fn all_at_once(at: &YoinkProcess, buyers: usize, buy: impl Fn(&mut Client, usize) -> u16 + Sync) -> Vec<u16> {
    let start = std::sync::Barrier::new(buyers);
    std::thread::scope(|scope| {
        let buyers: Vec<_> = (0..buyers)
            .map(|buyer| {
                let (start, buy, mut client) = (&start, &buy, at.anonymous_client());
                scope.spawn(move || {
                    start.wait();
                    buy(&mut client, buyer)
                })
            })
            .collect();
        buyers.into_iter().map(|buyer| buyer.join().unwrap()).collect()
    })
}

#[test]
fn what_is_missing_or_cannot_be_used_is_said_without_any_password() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], words: &str| {
        let mut command = yoink(folder.path());
        command.env("YOINK_ADMIN_KEY", ADMIN_KEY).env("YOINK_REDIS_URL", "redis://127.0.0.1:1");
        command.env("YOINK_POSTGRES_URL", "postgres://127.0.0.1:1/yoink");
        let refusal = refusal_of(command.args(arguments), 1);
        assert!(refusal.contains(words) && !refusal.contains("canary"), "{refusal}");
    };
    let serve = ["serve", "--engine", "rabbitmq"];
    refused(&serve, "YOINK_AMQP_URL");
    refused(&["worker", "--engine", "rabbitmq"], "YOINK_AMQP_URL");
    refused(
        &[&serve[..], &["--amqp", "amqps://u:canary@127.0.0.1:1/"]].concat(),
        "TLS, which is not supported yet",
    );
    refused(
        &[&serve[..], &["--amqp", "http://u:canary@127.0.0.1:1/"]].concat(),
        "not the address of a RabbitMQ",
    );
    refused(&["serve", "--engine", "redis", "--no-lock"], "only the rabbitmq engine has a lock");
    let repair = ["audit", "--amqp", "amqp://127.0.0.1:1/", "--repair", "--reason", "x"];
    refused(&repair, "the rabbitmq engine keeps nothing in Redis");
}

#[test]
fn three_workers_sell_exactly_what_there_is_to_whoever_was_first() {
    let servers = Servers::start();
    let node = servers.node("0", &[]).start().unwrap();
    let workers = [(); 3].map(|()| servers.worker(&[]));
    text_of(&mut servers.at(&node, &["seed", "--preset", "flash-sale-engine"]));
    // As the original's load script: twenty at once on /buy, all of whom are told that they are queued.
    let answers = all_at_once(&node, 20, |client, buyer| {
        let body = json!({"userId": format!("twenty-{buyer}"), "productId": 1, "quantity": 1});
        client.post("/buy", &body).unwrap().status
    });
    assert_eq!(answers, [202; 20]);
    eventually("all twenty have one", || count(&node, "1", "confirmed") == 20);
    seed(&node, "hundred", 100);
    let answers = all_at_once(&node, 200, |client, buyer| {
        buy_with(client, "hundred", &format!("buyer-{buyer}"), &WAIT).status
    });
    let told = |status| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!((told(201), told(409)), (100, 100), "{answers:?}");
    assert_eq!(count(&node, "hundred", "confirmed"), 100);
    eventually("the figures show it", || get(&node, "/v1/products/hundred").json()["figures"]["sold"] == 100);
    seed(&node, "storm", 50);
    let storm = text_of(&mut servers.at(&node, &["storm", "--product", "storm", "--buyers", "300"]));
    assert!(storm.contains("50 units sold of 50; oversold 0"), "{storm}");
    assert!(storm.lines().any(|line| line.trim_start().starts_with("queued")), "{storm}");
    let (code, audit) = servers.audit();
    assert_eq!((code, &audit["ok"]), (0, &json!(true)), "{audit}");
    assert_eq!(audit["orders"]["confirmed"], 170, "{audit}");
    let (confirmed, rejected) = workers.iter().fold((0.0, 0.0), |(confirmed, rejected), worker| {
        let processed =
            |status| sample(worker, &format!("flashsale_orders_processed_total{{status=\"{status}\"}}"));
        (confirmed + processed("confirmed"), rejected + processed("failed"))
    });
    assert_eq!(confirmed, 170.0);
    assert_eq!(
        rejected,
        count(&node, "hundred", "rejected") as f64 + count(&node, "storm", "rejected") as f64
    );
    eventually("the queue is empty", || sample(&node, "yoink_queue_depth{queue=\"orders\"}") == 0.0);
    for series in [
        "flashsale_order_requests_total{status=\"queued\"}",
        "flashsale_order_requests_total{status=\"rejected\"}",
        "flashsale_order_requests_total{status=\"bad_request\"}",
        "flashsale_orders_processed_total{status=\"locked\"}",
        "flashsale_stock_level{product_id=\"1\"}",
        "yoink_queue_messages_total{outcome=\"requeued\"}",
        "yoink_queue_messages_total{outcome=\"stale\"}",
        "yoink_queue_messages_total{outcome=\"unreadable\"}",
        "yoink_dead_letters",
        "yoink_postgres_connections{state=\"open\"}",
    ] {
        sample(&node, series);
        sample(&workers[0], series);
    }
    workers.into_iter().for_each(|worker| assert!(ends_well(worker).contains("stays in the queue")));
    ends_well(node);
}

#[test]
fn a_node_that_starts_before_its_broker_says_so_and_queues_once_it_is_there() {
    let mut servers = Servers::start();
    servers.broker.kill();
    let mut node = servers.node("1", &[]).spawn().unwrap();
    node.wait_listening(PATIENCE).unwrap();
    let banner = node.output_with("Ctrl-C", EXIT_WITHIN);
    assert!(
        banner.contains("amqp://guest:(secret)@127.0.0.1") && !banner.contains("guest:guest"),
        "{banner}"
    );
    let not_ready = until(&node, "/readyz", 503);
    assert!(
        not_ready.json()["detail"].as_str().unwrap().contains("RabbitMQ takes no requests"),
        "{}",
        not_ready.text()
    );
    seed(&node, "1", 5);
    let refused = buy(&node, "1", "ann", &[]);
    assert_eq!((refused.status, refused.header("order-outcome")), (503, Some("none")), "{}", refused.text());
    let health = get(&node, "/health").json();
    assert_eq!(health["services"]["rabbitmq"]["status"], "degraded", "{health}");
    servers.broker.restart().unwrap();
    until(&node, "/readyz", 200);
    assert_eq!(buy_and_wait(&node, "1", "ann").status, 201);
    eventually("everything is well", || get(&node, "/health").json()["status"] == "ok");
    // Want of memory: the broker blocks those who publish, and goes on later.
    servers.broker.set_memory_alarm(true).unwrap();
    // It says so to those who publish, so the first request finds it out.
    assert_eq!(buy(&node, "1", "bob", &[]).status, 503);
    until(&node, "/readyz", 503);
    servers.broker.set_memory_alarm(false).unwrap();
    until(&node, "/readyz", 200);
    assert_eq!(buy_and_wait(&node, "1", "cid").status, 201);
    assert_eq!(servers.audit().0, 0);
    ends_well(node);
}

#[test]
fn a_queued_order_is_queued_on_every_node_until_it_is_decided() {
    let servers = Servers::start();
    let (first, second) = (servers.node("0", &[]).start().unwrap(), servers.node("0", &[]).start().unwrap());
    seed(&first, "1", 1);
    until(&second, "/v1/products/1", 200);
    let keyed = [("idempotency-key", "k-1")];
    let queued = buy(&first, "1", "ann", &keyed);
    assert_eq!((queued.status, &queued.json()["status"]), (202, &json!("queued")), "{}", queued.text());
    assert_eq!(queued.json()["seq"], 0);
    let again = buy(&first, "1", "ann", &keyed);
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, Some("true")), "{}", again.text());
    assert_eq!(again.text(), queued.text());
    let path = format!("/v1/orders/{}", queued.json()["id"].as_str().unwrap());
    assert_eq!(get(&first, &path).json()["customer_id"], "ann");
    assert_eq!(get(&second, &path).json(), json!({"id": queued.json()["id"], "status": "queued"}));
    assert_eq!(get(&second, "/v1/orders/00000000-0000-8000-8000-000000000000").status, 404);
    let late = buy(&first, "1", "bob", &[]);
    assert_eq!(late.status, 202, "nothing is decided yet");
    let cancelled = second.client().post(&format!("{path}/cancel"), &json!({"reason": "too early"})).unwrap();
    assert_eq!(
        (cancelled.status, cancelled.header("order-outcome")),
        (503, Some("none")),
        "{}",
        cancelled.text()
    );
    let worker = servers.worker(&[]);
    eventually("it is decided", || get(&second, &path).json()["status"] == "confirmed");
    let late = format!("/v1/orders/{}", late.json()["id"].as_str().unwrap());
    eventually("the other is rejected", || get(&second, &late).json()["status"] == "rejected");
    assert_eq!(get(&first, &late).json()["reason"], "sold-out");
    eventually("the hint is there", || buy(&second, "1", "cid", &[]).status == 409);
    ends_well(worker);
    ends_well(first);
    ends_well(second);
}

#[test]
fn a_key_that_two_nodes_were_given_is_answered_as_it_was_decided() {
    let servers = Servers::start();
    let (first, second) = (servers.node("0", &[]).start().unwrap(), servers.node("0", &[]).start().unwrap());
    seed(&first, "1", 5);
    until(&second, "/v1/products/1", 200);
    let ask_with = |client: &mut Client, key: &str, quantity: u32, wait: bool| {
        let mut headers = vec![("idempotency-key", key)];
        headers.extend(WAIT.iter().filter(|_| wait));
        let body = json!({"customer_id": "ann", "product_id": "1", "quantity": quantity});
        client.request("POST", "/v1/orders", &headers, Some(&body)).unwrap()
    };
    let ask = |at: &YoinkProcess, key: &str, quantity: u32, wait: bool| {
        ask_with(&mut at.anonymous_client(), key, quantity, wait)
    };
    let queued = ["same", "other", "more", "later"].map(|key| {
        let units = if key == "more" { 5 } else { 1 };
        let queued = ask(&first, key, units, false);
        assert_eq!(queued.status, 202, "{}", queued.text());
        queued.json()
    });
    let reused = |answer: &Response, original: &Value| {
        assert_eq!((answer.status, &answer.json()["original"]), (422, &original["id"]), "{}", answer.text());
        assert_eq!(answer.json()["type"], "/problems/idempotency-key-reused");
    };
    reused(&ask(&first, "same", 2, true), &queued[0]);

    let price = json!({"price": {"amount": 150, "currency": "EUR"}});
    let changed = second.client().request("PATCH", "/v1/admin/products/1", &[], Some(&price)).unwrap();
    assert_eq!(changed.status, 200, "{}", changed.text());
    // The second node cannot know of the first requests before they are decided.
    let early = ask(&second, "later", 2, false);
    assert_eq!((early.status, &early.json()["quantity"]), (202, &json!(2)), "{}", early.text());
    let answers = std::thread::scope(|scope| {
        let asked = [("same", 1), ("other", 2), ("more", 2)];
        let asking = asked.map(|(key, quantity)| {
            let mut client = second.anonymous_client();
            scope.spawn(move || ask_with(&mut client, key, quantity, true))
        });
        eventually("all are queued", || sample(&second, "yoink_queue_unseen") == 4.0);
        let worker = servers.worker(&[]);
        (asking.map(|asking| asking.join().unwrap()), worker)
    });
    let ([same, other, more], worker) = answers;
    assert_eq!((same.status, same.header("idempotent-replayed")), (201, Some("true")), "{}", same.text());
    for member in ["id", "quantity", "unit_price", "accepted_at"] {
        assert_eq!(same.json()[member], queued[0][member], "{member}");
    }
    reused(&other, &queued[1]);
    reused(&more, &queued[2]);
    // Once it is decided, every node knows.
    eventually("the second node has forgotten", || sample(&second, "yoink_queue_unseen") == 0.0);
    reused(&ask(&second, "later", 2, false), &queued[3]);
    assert_eq!(ask(&second, "later", 1, false).json()["unit_price"], queued[3]["unit_price"]);
    let orders = get(&first, "/v1/orders?customer_id=ann").json();
    let of_ann = orders["orders"].as_array().unwrap().iter().map(|order| order["quantity"].as_u64().unwrap());
    let mut quantities: Vec<u64> = of_ann.collect();
    quantities.sort_unstable();
    assert_eq!(quantities, [1, 1, 1, 5]);
    ends_well(worker);
    ends_well(first);
    ends_well(second);
}

#[test]
fn a_worker_that_is_stopped_under_load_ends_in_time_and_nothing_is_lost() {
    let servers = Servers::start();
    let node = servers.node("0", &[]).start().unwrap();
    let (stopped, stays) = (servers.worker(&[]), servers.worker(&[]));
    seed(&node, "1", 1_000_000);
    let (is_over, queued) = (AtomicBool::new(false), AtomicU32::new(0));
    let orders: HashSet<String> = std::thread::scope(|scope| {
        let buyers: Vec<_> = (0..4)
            .map(|buyer| {
                let (is_over, queued, mut client) = (&is_over, &queued, node.anonymous_client());
                scope.spawn(move || {
                    let mut orders = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        let body =
                            json!({"customer_id": format!("c-{buyer}-{}", orders.len()), "product_id": "1"});
                        let answer = client.post("/v1/orders", &body).unwrap();
                        assert_eq!(answer.status, 202, "{}", answer.text());
                        orders.push(answer.json()["id"].as_str().unwrap().to_owned());
                        queued.fetch_add(1, Ordering::Relaxed);
                    }
                    orders
                })
            })
            .collect();
        eventually("there is load", || queued.load(Ordering::Relaxed) > 200);
        ends_well(stopped);
        let so_far = queued.load(Ordering::Relaxed);
        eventually("the sale goes on", || queued.load(Ordering::Relaxed) > so_far + 100);
        is_over.store(true, Ordering::Relaxed);
        buyers.into_iter().flat_map(|buyer| buyer.join().unwrap()).collect()
    });
    eventually("all are decided", || {
        get(&node, "/v1/products/1").json()["figures"]["sold"] == json!(orders.len())
    });
    for order in &orders {
        assert_eq!(get(&node, &format!("/v1/orders/{order}")).json()["status"], "confirmed", "{order}");
    }
    let (code, audit) = servers.audit();
    assert_eq!((code, &audit["orders"]["confirmed"]), (0, &json!(orders.len())), "{audit}");
    ends_well(stays);
    ends_well(node);
}

#[test]
fn what_is_no_order_is_listed_among_the_dead_letters_and_can_be_discarded() {
    let servers = Servers::start();
    let node = servers.node("1", &[]).start().unwrap();
    seed(&node, "1", 5);
    let queues = servers.broker.ctl(&["list_queues", "--quiet", "--no-table-headers", "name"]).unwrap();
    let orders = queues.lines().map(str::trim).find(|name| name.ends_with(".orders")).unwrap();
    publish(&servers.broker.url(), orders, b"poison");
    assert_eq!(buy_and_wait(&node, "1", "ann").status, 201, "it holds up nobody");
    let list = || json_of(&mut servers.at(&node, &["dead-letters", "list", "--json"])).1;
    eventually("it is listed", || list()["dead_letters"].as_array().unwrap().len() == 1);
    let letter = list()["dead_letters"][0].clone();
    text_of(&mut servers.at(&node, &["dead-letters", "list"]));
    let id = letter["id"].to_string();
    text_of(&mut servers.at(&node, &["dead-letters", "show", &id]));
    refusal_of(&mut servers.at(&node, &["dead-letters", "retry", &id]), 1);
    text_of(&mut servers.at(&node, &["dead-letters", "discard", &id, "--reason", "a test"]));
    eventually("it is closed", || sample(&node, "yoink_dead_letters") == 0.0);
    assert_eq!(sample(&node, "yoink_queue_messages_total{outcome=\"unreadable\"}"), 1.0);
    assert_eq!(servers.audit().0, 0);
    ends_well(node);
}

/// Puts a message into a queue that no node signed.
fn publish(url: &str, queue: &str, message: &[u8]) {
    let publish = async {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent =
            channel.basic_publish("".into(), queue.into(), options, message, BasicProperties::default());
        sent.await.unwrap().await.unwrap();
        connection.close(200, "done".into()).await.unwrap();
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(publish);
}

#[test]
fn without_a_lock_and_without_redis_everything_is_sold_all_the_same() {
    let mut servers = Servers::start();
    servers.give_own_user();
    let node = servers.node("1", &["--no-lock"]).start().unwrap();
    let worker = servers.worker(&["--no-lock"]);
    seed(&node, "1", 20);
    assert_eq!(buy_and_wait(&node, "1", "ann").status, 201);
    servers.redis.kill();
    let answers = all_at_once(&node, 40, |client, buyer| {
        buy_with(client, "1", &format!("buyer-{buyer}"), &WAIT).status
    });
    assert_eq!(answers.iter().filter(|answer| **answer == 201).count(), 19, "{answers:?}");
    eventually("Redis is missed", || {
        get(&node, "/health").json()["services"]["redis"]["status"] == "degraded"
    });
    assert_eq!((get(&node, "/readyz").status, get(&worker, "/readyz").status), (200, 200));
    // With a lock too: it only helps.
    let locking = servers.worker(&[]);
    ends_well(worker);
    seed(&node, "2", 1);
    assert_eq!(buy_and_wait(&node, "2", "ann").status, 201);
    ends_well(locking);
    assert_eq!(servers.audit().0, 0);
    ends_well(node);
}
