//! Somebody edits single values of a sale: to what cannot be read, and to what can and is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use yoink_core::{NewProduct, OrderId, Rejection, Timestamp, Window};
use yoink_engine::{CallError, Engine, Purchased};

use crate::common;
use crate::shop::{Shop, insist, request};

/// What no field may hold; `None`: the field is not there.
const GARBAGE: [Option<&str>; 9] = [
    None,
    Some(""),
    Some("x"),
    Some("-1"),
    Some("1.5"),
    Some("nan"),
    Some("inf"),
    Some("1e300"),
    Some("99999999999999999999"),
];
/// What is said about a product.
const DESCRIPTION: [&str; 6] = ["limit", "max", "starts_at", "ends_at", "paused", "price"];
const FIGURES: [&str; 5] = ["available", "credited", "granted", "number", "done"];
pub const STOCK: u64 = 20;
const LIMIT: u32 = 3;
const MAX: u32 = 5;
/// How long mending a hundred products may take.
const MENDED_WITHIN: Duration = Duration::from_secs(60);

/// Whose purchase needs the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Newcomer,
    /// Who has an order already, and wants another.
    Customer,
    /// The same, with the key of that order.
    Again,
}

#[derive(Debug)]
struct Case {
    product: String,
    who: Who,
    /// Of the sale, or of its buyers if `who` has a record there.
    field: &'static str,
    value: Option<String>,
    is_readable: bool,
}

impl Case {
    fn key(&self, shop: &Shop, number: i64) -> String {
        shop.key_of(number, if self.who == Who::Newcomer { "sale" } else { "buyers" })
    }

    fn product(&self) -> NewProduct {
        let window =
            Window { starts_at: Some(Timestamp(1)), ends_at: Some(Timestamp(4_000_000_000_000_000)) };
        let product = common::product(&self.product, STOCK);
        NewProduct { window, limit_per_customer: Some(LIMIT), max_per_order: MAX, ..product }
    }
}

/// A product for each value.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |who, field: &'static str, value: Option<&str>, is_readable| {
        let product = format!("case-{}", cases.len());
        cases.push(Case { product, who, field, value: value.map(str::to_owned), is_readable });
    };
    for field in DESCRIPTION {
        for value in GARBAGE {
            let may_be_none = matches!(field, "limit" | "starts_at" | "ends_at");
            let is_time = matches!(field, "starts_at" | "ends_at");
            let is_readable = match value {
                Some("") => may_be_none,
                Some("-1") => is_time,
                _ => false,
            };
            add(Who::Newcomer, field, value, is_readable);
        }
    }
    for value in ["1|", "|EUR", "1|eur", "1|EURO", "-1|EUR", "1.5|EUR", "99999999999999999999|EUR"] {
        add(Who::Newcomer, "price", Some(value), false);
    }
    for field in FIGURES {
        for value in [None, Some(""), Some("x"), Some("-1"), Some("inf"), Some("1e300")] {
            add(Who::Newcomer, field, value, false);
        }
    }
    // Who is not there has nothing: that can be read.
    let of_customer =
        ["1", "x|", "-1|", "1|x", "1|0", "99999999999999999999|", "||", "1||x", "1||-1"].map(Some);
    for value in GARBAGE.into_iter().chain(of_customer).filter(Option::is_some) {
        add(Who::Customer, "c", value, false);
    }
    let of_order = [
        "G|",
        "G|1|1|1|1|EUR|",
        "G|1|1|1|1|EUR|somebody-else",
        "Z|1|1|1|1|EUR|early",
        "G|x|1|1|1|EUR|early",
        "X|1|-1|1|1|EUR|early",
        "G|1|1|99999999999999999999|1|EUR|early",
        "G|1|1|1|1|euro|early",
    ];
    for value in GARBAGE.into_iter().chain(of_order.map(Some)) {
        add(Who::Again, "o", value, value.is_none());
    }
    cases
}

