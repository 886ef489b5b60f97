//! The redis engine from the command line, on a Redis and a PostgreSQL of each test's own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use yoink_testkit::{ADMIN_KEY, Postgres, RedisServer, Response, Yoink, YoinkProcess};

use crate::{BINARY, json_of, refusal_of, text_of, yoink};

const EXIT_WITHIN: Duration = Duration::from_secs(10);

struct Servers {
    redis: RedisServer,
    postgres: Postgres,
    folder: tempfile::TempDir,
    customers: AtomicU32,
}

impl Servers {
    fn start() -> Servers {
        Servers {
            redis: RedisServer::start().unwrap(),
            postgres: Postgres::start().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            customers: AtomicU32::new(0),
        }
    }

    /// With the tables of the ledger.
    fn migrated() -> Servers {
        let servers = Servers::start();
        text_of(servers.command(&["migrate"]).env_remove("YOINK_REDIS_URL"));
        servers
    }

    /// A command that finds the servers in its environment.
    fn command(&self, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = yoink(self.folder.path());
        command.args(arguments);
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command
    }

    fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("YOINK_REDIS_URL", self.redis.url()),
            ("YOINK_POSTGRES_URL", self.postgres.url()),
            ("YOINK_ADMIN_KEY", ADMIN_KEY.to_owned()),
        ]
    }

    fn process(&self, arguments: &[&str]) -> Yoink {
        let data = self.folder.path().join("unused");
        let process = Yoink::new(BINARY).args(arguments.iter().copied()).data(data);
        self.environment().into_iter().fold(process, |process, (name, value)| process.env(name, value))
    }

    fn serve(&self, more: &[&str]) -> YoinkProcess {
        self.process(&[&["serve", "--dev", "--engine", "redis"], more].concat()).start().unwrap()
    }

    /// A purchase by somebody new.
    fn buy(&self, at: &YoinkProcess) -> Response {
        let customer = format!("customer-{}", self.customers.fetch_add(1, Ordering::Relaxed));
        buy(at, &customer)
    }
}

fn buy(at: &YoinkProcess, customer: &str) -> Response {
    let body = json!({"customer_id": customer, "product_id": "1"});
    at.anonymous_client().post("/v1/orders", &body).unwrap()
}

/// Waits until the ledger has it, for at most 20 s.
fn buy_and_wait(at: &YoinkProcess, customer: &str) -> Response {
    let body = json!({"customer_id": customer, "product_id": "1"});
    at.anonymous_client().request("POST", "/v1/orders", &[("prefer", "wait=20")], Some(&body)).unwrap()
}

fn seed(at: &YoinkProcess, units: u64) {
    let product =
        json!({"id": "1", "name": "a", "price": {"amount": 100, "currency": "EUR"}, "stock": units});
    let made = at.client().post("/v1/admin/products", &product).unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
}

#[track_caller]
fn ends_well(mut process: YoinkProcess) -> String {
    process.terminate();
    let status = process.wait_exit(EXIT_WITHIN).expect("it still runs 10 s after SIGTERM");
    assert!(status.success(), "{status}: {}", process.output());
    process.output()
}

fn info(at: &YoinkProcess) -> Value {
    at.anonymous_client().get("/v1/info").unwrap().json()
}

#[test]
fn migrations_are_asked_for_applied_once_and_then_up_to_date() {
    let servers = Servers::start();
    let refusal = refusal_of(&mut servers.command(&["serve", "--engine", "redis"]), 1);
    assert!(refusal.contains("yoink migrate --postgres URL"), "{refusal}");
    let (code, first) = json_of(&mut servers.command(&["migrate", "--json"]));
    assert_eq!(code, 0);
    assert!(!first["applied"].as_array().unwrap().is_empty(), "{first}");
    assert_eq!(text_of(&mut servers.command(&["migrate"])), "the tables were up to date\n");
    // As an older version left them.
    let mut session = servers.postgres.session("postgres").unwrap();
    session.query("DELETE FROM refinery_schema_history WHERE version = 4").unwrap();
    let refusal = refusal_of(&mut servers.command(&["serve", "--engine", "redis"]), 1);
    assert!(refusal.contains("V4__queue"), "{refusal}");
}

