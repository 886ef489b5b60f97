//! Messages that are no requests, among those that are; and requests that were handed out too often.

use std::time::{Duration, Instant};

use yoink_core::Rejection;
use yoink_engine::{Confirmed, DeadLetterRefusal, DeadLetterState, OrderInShort, OrderStatus, Replayed};

use crate::common;
use crate::shop::{Became, PATIENCE, SHOE, Shop, ask, processed, request, until};

#[test]
fn what_cannot_be_read_is_listed_and_the_others_are_decided() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    let mut asked = shop.crowd(&[&edge], "good", 5);
    let copies = shop.copy_messages();
    assert!(!copies.is_empty());
    let forged = String::from_utf8(copies[0].clone()).unwrap().replace("|1|", "|2|");
    assert_ne!(forged.as_bytes(), copies[0]);
    let foreign = format!("{}{}", "0".repeat(32), &forged[32..]);
    let mut poison: Vec<Vec<u8>> =
        [&b"\xff\xfe\x00"[..], b"", b"{\"product\":1}\n\x1b[2J"].map(<[u8]>::to_vec).into();
    poison.extend([forged.into_bytes(), foreign.into_bytes(), vec![b'x'; 1_000_000]]);
    // The same again is the same, and so is a copy of a request.
    let repeated = [poison.clone(), poison.clone(), copies].concat();
    shop.publish("requests", "orders", &repeated);
    asked.extend(shop.crowd(&[&edge], "later", 5));

    let worker = shop.open(|_| {});
    assert_eq!(shop.judge(&[&edge, &worker], &asked), Became { confirmed: 10, rejected: 0, ended: 0 });
    until("all of it is written down", || shop.dead_letters(&edge).len() == poison.len());
    assert_eq!(processed(&worker).unreadable, 2 * poison.len() as u64);
    until("they are counted", || edge.delivery().status().dead_letters_open == poison.len() as u64);
    let letters = shop.dead_letters(&edge);
    for letter in &letters {
        assert_eq!((letter.order, letter.product, letter.state), (None, None, DeadLetterState::Parked));
        assert!(letter.message.as_ref().unwrap().chars().count() <= 500 && !letter.error.is_empty());
    }
    let errors: Vec<&str> = letters.iter().map(|letter| letter.error.as_str()).collect();
    let long = "it is too long (1000000 bytes, of which the first 4096 are kept)";
    for error in ["it is not text", "it has no parts", "its signature is not of this ledger", long] {
        assert!(errors.contains(&error), "{error}: {errors:?}");
    }
    let id = letters[0].id;
    let retried = shop.run(edge.delivery().retry_dead_letter(id)).unwrap();
    assert_eq!(retried, Err(DeadLetterRefusal::Unreadable));
    let discarded = shop.run(edge.delivery().discard_dead_letter(id, "noise".into())).unwrap().unwrap();
    assert_eq!(discarded.state, DeadLetterState::Discarded);
    assert_eq!(shop.count("SELECT count(*) FROM orders"), 10);
}

#[test]
fn a_queue_of_dead_letters_that_is_gone_or_that_nothing_leads_to_is_made_anew_and_no_poison_is_lost() {
    let shop = Shop::start();
    let (worker, edge) = (shop.open(|_| {}), shop.open_edge());
    shop.stock(&edge, 100, None);
    let mut asked = shop.crowd(&[&edge], "before", 5);
    shop.judge(&[&edge, &worker], &asked);
    let connections = shop.rabbit_edge.counts().connections;
    shop.unbind("dead-letters", "dead");
    shop.publish("requests", "orders", &[b"led nowhere".to_vec()]);
    until("it is listed", || shop.dead_letters(&edge).len() == 1);
    let opened = shop.rabbit_edge.counts().connections - connections;
    assert_eq!(opened, 1, "to put it aside; nothing was handed out anew for it");

    let dead = shop.named("dead");
    shop.rabbit.delete_queue(&dead).unwrap();
    until("there is a new one", || shop.rabbit.queue_messages(&dead).is_ok());
    for letters in [2, 3] {
        shop.rabbit.delete_queue(&dead).unwrap();
        shop.publish("requests", "orders", &[format!("had no queue, {letters}").into_bytes()]);
        asked.extend(shop.crowd(&[&edge], &format!("beside-{letters}"), 5));
        until("it is listed", || shop.dead_letters(&edge).len() == letters);
    }
    assert_eq!(shop.judge(&[&edge, &worker], &asked), Became { confirmed: 15, rejected: 0, ended: 0 });
    assert!(processed(&worker).unreadable >= 3);
}

