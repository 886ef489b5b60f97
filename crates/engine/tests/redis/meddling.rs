//! Somebody else writes, deletes and configures in Redis while it sells.

use std::thread::sleep;
use std::time::{Duration, Instant};

use yoink_engine::CallError;

use crate::shop::{Bought, Shop, insist, request, rounds};

const STOCK: u64 = 20_000;

#[test]
fn scripts_may_be_flushed_and_groups_destroyed_while_it_sells() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |options| options.claim_after = Duration::from_millis(100));
    let crowd = shop.crowd(&[&engine], 8);
    let grants = shop.key("grants");
    for round in 0..rounds(10) {
        crowd.wait_for(20);
        shop.redis(&["SCRIPT", "FLUSH"]);
        // Refused where the group is gone and not made anew yet.
        let meddle = |parts: &[&str]| shop.redis.command(parts).ok();
        match round % 3 {
            0 => drop(meddle(&["XGROUP", "DESTROY", &grants, "workers"])),
            // The group forgets what it has not handed out yet, or what somebody has in hand.
            1 => drop(meddle(&["XGROUP", "SETID", &grants, "workers", "$"])),
            _ => {
                let consumers = meddle(&["XINFO", "CONSUMERS", &grants, "workers"]);
                for consumer in consumers.iter().flat_map(|consumers| consumers.items()) {
                    let name = consumer.items()[1].text().unwrap();
                    meddle(&["XGROUP", "DELCONSUMER", &grants, "workers", &name]);
                }
            }
        }
    }
    crowd.wait_for(20);
    let mut bought = shop.disperse(crowd);
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0);
    assert_eq!(shop.count("SELECT epoch FROM products"), 1, "nothing of this is a reason to fill Redis anew");
}

#[test]
fn garbage_in_the_stream_is_written_down_and_holds_nothing_up() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |_| ());
    let crowd = shop.crowd(&[&engine], 8);
    let grants = shop.key("grants");
    let garbage: [&[&[u8]]; 6] = [
        &[b"\xff\x00", b"a name that is no text"],
        &[b"no", b"such field"],
        &[b"v1", b"not a line of a grant"],
        &[b"v1", b"\xff\xfe|\x00|binary"],
        &[b"v1", b"00000001aaaa8aaa8aaaaaaaaaaaaaaa|1|0|1|100|EUR|ann\n||||||\n\n"],
        &[b"v1", b"", b"v2", b"of a later version"],
    ];
    let mut written = 0;
    for _ in 0..rounds(4) {
        crowd.wait_for(10);
        for fields in garbage {
            let mut command: Vec<&[u8]> = vec![b"XADD", grants.as_bytes(), b"*"];
            command.extend(fields);
            shop.redis.command(&command).unwrap();
            written += 1;
        }
    }
    crowd.wait_for(20);
    let mut bought = shop.disperse(crowd);
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0);
    // One entry has two bad lines and an empty one; one has no line at all, and nothing to write down.
    assert!(
        shop.count("SELECT count(*) FROM unreadable") >= written,
        "{:?}",
        shop.sql("SELECT * FROM unreadable")
    );
}

#[test]
fn entries_that_somebody_trims_away_are_delivered_all_the_same() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |_| ());
    let mut bought = Vec::new();
    for keep in [0, 5].repeat(rounds(2)) {
        shop.run(engine.delivery().pause()).unwrap();
        let crowd = shop.crowd(&[&engine], 4);
        crowd.wait_for(30);
        bought.extend(shop.disperse(crowd));
        let grants = shop.key("grants");
        shop.redis(&["XTRIM", &grants, "MAXLEN", &keep.to_string()]);
        shop.run(engine.delivery().resume()).unwrap();
        shop.reconcile(&engine);
    }
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "the node had what was trimmed away");
}

#[test]
fn a_key_of_another_type_is_replaced_by_what_the_ledger_and_the_node_know() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |_| ());
    let mut bought = Vec::new();
    for name in ["sale", "buyers", "grants"].repeat(rounds(1)) {
        let crowd = shop.crowd(&[&engine], 4);
        crowd.wait_for(20);
        let epoch = shop.count("SELECT epoch FROM products");
        shop.redis(&["SET", &shop.key(name), "x"]);
        let took = shop.wait_until_selling(&engine, &mut bought);
        assert!(took < Duration::from_secs(6), "{name}: selling again after {took:?}");
        crowd.wait_for(20);
        bought.extend(shop.disperse(crowd));
        assert!(shop.count("SELECT epoch FROM products") > epoch, "{name}: it was not filled anew");
    }
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "the node had what was overwritten");
}

