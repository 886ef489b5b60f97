//! Messages that are no requests, among those that are; and requests that were handed out too often.

use yoink_engine::{DeadLetterRefusal, DeadLetterState};

use crate::shop::{Became, Shop, processed, until};

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
    let dead = shop.named("dead");
    until("nothing is left there", || shop.rabbit.queue_messages(&dead).unwrap() == (0, 0));
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
fn a_request_for_what_the_ledger_does_not_have_is_listed_and_keeps_nobody_else_waiting() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    shop.run(edge.create_product(crate::common::product("hat", 100))).unwrap();
    shop.wait_publishing(&edge);
    let buy = |number: usize| {
        let (edge, product) = (edge.clone(), ["shoe", "hat"][number % 2]);
        async move { edge.purchase(crate::common::buy(&format!("buyer-{number}"), product, 1, None)).await }
    };
    let queued = shop.run(futures_util::future::join_all((0..20).map(buy)));
    assert!(queued.iter().all(Result::is_ok), "{queued:?}");
    assert!(shop.rabbit.queue_messages(&shop.queue()).unwrap().0 < 20, "some are of one message");
    // As if the ledger came from an older backup.
    shop.sql("SET session_replication_role = replica; DELETE FROM products WHERE id = 'hat'");

    let worker = shop.open(|_| {});
    until("the hats are listed", || shop.dead_letters(&edge).len() == 10);
    until("the shoes are sold", || shop.count("SELECT count(*) FROM orders") == 10);
    until("nothing is in the queue or in hand", || {
        shop.rabbit.queue_messages(&shop.queue()).unwrap() == (0, 0)
    });
    for letter in shop.dead_letters(&edge) {
        assert!(letter.error.contains("there is no product number 2"), "{letter:?}");
    }
    // They count as seen: nobody queues them again.
    until("the node knows", || edge.rabbit_status().unwrap().unseen == 0);
    assert_eq!((processed(&edge).requeued, processed(&worker).unreadable), (0, 10));
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
    let worker = shop.open(|_| {});
    assert_eq!(shop.judge(&[&edge, &worker], &asked).confirmed, 3);
    assert!(shop.dead_letters(&edge).is_empty());
    assert_eq!(processed(&edge).requeued, 0, "the ledger has seen them");
}
