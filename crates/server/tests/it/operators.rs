//! The routes of operators.

use serde_json::{Value, json};

use crate::engines::Differences;
use crate::harness::{ADMIN_KEY, Answer, Request, Server, eventually};

fn restock(server: &Server, delta: i64, key: &str) -> Answer {
    let request = Request::new("POST", "/v1/admin/products/1/stock").key(ADMIN_KEY);
    server.send(
        &request.header("idempotency-key", key).json(&json!({"delta": delta, "reason": "a truck came"})),
    )
}

#[test]
fn a_product_needs_only_name_price_and_stock() {
    let server = Server::start_empty(|_| {});
    let body = json!({"name": "Mug", "price": {"amount": 900, "currency": "USD"}, "stock": 5});
    let answer = server.admin("POST", "/v1/admin/products", Some(&body));
    assert_eq!((answer.status, answer.header("location")), (201, Some("/v1/products/1")));
    assert_eq!(
        answer.json(),
        json!({
            "id": "1", "name": "Mug", "price": {"amount": 900, "currency": "USD"}, "stock": 5, "starts_at": null,
            "ends_at": null, "limit_per_customer": null, "max_per_order": 10, "paused": false,
            "figures": {"stocked": 5, "available": 5, "held": 0, "sold": 0, "withheld": 0},
        })
    );
}

fn mug() -> Value {
    json!({"name": "Mug", "price": {"amount": 900, "currency": "USD"}, "stock": 5})
}

/// `base` with these members set.
fn with(mut base: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}

fn create(server: &Server, key: Option<&str>, body: &Value) -> Answer {
    let mut request = Request::new("POST", "/v1/admin/products").key(ADMIN_KEY).json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    server.send(&request)
}

#[track_caller]
fn assert_replays(answer: &Answer, first: &Answer) {
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, Some("true")), "{answer:?}");
    assert_eq!(answer.header("location"), first.header("location"));
}

#[test]
fn the_same_id_and_fields_again_are_a_replay_whatever_was_sold_and_restocked_meanwhile() {
    let server = Server::start_empty(|_| {});
    let body = with(
        mug(),
        json!({"id": "1", "starts_at": "2020-01-01T00:00:00Z", "ends_at": "2999-01-01T00:00:00Z", "limit_per_customer": 3}),
    );
    let first = create(&server, None, &body);
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
    let again = create(&server, None, &body);
    assert_replays(&again, &first);
    assert_eq!(again.json(), first.json());
    assert_eq!(server.buy("ann").status, 202);
    assert_eq!(restock(&server, 50, "truck-1").status, 200);
    server.admin("POST", "/v1/admin/products/1/pause", None);
    // The same, said otherwise: a number for the id, the default, another way to write the time.
    let said_otherwise = json!({"id": 1, "max_per_order": 10, "starts_at": "2020-01-01T01:00:00.000+01:00"});
    let later = create(&server, Some("any-key"), &with(body, said_otherwise));
    assert_replays(&later, &first);
    assert_eq!((&later.json()["stock"], &later.json()["paused"]), (&json!(54), &json!(true)));
    assert_eq!(server.admin("GET", "/v1/products", None).json()["products"].as_array().unwrap().len(), 1);
}

#[test]
fn the_same_id_with_any_other_field_is_409_and_so_it_is_once_the_product_was_changed() {
    let server = Server::start_empty(|_| {});
    let body = with(mug(), json!({"id": "1"}));
    let first = create(&server, None, &body);
    for change in [
        json!({"name": "Cup"}),
        json!({"price": {"amount": 901, "currency": "USD"}}),
        json!({"price": {"amount": 900, "currency": "EUR"}}),
        json!({"stock": 6}),
        json!({"starts_at": "2999-01-01T00:00:00Z"}),
        json!({"ends_at": "2999-01-01T00:00:00Z"}),
        json!({"limit_per_customer": 1}),
        json!({"max_per_order": 9}),
    ] {
        create(&server, None, &with(body.clone(), change)).problem(409, "product-exists");
    }
    // Six units now, but it began with five.
    restock(&server, 1, "found-one");
    create(&server, None, &with(body.clone(), json!({"stock": 6}))).problem(409, "product-exists");
    server.admin("PATCH", "/v1/admin/products/1", Some(&json!({"name": "Cup"})));
    create(&server, None, &body).problem(409, "product-exists");
    assert_replays(&create(&server, None, &with(body, json!({"name": "Cup"}))), &first);
}

/// Whoever asked an older server must find the same product, so this never changes.
const ID_OF_AUTUMN_SALE: &str = "2f5330a9-b972-86c4-84a7-edc1ef46cf9c";

