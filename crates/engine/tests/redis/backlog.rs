//! The ledger is away: what waits for it has a limit, and waiting costs nobody an order, however long it takes.

use std::time::{Duration, Instant};

use yoink_engine::{CallError, DeadLetterFilter, Replayed};

use crate::shop::{Bought, Shop, insist, request};

/// Waits until the ledger says so.
fn until(shop: &Shop, what: &str, statement: &str) {
    let begun = Instant::now();
    while shop.count(statement) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn above_the_backlog_nobody_is_sold_anything_until_the_ledger_has_caught_up() {
    let mut shop = Shop::start();
    let (stock, backlog) = (20, 5);
    let engine = shop.open_with_shoes(stock, |options| options.backlog_max = backlog);
    let keys = ["sale", "buyers"].map(|name| shop.key(name));
    shop.postgres.terminate().unwrap();
    let mut bought: Vec<Bought> =
        (0..backlog).map(|buyer| shop.run(insist(&engine, &format!("waits-{buyer}"), 1)).unwrap()).collect();
    let contents = || keys.each_ref().map(|key| shop.redis(&["DUMP", key]));
    let before = contents();
    for _ in 0..3 {
        let refused = shop.run(engine.purchase(request("late", 1, "key-late")));
        assert_eq!(refused, Err(CallError::Overloaded));
    }
    assert_eq!(contents(), before, "nothing was taken");
    let again = shop.run(engine.purchase(request("waits-0", 1, "key-waits-0"))).unwrap();
    assert_eq!((again.order, again.replayed), (bought[0].order, Replayed::Yes), "who was served still is");
    shop.postgres.restart().unwrap();
    bought.extend(shop.run(insist(&engine, "late", 1)));
    assert_eq!(bought.len(), 6, "it goes on by itself");
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, 0);
}

#[test]
fn an_outage_uses_up_no_attempt_however_long_it_is() {
    let mut shop = Shop::start();
    let stock = 20;
    let backoff = Duration::from_millis(150);
    let engine = shop.open_with_shoes(stock, |options| {
        (options.delivery.backoff_base, options.delivery.attempts_max) = (backoff, 4);
    });
    shop.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = 'check_violation'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW
         WHEN (NEW.customer LIKE 'odd%') EXECUTE FUNCTION refuse()",
    );
    // One order was refused already when the outage begins, and one comes during each part of it.
    let mut bought = vec![shop.run(insist(&engine, "odd", 2)).unwrap()];
    until(&shop, "it was not refused", "SELECT count(*) FROM refused WHERE attempts >= 1");
    shop.postgres.terminate().unwrap();
    bought.push(shop.run(insist(&engine, "down", 2)).unwrap());
    // Its fourth attempt would be the last, seven times that after the first.
    std::thread::sleep(backoff * 8);
    shop.postgres.restart().unwrap();
    shop.sql("DROP TRIGGER refuse ON orders");
    // There again, and nothing can be written: the same for those who carry orders.
    shop.sql("ALTER DATABASE shop SET default_transaction_read_only = on");
    let end_sessions =
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'yoink'";
    shop.sql(end_sessions);
    bought.push(shop.run(insist(&engine, "read-only", 2)).unwrap());
    std::thread::sleep(backoff * 8);
    let taken = "SELECT count(*) FROM orders WHERE customer = 'read-only'";
    assert_eq!(shop.count(taken), 0, "it can be written");
    let mut writer = shop.postgres.session("shop").unwrap();
    writer.query("SET default_transaction_read_only = off").unwrap();
    writer.query("ALTER DATABASE shop RESET default_transaction_read_only").unwrap();
    writer.query(end_sessions).unwrap();
    shop.reconcile(&engine);
    let letters =
        shop.run(engine.delivery().dead_letters(DeadLetterFilter { limit: 10, ..Default::default() }));
    assert_eq!(letters.unwrap().len(), 0);
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!((kept.confirmed, kept.ended), (3, 0), "nobody is cancelled because the ledger was away");
}
