//! Products, time, info and the live stream, as buyers see them.

use std::io::{BufRead, BufReader, Write};

use serde_json::json;

use crate::harness::Server;

#[test]
fn a_product_shows_stock_price_window_limits_and_figures() {
    let server = Server::start();
    let expected = json!({
        "id": "1", "name": "Flash Sale Item", "price": {"amount": 19_999, "currency": "EUR"}, "stock": 100,
        "starts_at": null, "ends_at": null, "limit_per_customer": null, "max_per_order": 10, "paused": false,
        "figures": {"stocked": 100, "available": 100, "held": 0, "sold": 0, "withheld": 0},
    });
    assert_eq!(server.get("/v1/products/1").json(), expected);
    assert_eq!(server.get("/v1/products").json(), json!({"products": [expected]}));
    for id in ["2", "%2e%2e", "a%20b", "%ff"] {
        server.get(&format!("/v1/products/{id}")).problem(404, "not-found");
    }
}

#[test]
fn time_and_info_say_what_is_running() {
    let server = Server::start();
    let now = server.get("/v1/time").json()["now"].as_str().unwrap().to_owned();
    assert!(now.ends_with('Z') && now.len() == 27, "{now}");
    let info = server.get("/v1/info").json();
    assert_eq!(info["engine"], server.engine.name());
    assert_eq!(info["durability"], "fsync");
    assert_eq!(info["survives"], "process kill: yes, power loss: yes");
    assert_eq!(info["limits"]["body_bytes_max"], 4_096);
}

#[test]
fn the_stream_begins_with_the_stock_and_follows_it_and_ends_with_the_server() {
    let mut server = Server::start();
    let mut stream = server.connect();
    stream.write_all(b"GET /v1/products/1/stream HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut next_stock = || loop {
        let line = lines.next().expect("the stream ended").unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            break serde_json::from_str::<serde_json::Value>(data).unwrap();
        }
    };
    assert_eq!(next_stock(), json!({"product_id": "1", "stock": 100, "paused": false}));
    assert_eq!(server.buy("ann").status, 202);
    assert_eq!(next_stock()["stock"], 99);
    server.admin("POST", "/v1/admin/products/1/pause", None);
    assert_eq!(next_stock()["paused"], true);
    server.stop().unwrap();
    // The last chunk: the stream was ended, not cut off.
    let rest: Vec<String> = lines.map(|line| line.unwrap()).collect();
    assert!(rest.iter().any(|line| line == "0"), "{rest:?}");
}

#[test]
fn the_stream_of_no_product_is_404() {
    Server::start().get("/v1/products/none/stream").problem(404, "not-found");
}
