//! How often a customer may be granted something, on whichever node he asks.

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use yoink_core::{NewProduct, ProductChange, Rejection, Timestamp};
use yoink_engine::{CallError, Engine, PurchaseRequest, Purchased, RateLimit, Replayed};

use crate::common;
use crate::core_generator;
use crate::shop::{SHOE, Shop, insist, request};

const SECOND: i64 = 1_000_000;
/// When the tests begin.
const BEGIN: i64 = 1_767_607_200 * SECOND;
const CUSTOMERS: usize = 4;
const ARRIVALS: usize = 400;

fn too_often(limit: RateLimit, wait_us: i64) -> CallError {
    let wait_ms = u64::try_from(wait_us).unwrap().div_ceil(1_000);
    CallError::TooOften { limit, wait: Duration::from_millis(wait_ms) }
}

/// A generic cell rate algorithm, as its definition has it: a leaky bucket that each grant fills by one interval, that
/// leaks all the time, and that holds as many intervals as may come at once.
struct Bucket {
    limit: RateLimit,
    interval_us: i64,
    /// By customer: how full it was, and when.
    levels: HashMap<String, (i64, i64)>,
}

impl Bucket {
    fn new(limit: RateLimit) -> Self {
        let interval_us = i64::from(limit.window_s) * SECOND / i64::from(limit.requests);
        Self { limit, interval_us, levels: HashMap::new() }
    }

    fn level(&self, customer: &str, now: i64) -> i64 {
        self.levels.get(customer).map_or(0, |(level, at)| (level - (now - at)).max(0))
    }

    /// How long until one more fits.
    fn wait_us(&self, customer: &str, now: i64) -> i64 {
        let room = self.interval_us * i64::from(self.limit.requests);
        (self.level(customer, now) + self.interval_us - room).max(0)
    }

    fn ask(&mut self, customer: &str, now: i64) -> Result<(), CallError> {
        match self.wait_us(customer, now) {
            0 => {
                let level = self.level(customer, now) + self.interval_us;
                self.levels.insert(customer.to_owned(), (level, now));
                Ok(())
            }
            wait_us => Err(too_often(self.limit, wait_us)),
        }
    }
}

fn open(shop: &Shop, limit: RateLimit) -> Engine {
    shop.open(|options| options.rate_limit = Some(limit))
}

fn ask(
    shop: &Shop,
    engine: &Engine,
    product: &str,
    customer: &str,
    key: &str,
) -> Result<Purchased, CallError> {
    shop.run(engine.purchase(common::buy(customer, product, 1, Some(key))))
}

/// One node with this limit, and arrivals on it and on its twin.
fn compare_with_bucket(shop: &Shop, random: &mut StdRng, limit: RateLimit, product: &str) {
    let nodes = [open(shop, limit), open(shop, limit)];
    shop.run(nodes[0].create_product(common::product(product, 10_000))).unwrap();
    let number = shop.count(&format!("SELECT number FROM products WHERE id = '{product}'"));
    let buyers = shop.key_of(number, "buyers");
    let mut bucket = Bucket::new(limit);
    let mut now = BEGIN;
    let mut granted: Vec<(PurchaseRequest, Purchased)> = Vec::new();
    let (mut refused, mut waited) = (0, 0);
    for arrival in 0..ARRIVALS {
        let customer = format!("c{}", random.random_range(0..CUSTOMERS));
        now += match random.random_range(0..10) {
            0..4 => 0,
            4..6 => random.random_range(0..bucket.interval_us.min(2_000)),
            6 => random.random_range(0..bucket.interval_us),
            7 => random.random_range(0..2 * bucket.interval_us * i64::from(limit.requests)),
            // The very moment at which one more is allowed, and the one before it.
            8 => bucket.wait_us(&customer, now),
            _ => (bucket.wait_us(&customer, now) - 1).max(0),
        };
        nodes.iter().for_each(|node| node.set_now(Timestamp(now)));
        let node = &nodes[random.random_range(0..nodes.len())];
        if let Some((asked, answer)) = granted.get(random.random_range(0..10 * ARRIVALS)) {
            let again = shop.run(node.purchase(asked.clone())).unwrap();
            assert_eq!((again.order, again.replayed), (answer.order, Replayed::Yes), "a replay is no grant");
        }
        let asked = common::buy(&customer, product, 1, Some(&format!("key-{arrival}")));
        // Units may come back meanwhile; the theoretical arrival time is a grant's alone.
        let arrival_time = || {
            let field = shop.redis(&["HGET", &buyers, &format!("c{customer}")]).text();
            field.map(|field| field.rsplit('|').next().unwrap().to_owned())
        };
        let before = arrival_time();
        let answer = shop.run(node.purchase(asked.clone()));
        let expected = bucket.ask(&customer, now);
        assert_eq!(
            answer.as_ref().map(|_| ()).map_err(Clone::clone),
            expected,
            "{limit:?}, arrival {arrival}"
        );
        match answer {
            Ok(answer) => {
                waited += usize::from(bucket.level(&customer, now) > bucket.interval_us);
                if random.random_range(0..8) == 0 {
                    // Its units come back; that it was granted stays so.
                    shop.run(nodes[0].cancel(answer.order, "no".into())).unwrap();
                }
                granted.push((asked, answer));
            }
            Err(_) => {
                refused += 1;
                assert!(before.is_some(), "{customer} is refused without ever having been granted anything");
                assert_eq!(arrival_time(), before, "a loser wrote");
            }
        }
    }
    assert!(refused > ARRIVALS / 20 && granted.len() > ARRIVALS / 20, "{refused} refused, {waited} in a row");
    nodes.iter().for_each(|node| node.close_blocking(Duration::ZERO));
}