#[test]
fn two_nodes_sell_the_same_units_and_keep_no_folder() {
    let servers = Servers::migrated();
    let (first, second) = (servers.serve(&[]), servers.serve(&[]));
    seed(&first, 3);
    // At once, and not when the other node reads the products again.
    let seen = second.anonymous_client().get("/v1/products/1").unwrap();
    assert_eq!((seen.status, &seen.json()["stock"]), (200, &json!(3)), "{}", seen.text());
    let answers = [&first, &second, &second, &first].map(|node| servers.buy(node).status);
    assert_eq!(answers, [202, 202, 202, 409]);
    assert_eq!(info(&first)["engine"], "redis");
    assert_eq!(info(&first)["durability"], "fsync");
    let banner = first.output_with("Ctrl-C", EXIT_WITHIN);
    assert!(banner.contains(&servers.redis.url()) && !banner.contains("  data  "), "{banner}");
    assert!(!first.data().exists(), "a data folder was made");
    ends_well(second);
    ends_well(first);
}

#[test]
fn servers_that_would_lose_orders_are_refused_or_named_in_every_answer() {
    let servers = Servers::migrated();
    servers.redis.command(&["CONFIG", "SET", "appendfsync", "everysec"]).unwrap();
    let refusal = refusal_of(&mut servers.command(&["serve", "--engine", "redis"]), 1);
    assert!(refusal.contains("appendfsync everysec, which must be always"), "{refusal}");
    assert!(refusal.contains("--durability relaxed"), "{refusal}");
    let node = servers.serve(&["--durability", "relaxed"]);
    assert_eq!(info(&node)["durability"], "relaxed");
    seed(&node, 4);
    let bought = servers.buy(&node);
    assert_eq!((bought.status, &bought.json()["durability"]), (202, &json!("relaxed")), "{}", bought.text());
    for (path, status) in [("/orders", 202), ("/buy", 202), ("/purchase", 200)] {
        let old = node.anonymous_client().post(path, &json!({"productId": "1", "userId": "u"})).unwrap();
        assert_eq!((old.status, &old.json()["durability"]), (status, &json!("relaxed")), "{}", old.text());
    }
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do_and_without_its_password() {
    let servers = Servers::migrated();
    for (variable, url, words) in [
        ("YOINK_REDIS_URL", "redis://u:canary@127.0.0.1:1", "cannot connect to Redis at 127.0.0.1:1"),
        ("YOINK_POSTGRES_URL", "postgres://u:canary@127.0.0.1:1/shop", "PostgreSQL at 127.0.0.1:1/shop"),
    ] {
        let refusal = refusal_of(servers.command(&["serve", "--engine", "redis"]).env(variable, url), 1);
        assert!(refusal.contains(words) && !refusal.contains("canary"), "{refusal}");
    }
}

#[test]
fn workers_do_the_work_of_nodes_that_have_none_and_leave_it_to_others_when_they_end() {
    let servers = Servers::migrated();
    let node = servers.process(&["serve", "--dev", "--engine", "redis", "--workers", "0"]).start().unwrap();
    let worker = || servers.process(&["worker"]).without_data().start().unwrap();
    let first = worker();
    seed(&node, 100);
    assert_eq!(buy_and_wait(&node, "ann").status, 201);
    for (path, status) in [("/livez", 200), ("/metrics", 200), ("/v1/products", 404), ("/health", 404)] {
        assert_eq!(first.client().get(path).unwrap().status, status, "{path}");
    }
    assert_eq!(first.anonymous_client().get("/metrics").unwrap().status, 401);
    let body = json!({"customer_id": "bob", "product_id": "1"});
    assert_eq!(first.client().post("/v1/orders", &body).unwrap().status, 404);
    let output = ends_well(first);
    assert!(output.contains("stays in the stream"), "{output}");
    let waiting = buy(&node, "cid");
    assert_eq!(waiting.status, 202);
    let second = worker();
    assert_eq!(buy_and_wait(&node, "cid-2").status, 201);
    let path = format!("/v1/orders/{}", waiting.json()["id"].as_str().unwrap());
    assert_eq!(node.client().get(&path).unwrap().json()["status"], "confirmed");
    ends_well(second);
    ends_well(node);
}

#[test]
fn a_worker_needs_its_servers_and_at_least_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = refusal_of(yoink(folder.path()).arg("worker"), 1);
    assert!(refusal.contains("YOINK_REDIS_URL"), "{refusal}");
    refusal_of(yoink(folder.path()).args(["worker", "--workers", "0"]), 2);
}

