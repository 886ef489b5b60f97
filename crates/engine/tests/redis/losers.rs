//! Whoever gets nothing leaves nothing behind: for every answer of `purchase.lua` but a grant, what Redis has and what
//! it wrote are the same before and after.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use yoink_core::Rejection;
use yoink_engine::{CallError, Engine, Purchased, Replayed};
use yoink_testkit::Reply;

use crate::shop::{Shop, insist, request};

/// What any write changes, whatever it writes.
#[derive(PartialEq, Eq)]
struct Traces {
    /// Each key, as Redis would move it elsewhere.
    keys: BTreeMap<String, Reply>,
    /// Changes that Redis counts.
    changes: String,
    /// Bytes in its append-only file, as it counts them and as they are.
    written: String,
    log_bytes: u64,
}

fn traces(shop: &Shop) -> Traces {
    let names = shop.redis(&["KEYS", "*"]);
    let keys = names.items().iter().filter_map(Reply::text);
    let field = |name| shop.redis.info(name).unwrap().unwrap();
    Traces {
        keys: keys.map(|key| (key.clone(), shop.redis(&["DUMP", &key]))).collect(),
        changes: field("rdb_changes_since_last_save"),
        written: field("aof_current_size"),
        log_bytes: std::fs::metadata(shop.redis.aof().unwrap()).unwrap().len(),
    }
}

/// Asserts that nothing was written since.
#[track_caller]
fn assert_nothing_since(before: &Traces, shop: &Shop, what: &str) {
    let after = traces(shop);
    let changed: Vec<_> =
        after.keys.iter().filter(|(key, content)| before.keys.get(*key) != Some(content)).collect();
    let figures = |traces: &Traces| {
        (traces.keys.len(), traces.changes.clone(), traces.written.clone(), traces.log_bytes)
    };
    assert!(
        after == *before,
        "{what}: {:?} and then {:?}, changed: {changed:?}",
        figures(before),
        figures(&after)
    );
}

/// A field of the sale and what is written there.
type Edit = (&'static str, &'static str);

/// Edits the sale by hand, and gives what was there.
fn edit(shop: &Shop, edits: &[Edit]) -> Vec<(&'static str, String)> {
    let sale = shop.key("sale");
    let edit = |(field, value): &Edit| {
        let before = shop.redis(&["HGET", &sale, field]).text().unwrap();
        shop.redis(&["HSET", &sale, field, value]);
        (*field, before)
    };
    edits.iter().map(edit).collect()
}

fn undo(shop: &Shop, before: &[(&str, String)]) {
    let sale = shop.key("sale");
    before.iter().for_each(|(field, value)| drop(shop.redis(&["HSET", &sale, field, value])));
}

/// What a node sent to Redis for a customer, word by word.
fn sent_for(shop: &Shop, customer: &str) -> Vec<String> {
    let log = shop.redis(&["SLOWLOG", "GET", "-1"]);
    let words = |entry: &Reply| entry.items()[3].items().iter().filter_map(Reply::text).collect();
    let mut commands = log.items().iter().map(words);
    let is_it = |words: &Vec<String>| words[0] == "EVALSHA" && words.iter().any(|word| word == customer);
    commands.find(is_it).unwrap_or_else(|| panic!("nothing was sent for {customer}"))
}

type Answer = Result<Purchased, CallError>;
/// What is refused: its name; how the sale is edited; customer, quantity and key; what the answer is.
type Loser = (&'static str, &'static [Edit], (&'static str, u32, &'static str), fn(&Answer) -> bool);

fn is_replay(answer: &Answer) -> bool {
    matches!(answer, Ok(purchased) if purchased.replayed == Replayed::Yes)
}

fn is_rebuilding(answer: &Answer) -> bool {
    *answer == Err(CallError::Rebuilding)
}

macro_rules! refused {
    ($rejection:pat) => {
        |answer| matches!(answer, Err(CallError::Refused($rejection)))
    };
}

