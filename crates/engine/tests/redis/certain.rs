//! What is certain, and what is not said before it is.

use std::time::{Duration, Instant};

use yoink_core::{NewProduct, Rejection};
use yoink_engine::postgres::SettingsCheck;
use yoink_engine::redis::{RedisOpenError, RedisOptions};
use yoink_engine::{CallError, Engine};
use yoink_testkit::Mode;

use crate::common;
use crate::shop::{SHOE, Shop, insist, request};

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