#[test]
fn a_request_for_what_the_ledger_does_not_have_has_failed_and_keeps_nobody_else_waiting() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    shop.run(edge.create_product(common::product("hat", 100))).unwrap();
    shop.wait_publishing(&edge);
    let buy = |number: usize| {
        let (edge, product) = (edge.clone(), ["shoe", "hat"][number % 2]);
        let wish = common::buy(&format!("buyer-{number}"), product, 1, Some("key"));
        async move { edge.purchase(wish).await }
    };
    let queued = shop.run(futures_util::future::join_all((0..20).map(buy)));
    let queued: Vec<_> = queued.into_iter().map(Result::unwrap).collect();
    assert!(shop.rabbit.queue_messages(&shop.queue()).unwrap().0 < 20, "some are of one message");
    // As if the ledger came from an older backup.
    shop.sql("SET session_replication_role = replica; DELETE FROM products WHERE id = 'hat'");

    let worker = shop.open(|_| {});
    until("the hats are listed", || shop.dead_letters(&edge).len() == 10);
    until("the shoes are sold", || confirmed(&shop) == 10);
    until("nothing is in the queue or in hand", || {
        shop.rabbit.queue_messages(&shop.queue()).unwrap() == (0, 0)
    });
    let letters = shop.dead_letters(&edge);
    for letter in &letters {
        assert!(letter.error.contains("there is no product number 2"), "{letter:?}");
    }
    // They count as seen: nobody queues them again for ever.
    until("the node knows", || edge.rabbit_status().unwrap().unseen == 0);
    // More if it took so long that some were.
    assert!(processed(&worker).unreadable >= 10);

    // A node that never knew the product tells the same as the one that queued it.
    let later = shop.open_edge();
    let reasons: Vec<String> =
        letters.iter().map(|letter| format!("dead letter {}: it can never be decided", letter.id)).collect();
    for hat in queued.iter().skip(1).step_by(2) {
        let Confirmed::Failed(failure) = shop.run(edge.wait_confirmed(hat, PATIENCE)) else {
            panic!("{hat:?} has not failed");
        };
        assert!(reasons.contains(&failure.reason.to_string()), "{failure:?}");
        for node in [&edge, &later] {
            assert_eq!(shop.run(node.order(hat.order)).unwrap(), None);
            let in_short = shop.run(node.order_in_short(hat.order)).unwrap();
            assert_eq!(in_short, Some(OrderInShort::Failed(failure.clone())));
            let cancelled = shop.run(node.cancel(hat.order, "enough".into()));
            assert_eq!(cancelled, Err(Rejection::OrderFailed.into()));
        }
    }
    assert_eq!(shop.run(buy(1)), Err(Rejection::ProductNotFound.into()), "there is no such product any more");
    assert_eq!(confirmed(&shop), 10);
}

#[test]
fn a_request_that_the_ledger_can_neither_take_nor_reject_has_failed() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 1, None);
    shop.sql("ALTER TABLE orders ADD CONSTRAINT no_robots CHECK (customer <> 'robot')");
    let mut asked = Vec::new();
    // One after the other, so that the shoe is ann's.
    for customer in ["ann", "robot"] {
        asked.extend(shop.run(ask(&edge, customer, "key")));
    }
    let copies = shop.copy_messages();
    let waiting = std::thread::spawn({
        let (edge, runtime) = (edge.clone(), common::runtime());
        move || {
            let robot = runtime.block_on(edge.purchase(request("robot", "key"))).unwrap();
            runtime.block_on(edge.wait_confirmed(&robot, PATIENCE))
        }
    });
    let worker = shop.open(|_| {});
    let Confirmed::Failed(failure) = waiting.join().unwrap() else { panic!("the robot waited in vain") };
    let letters = shop.dead_letters(&edge);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].error.contains("no_robots"), "{letters:?}");
    assert_eq!(*failure.reason, *format!("dead letter {}: it can never be decided", letters[0].id));
    let (ann, robot) = (asked.remove(0), asked.remove(0));

    // The cause is mended and there are shoes again; but who was told no stays without.
    shop.sql("ALTER TABLE orders DROP CONSTRAINT no_robots");
    shop.run(edge.adjust_stock(common::restock(SHOE, 5, "more"))).unwrap();
    shop.publish("requests", "orders", &copies);
    assert_eq!(shop.judge(&[&edge, &worker], &[ann]), Became { confirmed: 1, rejected: 0, ended: 0 });
    for node in [&edge, &worker] {
        let order = shop.run(node.order(robot.order)).unwrap().unwrap();
        assert_eq!((order.status, order.reason.as_ref()), (OrderStatus::Failed, Some(&failure.reason)));
        assert_eq!((order.ended_at, order.quantity), (Some(failure.at), 1));
        let again = shop.run(node.purchase(request("robot", "key"))).unwrap();
        assert_eq!((again.order, again.replayed), (robot.order, Replayed::Yes));
        assert_eq!(shop.run(node.wait_confirmed(&again, PATIENCE)), Confirmed::Failed(failure.clone()));
        let cancelled = shop.run(node.cancel(robot.order, "enough".into()));
        assert_eq!(cancelled, Err(Rejection::OrderFailed.into()));
    }
    assert_eq!(shop.dead_letters(&edge).len(), 1);
}