#[test]
fn without_an_id_the_key_makes_it_and_without_both_every_request_creates_a_product() {
    let server = Server::start_empty(|_| {});
    let first = create(&server, Some("autumn-sale"), &mug());
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
    assert_eq!(first.json()["id"], ID_OF_AUTUMN_SALE);
    assert_replays(&create(&server, Some("autumn-sale"), &mug()), &first);
    let other = create(&server, Some("autumn-sale"), &with(mug(), json!({"stock": 6})));
    let problem = other.problem(409, "product-exists");
    assert!(problem["detail"].as_str().unwrap().contains(ID_OF_AUTUMN_SALE), "{problem}");
    let another = create(&server, Some("winter-sale"), &mug());
    assert_eq!((another.status, another.header("idempotent-replayed")), (201, None));
    assert_ne!(another.json()["id"], first.json()["id"]);
    for id in ["3", "4"] {
        let answer = create(&server, None, &mug());
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, None));
        assert_eq!(answer.json()["id"], id);
    }
    create(&server, Some("a b"), &mug()).problem(400, "validation");
}

#[test]
fn of_many_at_once_with_one_key_one_creates_the_product() {
    let server = Server::start_empty(|_| {});
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..16).map(|_| scope.spawn(|| create(&server, Some("once"), &mug()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    let created = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_none()).count();
    assert_eq!(created, 1);
    assert_eq!(server.get("/v1/products").json()["products"].as_array().unwrap().len(), 1);
}

#[test]
fn a_creation_is_replayed_after_a_restart() {
    let server = Server::start_empty(|_| {});
    let body = with(mug(), json!({"ends_at": "2999-01-01T00:00:00.000001Z", "limit_per_customer": 3}));
    let first = create(&server, Some("once"), &body);
    assert_eq!(first.status, 201);
    assert_replays(&create(&server.restart(), Some("once"), &body), &first);
}

#[test]
fn a_product_that_cannot_be_is_400_and_every_wrong_field_is_named() {
    let server = Server::start_empty(|_| {});
    let body = json!({
        "name": "", "price": {"amount": -1, "currency": "eur"}, "stock": 1_000_000_001, "limit_per_customer": 0,
        "max_per_order": 1_001,
    });
    let problem = server.admin("POST", "/v1/admin/products", Some(&body)).problem(400, "validation");
    let pointers: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["/name", "/price", "/stock", "/limit_per_customer", "/max_per_order"]);
    let good = json!({"name": "Mug", "price": {"amount": 900, "currency": "USD"}, "stock": 5});
    for (field, value) in [
        ("id", json!("a/b")),
        ("id", json!("")),
        ("starts_at", json!("yesterday")),
        ("starts_at", json!(5)),
        ("stock", json!(-1)),
        ("stock", json!(1.0)),
        ("price", json!({"amount": 1.5, "currency": "EUR"})),
        ("price", json!({"amount": 1, "currency": "EUR", "tax": 0})),
        ("colour", json!("red")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let problem = server.admin("POST", "/v1/admin/products", Some(&body)).problem(400, "validation");
        let pointer = problem["errors"][0]["pointer"].as_str().unwrap();
        assert!(pointer.starts_with(&format!("/{field}")), "{body}: {problem}");
    }
    let mut body = good.clone();
    body["starts_at"] = json!("2026-01-02T00:00:00Z");
    body["ends_at"] = json!("2026-01-01T00:00:00Z");
    server.admin("POST", "/v1/admin/products", Some(&body)).problem(400, "validation");
}

#[test]
fn a_change_touches_only_what_it_names_and_null_clears() {
    let server = Server::start();
    let change = |body: Value| server.admin("PATCH", "/v1/admin/products/1", Some(&body));
    let changed =
        change(json!({"name": "Cup", "limit_per_customer": 2, "ends_at": "2999-01-01T00:00:00Z"})).json();
    assert_eq!((&changed["name"], &changed["limit_per_customer"]), (&json!("Cup"), &json!(2)));
    assert_eq!(changed["price"], json!({"amount": 19_999, "currency": "EUR"}));
    let cleared = change(json!({"limit_per_customer": null, "ends_at": null})).json();
    assert_eq!(
        (&cleared["limit_per_customer"], &cleared["ends_at"], &cleared["name"]),
        (&Value::Null, &Value::Null, &json!("Cup"))
    );
    for body in
        [json!({"name": null}), json!({"stock": 5}), json!({"max_per_order": 0}), json!({"price": null})]
    {
        change(body).problem(400, "validation");
    }
    server.admin("PATCH", "/v1/admin/products/none", Some(&json!({"name": "x"}))).problem(404, "not-found");
}

#[test]
fn a_restock_is_done_once_per_key() {
    let server = Server::start();
    let first = restock(&server, 50, "truck-1");
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None));
    let answer = first.json();
    assert_eq!((&answer["product_id"], &answer["delta"]), (&json!("1"), &json!(50)));
    assert_eq!(
        answer["figures"],
        json!({"stocked": 150, "available": 150, "held": 0, "sold": 0, "withheld": 0})
    );
    let again = restock(&server, 50, "truck-1");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json(), answer);
    restock(&server, 51, "truck-1").problem(422, "idempotency-key-reused");
    assert_eq!(restock(&server, -150, "recall").json()["figures"]["withheld"], 150);
    assert_eq!(restock(&server, -1, "recall-2").problem(409, "below-committed")["available"], 0);
    restock(&server, 0, "nothing").problem(400, "validation");
    restock(&server, i64::MIN, "everything").problem(400, "validation");
    restock(&server, 1_000_000_000, "too-many").problem(409, "stock-too-large");
    let without_key =
        server.admin("POST", "/v1/admin/products/1/stock", Some(&json!({"delta": 1, "reason": "x"})));
    without_key.problem(400, "validation");
    let missing =
        Request::new("POST", "/v1/admin/products/none/stock").key(ADMIN_KEY).header("idempotency-key", "k");
    server.send(&missing.json(&json!({"delta": 1, "reason": "x"}))).problem(404, "not-found");
}