/// The audit's verdict on one invariant.
fn verdict<'a>(audit: &'a Value, id: &str) -> &'a Value {
    let invariants = audit["invariants"].as_array().unwrap();
    invariants.iter().find(|invariant| invariant["id"] == id).unwrap()
}

#[test]
fn a_hand_edited_stock_is_found_repaired_with_a_reason_and_sold_right() {
    let servers = Servers::migrated();
    let node = servers.serve(&[]);
    seed(&node, 5);
    assert_eq!(buy_and_wait(&node, "ann").status, 201);
    let (redis, postgres) = (servers.redis.url(), servers.postgres.url());
    let audit = || servers.command(&["audit", "--json", "--redis", &redis, "--postgres", &postgres]);
    let (code, audited) = json_of(&mut audit());
    assert_eq!(
        (code, &audited["ok"], &audited["orders"]["confirmed"]),
        (0, &json!(true), &json!(1)),
        "{audited}"
    );
    // A node that runs notices by itself, and fills Redis anew before anybody can look.
    drop(node);
    let sales = servers.redis.command(&["KEYS", "yoink:*:{1}:sale"]).unwrap();
    let sale = sales.items()[0].text().unwrap();
    for figure in ["available", "credited"] {
        let edited = servers.redis.command(&["HINCRBY", &sale, figure, "7"]).unwrap();
        assert!(edited.integer().is_some_and(|units| units > 7), "{figure}: {edited:?}");
    }
    let (code, audited) = json_of(&mut audit());
    assert_eq!((code, &verdict(&audited, "redis-equals-ledger")["ok"]), (1, &json!(false)), "{audited}");
    refusal_of(audit().arg("--repair"), 2);
    let (code, repaired) = json_of(audit().args(["--repair", "--reason", "somebody typed"]));
    assert_eq!((code, &repaired["repairs"][0]["product"]), (0, &json!("1")), "{repaired}");
    assert_eq!(repaired["repairs"][0]["epoch"], 2, "{repaired}");
    let text = text_of(&mut servers.command(&["audit", "--repair", "--reason", "again"]));
    assert!(text.contains("nothing to repair") && text.contains("everything holds"), "{text}");
    let mut session = servers.postgres.session("postgres").unwrap();
    let rows = session.query("SELECT reason FROM repairs").unwrap();
    assert_eq!(format!("{rows:?}").matches("somebody typed").count(), 1, "{rows:?}");
    let node = servers.serve(&[]);
    let statuses: Vec<u16> = (0..6).map(|_| servers.buy(&node).status).collect();
    assert_eq!(statuses, [202, 202, 202, 202, 409, 409]);
}