async fn ask(
    engine: &Engine,
    product: &str,
    customer: &str,
    quantity: u32,
    key: &str,
) -> Result<Purchased, CallError> {
    engine.purchase(common::buy(customer, product, quantity, Some(key))).await
}

/// Asks until there is an answer that does not say "later".
pub async fn ask_patiently(
    engine: &Engine,
    product: &str,
    customer: &str,
    quantity: u32,
    key: &str,
) -> Result<Purchased, CallError> {
    let begun = Instant::now();
    loop {
        let answer = ask(engine, product, customer, quantity, key).await;
        let is_later = matches!(
            answer,
            Err(CallError::Rebuilding
                | CallError::Expired
                | CallError::Unreachable
                | CallError::Refused(Rejection::ConservationBroken))
        );
        if !is_later || begun.elapsed() > MENDED_WITHIN {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn fields(shop: &Shop, key: &str) -> BTreeMap<String, String> {
    let all = shop.redis(&["HGETALL", key]);
    all.items().chunks(2).map(|pair| (pair[0].text().unwrap(), pair[1].text().unwrap())).collect()
}

/// Everything that a sale has, except its state, which whoever distrusts it changes.
fn everything(shop: &Shop, number: i64) -> [BTreeMap<String, String>; 2] {
    let mut sale = fields(shop, &shop.key_of(number, "sale"));
    sale.remove("state");
    [sale, fields(shop, &shop.key_of(number, "buyers"))]
}

/// What Redis says about a product, and whether it sells it.
fn said(shop: &Shop, number: i64) -> Vec<Option<String>> {
    let key = shop.key_of(number, "sale");
    let ask = [&["HMGET", &key, "state", "version"][..], &DESCRIPTION[..]].concat();
    shop.redis(&ask).items().iter().map(yoink_testkit::Reply::text).collect()
}

fn edit(shop: &Shop, key: &str, field: &str, value: Option<&str>) {
    match value {
        Some(value) => drop(shop.redis(&["HSET", key, field, value])),
        None => drop(shop.redis(&["HDEL", key, field])),
    }
}

/// How often a script failed.
fn script_failures(shop: &Shop) -> String {
    let statistics = shop.redis(&["INFO", "commandstats"]).text().unwrap();
    let calls = statistics.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
    calls.split("failed_calls=").nth(1).unwrap().to_owned()
}

pub fn numbers(shop: &Shop) -> BTreeMap<String, i64> {
    let rows = shop.sql("SELECT id, number FROM products").into_iter();
    rows.map(|row| (row[0].clone().unwrap(), row[1].as_deref().unwrap().parse().unwrap())).collect()
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < MENDED_WITHIN, "{what} after {MENDED_WITHIN:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Edits, and asks whoever needs the value, where nobody mends anything. Gives whoever got a unit.
fn break_and_ask(shop: &Shop, seller: &Engine, case: &Case, number: i64, early: OrderId) -> Vec<OrderId> {
    let field = match case.who {
        Who::Newcomer => case.field.to_owned(),
        Who::Customer => "cearly".to_owned(),
        Who::Again => format!("o{}", uuid::Uuid::from_bytes(early.0).simple()),
    };
    edit(shop, &case.key(shop, number), &field, case.value.as_deref());
    let before = everything(shop, number);
    let (customer, key) = match case.who {
        Who::Newcomer => ("newcomer", "first"),
        Who::Customer => ("early", "more"),
        Who::Again => ("early", "early"),
    };
    let answer = shop.run(ask(seller, &case.product, customer, 1, key));
    if !case.is_readable {
        assert_eq!(answer, Err(Rejection::ConservationBroken.into()), "{case:?}");
        assert_eq!(everything(shop, number), before, "{case:?}: something was written");
    }
    assert_ne!(answer, Err(CallError::OutcomeUnknown), "{case:?}");
    answer.ok().map(|purchased| purchased.order).into_iter().collect()
}

/// Buys what is allowed, and is refused what is not, as the ledger says.
async fn buy_as_described(engine: &Engine, case: &Case, early: OrderId) -> OrderId {
    let product = case.product.as_str();
    let late = ask_patiently(engine, product, "late", LIMIT, "late").await.unwrap();
    assert_eq!(late.unit_price, case.product().price, "{case:?}");
    let refused = ask_patiently(engine, product, "late", 1, "more").await;
    let is_at_limit = matches!(
        &refused,
        Err(CallError::Refused(Rejection::LimitReached { limit: LIMIT, used: LIMIT, existing }))
            if *existing == [late.order]
    );
    assert!(is_at_limit, "{case:?}: {refused:?}");
    let refused = ask_patiently(engine, product, "greedy", MAX + 1, "many").await;
    assert_eq!(refused, Err(Rejection::QuantityAboveMax { max_per_order: MAX }.into()), "{case:?}");
    let again = ask_patiently(engine, product, "early", 1, "early").await.unwrap();
    assert_eq!(again.order, early, "{case:?}");
    if case.who == Who::Customer {
        // Nobody else has any need of what was edited.
        ask_patiently(engine, product, "early", 1, "more").await.unwrap();
    }
    late.order
}

#[test]
fn what_cannot_be_read_is_not_decided_by_and_is_mended() {
    let shop = Shop::start();
    let maker = shop.open(|_| ());
    let cases = cases();
    let creating = cases.iter().map(|case| maker.create_product(case.product()));
    shop.run(join_all(creating)).into_iter().for_each(|created| drop(created.unwrap()));
    let buying = cases.iter().map(|case| ask_patiently(&maker, &case.product, "early", 1, "early"));
    let early = shop.run(join_all(buying)).into_iter().map(|purchased| purchased.unwrap().order);
    let early: Vec<OrderId> = early.collect();
    shop.reconcile(&maker);
    maker.close_blocking(Duration::ZERO);
    let numbers = numbers(&shop);
    let right: Vec<_> = cases.iter().map(|case| said(&shop, numbers[&case.product])).collect();

    let seller = shop.open(|options| options.workers = 0);
    let failures = script_failures(&shop);
    let mut promised: Vec<BTreeSet<OrderId>> = Vec::new();
    for (case, early) in cases.iter().zip(&early) {
        let got = break_and_ask(&shop, &seller, case, numbers[&case.product], *early);
        promised.push(got.into_iter().chain([*early]).collect());
    }
    assert_eq!(script_failures(&shop), failures, "a script failed");
    seller.close_blocking(Duration::ZERO);

    let mender = shop.open(|_| ());
    for (case, right) in cases.iter().zip(&right) {
        let number = numbers[&case.product];
        wait_until(&format!("{case:?} is not mended"), || said(&shop, number) == *right);
    }
    let buying = cases.iter().zip(&early).map(|(case, early)| buy_as_described(&mender, case, *early));
    let late = shop.run(join_all(buying));
    shop.reconcile(&mender);
    for ((case, promised), late) in cases.iter().zip(&promised).zip(late) {
        let live = format!(
            "SELECT coalesce(sum(quantity), 0) FROM orders WHERE status = 'confirmed' AND product = {}",
            numbers[&case.product]
        );
        assert!(!promised.contains(&late), "{case:?}");
        let units = promised.len() + LIMIT as usize + usize::from(case.who == Who::Customer);
        let expected = i64::try_from(units).unwrap();
        assert_eq!(shop.count(&live), expected, "{case:?}");
    }
}

#[test]
fn a_customer_who_cannot_be_read_holds_nobody_else_up() {
    let shop = Shop::start();
    shop.open_with_shoes(STOCK, |_| ()).close_blocking(Duration::ZERO);
    let seller = shop.open(|options| options.workers = 0);
    shop.run(insist(&seller, "broken", 1)).unwrap();
    shop.redis(&["HSET", &shop.key("buyers"), "cbroken", "many|"]);
    // They travel together.
    let asked = ["first", "broken", "last"].map(|customer| seller.purchase(request(customer, 1, "together")));
    let answers = shop.run(join_all(asked));
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert_eq!(answers[1], Err(Rejection::ConservationBroken.into()));
    let mender = shop.open(|_| ());
    shop.run(crate::shop::insist_with_key(&mender, "broken", 1, "together")).unwrap();
    shop.reconcile(&mender);
    assert_eq!(shop.count("SELECT count(*) FROM orders WHERE status = 'confirmed'"), 4);
}

#[test]
fn a_key_of_another_type_is_no_sale_and_no_error() {
    let shop = Shop::start();
    let engine = shop.open_with_shoes(STOCK, |_| ());
    let mut bought = Vec::new();
    for name in ["sale", "buyers", "grants"] {
        for other in ["SET", "RPUSH"] {
            shop.wait_until_selling(&engine, &mut bought);
            let key = shop.key(name);
            // At once, so that nobody mends it in between.
            let replace = format!("redis.call('DEL', KEYS[1]) redis.call('{other}', KEYS[1], 'x')");
            shop.redis(&["EVAL", &replace, "1", &key]);
            let answer = shop.run(engine.purchase(request("curious", 1, &format!("{name}-{other}"))));
            match answer {
                Ok(purchased) => bought.push(crate::shop::Bought {
                    customer: "curious".into(),
                    key: format!("{name}-{other}"),
                    quantity: 1,
                    order: purchased.order,
                }),
                Err(refused) => assert_eq!(refused, CallError::Rebuilding, "{name} {other}"),
            }
        }
    }
    shop.wait_until_selling(&engine, &mut bought);
    let kept = shop.close_the_books(&engine, STOCK, &mut bought);
    assert_eq!(kept.ended, 0);
}

#[test]
fn values_that_can_be_read_and_are_wrong_are_found_by_a_look() {
    let shop = Shop::start();
    let engine = shop.open(|_| ());
    let edits = [
        ("price", "1|EUR"),
        ("limit", ""),
        ("limit", "1000"),
        ("max", "1"),
        ("max", "1e3"),
        ("starts_at", "3000000000000000"),
        ("ends_at", "1"),
        ("paused", "1"),
        ("version", "0"),
        ("version", "99"),
        ("version", "x"),
        ("epoch", "x"),
        ("epoch", "99999999999"),
        ("server", "x"),
        ("state", "x"),
    ];
    let case = |place: usize| Case {
        product: format!("case-{place}"),
        who: Who::Newcomer,
        field: edits[place].0,
        value: Some(edits[place].1.to_owned()),
        is_readable: true,
    };
    let cases: Vec<Case> = (0..edits.len()).map(case).collect();
    for case in &cases {
        shop.run(engine.create_product(case.product())).unwrap();
    }
    let early: Vec<OrderId> = cases
        .iter()
        .map(|case| shop.run(ask_patiently(&engine, &case.product, "early", 1, "early")).unwrap().order)
        .collect();
    let numbers = numbers(&shop);
    let right: Vec<_> = cases.iter().map(|case| said(&shop, numbers[&case.product])).collect();
    for case in &cases {
        let number = numbers[&case.product];
        edit(&shop, &case.key(&shop, number), case.field, case.value.as_deref());
    }
    for (case, right) in cases.iter().zip(&right) {
        let number = numbers[&case.product];
        wait_until(&format!("{case:?} is believed"), || said(&shop, number) == *right);
    }
    for (case, early) in cases.iter().zip(&early) {
        shop.run(buy_as_described(&engine, case, *early));
    }
    shop.reconcile(&engine);
    // What is older is told anew, as after any change.
    let filled_anew = shop.count("SELECT count(*) FROM products WHERE epoch = 2");
    assert_eq!(filled_anew, i64::try_from(cases.len()).unwrap() - 1);
}

#[test]
fn a_stream_without_ids_left_takes_no_unit_and_is_replaced() {
    let shop = Shop::start();
    shop.open_with_shoes(STOCK, |_| ()).close_blocking(Duration::ZERO);
    let seller = shop.open(|options| options.workers = 0);
    let last = "18446744073709551615-18446744073709551615";
    shop.redis(&["XSETID", &shop.key("grants"), last]);
    let before = everything(&shop, 1);
    let refused = shop.run(seller.purchase(request("ann", 1, "ann")));
    assert_eq!(refused, Err(Rejection::ConservationBroken.into()));
    assert_eq!(everything(&shop, 1), before, "something was written");
    let mender = shop.open(|_| ());
    let mut bought = Vec::new();
    shop.wait_until_selling(&mender, &mut bought);
    shop.close_the_books(&mender, STOCK, &mut bought);
}

/// What the audit says of Redis and the ledger.
pub fn difference(shop: &Shop, engine: &Engine) -> Option<String> {
    let found = shop.run(engine.reconcile()).unwrap();
    let compared = found.invariants.into_iter().find(|invariant| invariant.id == "redis-equals-ledger");
    compared.filter(|compared| !compared.ok).map(|compared| compared.detail)
}

#[test]
fn the_audit_names_whose_units_and_which_value_differ_and_its_repair_mends_them() {
    let shop = Shop::start();
    let maker = shop.open(|_| ());
    let shoe = NewProduct { limit_per_customer: Some(2), ..common::product(crate::shop::SHOE, STOCK) };
    shop.run(maker.create_product(shoe)).unwrap();
    shop.run(insist(&maker, "keen", 1)).unwrap();
    shop.reconcile(&maker);
    maker.close_blocking(Duration::ZERO);
    let engine = shop.open(|options| options.workers = 0);
    // On its way, which is no difference.
    shop.run(insist(&engine, "waiting", 1)).unwrap();
    assert_eq!(difference(&shop, &engine), None);
    let (sale, buyers) = (shop.key("sale"), shop.key("buyers"));
    let id = "00000001aaaa8aaa8aaaaaaaaaaaaaaa";
    for (key, field, value, words) in [
        (&buyers, "ckeen", format!("2|{id}"), "customer \"keen\" has 2 units in Redis and 1 in the ledger"),
        (&buyers, "ckeen", "0|".to_owned(), "customer \"keen\" has 0 units in Redis and 1 in the ledger"),
        (&buyers, "ckeen", "x".to_owned(), "customer \"keen\" cannot be read; he has 1 in the ledger"),
        (&buyers, "cnobody", "1|".to_owned(), "customer \"nobody\" has 1 units in Redis and 0 in the ledger"),
        (&sale, "price", "1|EUR".to_owned(), "price is \"1|EUR\" in Redis and \"19999|EUR\" in the ledger"),
    ] {
        let before = shop.redis(&["HGET", key, field]).text();
        edit(&shop, key, field, Some(&value));
        let found = difference(&shop, &engine).unwrap_or_else(|| panic!("{field} {value}: all is well"));
        assert!(found.contains(words), "{field} {value}: {found}");
        edit(&shop, key, field, before.as_deref());
        assert_eq!(difference(&shop, &engine), None, "{field} {value}");
    }
    edit(&shop, &buyers, "ckeen", Some(&format!("2|{id}")));
    let repaired = shop.run(engine.repair("somebody edited it".into())).unwrap();
    assert_eq!(repaired.len(), 1);
    assert!(repaired[0].what.contains("keen"), "{repaired:?}");
    assert_eq!(difference(&shop, &engine), None);
    shop.run(crate::shop::insist_with_key(&engine, "keen", 1, "more")).unwrap();
    let refused = shop.run(engine.purchase(request("keen", 1, "even-more")));
    assert!(
        matches!(refused, Err(CallError::Refused(Rejection::LimitReached { used: 2, .. }))),
        "{refused:?}"
    );
}
