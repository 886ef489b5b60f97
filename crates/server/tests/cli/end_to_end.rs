//! A sale from the first unit to the audit, by the commands that the README names.

use serde_json::json;
use yoink_testkit::Yoink;

use crate::{BINARY, demo, json_of, refusal_of, text_of, yoink, yoink_at};

#[test]
fn a_storm_sells_every_unit_once_and_the_audit_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = demo().data(&data).start().unwrap();
    let (code, report) = json_of(&mut yoink_at(&server, &["storm", "--buyers", "300", "--json"]));
    assert_eq!(code, 0, "{report}");
    assert_eq!((&report["accepted"], &report["errors"]), (&json!(100), &json!(0)), "{report}");
    assert_eq!(report["rejected"]["sold-out"], 200, "{report}");
    for figure in ["oversold", "lost", "duplicated"] {
        assert_eq!(report["audit"][figure], 0, "{report}");
    }
    let (code, audit) = json_of(&mut yoink_at(&server, &["audit", "--json"]));
    assert_eq!((code, &audit["ok"]), (0, &json!(true)), "{audit}");
    let product = &audit["products"][0];
    assert_eq!(
        (&product["stocked"], &product["available"], &product["sold"]),
        (&json!(100), &json!(0), &json!(100))
    );
    server.terminate();
    assert!(server.wait_exit(std::time::Duration::from_secs(10)).unwrap().success());
    let (code, offline) = json_of(yoink(folder.path()).args(["audit", "--json", "--data"]).arg(&data));
    assert_eq!((code, &offline["ok"]), (0, &json!(true)), "{offline}");
    assert_eq!(offline["products"], audit["products"]);
    let members: Vec<_> = offline.as_object().unwrap().keys().cloned().collect();
    let mut contract = ["ok", "oversold", "lost", "duplicated", "stuck", "products", "orders", "invariants"];
    contract.sort_unstable();
    assert_eq!(members.len(), contract.len());
    assert!(contract.iter().all(|name| members.iter().any(|member| member == name)), "{members:?}");
}

#[test]
fn a_threshold_that_does_not_hold_fails_the_storm() {
    let server = demo().start().unwrap();
    let arguments = ["storm", "--buyers", "20", "--assert", "p50<0.000001ms", "--json"];
    let (code, report) = json_of(&mut yoink_at(&server, &arguments));
    assert_eq!(code, 1, "{report}");
}

#[test]
fn a_product_is_seeded_restocked_and_sold() {
    let server = Yoink::new(BINARY).start().unwrap();
    let seed = ["seed", "--id", "7", "--name", "Poster", "--units", "2", "--price", "2500", "--limit", "3"];
    let said = text_of(&mut yoink_at(&server, &seed));
    assert!(said.contains("product 7 \"Poster\"") && said.contains("2 units"), "{said}");
    assert_eq!(text_of(&mut yoink_at(&server, &seed)), said, "the same again is on sale already");
    let refusal = refusal_of(&mut yoink_at(&server, &["seed", "--id", "7", "--name", "Another"]), 1);
    assert!(refusal.contains("409") && refusal.contains("Product 7"), "{refusal}");
    for _ in 0..2 {
        let restock =
            ["restock", "--product", "7", "--units", "1", "--reason", "found one", "--key", "found-1"];
        let said = text_of(&mut yoink_at(&server, &restock));
        assert!(said.contains("3 available"), "{said}");
    }
    let refusal = refusal_of(
        &mut yoink_at(&server, &["restock", "--product", "7", "--units", "-4", "--reason", "too many"]),
        1,
    );
    assert!(refusal.contains("409"), "{refusal}");
    let body = json!({"customer_id": "ann", "product_id": "7", "quantity": 2});
    assert_eq!(server.anonymous_client().post("/v1/orders", &body).unwrap().status, 202);
    let (code, orders) = json_of(&mut yoink_at(&server, &["orders", "--customer", "ann", "--json"]));
    assert_eq!((code, &orders["orders"][0]["quantity"]), (0, &json!(2)), "{orders}");
    let table = text_of(&mut yoink_at(&server, &["orders"]));
    assert!(table.contains("ann") && !table.contains(['│', '┌', '\u{1b}']), "{table}");
}

#[test]
fn every_preset_of_seed_can_be_bought() {
    for preset in ["flash-sale-engine", "yoink", "flash-sale-system"] {
        let server = Yoink::new(BINARY).start().unwrap();
        let (code, product) = json_of(&mut yoink_at(&server, &["seed", "--preset", preset, "--json"]));
        assert_eq!((code, &product["id"]), (0, &json!("1")), "{preset}: {product}");
        let body = json!({"customer_id": "ann", "product_id": "1"});
        assert_eq!(server.anonymous_client().post("/v1/orders", &body).unwrap().status, 202, "{preset}");
    }
}

#[test]
fn dead_letters_are_listed_even_if_there_are_none() {
    let server = demo().start().unwrap();
    assert_eq!(text_of(&mut yoink_at(&server, &["dead-letters", "list"])), "no dead letters\n");
    let (_, list) = json_of(&mut yoink_at(&server, &["dead-letters", "list", "--json"]));
    assert_eq!(list, json!({"dead_letters": []}));
    let refusal = refusal_of(&mut yoink_at(&server, &["dead-letters", "show", "1"]), 1);
    assert!(refusal.contains("404"), "{refusal}");
}

#[test]
fn a_storm_raises_the_limit_of_open_files_as_far_as_it_may() {
    let server = demo().start().unwrap();
    let line = format!("ulimit -Sn 64 && exec {BINARY} storm --buyers 200 --url {}", server.url());
    let mut storm = assert_cmd::Command::new("bash");
    storm.args(["-c", &line]).current_dir(server.data()).env("YOINK_ADMIN_KEY", server.admin_key());
    text_of(&mut storm);
}
