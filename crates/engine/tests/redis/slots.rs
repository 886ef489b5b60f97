//! A product's slot moves to another server of the cluster while it is sold.

use std::time::{Duration, Instant};

use yoink_engine::{CallError, Engine};
use yoink_testkit::{RedisCluster, RedisServer, Reply};

use crate::shop::{Shop, request, rounds};

const STOCK: u64 = 20_000;

fn text(node: &RedisServer, parts: &[&str]) -> String {
    node.command(parts).unwrap().text().unwrap()
}

/// How often a server has answered with this error.
fn refusals(node: &RedisServer, code: &str) -> u64 {
    let said = node.info(&format!("errorstat_{code}")).unwrap();
    said.map_or(0, |said| said.trim_start_matches("count=").parse().unwrap())
}

/// Waits until a server has answered somebody with this error, now that it must.
fn wait_for_refusal(node: &RedisServer, code: &str) {
    let (begun, before) = (Instant::now(), refusals(node, code));
    while refusals(node, code) == before {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody was told {code}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Moves the slot of the product from one server to another as a person does, with time for everybody to meet each of
/// the states between. `when_asking` is called while every question is sent on to the other server.
fn move_slot(cluster: &RedisCluster, sale: &str, (from, to): (usize, usize), when_asking: impl FnOnce()) {
    let nodes = cluster.nodes();
    let (source, target) = (&nodes[from], &nodes[to]);
    let slot = source.command(&["CLUSTER", "KEYSLOT", sale]).unwrap().integer().unwrap().to_string();
    let [source_id, target_id] = [source, target].map(|node| text(node, &["CLUSTER", "MYID"]));
    target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]).unwrap();
    source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]).unwrap();
    let port = target.port().to_string();
    let migrate = |keys: &[String]| {
        let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        command.extend(keys.iter().map(String::as_str));
        source.command(&command).unwrap();
    };
    let keys = || -> Vec<String> {
        let found = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).unwrap();
        found.items().iter().filter_map(Reply::text).collect()
    };
    // The keys of a sale are in two places.
    migrate(&[sale.to_owned()]);
    wait_for_refusal(source, "TRYAGAIN");
    migrate(&keys());
    wait_for_refusal(source, "ASK");
    assert!(keys().is_empty(), "{:?} stayed", keys());
    when_asking();
    target.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]).unwrap();
    source.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]).unwrap();
    for node in nodes.iter().filter(|node| ![source.port(), target.port()].contains(&node.port())) {
        node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]).unwrap();
    }
}

/// Nothing is executed by a server that sends the question on, so nobody is left in doubt. (On a busy machine somebody may
/// be, because an answer takes too long.)
fn assert_nobody_is_in_doubt(shop: &Shop, engine: &Engine) {
    let told = |number: u32| shop.run(engine.purchase(request(&format!("sent-on-{number}"), 1, "key")));
    let is_certain = |number| told(number) == Err(CallError::Unreachable);
    assert!((0..6).any(is_certain), "nobody is told that nothing happened");
}

#[test]
fn a_slot_may_move_while_its_product_is_sold() {
    let (shop, cluster) = (Shop::start(), RedisCluster::start().unwrap());
    let url = cluster.urls().join(",");
    let first = shop.open_with_shoes(STOCK, |options| options.redis = url.clone());
    let second = shop.open(|options| options.redis = url.clone());
    let sale = shop.key("sale");
    let is_home =
        |node: &RedisServer| node.command(&["EXISTS", &sale]).is_ok_and(|found| found == Reply::Integer(1));
    let mut home = cluster.nodes().iter().position(is_home).unwrap();
    let crowd = shop.crowd(&[&first, &second], 8);
    let mut bought = Vec::new();
    for _ in 0..rounds(1) {
        crowd.wait_for(40);
        let next = (home + 1) % 3;
        move_slot(&cluster, &sale, (home, next), || assert_nobody_is_in_doubt(&shop, &first));
        let took = shop.wait_until_selling(&first, &mut bought);
        assert!(took < Duration::from_secs(6), "selling again after {took:?}");
        home = next;
        assert!(is_home(&cluster.nodes()[home]));
    }
    crowd.wait_for(40);
    bought.extend(shop.disperse(crowd));
    shop.reconcile(&second);
    let kept = shop.close_the_books(&first, STOCK, &mut bought);
    assert_eq!(kept.ended, 0, "everything moved with it");
    assert_eq!(
        shop.count("SELECT epoch FROM products"),
        1 + rounds(1) as i64,
        "another server, another epoch"
    );
}
