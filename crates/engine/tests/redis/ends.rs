//! Orders end and units come back: once, whoever asks, and whatever dies in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use yoink_core::{Rejection, StockAdjustment};
use yoink_engine::{CallError, DeadLetterFilter, Engine, OrderStatus, Replayed};
use yoink_testkit::Mode;

use crate::common;
use crate::shop::{Bought, SHOE, Shop, insist, request, rounds};

/// Asks for an adjustment until there is a definite answer: made, or not so many left.
async fn adjust(engine: &Engine, adjustment: StockAdjustment) -> Option<Replayed> {
    let begun = Instant::now();
    loop {
        match engine.adjust_stock(adjustment.clone()).await {
            Ok(adjusted) => return Some(adjusted.replayed),
            Err(CallError::Refused(Rejection::BelowCommitted { .. })) => return None,
            Err(CallError::OutcomeUnknown | CallError::Unreachable) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "no answer to {adjustment:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn an_order_may_be_cancelled_before_the_ledger_has_it_and_by_many_at_once() {
    let shop = Shop::start();
    let stock = 50;
    let first = shop.open_with_shoes(stock, |_| ());
    let second = shop.open(|_| ());
    let (mut bought, mut cancelled) = (Vec::new(), 0);
    for round in 0..rounds(40) {
        let unit = shop.run(insist(&first, &format!("hasty-{round}"), 1)).unwrap();
        let nodes = [&first, &second];
        let asked = (0..8_usize).map(|caller| {
            let (engine, order) = (nodes[caller % 2], unit.order);
            async move {
                // From before the worker has seen the order to after it has delivered it.
                let pause_us = 400 * (round as u64 % 20) + 300 * caller as u64;
                tokio::time::sleep(Duration::from_micros(pause_us)).await;
                engine.cancel(order, "changed my mind".into()).await
            }
        });
        let answers: Vec<_> = shop.run(join_all(asked)).into_iter().map(Result::unwrap).collect();
        let made = answers.iter().filter(|(_, replayed)| *replayed == Replayed::No).count();
        assert_eq!(made, 1, "one of them cancelled it");
        assert!(answers.iter().all(|(order, _)| order.status == OrderStatus::Cancelled));
        bought.push(unit);
        cancelled += 1;
    }
    let kept = shop.close_the_books(&second, stock, &mut bought);
    assert_eq!(kept.ended, cancelled);
}

#[test]
fn a_dead_letter_gives_its_units_back_once() {
    let shop = Shop::start();
    let stock = 10 * rounds(3) as u64;
    let engine = shop.open_with_shoes(stock, |options| {
        options.delivery.backoff_base = Duration::from_millis(20);
    });
    shop.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'check_violation'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW
         WHEN (NEW.customer LIKE 'bad%') EXECUTE FUNCTION refuse()",
    );
    let mut bought = Vec::new();
    for round in 0..rounds(3) {
        let customers = [format!("good-{round}"), format!("bad-{round}"), format!("fine-{round}")];
        let asked = customers.iter().map(|customer| insist(&engine, customer, 2));
        bought.extend(shop.run(join_all(asked)).into_iter().flatten());
    }
    shop.reconcile(&engine);
    let letters = shop
        .run(engine.delivery().dead_letters(DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() }))
        .unwrap();
    let attempts: Vec<_> = letters
        .iter()
        .map(|letter| (letter.customer.as_ref().unwrap().as_str()[..3].to_owned(), letter.attempts))
        .collect();
    assert_eq!(attempts, vec![("bad".to_owned(), 3); rounds(3)]);
    // A second ending, asked for by a person, finds it done.
    let bad = bought.iter().find(|unit| unit.customer.starts_with("bad")).unwrap().clone();
    let refused = shop.run(engine.cancel(bad.order, "me too".into()));
    assert_eq!(refused, Err(CallError::Refused(Rejection::OrderFailed)));
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, rounds(3));
}