#[test]
fn nothing_is_sold_while_redis_may_forget_it() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |options| options.settings_every = Duration::from_secs(1));
    let mut bought: Vec<Bought> = Vec::new();
    bought.extend(shop.run(insist(&engine, "early", 1)));
    for (name, bad, good) in
        [("appendfsync", "everysec", "always"), ("maxmemory-policy", "allkeys-lru", "noeviction")]
            .repeat(rounds(1))
    {
        shop.redis(&["CONFIG", "SET", name, bad]);
        let begun = Instant::now();
        let refused = loop {
            let customer = format!("{name}-{}", bought.len());
            match shop.run(engine.purchase(request(&customer, 1, &format!("key-{customer}")))) {
                Ok(purchased) => bought.push(Bought {
                    key: format!("key-{customer}"),
                    customer,
                    quantity: 1,
                    order: purchased.order,
                }),
                Err(refused) => break refused,
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "it still sells with {name} {bad}");
            sleep(Duration::from_millis(20));
        };
        assert_eq!(refused, CallError::UnsafeSettings);
        shop.redis(&["CONFIG", "SET", name, good]);
        let took = shop.wait_until_selling(&engine, &mut bought);
        assert!(took < Duration::from_secs(5), "selling again after {took:?}");
    }
    shop.close_the_books(&engine, STOCK, &mut bought);
}

#[test]
fn which_redis_answers_is_asked_every_second_and_its_settings_are_not() {
    let shop = Shop::start();
    let _engine = shop.open(|_| ());
    let begun = Instant::now();
    let mut own = 0;
    let mut calls = |command: &str| -> u64 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{command} is not asked");
        sleep(Duration::from_millis(20));
        own += 1;
        let statistics = shop.redis(&["INFO", "commandstats"]).text().unwrap();
        let line =
            statistics.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        let count = line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0);
        if command == "info" { count - (own - 1) } else { count }
    };
    // At the start, and once more for a server that could not be reached then.
    while calls("config|get") < 8 {}
    let then = calls("info");
    while calls("info") < then + 4 {}
    assert_eq!(calls("config|get"), 8);
}

#[test]
fn a_full_redis_sells_nothing_and_takes_units_back() {
    let shop = Shop::start();
    let stock = 100;
    let engine = shop.open_with_shoes(stock, |_| ());
    let mut bought: Vec<Bought> = Vec::new();
    for round in 0..rounds(2) {
        let unit = shop.run(insist(&engine, &format!("early-{round}"), 3)).unwrap();
        // So that an order waits in the stream when memory ends.
        shop.run(engine.delivery().pause()).unwrap();
        let waiting = shop.run(insist(&engine, &format!("waiting-{round}"), 1)).unwrap();
        shop.redis(&["CONFIG", "SET", "maxmemory", "1"]);
        let customer = format!("late-{round}");
        let refused = shop.run(engine.purchase(request(&customer, 1, &format!("key-{customer}"))));
        assert_eq!(refused, Err(CallError::Unreachable), "nothing happened, and it says so");
        shop.run(engine.delivery().resume()).unwrap();
        shop.run(engine.cancel(unit.order, "does not fit".into())).unwrap();
        // Delivered, and the units are back.
        shop.reconcile(&engine);
        shop.redis(&["CONFIG", "SET", "maxmemory", "0"]);
        bought.extend([unit, waiting]);
        assert!(shop.run(engine.order(bought[0].order)).unwrap().is_some());
        bought.extend(shop.run(insist(&engine, &customer, 1)));
    }
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, rounds(2));
}

#[test]
fn hand_edited_stock_sells_no_unit_that_there_is_not() {
    let shop = Shop::start();
    let stock = 300;
    let engine = shop.open_with_shoes(stock, |_| ());
    let sale = shop.key("sale");
    let edits: [(&[&str], i64); 4] =
        [(&["available"], 1_000), (&["available"], -1_000), (&["credited"], 1_000), (&["number"], 7)];
    let mut bought = Vec::new();
    for (fields, by) in edits.repeat(rounds(1)) {
        let crowd = shop.crowd(&[&engine], 4);
        crowd.wait_for(10);
        for field in fields {
            shop.redis(&["HINCRBY", &sale, field, &by.to_string()]);
        }
        bought.extend(shop.disperse(crowd));
        shop.reconcile(&engine);
    }
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, 0, "figures that do not add up are noticed before anything is sold by them");
}

