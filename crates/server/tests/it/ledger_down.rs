//! The ledger is down: the sale goes on, and the ledger has everything once it is back.

use serde_json::json;
use yoink_server::Policy;

use crate::engines::Differences;
use crate::harness::{Request, Server, eventually};

#[test]
fn the_sale_goes_on_without_the_ledger_which_has_every_order_once_it_is_back() {
    let generous = Policy { requests: 100, window_s: 60 };
    let mut server = Server::start_with(|settings| settings.rate_limits.per_customer = Some(generous));
    server.stop_ledger();
    let keyed = Request::new("POST", "/v1/orders").header("idempotency-key", "k-1");
    let keyed = keyed.json(&json!({"customer_id": "ann", "product_id": "1"}));
    let first = server.send(&keyed);
    assert_eq!((first.status, first.header("idempotent-replayed")), (202, None), "{first:?}");
    let again = server.send(&keyed);
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, Some("true")), "{again:?}");
    assert_eq!(again.body, first.body);
    assert_eq!(server.buy("bob").status, 202);
    let old = Request::new("POST", "/buy").header("idempotency-key", "k-2");
    assert_eq!(server.send(&old.json(&json!({"userId": "cid", "productId": 1}))).status, 202);
    if server.engine.decides_at_once() {
        server.assert_stock("1", 97);
    }
    let order = format!("/v1/orders/{}", first.json()["id"].as_str().unwrap());
    assert_eq!(server.get(&order).json()["status"], server.undecided());
    server.start_ledger();
    eventually("the ledger has it", || server.get(&order).json()["status"] == "confirmed");
    server.wait_until_shown();
    server.assert_stock("1", 97);
    assert_eq!(server.get("/v1/orders").json()["orders"].as_array().unwrap().len(), 3);
}
