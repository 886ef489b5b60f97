//! PostgreSQL is restored to an earlier state while Redis goes on, or while nobody works: what Redis knows and the ledger
//! does not any more is brought back, as far as there are units.

use std::thread::sleep;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use yoink_core::{Money, ProductChange, Rejection};
use yoink_engine::{CallError, Engine, OrderStatus, Replayed};

use crate::common;
use crate::shop::{Bought, SHOE, Shop, insist, request, rounds};

const STOCK: u64 = 20_000;
/// From the return of the ledger until Redis sells from a new epoch. A person waits for 2 s; a machine that builds
/// something else may need more.
const MENDED_WITHIN: Duration = Duration::from_secs(30);

/// Waits until Redis sells from an epoch after this one.
fn wait_until_mended(shop: &Shop, epoch: i64) {
    let begun = Instant::now();
    let is_mended = format!("SELECT count(*) FROM products WHERE epoch > {epoch} AND state = 'open'");
    while shop.count(&is_mended) == 0 {
        assert!(
            begun.elapsed() < MENDED_WITHIN,
            "nobody notices that the ledger went back: it has {:?}, and Redis {:?}",
            shop.sql("SELECT p.epoch, p.state, p.loader_until, now(), a.units, a.sold FROM products p, allocations a"),
            shop.redis(&["HGETALL", &shop.key("sale")])
        );
        sleep(Duration::from_millis(10));
    }
}

/// Waits until the ledger has so many orders more.
fn wait_for_orders(shop: &Shop, more: i64) {
    let orders = || shop.count("SELECT count(*) FROM orders");
    let (from, begun) = (orders(), Instant::now());
    while orders() < from + more {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing is delivered");
        sleep(Duration::from_millis(5));
    }
}

/// Orders that were brought back.
fn rescued(shop: &Shop) -> i64 {
    shop.count("SELECT count(*) FROM orders WHERE number >= 4503599627370496")
}

fn buy_all(shop: &Shop, engine: &Engine, names: &[String]) -> Vec<Bought> {
    shop.run(join_all(names.iter().map(|name| insist(engine, name, 1)))).into_iter().flatten().collect()
}

fn names(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{what}-{number}")).collect()
}

#[test]
fn what_was_sold_since_a_backup_is_brought_back_while_it_sells() {
    let shop = Shop::start();
    let first = shop.open_with_shoes(STOCK, |_| ());
    let second = shop.open(|_| ());
    let crowd = shop.crowd(&[&first, &second], 8);
    for round in 0..rounds(2) {
        crowd.wait_for(60);
        let early = format!("early_{round}");
        shop.copy_ledger(&early);
        wait_for_orders(&shop, 100);
        // So that some are still on their way. The copy does not know that delivery is paused.
        shop.run(first.delivery().pause()).unwrap();
        crowd.wait_for(40);
        let (epoch, before) = (shop.count("SELECT epoch FROM products"), rescued(&shop));
        shop.restore_ledger(&early);
        wait_until_mended(&shop, epoch);
        assert!(rescued(&shop) > before, "nothing was brought back");
    }
    crowd.wait_for(40);
    let mut bought = shop.disperse(crowd);
    shop.reconcile(&second);
    let kept = shop.close_the_books(&first, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "there is a unit for each of them");
}

#[test]
fn what_was_sold_in_epochs_that_a_backup_does_not_know_is_brought_back() {
    let shop = Shop::start();
    let first = shop.open_with_shoes(STOCK, |_| ());
    let second = shop.open(|_| ());
    let crowd = shop.crowd(&[&first, &second], 8);
    let mut bought = Vec::new();
    crowd.wait_for(60);
    shop.copy_ledger("early");
    for _ in 0..rounds(2) {
        crowd.wait_for(40);
        shop.redis(&["FLUSHALL"]);
        shop.wait_until_selling(&first, &mut bought);
    }
    crowd.wait_for(60);
    let epoch = shop.count("SELECT epoch FROM products");
    assert!(epoch > 2, "{epoch}");
    shop.restore_ledger("early");
    wait_until_mended(&shop, epoch);
    crowd.wait_for(40);
    bought.extend(shop.disperse(crowd));
    shop.reconcile(&second);
    assert!(rescued(&shop) > 0, "nothing was brought back");
    let kept = shop.close_the_books(&first, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "there is a unit for each of them");
}