/// Orders that are confirmed.
fn confirmed(shop: &Shop) -> i64 {
    shop.count("SELECT count(*) FROM orders WHERE status = 'confirmed'")
}

#[test]
fn a_request_that_was_handed_out_too_often_is_decided_alone() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    let asked = shop.crowd(&[&edge], "unlucky", 3);
    let copies = shop.copy_messages();
    // As the broker puts them there.
    shop.publish("dead-letters", "dead", &copies);
    assert_eq!(shop.rabbit.purge(&shop.queue()).unwrap(), copies.len() as u64);
    // Nobody is left who could queue them again.
    edge.close_blocking(PATIENCE);
    let worker = shop.open(|_| {});
    assert_eq!(shop.judge(&[&worker], &asked).confirmed, 3);
    assert!(shop.dead_letters(&worker).is_empty());
}

#[test]
fn a_dead_letter_that_cannot_be_decided_holds_up_no_other() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    raise_for(&shop, Some("robot"));
    let mut asked: Vec<_> = shop.run(ask(&edge, "robot", "key")).into_iter().collect();
    asked.extend(shop.crowd(&[&edge], "behind", 5));
    let copies = shop.copy_messages();
    shop.publish("dead-letters", "dead", &copies);
    assert_eq!(shop.rabbit.purge(&shop.queue()).unwrap(), copies.len() as u64);
    // Nobody is left who could queue them again.
    edge.close_blocking(PATIENCE);
    let worker = shop.open(|_| {});
    until("the others are decided", || confirmed(&shop) == 5);
    let later = shop.open_edge();
    asked.extend(shop.crowd(&[&later], "later", 5));
    until("nobody waits for the lock", || confirmed(&shop) == 10);
    until("it is in hand", || shop.rabbit.queue_messages(&shop.named("dead")).unwrap() == (0, 1));
    shop.sql("DROP TRIGGER raise ON orders");
    assert_eq!(shop.judge(&[&worker, &later], &asked), Became { confirmed: 11, rejected: 0, ended: 0 });
}

/// An error of somebody's own, of which the ledger cannot tell what it means, for orders of one customer, or of all.
fn raise_for(shop: &Shop, customer: Option<&str>) {
    let whose = customer.map_or(String::new(), |name| format!("WHEN (NEW.customer = '{name}')"));
    shop.sql(&format!(
        "CREATE SEQUENCE tries;
         CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM nextval('tries');
             RAISE EXCEPTION 'not today';
         END $$;
         CREATE TRIGGER raise BEFORE INSERT ON orders FOR EACH ROW {whose} EXECUTE FUNCTION raise()"
    ));
}

/// How often the error was raised.
fn tries(shop: &Shop) -> i64 {
    shop.count("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tries")
}

