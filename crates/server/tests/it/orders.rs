//! Reading, listing and cancelling orders.

use serde_json::{Value, json};

use crate::harness::{Server, eventually};

#[test]
fn an_order_is_found_from_its_202_on_and_becomes_confirmed() {
    let server = Server::start();
    let accepted = server.buy("ann").json();
    let path = format!("/v1/orders/{}", accepted["id"].as_str().unwrap());
    let mut found = server.get(&path).json();
    assert!([server.undecided(), "confirmed"].contains(&found["status"].as_str().unwrap()), "{found}");
    found["status"] = json!("accepted");
    assert_eq!(found, accepted);
    eventually("the order is confirmed", || server.get(&path).json()["status"] == "confirmed");
}

#[test]
fn what_is_no_order_is_404() {
    let server = Server::start();
    for id in ["00000000-0000-0000-0000-000000000000", "nonsense", "%00", "%ff%fe", "1"] {
        server.get(&format!("/v1/orders/{id}")).problem(404, "not-found");
        server.post(&format!("/v1/orders/{id}/cancel"), &json!({"reason": "x"})).problem(404, "not-found");
    }
}

#[test]
fn orders_are_listed_page_by_page_oldest_first() {
    let server = Server::start();
    let bought: Vec<Value> =
        (0..5).map(|number| server.buy(&format!("customer-{}", number % 2)).json()["id"].clone()).collect();
    server.wait_until_shown();
    let page = server.get("/v1/orders?limit=2").json();
    let ids = |page: &Value| {
        page["orders"].as_array().unwrap().iter().map(|order| order["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&page), bought[..2]);
    let next = server.get(&format!("/v1/orders?limit=3&after={}", page["next_after"])).json();
    assert_eq!(ids(&next), bought[2..]);
    assert_eq!(next["next_after"], Value::Null, "a last page that is full is the last page all the same");
    let of_one = server.get("/v1/orders?customer_id=customer-1").json();
    assert_eq!(ids(&of_one), [bought[1].clone(), bought[3].clone()]);
    assert_eq!(of_one["next_after"], Value::Null);
    assert_eq!(server.get("/v1/orders?status=cancelled").json()["orders"], json!([]));
    assert_eq!(server.get("/v1/orders?product_id=none").json()["orders"], json!([]));
}

#[test]
fn a_query_that_makes_no_sense_is_400() {
    let server = Server::start();
    for query in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "after=-1",
        "after=x",
        "after=9223372036854775808",
        "status=lost",
        "customer_id=",
        "colour=red",
        "limit=1&limit=2",
        "product_id=%2F",
    ] {
        server.get(&format!("/v1/orders?{query}")).problem(400, "validation");
    }
}

#[test]
fn a_cancelled_order_gives_its_units_back_once() {
    let server = Server::start();
    let id = server.buy("ann").json()["id"].as_str().unwrap().to_owned();
    let cancel = |reason: &str| server.post(&format!("/v1/orders/{id}/cancel"), &json!({"reason": reason}));
    let first = cancel("changed my mind");
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None));
    let order = first.json();
    assert_eq!((&order["status"], &order["reason"]), (&json!("cancelled"), &json!("changed my mind")));
    assert!(order["ended_at"].is_string());
    let again = cancel("another reason");
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(again.json(), order);
    server.assert_stock("1", 100);
}

#[test]
fn a_cancellation_needs_a_reason() {
    let server = Server::start();
    let id = server.buy("ann").json()["id"].as_str().unwrap().to_owned();
    for body in [
        json!({}),
        json!({"reason": ""}),
        json!({"reason": "x".repeat(501)}),
        json!({"reason": "a\nb"}),
        json!({"reason": 1}),
    ] {
        let problem = server.post(&format!("/v1/orders/{id}/cancel"), &body).problem(400, "validation");
        assert_eq!(problem["errors"][0]["pointer"], "/reason", "{body}");
    }
}
