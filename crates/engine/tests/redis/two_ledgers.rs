//! Two ledgers that use one Redis see nothing of each other.

use std::time::Duration;

use futures_util::future::join_all;
use yoink_core::NewProduct;
use yoink_engine::Confirmed;

use crate::common;
use crate::shop::{SHOE, Shop, insist};

#[test]
fn two_ledgers_on_one_redis_each_sell_exactly_their_own_stock() {
    let shop = Shop::start();
    let stocks = [30, 50];
    let first = shop.open_with_shoes(stocks[0], |_| ());
    let second = shop.open_another("other");
    let shoe = NewProduct { max_per_order: 1_000, ..common::product(SHOE, stocks[1]) };
    shop.run(second.create_product(shoe)).unwrap();
    let shops = [("shop", &first), ("other", &second)];
    // The same customers ask both of them, at the same time.
    let names: Vec<String> = (0..100).map(|buyer| format!("buyer-{buyer}")).collect();
    let asked = names.iter().flat_map(|name| shops.map(|(_, engine)| insist(engine, name, 1)));
    let served = shop.run(join_all(asked));
    for (which, (database, engine)) in shops.into_iter().enumerate() {
        let stock = stocks[which];
        let accepted = served.iter().skip(which).step_by(2).flatten().count();
        assert_eq!(accepted as u64, stock, "{database}");
        let settled = shop.run(engine.wait_delivered(0, Duration::from_secs(30)));
        assert_eq!(settled, Confirmed::Yes, "{database}: {:?}", engine.delivery().status());
        let found = shop.run(engine.reconcile()).unwrap();
        assert!(found.ok, "{database}: {found:#?}");
        let confirmed =
            "SELECT count(*) FROM orders WHERE product = 1 AND epoch = 1 AND status = 'confirmed'";
        let rows = shop.postgres.session(database).unwrap().query(confirmed).unwrap();
        assert_eq!(rows[0][0].as_deref(), Some(&*stock.to_string()), "{database}");
    }
}