#[test]
fn what_ended_since_a_backup_ends_again_and_who_got_its_units_keeps_them() {
    let shop = Shop::start();
    let stock = 20;
    let engine = shop.open_with_shoes(stock, |_| ());
    let mut bought = buy_all(&shop, &engine, &names("early", 10));
    shop.reconcile(&engine);
    shop.copy_ledger("early");
    bought.extend(buy_all(&shop, &engine, &names("later", 4)));
    let cancelled: Vec<Bought> = [&bought[0], &bought[1], &bought[10], &bought[11]].map(Bought::clone).into();
    for unit in &cancelled {
        shop.run(engine.cancel(unit.order, "changed my mind".into())).unwrap();
    }
    shop.reconcile(&engine);
    // Everything is sold, also what came back.
    let rest = buy_all(&shop, &engine, &names("rest", 20));
    assert_eq!(rest.len(), 10);
    bought.extend(rest);
    shop.reconcile(&engine);
    shop.restore_ledger("early");
    wait_until_mended(&shop, 1);
    shop.reconcile(&engine);
    for unit in &cancelled {
        let order = shop.run(engine.order(unit.order)).unwrap().expect("it is known");
        assert_eq!(order.status, OrderStatus::Cancelled, "{unit:?}");
        let again = shop.run(engine.purchase(request(&unit.customer, 1, &unit.key))).unwrap();
        assert_eq!((again.order, again.replayed), (unit.order, Replayed::Yes), "{unit:?}");
    }
    let kept = shop.close_the_books(&engine, stock, &mut bought);
    assert_eq!((kept.confirmed, kept.ended), (20, 4));
}

#[test]
fn what_a_restored_ledger_has_no_unit_for_is_revoked_visibly() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(10, |_| ());
    shop.copy_ledger("early");
    shop.run(engine.adjust_stock(common::restock(SHOE, 5, "delivered"))).unwrap();
    let mut bought = buy_all(&shop, &engine, &names("buyer", 15));
    assert_eq!(bought.len(), 15);
    shop.reconcile(&engine);
    shop.restore_ledger("early");
    wait_until_mended(&shop, 1);
    let revoked = "SELECT count(*) FROM orders WHERE status = 'failed' AND reason LIKE 'revoked:%'";
    assert_eq!(shop.count(revoked), 5, "the ledger does not know of the restock");
    let kept = shop.close_the_books(&engine, 10, &mut bought);
    assert_eq!((kept.confirmed, kept.ended), (10, 5));
    assert_eq!(engine.redis_status().unwrap().rescued, 10);
}

#[test]
fn who_restocks_a_restored_ledger_before_workers_start_revokes_nobody() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(10, |_| ());
    shop.copy_ledger("early");
    shop.run(engine.adjust_stock(common::restock(SHOE, 5, "delivered"))).unwrap();
    let mut bought = buy_all(&shop, &engine, &names("buyer", 15));
    shop.reconcile(&engine);
    engine.close_blocking(Duration::ZERO);
    shop.restore_ledger("early");
    let seller = shop.open(|options| options.workers = 0);
    shop.run(seller.adjust_stock(common::restock(SHOE, 5, "delivered"))).unwrap();
    let engine = shop.open(|_| ());
    wait_until_mended(&shop, 1);
    let kept = shop.close_the_books(&engine, 15, &mut bought);
    assert_eq!((kept.confirmed, kept.ended), (15, 0));
}

#[test]
fn a_change_that_a_restored_ledger_does_not_know_is_forgotten_by_redis_too() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(10, |_| ());
    let early = shop.run(engine.purchase(request("early", 1, "early"))).unwrap();
    shop.reconcile(&engine);
    shop.copy_ledger("early");
    let dear = Money { amount: 2 * early.unit_price.amount, ..early.unit_price };
    let change = ProductChange { price: Some(dear), ..ProductChange::default() };
    shop.run(engine.change_product(common::id(SHOE), change)).unwrap();
    assert_eq!(shop.run(engine.purchase(request("later", 1, "later"))).unwrap().unit_price, dear);
    shop.reconcile(&engine);
    shop.restore_ledger("early");
    wait_until_mended(&shop, 1);
    shop.reconcile(&engine);
    let price = |customer| shop.run(engine.purchase(request(customer, 1, customer))).unwrap().unit_price;
    assert_eq!(price("newest"), early.unit_price);
    assert_eq!(price("later"), dear, "an order keeps its price");
}

