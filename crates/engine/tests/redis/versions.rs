//! Nodes and workers of two versions at once, as in a restart of one after the other: what a later version adds beside
//! what this one knows is left alone, and nothing of it is a reason to stop selling or to fill Redis anew.

use yoink_testkit::Reply;

use crate::shop::{Bought, Shop, insist};

/// Puts a field beside those of every entry that waits, as a later version would write them.
fn add_to_entries(shop: &Shop) -> usize {
    let grants = shop.key("grants");
    let entries = shop.redis(&["XRANGE", &grants, "-", "+"]);
    for entry in entries.items() {
        let text = |reply: &Reply| reply.text().unwrap();
        let (id, fields) = (text(&entry.items()[0]), entry.items()[1].items());
        assert_eq!(text(&fields[0]), "v1");
        shop.redis(&["XDEL", &grants, &id]);
        shop.redis(&["XADD", &grants, "*", "v2", "something else", "v1", &text(&fields[1])]);
    }
    entries.items().len()
}

#[test]
fn what_a_later_version_adds_to_a_sale_and_to_its_entries_is_left_alone() {
    let shop = Shop::start();
    let stock = 20;
    let engine = shop.open_with_shoes(stock, |_| ());
    for key in ["sale", "buyers"] {
        shop.redis(&["HSET", &shop.key(key), "later", "1|2|3"]);
    }
    shop.pause_delivery(&engine);
    let mut bought: Vec<Bought> =
        (0..5).map(|buyer| shop.run(insist(&engine, &format!("buyer-{buyer}"), 2)).unwrap()).collect();
    assert!(add_to_entries(&shop) > 0);
    shop.run(engine.delivery().resume()).unwrap();
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!(kept.ended, 0);
    let [unreadable, epoch] = ["SELECT count(*) FROM unreadable", "SELECT epoch FROM products"]
        .map(|statement| shop.count(statement));
    assert_eq!((unreadable, epoch), (0, 1));
    for key in ["sale", "buyers"] {
        assert_eq!(shop.redis(&["HGET", &shop.key(key), "later"]).text().as_deref(), Some("1|2|3"), "{key}");
    }
}
