//! The routes of the older systems, with their bodies and codes.

use serde_json::{Value, json};
use yoink_server::Mode;

use crate::engines::Differences;
use crate::harness::{ADMIN_KEY, Request, Server, eventually};

fn sold_out(server: &Server) {
    server.create_product(&json!({"id": "gone", "stock": 0}));
}

#[test]
fn yoinks_products_are_a_plain_list_with_decimal_prices() {
    let server = Server::start();
    let answer = server.get("/products");
    assert_eq!(answer.text(), r#"[{"id":"1","name":"Flash Sale Item","price":199.99,"stock":100}]"#);
}

#[test]
fn yoinks_orders() {
    let server = Server::start();
    sold_out(&server);
    let answer = server.post("/orders", &json!({"productId": "1", "userId": "ann"}));
    let id = answer.json()["orderId"].as_str().unwrap().to_owned();
    assert_eq!(
        (answer.status, answer.json()),
        (202, json!({"message": "Order accepted for processing", "orderId": id}))
    );
    assert_eq!(server.get(&format!("/v1/orders/{id}")).json()["customer_id"], "ann");
    let refuse = |body: Value| {
        let answer = server.post("/orders", &body);
        (answer.status, answer.json())
    };
    assert_eq!(
        refuse(json!({"productId": "gone", "userId": 7})),
        (409, json!({"error": "Conflict", "message": "Out of stock"}))
    );
    assert_eq!(
        refuse(json!({"productId": "none", "userId": 7})),
        (404, json!({"error": "Not Found", "message": "There is no such product."}))
    );
    assert_eq!(
        refuse(json!({"userId": 7})),
        (400, json!({"error": "Bad Request", "message": "missing field `productId`"}))
    );
}

#[test]
fn what_the_older_systems_did_not_know_may_hold_anything_but_the_body_is_an_object() {
    let server = Server::start();
    for path in ["/orders", "/buy", "/purchase"] {
        let body = json!({"userId": "ann", "productId": 1, "cart": [{"tags": ["a"]}], "meta": {"ids": [1]}});
        assert!(matches!(server.post(path, &body).status, 200 | 202), "{path}");
        for body in [json!(["ann", 1, 1]), json!({"userId": ["ann"], "productId": 1})] {
            assert_eq!(server.post(path, &body).status, 400, "{path} {body}");
        }
    }
    let body = json!({"productId": 1, "amount": 5, "note": ["x"]});
    assert_eq!(server.post("/products/restock", &body).status, 200);
    assert_eq!(server.post("/products/restock", &json!([1, 5])).status, 400);
}

#[test]
fn buy_as_yoink_and_flash_sale_engine_had_it() {
    let server = Server::start();
    sold_out(&server);
    let buy = |body: Value| Request::new("POST", "/buy").header("idempotency-key", "k-1").json(&body);
    let first = server.send(&buy(json!({"userId": 1, "productId": 1, "quantity": 2, "extra": "ignored"})));
    let id = first.json()["orderId"].clone();
    assert_eq!(first.status, 202);
    assert_eq!(
        first.json(),
        json!({"message": "Order received! Processing...", "status": "QUEUED", "orderId": id})
    );
    // A repeated key is the same order.
    assert_eq!(server.send(&buy(json!({"userId": 1, "productId": 1, "quantity": 2}))).json()["orderId"], id);
    let refuse = |body: Value| {
        let answer = server.post("/buy", &body);
        (answer.status, answer.json())
    };
    let gone = refuse(json!({"userId": 1, "productId": "gone"}));
    if server.engine.decides_at_once() {
        assert_eq!(gone, (409, json!({"error": "Conflict", "message": "Out of stock"})));
    } else {
        // As the original: the outcome is the order's.
        assert_eq!((gone.0, &gone.1["status"]), (202, &json!("QUEUED")));
        let order = format!("/v1/orders/{}", gone.1["orderId"].as_str().unwrap());
        eventually("it is rejected", || server.get(&order).json()["status"] == "rejected");
        assert_eq!(server.get(&order).json()["reason"], "sold-out");
    }
    for body in [
        json!({}),
        json!({"userId": 1}),
        json!({"productId": 1}),
        json!({"userId": 1, "productId": 1, "quantity": -5}),
    ] {
        assert_eq!(refuse(body.clone()), (400, json!({"error": "Missing fields"})), "{body}");
    }
    assert_eq!(refuse(json!({"userId": 1, "productId": "none"})).0, 404);
    server.admin("POST", "/v1/admin/products/1/pause", None);
    let paused = server.post("/buy", &json!({"userId": 1, "productId": 1}));
    assert_eq!((paused.status, paused.header("order-outcome")), (503, Some("none")));
}

#[test]
fn purchase_as_flash_sale_system_had_it() {
    let server = Server::start_with(|settings| settings.rate_limits.purchase_compat = None);
    sold_out(&server);
    let send = |body: Value| {
        let answer = server.post("/purchase", &body);
        (answer.status, answer.json())
    };
    assert_eq!(send(json!({"userId": 1, "productId": 1, "quantity": 1})), (200, json!({"status": "queued"})));
    assert_eq!(send(json!({"userId": 1, "productId": "gone"})), (409, json!({"error": "Stock problem"})));
    assert_eq!(send(json!({"userId": 1})), (400, json!({"error": "missing field `productId`"})));
    assert_eq!(
        send(json!({"userId": 1, "productId": "none"})),
        (404, json!({"error": "There is no such product."}))
    );
    let orders = || server.get("/purchase/orders/1").json();
    eventually("the order is confirmed", || orders()[0]["status"] == "CONFIRMED");
    let id = if server.engine.seq_counts_all_events() { 3 } else { 1 };
    assert_eq!(orders(), json!([{"id": id, "status": "CONFIRMED", "quantity": 1}]));
    server.wait_until_shown();
    assert_eq!(server.get("/purchase/orders/nobody").json(), json!([]));
    assert_eq!(
        server.get("/purchase/metrics").json(),
        json!({"stock_remaining": 99, "queue_depth": 0, "total_processed": 1})
    );
}

#[test]
fn purchase_lets_a_customer_in_five_times_a_minute_and_replays_always() {
    let trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let server = Server::start_with(|settings| settings.trusted_proxies = trusted);
    let send_from = |address: &str, customer: u32, key: &str| {
        let request = Request::new("POST", "/purchase").header("idempotency-key", key);
        let request = request.header("x-forwarded-for", address);
        server.send(&request.json(&json!({"userId": customer, "productId": 1})))
    };
    let send = |customer, key: &str| send_from("192.0.2.1", customer, key);
    for number in 0..5 {
        assert_eq!(send(1, &format!("k-{number}")).status, 200);
    }
    let refused = send_from("192.0.2.2", 1, "k-5");
    assert_eq!((refused.status, refused.json()), (429, json!({"error": "Too many requests"})));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"customer\";q=5;w=60"));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=12).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("ratelimit"), Some(format!("\"customer\";r=0;t={seconds}").as_str()));
    // The address is the same for another customer, and has had its five.
    let other = send(2, "k-0");
    assert_eq!((other.status, other.header("ratelimit-policy")), (429, Some("\"address\";q=5;w=60")));
    assert_eq!(send(1, "k-0").status, 200);
    server.assert_stock("1", 95);
}

