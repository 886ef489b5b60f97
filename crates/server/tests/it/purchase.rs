//! `POST /v1/orders`.

use std::io::Write as _;

use serde_json::json;

use crate::engines::Differences;
use crate::harness::{Request, Server, read_answer};

fn purchase(body: &serde_json::Value) -> Request {
    Request::new("POST", "/v1/orders").json(body)
}

#[test]
fn a_purchase_is_answered_with_the_order_and_where_to_find_it() {
    let server = Server::start();
    let answer =
        server.post("/v1/orders", &json!({"customer_id": "user_123", "product_id": "1", "quantity": 2}));
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let order = answer.json();
    let id = order["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), Some(format!("/v1/orders/{id}").as_str()));
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), server.engine.order_id_version());
    // The product's creation is the first event.
    let seq = if server.engine.seq_counts_all_events() { 2 } else { 1 };
    let at = order["accepted_at"].as_str().unwrap();
    assert_eq!(at.len(), "2026-01-05T10:00:00.123456Z".len());
    assert_eq!(
        order,
        json!({
            "id": id, "seq": seq, "status": "accepted", "customer_id": "user_123", "product_id": "1", "quantity": 2,
            "unit_price": {"amount": 19_999, "currency": "EUR"}, "accepted_at": at,
        })
    );
    assert_eq!(server.get(&format!("/v1/orders/{id}")).status, 200);
}

#[test]
fn ids_may_be_numbers_and_quantity_defaults_to_one() {
    let server = Server::start();
    let order = server.post("/v1/orders", &json!({"customer_id": 7, "product_id": 1})).json();
    assert_eq!(
        (&order["customer_id"], &order["product_id"], &order["quantity"]),
        (&json!("7"), &json!("1"), &json!(1))
    );
}

#[test]
fn who_waits_is_told_that_the_ledger_has_it() {
    let server = Server::start();
    let request = purchase(&json!({"customer_id": "ann", "product_id": "1"})).header("prefer", "wait=20");
    let answer = server.send(&request);
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    assert_eq!(answer.json()["status"], "confirmed");
    let ignored = purchase(&json!({"customer_id": "ann", "product_id": "1"})).header("prefer", "wait=31");
    let answer = server.send(&ignored);
    assert_eq!((answer.status, answer.header("preference-applied")), (202, None));
}

#[test]
fn who_waits_in_vain_is_told_that_it_is_accepted() {
    let server = Server::start();
    assert_eq!(server.admin("POST", "/v1/admin/delivery/pause", None).status, 200);
    let request = purchase(&json!({"customer_id": "ann", "product_id": "1"})).header("prefer", "wait=1");
    let answer = server.send(&request);
    assert_eq!((answer.status, answer.header("preference-applied")), (202, Some("wait=1")));
    assert_eq!(server.admin("POST", "/v1/admin/delivery/resume", None).status, 200);
}

#[test]
fn the_same_key_and_body_again_give_the_same_answer_also_after_sell_out() {
    let server = Server::start();
    server.create_product(&json!({"id": "one", "stock": 1}));
    let request =
        purchase(&json!({"customer_id": "ann", "product_id": "one"})).header("idempotency-key", "k-1");
    let first = server.send(&request);
    assert_eq!((first.status, first.header("idempotent-replayed")), (202, None));
    server.post("/v1/orders", &json!({"customer_id": "bob", "product_id": "one"})).problem(409, "sold-out");
    let again = server.send(&request);
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, Some("true")));
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("location"), first.header("location"));
}

#[test]
fn the_same_key_with_another_body_names_the_original_order() {
    let server = Server::start();
    let send = |quantity: u32, customer: &str| {
        let body = json!({"customer_id": customer, "product_id": "1", "quantity": quantity});
        server.send(&purchase(&body).header("idempotency-key", "k-1"))
    };
    let first = send(1, "ann").json();
    let reused = send(2, "ann").problem(422, "idempotency-key-reused");
    assert_eq!(reused["original"], first["id"]);
    // Keys are scoped to a customer.
    assert_ne!(send(2, "bob").json()["id"], first["id"]);
}

#[test]
fn a_key_with_another_product_is_reused_or_of_that_product_as_the_engine_has_it() {
    let server = Server::start();
    server.create_product(&json!({"id": "other"}));
    let send = |product: &str| {
        let body = json!({"customer_id": "ann", "product_id": product});
        server.send(&purchase(&body).header("idempotency-key", "k-1"))
    };
    let (first, other) = (send("1"), send("other"));
    assert_eq!(first.status, 202);
    if server.engine.keys_span_products() {
        let reused = other.problem(422, "idempotency-key-reused");
        assert_eq!(reused["original"], first.json()["id"]);
    } else {
        assert_eq!((other.status, &other.json()["product_id"]), (202, &json!("other")));
        assert_ne!(other.json()["id"], first.json()["id"]);
        assert_eq!(send("other").header("idempotent-replayed"), Some("true"));
    }
}

