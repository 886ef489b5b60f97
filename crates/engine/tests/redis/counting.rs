//! What the audit says while orders are on their way to the ledger.

use std::time::Duration;

use yoink_engine::Engine;

use crate::shop::{Bought, Shop, insist};

const STOCK: u64 = 10;

/// Lines of the grants that are in the stream.
fn lines(shop: &Shop) -> Vec<String> {
    let entries = shop.redis(&["XRANGE", &shop.key("grants"), "-", "+"]);
    let text = |entry: &yoink_testkit::Reply| entry.items()[1].items()[1].text().unwrap();
    entries
        .items()
        .iter()
        .flat_map(|entry| text(entry).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Brings a grant to the ledger and dies before its entry leaves the stream.
fn carry(shop: &Shop, order: &Bought) {
    let id = uuid::Uuid::from_bytes(order.order.0).simple().to_string();
    let line = lines(shop).into_iter().find(|line| line.starts_with(&id)).unwrap();
    let parts: Vec<&str> = line.split('|').collect();
    let [id, number, quantity, time, price, currency, customer] = parts[..] else { panic!("{line}") };
    let rows = shop.sql(&format!(
        "SELECT outcome FROM carry(1, 1, {time}, {time}, ARRAY['{id}'::uuid], ARRAY[{number}::bigint],
                                   ARRAY['{customer}'], ARRAY[{quantity}], ARRAY[{price}::bigint],
                                   ARRAY['{currency}'], ARRAY[{time}::bigint])"
    ));
    assert_eq!(rows[0][0].as_deref(), Some("confirmed"));
}

/// All is well. `waiting`: orders that the ledger does not have. `held`: orders that the stream holds.
fn audit(shop: &Shop, engine: &Engine, waiting: usize, held: usize) {
    let found = shop.run(engine.reconcile()).unwrap();
    assert_eq!(lines(shop).len(), held);
    assert!(found.ok, "{found:#?}");
    assert_eq!([found.oversold, found.lost, found.duplicated, found.stuck], [0; 4], "{found:#?}");
    let told = format!("1 products, {waiting} orders on their way");
    let compared = found.invariants.iter().find(|invariant| invariant.id == "redis-equals-ledger").unwrap();
    assert_eq!(compared.detail, told);
}

#[test]
fn what_the_ledger_has_and_the_stream_still_holds_is_counted_once() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |_| ());
    shop.run(insist(&engine, "early", 1)).unwrap();
    shop.reconcile(&engine);
    shop.pause_delivery(&engine);
    let mut bought: Vec<Bought> =
        ["keeps", "leaves"].map(|customer| shop.run(insist(&engine, customer, 2)).unwrap()).into();
    audit(&shop, &engine, 2, 2);
    carry(&shop, &bought[0]);
    audit(&shop, &engine, 1, 2);
    // Whoever cancels what is on its way is its worker.
    shop.run(engine.cancel(bought[1].order, "changed my mind".into())).unwrap();
    audit(&shop, &engine, 0, 2);
    shop.run(engine.delivery().resume()).unwrap();
    bought.extend(shop.run(insist(&engine, "early", 1)));
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 1);
}

#[test]
fn what_redis_lost_is_not_made_up_for_by_what_the_stream_still_holds() {
    let shop = Shop::start();
    shop.open_with_shoes(STOCK, |_| ()).close_blocking(Duration::ZERO);
    let engine = shop.open(|options| options.workers = 0);
    let bought = ["one", "another", "lost"].map(|customer| shop.run(insist(&engine, customer, 2)).unwrap());
    bought[..2].iter().for_each(|order| carry(&shop, order));
    audit(&shop, &engine, 1, 3);
    let entries = shop.redis(&["XRANGE", &shop.key("grants"), "-", "+"]);
    let last = entries.items().last().unwrap().items()[0].text().unwrap();
    shop.redis(&["XDEL", &shop.key("grants"), &last]);
    let found = shop.run(engine.reconcile()).unwrap();
    assert_eq!((found.ok, found.lost, found.stuck), (false, 1, 2), "{found:#?}");
}