#[test]
fn an_order_that_the_ledger_cannot_take_at_all_is_written_down_and_holds_nothing_up() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(10, |_| ());
    // Neither as an order nor as one that was refused.
    shop.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'check_violation'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW
         WHEN (NEW.customer = 'bad') EXECUTE FUNCTION refuse();
         CREATE TRIGGER refuse BEFORE INSERT ON refused FOR EACH ROW
         WHEN (NEW.customer = 'bad') EXECUTE FUNCTION refuse()",
    );
    // By itself, so that it is all that is carried.
    shop.run(insist(&engine, "bad", 1)).unwrap();
    let begun = Instant::now();
    while shop.count("SELECT count(*) FROM unreadable WHERE error LIKE '%not this one%'") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "it is not written down");
        std::thread::sleep(Duration::from_millis(20));
    }
    let good = shop.run(insist(&engine, "good", 1)).unwrap();
    let begun = Instant::now();
    while shop.count("SELECT count(*) FROM orders WHERE customer = 'good'") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{good:?} is held up");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(shop.count("SELECT count(*) FROM unreadable"), 1);
}

#[test]
fn units_come_back_once_even_if_the_node_dies_between_the_ledger_and_redis() {
    let shop = Shop::start();
    let stock = 20;
    let mut engine = shop.open_with_shoes(stock, |_| ());
    let mut bought: Vec<Bought> = Vec::new();
    for round in 0..rounds(3) {
        let unit = shop.run(insist(&engine, &format!("leaver-{round}"), 4)).unwrap();
        shop.reconcile(&engine);
        // The ledger hears of it, and Redis cannot.
        shop.redis_edge.set(Mode::Refuse).unwrap();
        shop.redis_edge.cut_all();
        shop.run(engine.cancel(unit.order, "leaves".into())).unwrap();
        engine.close_blocking(Duration::ZERO);
        assert_eq!(shop.count("SELECT count(*) FROM credits WHERE NOT applied"), 1);
        shop.redis_edge.set(Mode::Pass).unwrap();
        engine = shop.open(|_| ());
        shop.reconcile(&engine);
        // Redis has them, and the ledger did not hear of it.
        shop.sql("UPDATE credits SET applied = false");
        let begun = Instant::now();
        while shop.count("SELECT count(*) FROM credits WHERE NOT applied") > 0 {
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        shop.reconcile(&engine);
        bought.push(unit);
    }
    assert_eq!(shop.count("SELECT epoch FROM products"), 1, "the same Redis all the time");
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, rounds(3));
}

#[test]
fn units_of_a_restock_come_once_even_if_the_ledger_does_not_hear_of_it() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(20, |_| ());
    shop.run(adjust(&engine, common::restock(SHOE, 7, "delivered"))).unwrap();
    let begun = Instant::now();
    for _ in 0..2 {
        while shop.count("SELECT count(*) FROM credits WHERE NOT applied") > 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "the units did not come");
        }
        shop.reconcile(&engine);
        shop.sql("UPDATE credits SET applied = false");
    }
    shop.close_the_books(&engine, 27, &mut Vec::new());
}

#[test]
fn who_was_told_of_new_units_is_not_told_that_all_are_sold() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(0, |_| ());
    let is_over = Arc::new(AtomicBool::new(false));
    // Want more than there ever is, and learn again and again that there is not enough.
    let greedy: Vec<_> = (0..32)
        .map(|buyer| {
            let (engine, is_over) = (engine.clone(), Arc::clone(&is_over));
            shop.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let asked = engine.purchase(request(&format!("greedy-{buyer}"), 2, "two")).await;
                    assert!(matches!(asked, Err(CallError::Refused(Rejection::SoldOut { .. }))), "{asked:?}");
                }
            })
        })
        .collect();
    let stock = 150 * rounds(1) as u64;
    for number in 0..stock {
        let restock = common::restock(SHOE, 1, &format!("one-more-{number}"));
        shop.run(engine.adjust_stock(restock)).unwrap();
        // Without a key: a "no" to such a request needs no trip to Redis.
        let customer = format!("quick-{number}");
        let purchased = shop.run(engine.purchase(common::buy(&customer, SHOE, 1, None)));
        assert!(purchased.is_ok(), "the unit of restock {number}: {purchased:?}");
    }
    is_over.store(true, Ordering::Relaxed);
    greedy.into_iter().for_each(|buyer| shop.run(buyer).unwrap());
    shop.close_the_books_of_strangers(&engine, stock);
}

