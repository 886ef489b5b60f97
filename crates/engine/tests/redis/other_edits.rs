//! Somebody edits what no purchase needs, or writes what is not even text: no order is lost, and the sale goes on.

use std::time::Duration;

use yoink_engine::Purchased;

use crate::common;
use crate::hand_edits::{STOCK, ask_patiently, difference, numbers, wait_until};
use crate::shop::{Shop, insist};

/// A field of the sale, and what is written there, in Lua.
const OTHER_EDITS: [(&str, &str); 9] = [
    ("product", "'another'"),
    ("epoch", "'2147483647'"),
    ("epoch", "'2147483646'"),
    ("delivered", "'x'"),
    ("given", "'x'"),
    ("state", r"'\255'"),
    ("price", r"'\255'"),
    ("delivered", r"'\255'"),
    ("server", r"'\255'"),
];

#[test]
fn no_other_edit_costs_an_order_or_stops_the_sale() {
    let shop = Shop::start();
    let maker = shop.open(|_| ());
    let product = |place: usize| format!("edit-{place}");
    let places = 0..OTHER_EDITS.len();
    for place in places.clone() {
        shop.run(maker.create_product(common::product(&product(place), STOCK))).unwrap();
        shop.run(ask_patiently(&maker, &product(place), "early", 1, "early")).unwrap();
    }
    shop.reconcile(&maker);
    maker.close_blocking(Duration::ZERO);
    let numbers = numbers(&shop);
    // What is granted now is in the stream only, and nobody is left who knows of it.
    let seller = shop.open(|options| options.workers = 0);
    let bought = places
        .clone()
        .map(|place| shop.run(ask_patiently(&seller, &product(place), "kept", 1, "kept")).unwrap());
    let bought: Vec<Purchased> = bought.collect();
    seller.close_blocking(Duration::ZERO);
    for (place, (field, value)) in OTHER_EDITS.into_iter().enumerate() {
        let script = format!("return redis.call('HSET', KEYS[1], '{field}', {value})");
        shop.redis(&["EVAL", &script, "1", &shop.key_of(numbers[&product(place)], "sale")]);
    }
    let mender = shop.open(|_| ());
    for (place, bought) in bought.iter().enumerate() {
        let edit = OTHER_EDITS[place];
        let late = shop.run(ask_patiently(&mender, &product(place), "late", 1, "late"));
        assert!(late.is_ok(), "{edit:?}: {late:?}");
        let confirmed = format!(
            "SELECT count(*) FROM orders WHERE status = 'confirmed' AND id = '{}'",
            uuid::Uuid::from_bytes(bought.order.0)
        );
        wait_until(&format!("{edit:?} cost an order"), || shop.count(&confirmed) == 1);
        // Some edits are noticed only now, and between two of these looks the sale may be filled anew.
        wait_until(&format!("{edit:?} is left in the figures"), || {
            let figures = ["delivered", "given", "epoch"].map(|name| {
                let key = shop.key_of(numbers[&product(place)], "sale");
                shop.redis(&["HGET", &key, name]).text().and_then(|text| text.parse::<u64>().ok())
            });
            figures.iter().all(Option::is_some) && figures[2] < Some(100)
        });
    }
    shop.reconcile(&mender);
}

/// A key, a field of it and its value, both in Lua, and how the field is named.
const NO_TEXT: [(&str, &str, &str, &str); 7] = [
    ("buyers", r"'c\0'", "'1|'", r"c\x00"),
    ("buyers", r"'cann\0'", "'0|'", r"cann\x00"),
    ("buyers", r"'c\255'", "'1|'", r"c\xff"),
    ("buyers", r"'onobody'", r"'\0'", "onobody"),
    ("buyers", r"'\195'", "''", r"\xc3"),
    ("sale", r"'\0'", "''", r"\x00"),
    ("sale", "'note'", r"'\255'", "note"),
];

#[test]
fn the_audit_names_what_is_no_text_and_goes_on() {
    let shop = Shop::start();
    let maker = shop.open_with_shoes(STOCK, |_| ());
    shop.run(insist(&maker, "early", 1)).unwrap();
    shop.reconcile(&maker);
    maker.close_blocking(Duration::ZERO);
    let engine = shop.open(|options| options.workers = 0);
    let change = |command: &str, name: &str, arguments: &str| {
        let script = format!("return redis.call('{command}', KEYS[1], {arguments})");
        shop.redis(&["EVAL", &script, "1", &shop.key(name)])
    };
    for (name, field, value, shown) in NO_TEXT {
        change("HSET", name, &format!("{field}, {value}"));
        let found = difference(&shop, &engine).unwrap_or_else(|| panic!("{field} of {name}: all is well"));
        let words = format!("field \"{shown}\" of the {name} is not this engine's: its bytes are no text");
        assert!(found.contains(&words), "{found}");
        change("HDEL", name, field);
        assert_eq!(difference(&shop, &engine), None, "{field} of {name}");
    }
    // A figure: nothing can be sold.
    let given = shop.redis(&["HGET", &shop.key("sale"), "given"]).text().unwrap();
    change("HSET", "sale", r"'given', '\255'");
    let found = difference(&shop, &engine).unwrap();
    assert!(found.contains("Redis does not sell it; field \"given\" of the sale"), "{found}");
    change("HSET", "sale", &format!("'given', '{given}'"));
    // A customer who is one, and has what cannot be read.
    change("HSET", "buyers", r"'cearly', '\255'");
    let found = difference(&shop, &engine).unwrap();
    assert!(found.contains("what Redis has of customer \"early\" cannot be read"), "{found}");
    for (name, field, value, _) in NO_TEXT {
        change("HSET", name, &format!("{field}, {value}"));
    }
    shop.run(engine.repair("somebody edited it".into())).unwrap();
    assert_eq!(difference(&shop, &engine), None);
    let mut bought = Vec::from_iter(shop.run(insist(&engine, "early", 1)));
    engine.close_blocking(Duration::ZERO);
    shop.close_the_books(&shop.open(|_| ()), STOCK, &mut bought);
}