#[test]
fn restock_as_flash_sale_system_had_it() {
    let server = Server::start();
    let send = |body: Value| {
        let answer = server.post("/products/restock", &body);
        (answer.status, answer.json())
    };
    assert_eq!(
        send(json!({"productId": 1, "amount": 50})),
        (200, json!({"status": "ok", "productId": 1, "stock": 150}))
    );
    assert_eq!(
        send(json!({"productId": "1", "amount": 1})),
        (200, json!({"status": "ok", "productId": "1", "stock": 151}))
    );
    for amount in [json!(0), json!(-5), json!(1.5), json!(1_000_000_001)] {
        assert_eq!(send(json!({"productId": 1, "amount": amount})).0, 400, "{amount}");
    }
    assert_eq!(send(json!({"productId": "none", "amount": 1})).0, 404);
}

#[test]
fn outside_dev_a_restock_needs_the_admin_key() {
    let server = Server::start_with(|settings| settings.mode = Mode::Guarded);
    let request = Request::new("POST", "/products/restock").json(&json!({"productId": 1, "amount": 1}));
    let answer = server.send(&request);
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
    assert_eq!(server.send(&request.key(ADMIN_KEY)).status, 200);
}

#[test]
fn health_has_the_shape_that_it_had() {
    let server = Server::start();
    let health = server.get("/health").json();
    assert_eq!((&health["status"], &health["environment"]), (&json!("ok"), &json!("development")));
    for service in ["log", "ledger"] {
        assert_eq!(health["services"][service]["status"], "ok");
        assert!(health["services"][service]["responseTime"].is_number());
    }
    for figure in ["total", "idle", "waiting"] {
        assert!(health["pool"][figure].is_u64(), "{health}");
    }
    assert!(health["uptime"].is_number() && health["timestamp"].is_string());
    server.admin("POST", "/v1/admin/delivery/pause", None);
    assert_eq!(server.get("/health").json()["status"], "degraded");
    server.admin("POST", "/v1/admin/delivery/resume", None);
}
