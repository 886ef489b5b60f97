//! Somebody edits what no purchase needs, or writes what is not even text: no order is lost, and the sale goes on.

use std::time::Duration;

use yoink_engine::Purchased;

use crate::common;
use crate::hand_edits::{STOCK, ask_patiently, numbers, wait_until};
use crate::shop::Shop;

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
        let figures = ["delivered", "given", "epoch"].map(|name| {
            let key = shop.key_of(numbers[&product(place)], "sale");
            shop.redis(&["HGET", &key, name]).text().and_then(|text| text.parse::<u64>().ok())
        });
        assert!(figures.iter().all(Option::is_some) && figures[2] < Some(100), "{edit:?}: {figures:?}");
    }
    shop.reconcile(&mender);
}