#[test]
fn grants_that_are_counted_back_are_all_kept_and_redis_is_filled_anew() {
    let shop = Shop::start();
    let stock = 20_000;
    let first = shop.open_with_shoes(stock, |_| ());
    let second = shop.open(|_| ());
    let sale = shop.key("sale");
    let crowd = shop.crowd(&[&first, &second], 8);
    for _ in 0..rounds(3) {
        // So that the numbers that are given again are those of orders that wait.
        shop.run(first.delivery().pause()).unwrap();
        crowd.wait_for(40);
        let epoch = shop.count("SELECT epoch FROM products");
        shop.redis(&["HINCRBY", &sale, "number", "-25"]);
        crowd.wait_for(40);
        shop.run(first.delivery().resume()).unwrap();
        let begun = Instant::now();
        while shop.count("SELECT epoch FROM products") == epoch {
            assert!(begun.elapsed() < Duration::from_secs(10), "the epoch is not distrusted");
            sleep(Duration::from_millis(10));
        }
        crowd.wait_for(20);
    }
    let mut bought = shop.disperse(crowd);
    shop.reconcile(&second);
    let kept = shop.close_the_books(&first, stock, &mut bought);
    assert_eq!(kept.ended, 0, "there was a unit for each of them");
    assert_eq!(shop.count("SELECT count(*) FROM refused"), 0);
    assert!(shop.count("SELECT count(*) FROM orders WHERE collided") > 0, "no number was given twice");
}

#[test]
fn what_only_a_node_without_workers_knows_to_be_wrong_is_mended_by_others() {
    let shop = Shop::start();
    let stock = 20;
    let worker = shop.open_with_shoes(stock, |_| ());
    let seller = shop.open(|options| options.workers = 0);
    shop.run(worker.delivery().pause()).unwrap();
    let mut bought: Vec<Bought> = Vec::new();
    for number in 0..10 {
        bought.extend(shop.run(insist(&seller, &format!("early-{number}"), 1)));
    }
    // Nobody else knows that there were more.
    shop.redis(&["HINCRBY", &shop.key("sale"), "number", "-5"]);
    let begun = Instant::now();
    while shop.count("SELECT count(*) FROM products WHERE epoch > 1 AND state = 'open'") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "what it knows to be wrong is believed");
        sleep(Duration::from_millis(10));
    }
    shop.run(worker.delivery().resume()).unwrap();
    let kept = shop.close_the_books(&worker, stock, &mut bought);
    assert_eq!(kept.ended, 0);
}

#[test]
fn hand_edited_stock_shows_in_the_figures_until_it_is_mended() {
    let shop = Shop::start();
    let stock = 10;
    shop.open_with_shoes(stock, |_| ()).close_blocking(Duration::ZERO);
    // A node that sells and mends nothing.
    let watcher = shop.open(|options| options.workers = 0);
    let wait_for = |error: i64| {
        let begun = Instant::now();
        loop {
            let errors = watcher.figures().conservation_error_units;
            if errors.iter().map(|(_, error)| *error).eq([error]) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{errors:?}, not {error}");
            sleep(Duration::from_millis(20));
        }
    };
    wait_for(0);
    let sale = shop.key("sale");
    shop.redis(&["HINCRBY", &sale, "available", "7"]);
    wait_for(7);
    shop.redis(&["HINCRBY", &sale, "available", "-20"]);
    wait_for(-13);
    let mender = shop.open(|_| ());
    wait_for(0);
    shop.close_the_books(&mender, stock, &mut Vec::new());
}

#[test]
fn invented_units_are_refused_by_the_ledger_and_revoked_visibly() {
    let shop = Shop::start();
    let mut stock = 40;
    let engine = shop.open_with_shoes(stock, |_| ());
    let sale = shop.key("sale");
    let mut bought = Vec::new();
    for round in 0..rounds(2) {
        let crowd = shop.crowd(&[&engine], 8);
        crowd.wait_for(10);
        // At once, so that the figures add up at every instant.
        let edit = "redis.call('HINCRBY', KEYS[1], 'available', 1000) redis.call('HINCRBY', KEYS[1], 'credited', 1000)";
        shop.redis(&["EVAL", edit, "1", &sale]);
        // How many are sold until the ledger has the first of them is a matter of speed.
        let revoked =
            || shop.count("SELECT count(*) FROM orders WHERE status = 'failed' AND reason LIKE 'revoked%'");
        let (begun, before) = (Instant::now(), revoked());
        while revoked() == before {
            assert!(begun.elapsed() < Duration::from_secs(20), "the ledger has refused nothing");
            sleep(Duration::from_millis(5));
        }
        bought.extend(shop.disperse(crowd));
        let kept = shop.close_the_books(&engine, stock, &mut bought);
        assert!(kept.ended > 0, "more was promised than there is");
        let restock = crate::common::restock(crate::shop::SHOE, 40, &format!("restock-{round}"));
        shop.run(engine.adjust_stock(restock)).unwrap();
        stock += 40;
    }
    shop.close_the_books(&engine, stock, &mut bought);
}