#[test]
fn an_error_that_nobody_can_classify_holds_up_nobody_else_and_fails_a_request_only_after_many_tries() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 1_000, None);
    raise_for(&shop, Some("robot"));
    shop.crowd(&[&edge], "before", 5);
    let robot = shop.run(edge.purchase(request("robot", "key"))).unwrap();
    shop.crowd(&[&edge], "behind", 5);

    let worker = shop.open(|_| {});
    until("the others are decided", || confirmed(&shop) == 10);
    until("it is tried, although nobody else buys", || tries(&shop) >= 15);
    assert!(shop.dead_letters(&edge).is_empty(), "nothing else was decided meanwhile");
    // The node that queued it takes it for lost after a while; the worker does not collect what comes again.
    until("it was queued again", || processed(&edge).requeued > 0);
    until("one of it is in hand", || shop.rabbit.queue_messages(&shop.queue()).unwrap() == (0, 1));
    let mut others = 0;
    until("it has failed", || {
        others += 1;
        let asked = shop.crowd(&[&edge], &format!("other-{others}"), 1);
        until("the next one has a shoe", || confirmed(&shop) == 10 + others);
        assert_eq!(asked.len(), 1);
        shop.dead_letters(&edge).len() == 1
    });
    assert!(others >= 15, "it failed after {others} others had a shoe");
    let letters = shop.dead_letters(&edge);
    assert!(letters[0].error.contains("not today"), "{letters:?}");
    for node in [&edge, &worker] {
        let Confirmed::Failed(failure) = shop.run(node.wait_confirmed(&robot, PATIENCE)) else {
            panic!("it has not failed");
        };
        assert_eq!(*failure.reason, *format!("dead letter {}: it can never be decided", letters[0].id));
        let order = shop.run(node.order(robot.order)).unwrap().unwrap();
        assert_eq!((order.status, order.ended_at), (OrderStatus::Failed, Some(failure.at)));
    }
    until("nothing is in the queue or in hand", || {
        shop.rabbit.queue_messages(&shop.queue()).unwrap() == (0, 0)
    });
    until("it counts as seen", || edge.rabbit_status().unwrap().unseen == 0);
    assert!(shop.reconcile(&edge).ok);
}

#[test]
fn what_two_nodes_queued_with_one_key_counts_as_seen_from_both() {
    let shop = Shop::start();
    let nodes = [(); 2].map(|()| shop.open_edge());
    shop.stock(&nodes[0], 100, None);
    raise_for(&shop, Some("robot"));
    // The ledger has no such order yet, so neither knows of the other's.
    let asked = nodes.each_ref().map(|node| shop.run(ask(node, "robot", "key")).unwrap());
    assert_eq!(asked[0].order, asked[1].order);
    // Nobody is left who could queue them again; both have told what was confirmed.
    nodes.iter().for_each(|node| node.close_blocking(PATIENCE));
    let unseen = "SELECT count(*) FROM publishers WHERE NOT isempty(confirmed - seen)";
    assert_eq!(shop.count(unseen), 2);
    let worker = shop.open(|_| {});
    shop.wait_in_hand();
    until("both were tried", || tries(&shop) >= 10);
    shop.sql("DROP TRIGGER raise ON orders");
    assert_eq!(shop.judge(&[&worker], &asked[..1]), Became { confirmed: 1, rejected: 0, ended: 0 });
    assert_eq!(shop.count(unseen), 0, "each counts as seen");
}

#[test]
fn an_error_that_nobody_can_classify_and_everybody_has_fails_nothing() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 10, None);
    raise_for(&shop, None);
    let asked = shop.crowd(&[&edge], "crowd", 12);
    let worker = shop.open(|_| {});
    until("each was tried more than often enough", || tries(&shop) >= 12 * 22);
    assert_eq!((shop.dead_letters(&edge).len(), shop.count("SELECT count(*) FROM orders")), (0, 0));
    shop.sql("DROP TRIGGER raise ON orders");
    assert_eq!(shop.judge(&[&edge, &worker], &asked), Became { confirmed: 10, rejected: 2, ended: 0 });
    assert!(shop.dead_letters(&edge).is_empty());
}

#[test]
fn a_request_that_cannot_even_be_kept_as_failed_stays_in_hand_and_holds_up_nobody_else() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    for table in ["orders", "refused"] {
        shop.sql(&format!("ALTER TABLE {table} ADD CONSTRAINT no_robots CHECK (customer <> 'robot')"));
    }
    let mut asked = shop.crowd(&[&edge], "before", 5);
    asked.extend(shop.run(ask(&edge, "robot", "key")));
    asked.extend(shop.crowd(&[&edge], "behind", 5));
    let worker = shop.open(|_| {});
    until("the others are decided", || confirmed(&shop) == 10);
    asked.extend(shop.crowd(&[&edge], "later", 5));
    until("later ones, too", || confirmed(&shop) == 15);
    assert_eq!(shop.rabbit.queue_messages(&shop.queue()).unwrap(), (0, 1), "the robot's is in hand");
    assert!(shop.dead_letters(&edge).is_empty());
    for table in ["orders", "refused"] {
        shop.sql(&format!("ALTER TABLE {table} DROP CONSTRAINT no_robots"));
    }
    assert_eq!(shop.judge(&[&edge, &worker], &asked), Became { confirmed: 16, rejected: 0, ended: 0 });
}

