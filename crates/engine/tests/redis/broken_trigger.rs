//! A trigger of somebody's own that is broken: PostgreSQL says so with errors that tell nothing of whose fault it is.

use std::time::{Duration, Instant};

use yoink_engine::{DeadLetterFilter, Engine, OrderStatus};

use crate::shop::{Bought, Shop, insist};

/// Until an order is given up: it is tried about once a second.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(120);
/// Until an order is delivered that nothing is wrong with.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);
const STOCK: u64 = 2_000;

/// A trigger that fails for some customers. What it counts is not undone with the rest.
fn break_for(shop: &Shop, customers: &str) {
    shop.sql(&format!(
        "CREATE SEQUENCE failures;
         CREATE FUNCTION look_up() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM nextval('failures'); PERFORM FROM no_such_table; RETURN NEW; END $$;
         CREATE TRIGGER look_up BEFORE INSERT ON orders FOR EACH ROW
         WHEN (NEW.customer LIKE '{customers}') EXECUTE FUNCTION look_up()"
    ));
}

fn failures(shop: &Shop) -> i64 {
    shop.count("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM failures")
}

fn status(shop: &Shop, engine: &Engine, order: &Bought) -> OrderStatus {
    shop.run(engine.order(order.order)).unwrap().unwrap().status
}

fn wait_for(shop: &Shop, engine: &Engine, order: &Bought, status_then: OrderStatus) {
    let begun = Instant::now();
    while status(shop, engine, order) != status_then {
        assert!(begun.elapsed() < DELIVERED_WITHIN, "{order:?} is held up");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_order_that_always_fails_holds_nobody_up_and_is_given_up_in_the_end() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |options| options.claim_after = Duration::from_millis(50));
    break_for(&shop, "bad%");
    // More than are read at once, and before all others.
    let mut bought: Vec<Bought> =
        (0..20).map(|number| shop.run(insist(&engine, &format!("bad-{number}"), 1)).unwrap()).collect();
    let bad = bought.len();
    let begun = Instant::now();
    while bought[..bad].iter().any(|order| status(&shop, &engine, order) != OrderStatus::Failed) {
        assert!(begun.elapsed() < GIVEN_UP_WITHIN, "{} failures", failures(&shop));
        let good = shop.run(insist(&engine, &format!("good-{}", bought.len()), 1)).unwrap();
        wait_for(&shop, &engine, &good, OrderStatus::Confirmed);
        bought.push(good);
        std::thread::sleep(Duration::from_millis(200));
    }
    let letters =
        shop.run(engine.delivery().dead_letters(DeadLetterFilter { limit: 100, ..Default::default() }));
    let letters = letters.unwrap();
    assert_eq!(letters.len(), bad);
    for (letter, order) in letters.iter().zip(&bought) {
        assert!(letter.customer.as_ref().unwrap().as_str().starts_with("bad"), "{letter:?}");
        assert!(letter.error.contains("no_such_table") && letter.attempts == 20, "{letter:?} {order:?}");
    }
    assert_eq!(shop.count("SELECT count(*) FROM credits WHERE kind = 'returned'"), bad as i64);
    assert_eq!(shop.count("SELECT epoch FROM products"), 1, "nothing had to be filled anew");
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, bad);
}

#[test]
fn while_everything_fails_nothing_is_given_up() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |options| options.claim_after = Duration::from_millis(50));
    break_for(&shop, "%");
    let mut bought: Vec<Bought> =
        (0..4).map(|number| shop.run(insist(&engine, &format!("early-{number}"), 1)).unwrap()).collect();
    let begun = Instant::now();
    // Each of them is tried more often than one may fail.
    while failures(&shop) < 4 * 25 {
        assert!(begun.elapsed() < GIVEN_UP_WITHIN, "{} failures", failures(&shop));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(engine.delivery().status().last_error.is_some_and(|error| error.contains("no_such_table")));
    shop.sql("DROP TRIGGER look_up ON orders");
    bought.extend(shop.run(insist(&engine, "late", 1)));
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!((kept.confirmed, kept.ended), (5, 0));
    assert_eq!(shop.count("SELECT count(*) FROM refused"), 0);
}

#[test]
fn redis_is_filled_anew_although_an_order_always_fails() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |_| ());
    break_for(&shop, "bad");
    let mut bought = vec![shop.run(insist(&engine, "bad", 2)).unwrap()];
    let good = shop.run(insist(&engine, "good", 1)).unwrap();
    wait_for(&shop, &engine, &good, OrderStatus::Confirmed);
    bought.push(good);
    for _ in 0..2 {
        shop.redis(&["HSET", &shop.key("sale"), "available", "x"]);
        shop.wait_until_selling(&engine, &mut bought);
    }
    assert_eq!(status(&shop, &engine, &bought[0]), OrderStatus::Accepted);
    assert_eq!(shop.count("SELECT epoch FROM products"), 3);
    shop.sql("DROP TRIGGER look_up ON orders");
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!((kept.confirmed, kept.ended), (4, 0));
}