#[test]
fn pausing_what_is_not_there_is_404() {
    let server = Server::start();
    for verb in ["pause", "resume"] {
        server.admin("POST", &format!("/v1/admin/products/none/{verb}"), None).problem(404, "not-found");
    }
}

#[test]
fn delivery_can_be_paused_and_selling_goes_on() {
    let server = Server::start();
    let paused = server.admin("POST", "/v1/admin/delivery/pause", None).json();
    assert_eq!(paused["paused"], true);
    let id = server.buy("ann").json()["id"].as_str().unwrap().to_owned();
    let status = || server.admin("GET", "/v1/admin/delivery", None).json();
    eventually("one waits for the ledger", || status()["lag_events"] == 1);
    assert_eq!(status()["dead_letters"], 0);
    assert_eq!(server.get(&format!("/v1/orders/{id}")).json()["status"], server.undecided());
    assert_eq!(server.admin("POST", "/v1/admin/delivery/resume", None).json()["paused"], false);
    eventually("the order is confirmed", || {
        server.get(&format!("/v1/orders/{id}")).json()["status"] == "confirmed"
    });
}

#[test]
fn without_dead_letters_there_is_nothing_to_list_retry_or_discard() {
    let server = Server::start();
    assert_eq!(
        server
            .admin("GET", "/v1/admin/dead-letters?product=1&error=x&state=parked&after=0&limit=10", None)
            .json(),
        json!({"dead_letters": [], "next_after": null})
    );
    server.admin("GET", "/v1/admin/dead-letters?state=lost", None).problem(400, "validation");
    for id in ["1", "-1", "x", "9223372036854775808"] {
        server.admin("GET", &format!("/v1/admin/dead-letters/{id}"), None).problem(404, "not-found");
        server.admin("POST", &format!("/v1/admin/dead-letters/{id}/retry"), None).problem(404, "not-found");
        let reason = json!({"reason": "a test"});
        server
            .admin("POST", &format!("/v1/admin/dead-letters/{id}/discard"), Some(&reason))
            .problem(404, "not-found");
    }
    let nothing = json!({"matched": 0, "changed": 0, "dry_run": true, "ids": []});
    let all = json!({"filter": {"product": "1"}, "dry_run": true, "reason": "a test"});
    for verb in ["retry", "discard"] {
        let path = format!("/v1/admin/dead-letters/{verb}");
        assert_eq!(server.admin("POST", &path, Some(&all)).json(), nothing);
        server.admin("POST", &path, Some(&json!({}))).problem(400, "validation");
        server.admin("POST", &path, Some(&json!({"filter": {"colour": "red"}}))).problem(400, "validation");
    }
    let reasonless = json!({"filter": {}});
    server.admin("POST", "/v1/admin/dead-letters/discard", Some(&reasonless)).problem(400, "validation");
}

