//! Somebody makes PostgreSQL forget while it sells: nothing is sold until that is mended, and then by itself.

use std::time::{Duration, Instant};

use yoink_engine::{CallError, Engine};
use yoink_testkit::Mode;

use crate::shop::{Bought, Shop, insist, request};

/// How somebody sets what is wrong, and how it is set right again.
const CHANGES: [(&str, &str); 2] = [
    ("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM RESET fsync"),
    // Holds for sessions that begin from then on: the node has some already.
    ("ALTER DATABASE shop SET synchronous_commit = off", "ALTER DATABASE shop RESET synchronous_commit"),
];

/// Buys as somebody new, once after the other, until that is refused.
fn buy_until_refused(shop: &Shop, engine: &Engine, bought: &mut Vec<Bought>) -> CallError {
    let begun = Instant::now();
    loop {
        let customer = format!("early-{}", bought.len());
        let key = format!("key-{customer}");
        match shop.run(engine.purchase(request(&customer, 1, &key))) {
            Ok(purchased) => bought.push(Bought { customer, key, quantity: 1, order: purchased.order }),
            Err(refused) => return refused,
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it still sells");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_is_sold_while_postgres_may_forget_it() {
    let shop = Shop::start();
    let stock = 2_000;
    let engine = shop.open_with_shoes(stock, |options| options.settings_every = Duration::from_secs(1));
    let mut bought = vec![shop.run(insist(&engine, "first", 1)).unwrap()];
    for (wrong, right) in CHANGES {
        shop.sql(wrong);
        shop.sql("SELECT pg_reload_conf()");
        let refused = buy_until_refused(&shop, &engine, &mut bought);
        assert_eq!(refused, CallError::UnsafeSettings, "{wrong}");
        assert!(!engine.redis_status().unwrap().may_sell, "{wrong}");
        shop.sql(right);
        shop.sql("SELECT pg_reload_conf()");
        shop.wait_until_selling(&engine, &mut bought);
    }
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, 0);
}

#[test]
fn what_postgres_said_last_of_its_settings_holds_while_it_says_nothing() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(100, |options| options.settings_every = Duration::from_secs(1));
    let mut bought = vec![shop.run(insist(&engine, "first", 1)).unwrap()];
    shop.sql("ALTER SYSTEM SET fsync = off");
    shop.sql("SELECT pg_reload_conf()");
    assert_eq!(buy_until_refused(&shop, &engine, &mut bought), CallError::UnsafeSettings);
    shop.postgres_edge.set(Mode::Refuse).unwrap();
    shop.postgres_edge.cut_all();
    // It is asked every second.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        assert!(!engine.redis_status().unwrap().may_sell, "it sold again after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    shop.postgres_edge.set(Mode::Pass).unwrap();
    shop.sql("ALTER SYSTEM RESET fsync");
    shop.sql("SELECT pg_reload_conf()");
    shop.wait_until_selling(&engine, &mut bought);
    shop.close_the_books(&engine, 100, &mut bought);
}
