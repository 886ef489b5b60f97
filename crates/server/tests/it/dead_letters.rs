//! Dead letters that are there: the ledger is made to refuse an order for good, and its units stay sold.

use serde_json::{Value, json};
use yoink_engine::OnDeadLetter;

use crate::engines::Differences as _;
use crate::harness::{Request, Server, eventually};

/// A server whose ledger refuses the customers whose id begins with `bad`, with one dead letter for each of them.
fn with_dead_letters(customers: &[&str]) -> Server {
    let server = Server::start_with_delivery(
        |delivery| {
            delivery.on_dead_letter = OnDeadLetter::Park;
            delivery.backoff_base = std::time::Duration::from_millis(1);
        },
        |_| {},
    );
    server.refuse_orders_of("bad");
    server.create_product(&json!({"id": "1", "stock": 100}));
    for customer in customers {
        assert_eq!(server.buy(customer).status, 202);
    }
    eventually("all of them are dead letters", || list(&server, "").len() == customers.len());
    server
}

fn list(server: &Server, query: &str) -> Vec<Value> {
    let page = server.admin("GET", &format!("/v1/admin/dead-letters{query}"), None).json();
    page["dead_letters"].as_array().unwrap().clone()
}

#[test]
fn a_dead_letter_is_listed_and_shown_and_found_by_product_and_error() {
    let server = with_dead_letters(&["bad-1", "bad-2"]);
    let letters = list(&server, "");
    let mut customers: Vec<&str> =
        letters.iter().map(|letter| letter["customer_id"].as_str().unwrap()).collect();
    // The ledger gave up on both at once, so either may be the first.
    customers.sort_unstable();
    assert_eq!(customers, ["bad-1", "bad-2"]);
    let letter = &letters[0];
    assert_eq!((&letter["product_id"], &letter["quantity"]), (&json!("1"), &json!(1)));
    assert_eq!(
        (&letter["state"], &letter["attempts"], &letter["reason"]),
        (&json!("parked"), &json!(3), &Value::Null)
    );
    let shown = server.admin("GET", &format!("/v1/admin/dead-letters/{}", letter["id"]), None).json();
    assert_eq!(&shown, letter);
    assert_eq!(list(&server, "?product=1").len(), 2);
    assert_eq!(list(&server, "?product=2").len(), 0);
    assert_eq!(list(&server, "?error=no+such+error").len(), 0);
    assert_eq!(list(&server, "?state=retried").len(), 0);
    let page = server.admin("GET", "/v1/admin/dead-letters?limit=1", None).json();
    assert_eq!(page["next_after"], letter["id"]);
    assert_eq!(list(&server, &format!("?after={}", letter["id"])), letters[1..]);
    eventually("they are counted", || server.get("/metrics").text().contains("\nyoink_dead_letters 2"));
    discard_all(&server);
}

fn discard_all(server: &Server) {
    let all = json!({"filter": {}, "reason": "the test is over"});
    server.admin("POST", "/v1/admin/dead-letters/discard", Some(&all));
}

#[test]
fn a_retried_dead_letter_is_delivered_and_a_second_retry_changes_nothing() {
    let server = with_dead_letters(&["bad-1"]);
    server.take_orders_again();
    let letter = list(&server, "").remove(0);
    let retry = || server.admin("POST", &format!("/v1/admin/dead-letters/{}/retry", letter["id"]), None);
    assert_eq!(retry().json()["state"], "retried");
    assert_eq!(retry().json()["state"], "retried");
    let order = format!("/v1/orders/{}", letter["order_id"].as_str().unwrap());
    eventually("the order is confirmed", || server.get(&order).json()["status"] == "confirmed");
    let reason = json!({"reason": "too late"});
    let discard =
        server.admin("POST", &format!("/v1/admin/dead-letters/{}/discard", letter["id"]), Some(&reason));
    discard.problem(409, "dead-letter-closed");
    server.assert_stock("1", 99);
}

#[test]
fn a_discarded_dead_letter_gives_its_units_back_once() {
    let server = with_dead_letters(&["bad-1"]);
    let letter = list(&server, "").remove(0);
    let reason = json!({"reason": "the customer was called"});
    let path = format!("/v1/admin/dead-letters/{}", letter["id"]);
    for _ in 0..2 {
        let discarded = server.admin("POST", &format!("{path}/discard"), Some(&reason)).json();
        assert_eq!((&discarded["state"], &discarded["reason"]), (&json!("discarded"), &reason["reason"]));
    }
    eventually("the unit is back", || server.get("/v1/products/1").json()["stock"] == 100);
    let order = server.get(&format!("/v1/orders/{}", letter["order_id"].as_str().unwrap())).json();
    assert_eq!(order["status"], "failed");
    server.admin("POST", &format!("{path}/retry"), None).problem(409, "dead-letter-closed");
    let reason = json!({"reason": "x"});
    let cancel = server.post(&format!("/v1/orders/{}/cancel", letter["order_id"].as_str().unwrap()), &reason);
    cancel.problem(409, "order-failed");
}