/// Six units are left, "recent" has one that the ledger does not have, and "ended" had two.
const LOSERS: [Loser; 14] = [
    ("a replay", &[], ("recent", 1, "key-recent"), is_replay),
    ("a replay of an order that ended", &[], ("ended", 2, "key-ended"), is_replay),
    ("a key again for more", &[], ("recent", 2, "key-recent"), refused!(Rejection::KeyReused { .. })),
    ("too many", &[("max", "1")], ("late", 2, "late"), refused!(Rejection::QuantityAboveMax { .. })),
    (
        "too early",
        &[("starts_at", "4102444800000000")],
        ("late", 1, "late"),
        refused!(Rejection::SaleNotStarted { .. }),
    ),
    ("too late", &[("ends_at", "1")], ("late", 1, "late"), refused!(Rejection::SaleEnded { .. })),
    ("paused", &[("paused", "1")], ("late", 1, "late"), refused!(Rejection::SalePaused)),
    ("the limit", &[("limit", "1")], ("recent", 1, "more"), refused!(Rejection::LimitReached { .. })),
    ("sold out", &[], ("late", 7, "late"), refused!(Rejection::SoldOut { available: 6 })),
    ("too much waits", &[("number", "2000000")], ("late", 1, "late"), |answer| {
        *answer == Err(CallError::Overloaded)
    }),
    ("another epoch", &[("epoch", "99")], ("late", 1, "late"), is_rebuilding),
    ("another server", &[("server", "another")], ("late", 1, "late"), is_rebuilding),
    ("being loaded", &[("state", "loading")], ("late", 1, "late"), is_rebuilding),
    ("closed", &[("state", "closed")], ("late", 1, "late"), is_rebuilding),
];

/// A node that sells, and nobody who carries, fills or mends anything.
fn open_seller(shop: &Shop) -> Engine {
    let worker = shop.open_with_shoes(10, |_| ());
    shop.run(insist(&worker, "early", 3)).unwrap();
    let ended = shop.run(insist(&worker, "ended", 2)).unwrap();
    shop.run(worker.cancel(ended.order, "changed my mind".into())).unwrap();
    shop.reconcile(&worker);
    worker.close_blocking(Duration::ZERO);
    let seller = shop.open(|options| options.workers = 0);
    shop.run(insist(&seller, "recent", 1)).unwrap();
    seller
}

#[test]
fn whoever_gets_nothing_leaves_nothing_behind() {
    let shop = Shop::start();
    let seller = open_seller(&shop);
    for (name, edits, (customer, quantity, key), is_expected) in LOSERS {
        let original = edit(&shop, edits);
        let before = traces(&shop);
        let answer = shop.run(seller.purchase(request(customer, quantity, key)));
        assert!(is_expected(&answer), "{name}: {answer:?}");
        assert_nothing_since(&before, &shop, name);
        undo(&shop, &original);
    }
}

/// What a node does when it is told these is to change things, so it is closed, and what it sent is sent once more.
#[test]
fn what_comes_too_late_or_to_a_broken_sale_leaves_nothing_behind() {
    let shop = Shop::start();
    let seller = open_seller(&shop);
    let [sale, buyers, grants] = ["sale", "buyers", "grants"].map(|name| shop.key(name));
    shop.redis(&["CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "10000"]);
    let paused = edit(&shop, &[("paused", "1")]);
    let is_refused = |customer: &str| {
        let answer = shop.run(seller.purchase(request(customer, 1, "key")));
        assert_eq!(answer.map(drop), Err(CallError::Refused(Rejection::SalePaused)));
        sent_for(&shop, customer)
    };
    let with_deadline = is_refused("late");
    // Where the time is set there is no deadline.
    seller.set_now(seller.now());
    let without = is_refused("any-time");
    seller.close_blocking(Duration::ZERO);
    let send = |words: &[String]| shop.redis(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let is_told = |words: &[String], expected: &str| {
        let before = traces(&shop);
        let told = send(words).items()[0].text().unwrap();
        assert_nothing_since(&before, &shop, &told);
        assert!(["U", expected].contains(&told.as_str()), "{told}, not {expected}");
        told == expected
    };
    let begun = Instant::now();
    while !is_told(&with_deadline, "T") {
        assert!(begun.elapsed() < Duration::from_secs(10), "its deadline does not pass");
        std::thread::sleep(Duration::from_millis(50));
    }
    undo(&shop, &paused);
    for (command, undone, expected) in [
        (["HINCRBY", &sale, "available", "1"], ["HINCRBY", &sale, "available", "-1"], "C"),
        (["HSET", &buyers, "e", "7"], ["HSET", &buyers, "e", "1"], "N"),
    ] {
        shop.redis(&command);
        assert!(is_told(&without, expected), "after {command:?}");
        shop.redis(&undone);
    }
    // What is looked at does show a grant.
    let before = traces(&shop);
    let granted = send(&without).items()[0].text().unwrap();
    assert!(granted.starts_with("G|"), "{granted}");
    let after = traces(&shop);
    for key in [&sale, &buyers, &grants] {
        assert_ne!(after.keys[key], before.keys[key], "{key}");
    }
    assert_ne!(after.changes, before.changes);
    assert_ne!((&after.written, after.log_bytes), (&before.written, before.log_bytes));
    for key in [&grants, &sale] {
        shop.redis(&["DEL", key]);
        assert!(is_told(&without, "N"), "without {key}");
    }
}