#[test]
fn a_node_says_how_its_servers_are_and_whether_buyers_should_come() {
    let mut servers = Servers::migrated();
    let node = servers.serve(&[]);
    seed(&node, 5);
    assert_eq!(buy_and_wait(&node, "ann").status, 201);
    let health = node.client().get("/health").unwrap().json();
    for service in ["redis", "postgres", "log", "ledger"] {
        assert_eq!(health["services"][service]["status"], "ok", "{health}");
    }
    assert!(health["services"]["postgres"]["pool"]["total"].as_u64().unwrap() >= 1, "{health}");
    // Redis is looked at a few times a second.
    let metrics = metrics_with(&node, r#"yoink_queue_depth{queue="grants"} 0.0"#);
    for sample in [
        r#"yoink_sale_epoch{product_id="1"} 1.0"#,
        r#"yoink_sale_open{product_id="1"} 1.0"#,
        r#"yoink_build_info{version="0.1.0",engine="redis"} 1"#,
        "yoink_credits_waiting 0.0",
        "yoink_rebuilds_total 0",
        "yoink_orders_rescued_total 0",
        "yoink_settings_safe 1.0",
    ] {
        assert!(metrics.contains(sample), "{sample} is not in\n{metrics}");
    }
    for command in ["purchase", "look", "settle"] {
        let count = format!(r#"yoink_redis_command_duration_seconds_count{{command="{command}"}} "#);
        let found = metrics.lines().find_map(|line| line.strip_prefix(&count)?.parse::<u64>().ok());
        assert!(found.is_some_and(|count| count > 0), "{command}: {found:?}");
    }
    servers.redis.kill();
    until(&node, "/readyz", 503);
    assert_eq!(node.client().get("/health").unwrap().json()["services"]["redis"]["status"], "degraded");
    servers.redis.restart().unwrap();
    until(&node, "/readyz", 200);
    assert_eq!(buy_and_wait(&node, "bob").status, 201);
    metrics_with(&node, "yoink_rebuilds_total 1");
}

/// Asks until a sample has this value, for at most 20 s.
#[track_caller]
fn metrics_with(at: &YoinkProcess, sample: &str) -> String {
    let begun = std::time::Instant::now();
    loop {
        let metrics = at.client().get("/metrics").unwrap().text();
        if metrics.lines().any(|line| line == sample) {
            return metrics;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{sample} is not in\n{metrics}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks until the answer has this status, for at most 20 s.
#[track_caller]
fn until(at: &YoinkProcess, path: &str, status: u16) {
    let begun = std::time::Instant::now();
    let mut client = at.anonymous_client();
    loop {
        let answer = client.get(path).unwrap();
        if answer.status == status {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{path}: {} {}", answer.status, answer.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_worker_is_ready_while_it_reaches_its_servers() {
    let mut servers = Servers::migrated();
    let worker = servers.process(&["worker"]).without_data().start().unwrap();
    servers.postgres.kill();
    until(&worker, "/readyz", 503);
    servers.postgres.restart().unwrap();
    until(&worker, "/readyz", 200);
    servers.redis.kill();
    until(&worker, "/readyz", 503);
}

#[test]
fn above_the_backlog_buyers_are_told_when_to_come_again_until_somebody_carries_what_waits() {
    let servers = Servers::migrated();
    let start = |arguments: &[&str]| servers.process(arguments).env("YOINK_REDIS_BACKLOG_ORDERS_MAX", "2");
    let node = start(&["serve", "--dev", "--engine", "redis", "--workers", "0"]).start().unwrap();
    let worker = || start(&["worker"]).without_data().start().unwrap();
    let first = worker();
    seed(&node, 10);
    assert_eq!(buy_and_wait(&node, "ann").status, 201);
    // The ledger has an order a moment before it is no longer among those that wait.
    metrics_with(&node, r#"yoink_queue_depth{queue="grants"} 0.0"#);
    ends_well(first);
    assert_eq!([servers.buy(&node).status, servers.buy(&node).status], [202, 202]);
    let refused = buy(&node, "late");
    let told = [refused.header("retry-after"), refused.header("order-outcome")];
    assert_eq!((refused.status, told), (503, [Some("1"), Some("none")]), "{}", refused.text());
    assert_eq!(refused.json()["type"], "/problems/overloaded");
    let second = worker();
    let begun = std::time::Instant::now();
    while buy(&node, "late").status != 202 {
        assert!(begun.elapsed() < Duration::from_secs(20), "what waits is not carried");
        std::thread::sleep(Duration::from_millis(20));
    }
    let left = || node.anonymous_client().get("/v1/products/1").unwrap().json()["stock"].clone();
    while left() != json!(6) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} are left", left());
        std::thread::sleep(Duration::from_millis(20));
    }
    ends_well(second);
    ends_well(node);
}