#[test]
fn who_asks_for_a_restock_again_finds_its_units_on_sale() {
    let shop = Shop::start();
    let url = shop.redis.url();
    let first = shop.open_with_shoes(0, |options| options.redis = url);
    let second = shop.open(|_| ());
    let stock = 10 * rounds(1) as u64;
    for number in 0..stock {
        let restock = common::restock(SHOE, 1, &format!("one-more-{number}"));
        // The ledger hears of it, and Redis does not hear it from this node.
        shop.redis_edge.set(Mode::Refuse).unwrap();
        shop.redis_edge.cut_all();
        shop.run(second.adjust_stock(restock.clone())).unwrap();
        assert_eq!(shop.run(first.adjust_stock(restock)).unwrap().replayed, Replayed::Yes);
        let purchased = shop.run(first.purchase(common::buy(&format!("quick-{number}"), SHOE, 1, None)));
        assert!(purchased.is_ok(), "the unit of restock {number}: {purchased:?}");
    }
    shop.redis_edge.set(Mode::Pass).unwrap();
    shop.close_the_books_of_strangers(&first, stock);
}

#[test]
fn an_adjustment_that_is_asked_for_again_is_made_once() {
    let shop = Shop::start();
    let mut stock = 100_u64;
    let first = shop.open_with_shoes(stock, |_| ());
    let second = shop.open(|_| ());
    for round in 0..rounds(4) {
        for delta in [7_i64, -5] {
            let nodes = [&first, &second];
            let asked = (0..8).map(|caller| {
                adjust(nodes[caller % 2], common::restock(SHOE, delta, &format!("{round}/{delta}")))
            });
            let answers: Vec<_> = shop.run(join_all(asked)).into_iter().map(Option::unwrap).collect();
            assert!(answers.contains(&Replayed::No));
            stock = stock.checked_add_signed(delta).unwrap();
        }
    }
    let too_many = shop.run(adjust(&first, common::restock(SHOE, -1_000, "too-many")));
    assert_eq!(too_many, None);
    shop.close_the_books(&first, stock, &mut Vec::new());
}

#[test]
fn a_withdrawal_while_redis_is_filled_anew_takes_its_units_once() {
    let shop = Shop::start();
    let mut stock = 20_000_u64;
    let first = shop.open_with_shoes(stock, |_| ());
    let second = shop.open(|_| ());
    let crowd = shop.crowd(&[&first, &second], 4);
    for round in 0..rounds(4) {
        crowd.wait_for(10);
        shop.redis(&["FLUSHALL"]);
        std::thread::sleep(Duration::from_millis(60 * (round as u64 % 8)));
        let (key, asked) =
            (format!("withdraw-{round}"), common::restock(SHOE, -10, &format!("withdraw-{round}")));
        let answers = shop.run(join_all([adjust(&first, asked.clone()), adjust(&second, asked)]));
        assert!(answers.iter().all(Option::is_some), "{key}: {answers:?}");
        stock -= 10;
    }
    let mut bought = shop.disperse(crowd);
    shop.reconcile(&second);
    shop.close_the_books(&first, stock, &mut bought);
}

#[test]
fn units_of_a_withdrawal_that_somebody_else_gave_up_go_back() {
    let shop = Shop::start();
    let stock = 100_u64;
    let engine = shop.open_with_shoes(stock, |_| ());
    let sale = shop.key("sale");
    let available = || shop.redis(&["HGET", &sale, "available"]).text();
    for round in 0..rounds(2) {
        // Somebody asked for it, and died.
        let mut session = shop.postgres.session("shop").unwrap();
        session.query("BEGIN; SELECT FROM products FOR UPDATE").unwrap();
        shop.sql(&format!(
            "INSERT INTO adjustments (product, key, delta, reason, done, made_at)
             VALUES (1, 'given-up-{round}', -5, 'count', false, 0)"
        ));
        let begun = Instant::now();
        while available().as_deref() != Some("95") {
            assert!(begun.elapsed() < Duration::from_secs(4), "Redis gave no units");
        }
        // Redis gave the units, and before the ledger writes that down somebody finds too few and forgets it.
        session.query("DELETE FROM adjustments WHERE NOT done; COMMIT").unwrap();
        let begun = Instant::now();
        while available().as_deref() != Some("100") {
            assert!(begun.elapsed() < Duration::from_secs(10), "the units did not come back");
        }
        shop.reconcile(&engine);
    }
    shop.close_the_books(&engine, stock, &mut Vec::new());
}
