//! Somebody makes a server forget while the redis engine sells: buyers and load balancers are told why nothing is sold.

use std::time::Duration;

use serde_json::json;
use yoink_engine::Engine;
use yoink_engine::postgres::migrate;
use yoink_engine::redis::RedisOptions;
use yoink_testkit::{Postgres, RedisServer};

use crate::engines::block_on;
use crate::harness::{Server, eventually};

#[test]
fn while_postgres_may_forget_nothing_is_sold_and_the_answers_say_why() {
    let (redis, postgres) = (RedisServer::start().unwrap(), Postgres::start().unwrap());
    let url = postgres.create_database("shop").unwrap();
    block_on(migrate(&url)).unwrap();
    let mut options = RedisOptions::new(redis.url(), url);
    options.settings_every = Duration::from_secs(1);
    let server = Server::start_on(Engine::open_redis(options).unwrap(), None, |_| {});
    server.create_product(&json!({"id": "1", "stock": 10}));
    assert_eq!((server.get("/readyz").status, server.buy("ann").status), (200, 202));
    let set = |value: &str| {
        let mut session = postgres.session("postgres").unwrap();
        for statement in [&format!("ALTER SYSTEM SET full_page_writes = {value}"), "SELECT pg_reload_conf()"]
        {
            session.query(statement).unwrap();
        }
    };
    set("off");
    eventually("it is not ready", || server.get("/readyz").status == 503);
    let why = server.get("/readyz").problem(503, "not-ready");
    assert!(
        why["detail"].as_str().unwrap().contains("settings of Redis or PostgreSQL could lose orders"),
        "{why}"
    );
    let refused = server.buy("bob");
    let why = refused.problem(503, "rebuilding");
    assert!(why["detail"].as_str().unwrap().contains("settings of a server could lose orders"), "{why}");
    assert_eq!((refused.header("retry-after"), refused.header("order-outcome")), (Some("10"), Some("none")));
    assert_eq!(server.get("/health").json()["status"], "degraded");
    set("on");
    eventually("it is ready again", || server.get("/readyz").status == 200);
    assert_eq!(server.buy("bob").status, 202);
}