#[test]
fn the_reconciliation_counts_units_and_orders() {
    let server = Server::start();
    let id = server.buy("ann").json()["id"].as_str().unwrap().to_owned();
    server.buy("bob");
    server.post(&format!("/v1/orders/{id}/cancel"), &json!({"reason": "x"}));
    eventually("the ledger has everything", || {
        server.admin("GET", "/v1/admin/delivery", None).json()["lag_events"] == 0
    });
    server.wait_until_shown();
    let found = server.admin("GET", "/v1/admin/reconciliation", None).json();
    assert_eq!(found["ok"], true, "{found}");
    for figure in ["oversold", "lost", "duplicated", "stuck"] {
        assert_eq!(found[figure], 0);
    }
    assert_eq!(
        found["products"],
        json!([{"id": "1", "stocked": 100, "available": 99, "held": 0, "sold": 1, "withheld": 0}])
    );
    assert_eq!(found["orders"], json!({"accepted": 0, "confirmed": 1, "cancelled": 1, "failed": 0}));
    assert!(found["invariants"].as_array().unwrap().len() >= 5);
}

#[test]
fn the_feed_has_every_event_in_order() {
    let server = Server::start();
    let order = server.buy("ann").json();
    let id = order["id"].as_str().unwrap();
    server.post(&format!("/v1/orders/{id}/cancel"), &json!({"reason": "changed my mind"}));
    server.admin("PATCH", "/v1/admin/products/1", Some(&json!({"limit_per_customer": 3, "ends_at": null})));
    restock(&server, 5, "k");
    server.admin("POST", "/v1/admin/products/1/pause", None);
    server.admin("POST", "/v1/admin/products/1/resume", None);
    let feed = server.admin("GET", "/v1/events", None).json();
    let events = feed["events"].as_array().unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "product-created",
            "order-accepted",
            "order-cancelled",
            "product-changed",
            "stock-adjusted",
            "sale-paused",
            "sale-resumed"
        ]
    );
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(events[1]["order_id"], order["id"]);
    assert_eq!(events[3]["changes"], json!({"limit_per_customer": 3, "ends_at": null}));
    assert_eq!(feed["next_after"], 7);
    let page = server.admin("GET", "/v1/events?after=3&limit=2", None).json();
    assert_eq!((page["events"].as_array().unwrap().len(), &page["next_after"]), (2, &json!(5)));
    assert_eq!(
        server.admin("GET", "/v1/events?after=7", None).json(),
        json!({"events": [], "next_after": 7})
    );
    server.admin("GET", "/v1/events?limit=0", None).problem(400, "validation");
}

#[test]
fn exports_are_csv_and_formulas_are_made_texts() {
    let server = Server::start();
    let order = server
        .post("/v1/orders", &json!({"customer_id": "=HYPERLINK(\"x\")", "product_id": "1", "quantity": 3}))
        .json();
    let id = order["id"].as_str().unwrap();
    eventually("the order is confirmed", || {
        server.get(&format!("/v1/orders/{id}")).json()["status"] == "confirmed"
    });
    let answer = server.admin("GET", "/v1/exports/orders.csv", None);
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"orders.csv\""));
    let at = order["accepted_at"].as_str().unwrap();
    // The product's creation is the first event, and the first movement.
    let seq = if server.engine.seq_counts_all_events() { 2 } else { 1 };
    assert_eq!(
        answer.text(),
        format!(
            "id,seq,status,customer_id,product_id,quantity,unit_price_amount,unit_price_currency,accepted_at,ended_at,reason\r\n\
             {id},{seq},confirmed,\"'=HYPERLINK(\"\"x\"\")\",1,3,19999,EUR,{at},,\r\n"
        )
    );
    let movements = server.admin("GET", "/v1/exports/movements.csv", None);
    let lines: Vec<&str> = movements.text().split("\r\n").collect();
    assert_eq!(lines[0], "seq,at,product_id,kind,units,order_id,reason");
    assert!(lines[1].starts_with("1,") && lines[1].contains(",1,created,100,"), "{lines:?}");
    assert!(lines[2].starts_with("2,") && lines[2].contains(&format!(",1,sold,-3,{id},")), "{lines:?}");
}

#[test]
fn with_a_listener_of_their_own_operators_are_not_found_on_the_public_one() {
    let port = yoink_testkit_free_port();
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let server = Server::start_empty(|settings| settings.admin_listen = Some(admin));
    server.admin("GET", "/v1/events", None).problem(404, "not-found");
    server.get("/metrics").problem(404, "not-found");
    let on_admin = crate::harness::exchange(admin, &Request::new("GET", "/v1/events").key(ADMIN_KEY));
    assert_eq!(on_admin.status, 200);
    let healthy = crate::harness::exchange(admin, &Request::new("GET", "/livez"));
    assert_eq!(healthy.status, 200);
}

/// A port that was free a moment ago.
fn yoink_testkit_free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
