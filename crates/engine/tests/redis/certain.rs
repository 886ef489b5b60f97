//! What is certain, and what is not said before it is.

use std::time::{Duration, Instant};

use yoink_core::{NewProduct, ProductChange, Rejection};
use yoink_engine::postgres::SettingsCheck;
use yoink_engine::redis::{RedisOpenError, RedisOptions};
use yoink_engine::{CallError, Engine, OrderStatus};
use yoink_testkit::Mode;

use crate::common;
use crate::shop::{Bought, SHOE, Shop, insist, insist_with_key, request};

#[test]
fn a_redis_that_may_forget_is_refused_unless_it_is_relaxed() {
    let shop = Shop::start();
    let url = shop.postgres.url_of("shop");
    let open = |settings| {
        let mut options = RedisOptions::new(shop.redis.url(), url.as_str());
        options.settings = settings;
        Engine::open_redis(options)
    };
    for (name, bad, good) in [
        ("appendfsync", "everysec", "always"),
        ("appendonly", "no", "yes"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ] {
        shop.redis(&["CONFIG", "SET", name, bad]);
        let refused = open(SettingsCheck::Strict).expect_err("it is refused");
        assert!(matches!(&refused, RedisOpenError::Settings { complaints } if complaints.len() == 1));
        assert!(
            refused.to_string().contains(&format!("has {name} {bad}, which must be {good}")),
            "{refused}"
        );
        open(SettingsCheck::Relaxed).unwrap().close_blocking(Duration::ZERO);
        shop.redis(&["CONFIG", "SET", name, good]);
    }
    open(SettingsCheck::Strict).unwrap();
}

#[test]
fn what_a_redis_has_from_before_its_restart_is_not_sold_from() {
    let mut shop = Shop::start();
    let stock = 100;
    let engine = shop.open_with_shoes(stock, |_| ());
    let mut bought = vec![shop.run(insist(&engine, "early", 1)).unwrap()];
    shop.reconcile(&engine);
    // Without the ledger nobody can say whether it still has everything.
    shop.postgres_edge.set(Mode::Refuse).unwrap();
    shop.postgres_edge.cut_all();
    shop.redis.kill();
    shop.redis.restart().unwrap();
    let (begun, mut refused) = (Instant::now(), 0);
    while refused < 5 {
        let number = bought.len() + refused;
        match shop.run(engine.purchase(request(&format!("late-{number}"), 1, "late"))) {
            Err(CallError::Rebuilding) => refused += 1,
            Err(CallError::Unreachable | CallError::OutcomeUnknown) => {}
            other => panic!("sold from what may be incomplete: {other:?}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not say that it is being filled");
    }
    shop.postgres_edge.set(Mode::Pass).unwrap();
    shop.wait_until_selling(&engine, &mut bought);
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, 0);
}

#[test]
fn a_customer_gets_units_up_to_the_limit_and_none_above_it() {
    let shop = Shop::start();
    let engine = shop.open(|_| ());
    let limited = NewProduct { limit_per_customer: Some(2), ..common::product(SHOE, 10) };
    shop.run(engine.create_product(limited)).unwrap();
    shop.run(insist(&engine, "keen", 1)).unwrap();
    for (key, quantity) in [("two", 2), ("one", 1), ("three", 1)] {
        match shop.run(engine.purchase(request("keen", quantity, key))) {
            Ok(_) if key == "one" => {}
            Err(CallError::Refused(Rejection::LimitReached { .. })) if key != "one" => {}
            other => panic!("{key}: {other:?}"),
        }
    }
    shop.reconcile(&engine);
    assert_eq!(shop.count("SELECT sum(quantity) FROM orders WHERE customer = 'keen'"), 2);
}

/// How many live units a customer has, and how many orders of his were revoked because of the limit.
fn units_and_revoked(shop: &Shop, customer: &str) -> (i64, i64) {
    let live = format!(
        "SELECT coalesce(sum(quantity), 0) FROM orders WHERE customer = '{customer}' AND status = 'confirmed'"
    );
    let revoked = format!(
        "SELECT count(*) FROM orders WHERE customer = '{customer}' AND status = 'failed' AND revoked
         AND reason LIKE 'revoked: %one customer may have'"
    );
    (shop.count(&live), shop.count(&revoked))
}

#[test]
fn what_a_customer_has_above_the_limit_is_revoked_visibly() {
    // Somebody forgets what the customer has, or writes that it is less.
    revoke_what_is_above_the_limit(&["HDEL"], &[]);
    revoke_what_is_above_the_limit(&["HSET"], &["0|"]);
}

fn revoke_what_is_above_the_limit(command: &[&str], value: &[&str]) {
    let shop = Shop::start();
    let engine = shop.open(|_| ());
    let stock = 10;
    let limited =
        NewProduct { limit_per_customer: Some(2), max_per_order: 1_000, ..common::product(SHOE, stock) };
    shop.run(engine.create_product(limited)).unwrap();
    let mut bought = vec![shop.run(insist(&engine, "keen", 2)).unwrap()];
    shop.reconcile(&engine);
    let buyers = shop.key("buyers");
    shop.redis(&[command, &[buyers.as_str(), "ckeen"], value].concat());
    let more = shop.run(insist_with_key(&engine, "keen", 1, "more")).unwrap();
    bought.push(Bought { customer: "keen".into(), key: "more".into(), quantity: 1, order: more.order });
    let begun = Instant::now();
    while units_and_revoked(&shop, "keen") != (2, 1) {
        let found = units_and_revoked(&shop, "keen");
        assert!(begun.elapsed() < Duration::from_secs(10), "live units, and revoked: {found:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let begun = Instant::now();
    while shop.count("SELECT epoch FROM products") == 1 {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "what Redis says of the customer is still believed"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    shop.reconcile(&engine);
    let refused = shop.run(engine.purchase(request("keen", 1, "even-more")));
    assert!(
        matches!(refused, Err(CallError::Refused(Rejection::LimitReached { used: 2, .. }))),
        "{refused:?}"
    );
    let order = shop.run(engine.order(more.order)).unwrap().unwrap();
    assert_eq!(order.status, OrderStatus::Failed);
    for number in 0..4 {
        bought.extend(shop.run(insist(&engine, &format!("other-{number}"), 2)));
    }
    let lifted = ProductChange { limit_per_customer: Some(None), ..ProductChange::default() };
    shop.run(engine.change_product(common::id(SHOE), lifted)).unwrap();
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!((kept.confirmed, kept.ended), (5, 1), "its unit went to somebody else");
}

#[test]
fn of_two_orders_around_a_loss_the_one_above_the_limit_is_revoked() {
    let shop = Shop::start();
    let stock = 10;
    let url = shop.redis.url();
    // Goes on while the first node is cut off from Redis.
    let second = shop.open(|options| options.redis = url);
    let limited = NewProduct { limit_per_customer: Some(1), ..common::product(SHOE, stock) };
    shop.run(second.create_product(limited)).unwrap();
    let first = shop.open(|options| options.workers = 0);
    shop.run(second.delivery().pause()).unwrap();
    let early = shop.run(insist(&first, "keen", 1)).unwrap();
    shop.redis_edge.set(Mode::Refuse).unwrap();
    shop.redis_edge.cut_all();
    shop.redis(&["FLUSHALL"]);
    shop.run(second.delivery().resume()).unwrap();
    let late = shop.run(insist_with_key(&second, "keen", 1, "late")).expect("nobody knows of the first");
    shop.reconcile(&second);
    shop.redis_edge.set(Mode::Pass).unwrap();
    let begun = Instant::now();
    while units_and_revoked(&shop, "keen") != (1, 1) {
        let found = units_and_revoked(&shop, "keen");
        assert!(begun.elapsed() < Duration::from_secs(20), "live units, and revoked: {found:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    shop.reconcile(&first);
    let status = |order| shop.run(second.order(order)).unwrap().unwrap().status;
    assert_eq!((status(early.order), status(late.order)), (OrderStatus::Failed, OrderStatus::Confirmed));
}

#[test]
fn an_order_that_was_accepted_under_a_higher_limit_is_kept() {
    let shop = Shop::start();
    let stock = 100;
    let engine = shop.open(|_| ());
    let limited = NewProduct { limit_per_customer: Some(1), ..common::product(SHOE, stock) };
    shop.run(engine.create_product(limited)).unwrap();
    let limit_to = |limit: Option<u32>| {
        let change = ProductChange { limit_per_customer: Some(limit), ..ProductChange::default() };
        shop.run(engine.change_product(common::id(SHOE), change)).unwrap();
    };
    let mut bought = Vec::new();
    for (customer, limit) in [("three", Some(3)), ("many", None), ("none", Some(5))] {
        shop.run(engine.delivery().pause()).unwrap();
        limit_to(limit);
        bought.push(shop.run(insist(&engine, customer, limit.unwrap_or(9))).unwrap());
        limit_to(Some(1));
        shop.run(engine.delivery().resume()).unwrap();
        shop.reconcile(&engine);
    }
    assert_eq!(shop.count("SELECT count(*) FROM orders WHERE status = 'confirmed'"), 3);
    assert_eq!(shop.count("SELECT epoch FROM products"), 1, "nothing of this is a reason to fill Redis anew");
}

#[test]
fn nobody_is_told_no_while_an_attempt_of_theirs_may_still_be_executed() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(1, |_| ());
    let mut bought = vec![shop.run(insist(&engine, "winner", 1)).unwrap()];
    // The first attempt is lost on its way; the second is answered, and there is nothing left.
    let mut tries = 0;
    loop {
        shop.redis_edge.set(Mode::CutRequestAfter(100)).unwrap();
        let customer = format!("late-{tries}");
        match shop.run(engine.purchase(request(&customer, 1, "late"))) {
            Err(CallError::OutcomeUnknown) => break,
            // Another one's connection was cut.
            Err(CallError::Refused(Rejection::SoldOut { .. })) => tries += 1,
            other => panic!("{other:?}"),
        }
        assert!(tries < 50, "somebody was told no each time");
    }
    shop.redis_edge.set(Mode::Pass).unwrap();
    let answer = shop.run(engine.purchase(request("late-0", 1, "late")));
    assert!(matches!(answer, Err(CallError::Refused(Rejection::SoldOut { .. }))), "{answer:?}");
    shop.close_the_books(&engine, 1, &mut bought);
}

#[test]
fn an_audit_while_orders_move_counts_none_of_them_as_lost() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(20_000, |_| ());
    let crowd = shop.crowd(&[&engine], 8);
    let begun = Instant::now();
    let mut audits = 0;
    while audits < 3 || begun.elapsed() < Duration::from_secs(3) {
        let found = shop.run(engine.reconcile()).unwrap();
        let figures = [found.oversold, found.lost, found.duplicated, found.stuck];
        assert_eq!(figures, [0; 4], "{found:#?}");
        assert!(begun.elapsed() < Duration::from_secs(60), "audits take too long");
        audits += 1;
    }
    let mut bought = shop.disperse(crowd);
    shop.close_the_books(&engine, 20_000, &mut bought);
}