#[test]
fn a_product_that_a_restored_ledger_does_not_know_finds_its_orders_if_it_is_made_again() {
    for (again, kept) in [("boot", 3), ("hat", 0)] {
        let shop = Shop::start();
        let engine = shop.open_with_shoes(1, |_| ());
        shop.copy_ledger("early");
        shop.run(engine.create_product(common::product("boot", 10))).unwrap();
        let buy = |product: &str, customer: &str| {
            shop.run(engine.purchase(common::buy(customer, product, 1, Some(customer))))
        };
        let orders: Vec<_> =
            ["ann", "bob", "cid"].map(|customer| buy("boot", customer).unwrap().order).into();
        shop.reconcile(&engine);
        shop.restore_ledger("early");
        let begun = Instant::now();
        while shop.run(engine.product(&common::id("boot"))).is_some() {
            assert!(begun.elapsed() < MENDED_WITHIN, "it is sold on");
            sleep(Duration::from_millis(10));
        }
        let refused = buy("boot", "dan");
        assert!(matches!(refused, Err(CallError::Refused(Rejection::ProductNotFound))), "{refused:?}");
        shop.run(engine.create_product(common::product(again, 5))).unwrap();
        wait_until_mended(&shop, 1);
        shop.reconcile(&engine);
        let found = orders.iter().filter(|order| shop.run(engine.order(**order)).unwrap().is_some());
        assert_eq!(found.count(), kept, "{again}");
        let sold = (0..6).filter(|number| buy(again, &format!("late-{number}")).is_ok());
        assert_eq!(sold.count(), 5 - kept, "{again}: the stock that it was made with");
        shop.reconcile(&engine);
    }
}

/// Where a loader dies: who holds what it needs next, and what it waits in. The next one begins while that may still be
/// done.
const STEPS: [(&str, &str, &str); 4] = [
    ("before the seal", "SELECT FROM allocations FOR UPDATE", "%seal($1%"),
    ("before the first order", "LOCK TABLE refused IN ACCESS EXCLUSIVE MODE", "%has_ended%"),
    ("in the midst of it", "SELECT pg_advisory_xact_lock(7)", "%rescue($1%"),
    (
        "behind the last order",
        "LOCK TABLE adjustments IN ACCESS EXCLUSIVE MODE",
        "%-delta AS units FROM adjustments%",
    ),
];

#[test]
fn a_loader_may_die_at_every_step_of_bringing_orders_back() {
    for (step, held, waiting) in STEPS {
        let shop = Shop::start();
        let stock = 300;
        let engine = shop.open_with_shoes(stock, |_| ());
        let mut bought = buy_all(&shop, &engine, &names("early", 10));
        shop.reconcile(&engine);
        shop.copy_ledger("early");
        // More than are written at once; the last one is in the second part.
        bought.extend(buy_all(&shop, &engine, &names("later", 150)));
        bought.extend(buy_all(&shop, &engine, &names("last", 1)));
        shop.reconcile(&engine);
        engine.close_blocking(Duration::ZERO);
        shop.restore_ledger("early");
        shop.sql(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$;
             CREATE TRIGGER hold BEFORE INSERT ON orders FOR EACH ROW
             WHEN (NEW.customer = 'last-0') EXECUTE FUNCTION hold()",
        );
        let mut session = shop.postgres.session("shop").unwrap();
        session.query(&format!("BEGIN; {held}")).unwrap();
        let dying = shop.open(|_| ());
        let is_there = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{waiting}'"
        );
        let begun = Instant::now();
        while shop.count(&is_there) == 0 {
            assert!(begun.elapsed() < MENDED_WITHIN, "no loader waits {step}");
            sleep(Duration::from_millis(5));
        }
        dying.close_blocking(Duration::ZERO);
        session.query("ROLLBACK").unwrap();
        let engine = shop.open(|_| ());
        wait_until_mended(&shop, 1);
        let kept = shop.close_the_books(&engine, stock, &mut bought);
        assert_eq!(kept.ended, 0, "{step}: there is a unit for each of them");
        assert_eq!(rescued(&shop), 151, "{step}");
    }
}