#[test]
fn who_can_be_neither_served_nor_refused_is_told_that_the_order_has_failed() {
    let server = Server::start_empty(|_| {});
    server.create_product(&json!({"id": "1", "stock": 1}));
    server.refuse_orders_of("bad");
    server.admin("POST", "/v1/admin/delivery/pause", None);
    assert_eq!(server.buy("ann").status, 202);
    let wish = json!({"customer_id": "bad-1", "product_id": "1"});
    let request = Request::new("POST", "/v1/orders").header("idempotency-key", "once").json(&wish);
    let first = server.send(&request);
    server.admin("POST", "/v1/admin/delivery/resume", None);
    if server.engine.decides_at_once() {
        // The no is no row that the ledger could refuse.
        first.problem(409, "sold-out");
        server.take_orders_again();
        return;
    }
    assert_eq!(first.status, 202);
    let path = format!("/v1/orders/{}", first.json()["id"].as_str().unwrap());
    let why = "dead letter 1: it can never be decided";
    eventually("the order has failed", || server.get(&path).json()["reason"] == why);
    assert_eq!(server.get(&path).json()["status"], "failed");
    server.take_orders_again();
    // Asked again with `Prefer: wait`, as all tests do.
    let problem = server.send(&request).problem(409, "order-failed");
    assert_eq!(problem["detail"], format!("The order has failed ({why})."));
    server.post(&format!("{path}/cancel"), &json!({"reason": "x"})).problem(409, "order-failed");
}

#[test]
fn all_that_match_are_retried_or_discarded_at_once_and_a_dry_run_only_says_which() {
    let server = with_dead_letters(&["bad-1", "bad-2", "bad-3"]);
    let ids: Vec<Value> = list(&server, "").iter().map(|letter| letter["id"].clone()).collect();
    let bulk = |verb: &str, body: Value| {
        server.admin("POST", &format!("/v1/admin/dead-letters/{verb}"), Some(&body)).json()
    };
    let all = |changed: u64, dry_run: bool| json!({"matched": 3, "changed": changed, "dry_run": dry_run, "ids": ids});
    assert_eq!(bulk("retry", json!({"filter": {"product": "1"}, "dry_run": true})), all(0, true));
    assert_eq!(bulk("discard", json!({"filter": {}, "dry_run": true, "reason": "x"})), all(0, true));
    assert_eq!(bulk("retry", json!({"filter": {"product": "2"}}))["matched"], 0);
    assert_eq!(list(&server, "?state=parked").len(), 3);
    server.take_orders_again();
    assert_eq!(bulk("retry", json!({"filter": {}})), all(3, false));
    eventually("all are confirmed", || {
        server.get("/v1/orders?status=confirmed").json()["orders"].as_array().unwrap().len() == 3
    });
    assert_eq!(bulk("discard", json!({"filter": {}, "reason": "x"}))["matched"], 0);
    server.assert_stock("1", 97);
}

#[test]
fn who_waits_for_an_order_that_the_ledger_can_never_take_is_not_told_that_it_is_there() {
    let server = Server::start_with_delivery(
        |delivery| {
            delivery.on_dead_letter = OnDeadLetter::Release;
            delivery.backoff_base = std::time::Duration::from_millis(1);
        },
        |_| {},
    );
    server.refuse_orders_of("bad");
    server.create_product(&json!({"id": "1", "stock": 100}));
    let body = json!({"customer_id": "bad-1", "product_id": "1"});
    let answer = server
        .send(&crate::harness::Request::new("POST", "/v1/orders").json(&body).header("prefer", "wait=10"));
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!(server.undecided())), "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    eventually("the order has failed", || {
        server.get(&format!("/v1/orders/{id}")).json()["status"] == "failed"
    });
    server.assert_stock("1", 100);
    let good = json!({"customer_id": "good", "product_id": "1"});
    let answer = server
        .send(&crate::harness::Request::new("POST", "/v1/orders").json(&good).header("prefer", "wait=10"));
    assert_eq!((answer.status, &answer.json()["status"]), (201, &json!("confirmed")), "{answer:?}");
}