#[test]
fn at_random_arrivals_the_script_says_what_a_leaky_bucket_says() {
    let seed = core_generator::seed();
    eprintln!("to repeat: YOINK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let shop = Shop::start();
    for place in 0..4 {
        let limit = RateLimit { requests: random.random_range(1..6), window_s: random.random_range(1..100) };
        compare_with_bucket(&shop, &mut random, limit, &format!("shoe-{place}"));
    }
}

#[test]
fn the_rate_limit_is_asked_behind_the_limit_and_before_the_stock_and_begins_anew_with_redis() {
    let shop = Shop::start();
    let limit = RateLimit { requests: 2, window_s: 3_600 };
    let engine = open(&shop, limit);
    let limited = NewProduct { limit_per_customer: Some(5), ..common::product(SHOE, 3) };
    shop.run(engine.create_product(limited)).unwrap();
    let ask = |customer: &str, key: &str| ask(&shop, &engine, SHOE, customer, key);
    ask("keen", "one").unwrap();
    ask("keen", "two").unwrap();
    assert!(matches!(ask("keen", "three"), Err(CallError::TooOften { .. })));
    let limit_to = |limit| {
        let change = ProductChange { limit_per_customer: Some(Some(limit)), ..ProductChange::default() };
        shop.run(engine.change_product(common::id(SHOE), change)).unwrap();
    };
    limit_to(2);
    assert!(matches!(ask("keen", "three"), Err(CallError::Refused(Rejection::LimitReached { .. }))));
    limit_to(5);
    assert!(ask("bob", "last").is_ok());
    assert!(matches!(ask("keen", "three"), Err(CallError::TooOften { .. })), "although nothing is left");
    assert!(matches!(ask("ann", "none"), Err(CallError::Refused(Rejection::SoldOut { .. }))));
    shop.run(engine.adjust_stock(common::restock(SHOE, 10, "more"))).unwrap();
    assert_eq!(ask("keen", "one").unwrap().replayed, Replayed::Yes);
    // A time that no grant can have put there counts for nothing.
    let buyers = shop.key("buyers");
    let field = shop.redis(&["HGET", &buyers, "ckeen"]).text().unwrap();
    let (units, _) = field.rsplit_once('|').unwrap();
    shop.redis(&["HSET", &buyers, "ckeen", &format!("{units}|99999999999999999999")]);
    ask("keen", "three").unwrap();
    ask("keen", "four").unwrap();
    assert!(matches!(ask("keen", "five"), Err(CallError::TooOften { .. })));
    shop.reconcile(&engine);
    shop.redis(&["FLUSHALL"]);
    assert!(shop.run(insist(&engine, "keen", 1)).is_some(), "Redis does not know any more");
    shop.reconcile(&engine);
}

#[test]
fn what_comes_back_after_a_loss_is_not_held_to_the_rate_limit() {
    let shop = Shop::start();
    let limit = RateLimit { requests: 1, window_s: 3_600 };
    let engine = open(&shop, limit);
    shop.run(engine.create_product(common::product(SHOE, 100))).unwrap();
    shop.run(engine.delivery().pause()).unwrap();
    let mut bought = Vec::new();
    // An hour between each two; they come back together.
    for (hours, key) in (0..).zip(["one", "two", "three"]) {
        engine.set_now(Timestamp(BEGIN + hours * 3_600 * SECOND));
        let order = shop.run(engine.purchase(request("keen", 1, key))).unwrap().order;
        bought.push(crate::shop::Bought { customer: "keen".into(), key: key.into(), quantity: 1, order });
    }
    shop.redis(&["FLUSHALL"]);
    shop.wait_until_selling(&engine, &mut bought);
    shop.run(engine.delivery().resume()).unwrap();
    shop.reconcile(&engine);
    let confirmed =
        shop.count("SELECT count(*) FROM orders WHERE customer = 'keen' AND status = 'confirmed'");
    assert_eq!(confirmed, 3);
}