#[test]
fn products_are_sold_side_by_side_each_to_its_last_unit() {
    let server = Server::start_empty(|_| {});
    let products: Vec<String> = (1..=9).map(|number| format!("p{number}")).collect();
    for (product, stock) in products.iter().zip(1..) {
        server.create_product(&json!({"id": product, "stock": stock}));
    }
    let buy = &|product: &str, customer: usize| {
        let body = json!({"customer_id": format!("c{customer}"), "product_id": product});
        server.post("/v1/orders", &body).status
    };
    let sold: Vec<usize> = std::thread::scope(|scope| {
        let crowds = products.iter().map(|product| {
            scope.spawn(move || (0..12).filter(|customer| buy(product, *customer) == 202).count())
        });
        let crowds: Vec<_> = crowds.collect();
        crowds.into_iter().map(|crowd| crowd.join().unwrap()).collect()
    });
    assert_eq!(sold, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    server.wait_until_shown();
    // Where requests are queued first, rejected ones are listed, too.
    let listed = server.get("/v1/orders?status=confirmed&limit=100").json();
    assert_eq!(listed["orders"].as_array().unwrap().len(), 45);
    server.assert_every_redis_has_products();
}

#[test]
fn a_missing_product_is_404() {
    let server = Server::start();
    server
        .post("/v1/orders", &json!({"customer_id": "ann", "product_id": "nothing"}))
        .problem(404, "not-found");
}

#[test]
fn sold_out_is_409_and_flips_back_when_units_return() {
    let server = Server::start();
    server.create_product(&json!({"id": "one", "stock": 1}));
    let buy =
        |customer: &str| server.post("/v1/orders", &json!({"customer_id": customer, "product_id": "one"}));
    let id = buy("ann").json()["id"].as_str().unwrap().to_owned();
    assert_eq!(buy("bob").problem(409, "sold-out")["available"], 0);
    assert_eq!(
        server.post(&format!("/v1/orders/{id}/cancel"), &json!({"reason": "changed my mind"})).status,
        200
    );
    assert_eq!(buy("bob").status, 202);
}

#[test]
fn the_limit_per_customer_names_the_existing_orders() {
    let server = Server::start();
    server.create_product(&json!({"id": "limited", "limit_per_customer": 1}));
    let body = json!({"customer_id": "ann", "product_id": "limited"});
    let id = server.post("/v1/orders", &body).json()["id"].clone();
    let problem = server.post("/v1/orders", &body).problem(409, "limit-reached");
    assert_eq!(
        (&problem["limit"], &problem["used"], &problem["existing"]),
        (&json!(1), &json!(1), &json!([id]))
    );
}

#[test]
fn outside_its_window_a_sale_says_when() {
    let server = Server::start();
    server.create_product(&json!({"id": "later", "starts_at": "2999-01-01T00:00:00Z"}));
    server.create_product(&json!({"id": "over", "ends_at": "2020-01-01T00:00:00Z"}));
    let answer = server.post("/v1/orders", &json!({"customer_id": "ann", "product_id": "later"}));
    let problem = answer.problem(409, "sale-not-started");
    assert_eq!(problem["starts_at"], "2999-01-01T00:00:00.000000Z");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 1_000_000);
    let problem = server
        .post("/v1/orders", &json!({"customer_id": "ann", "product_id": "over"}))
        .problem(409, "sale-ended");
    assert_eq!(problem["ends_at"], "2020-01-01T00:00:00.000000Z");
}

#[test]
fn a_paused_sale_is_503_and_nothing_happened() {
    let server = Server::start();
    assert_eq!(server.admin("POST", "/v1/admin/products/1/pause", None).json()["paused"], true);
    let answer = server.buy("ann");
    answer.problem(503, "sale-paused");
    assert_eq!(answer.header("order-outcome"), Some("none"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(server.admin("POST", "/v1/admin/products/1/resume", None).json()["paused"], false);
    assert_eq!(server.buy("ann").status, 202);
}

#[test]
fn a_quantity_that_no_product_or_this_product_allows_is_400() {
    let server = Server::start();
    for quantity in [
        json!(0),
        json!(-1),
        json!(1.5),
        json!("1"),
        json!(11),
        json!(1_001),
        json!(4_294_967_296_u64),
        json!(null),
    ] {
        let answer = server
            .post("/v1/orders", &json!({"customer_id": "ann", "product_id": "1", "quantity": quantity}));
        let problem = answer.problem(400, "validation");
        assert_eq!(problem["errors"][0]["pointer"], "/quantity", "{quantity}: {problem}");
    }
}

#[test]
fn when_the_server_wants_keys_a_purchase_without_one_is_400() {
    let server = Server::start_with(|settings| {
        settings.idempotency_key = yoink_server::IdempotencyKeyRule::Required;
    });
    server.buy("ann").problem(400, "validation");
    let body = json!({"customer_id": "ann", "product_id": "1"});
    assert_eq!(server.send(&purchase(&body).header("idempotency-key", "k")).status, 202);
}

#[test]
fn sixty_four_at_once_with_one_key_are_one_order() {
    let server = Server::start();
    let request =
        purchase(&json!({"customer_id": "ann", "product_id": "1"})).header("idempotency-key", "k-1");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(|| server.send(&request))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 202 && answer.body == answers[0].body));
    let replays =
        answers.iter().filter(|answer| answer.header("idempotent-replayed") == Some("true")).count();
    assert_eq!(replays, 63);
    server.assert_stock("1", 99);
}

#[test]
fn a_body_in_pieces_is_read_to_its_end() {
    let server = Server::start();
    let head = "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let body = r#"{"customer_id":"ann","product_id":"1"}"#;
    let pieces = body.split_inclusive(':').map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len()));
    let chunks: String = pieces.chain(["0\r\n\r\n".to_owned()]).collect();
    // All at once: nothing arrives later that would make the server look again.
    let mut stream = server.connect();
    stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}").as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream).status, 202);

    let mut stream = server.connect();
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let (begin, end) = request.split_at(request.len() - 10);
    for parts in [[begin, end], [&request, ""]] {
        parts.iter().for_each(|part| stream.write_all(part.as_bytes()).unwrap());
        assert_eq!(read_answer(&mut stream).status, 202);
    }
}