#[test]
fn a_dead_letter_that_the_ledger_does_not_take_holds_up_no_other() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    shop.wait_publishing(&edge);
    shop.sql("ALTER TABLE unreadable ADD CONSTRAINT no_noise CHECK (bytes <> 'noise')");
    shop.publish("dead-letters", "dead", &[b"noise".to_vec(), b"other".to_vec()]);
    let worker = shop.open(|_| {});
    until("the other one is listed", || shop.dead_letters(&edge).len() == 1);
    until("one is in hand", || shop.rabbit.queue_messages(&shop.named("dead")).unwrap() == (0, 1));
    shop.sql("ALTER TABLE unreadable DROP CONSTRAINT no_noise");
    // As a broker does that ends connections.
    assert!(shop.rabbit_edge.cut_all() > 0);
    until("both are listed", || shop.dead_letters(&edge).len() == 2);
    worker.close_blocking(PATIENCE);
}

#[test]
fn while_the_broker_takes_nothing_what_cannot_be_put_aside_holds_up_no_other() {
    let mut shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    shop.wait_publishing(&edge);
    shop.publish("requests", "orders", &[b"noise".to_vec()]);
    // One after the other, so that each has a message for itself.
    let asked: Vec<_> =
        (0..6).filter_map(|number| shop.run(ask(&edge, &format!("buyer-{number}"), "key"))).collect();
    shop.rabbit.set_memory_alarm(true).unwrap();
    let worker = shop.open(|options| options.prefetch = 2);
    until("the others are decided", || confirmed(&shop) == 6);
    until("all but one are acknowledged", || shop.rabbit.queue_messages(&shop.queue()).unwrap() == (0, 1));
    assert!(shop.dead_letters(&edge).is_empty());
    shop.rabbit.set_memory_alarm(false).unwrap();
    assert_eq!(shop.judge(&[&edge, &worker], &asked), Became { confirmed: 6, rejected: 0, ended: 0 });
    until("it is listed", || shop.dead_letters(&edge).len() == 1);
}

#[test]
fn a_worker_that_begins_anew_leads_dead_letters_to_their_queue_again() {
    let shop = Shop::start();
    let worker = shop.open(|_| {});
    shop.stock(&worker, 100, None);
    // Whoever publishes makes sure of everything until something is confirmed.
    let asked = shop.crowd(&[&worker], "buyer", 3);
    shop.judge(&[&worker], &asked);
    shop.unbind("dead-letters", "dead");
    let words = ["list_bindings", "--quiet", "--no-table-headers", "source_name", "destination_name"];
    let line = format!("{}\t{}", shop.named("dead-letters"), shop.named("dead"));
    let is_led = || shop.rabbit.ctl(&words).unwrap().lines().any(|found| found == line);
    assert!(!is_led());
    assert!(shop.rabbit_edge.cut_all() > 0);
    until("they are led there", is_led);
    worker.close_blocking(PATIENCE);
}

#[test]
fn workers_and_dead_letters_together_leave_connections_to_those_who_only_ask() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    shop.run(edge.create_product(common::product("hat", 100))).unwrap();
    shop.wait_publishing(&edge);
    let worker = shop.open(|options| options.postgres_connections_max = 4);
    until("it works", || worker.rabbit_status().unwrap().is_consuming);
    let mut session = shop.session();
    session.query("BEGIN").unwrap();
    session.query("LOCK TABLE unreadable IN EXCLUSIVE MODE").unwrap();
    session.query("SELECT FROM products FOR UPDATE").unwrap();
    let queued = ["shoe", "hat"]
        .map(|product| shop.run(edge.purchase(common::buy("ann", product, 1, Some("key")))).unwrap());
    let poison: Vec<Vec<u8>> = (0..5).map(|number| format!("noise {number}").into_bytes()).collect();
    shop.publish("dead-letters", "dead", &poison);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    until("as many wait as may", || shop.count(waiting) >= 2);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(shop.run(worker.order(queued[0].order)), Ok(None), "the ledger can be asked");
    }
    drop(session);
    until("both are decided", || confirmed(&shop) == 2);
    until("all are listed", || shop.dead_letters(&edge).len() == poison.len());
    worker.close_blocking(PATIENCE);
}
