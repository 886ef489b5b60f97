//! The real process is stopped under load and goes on, or runs out of descriptors, or is besieged by slow clients.
//! Whatever was answered is true afterwards, and nothing else is there.

use std::collections::HashMap;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use yoink_testkit::{Client, ClientError, Response, Yoink, YoinkProcess};

use crate::{BINARY, json_of, yoink, yoink_at};

const PATIENCE: Duration = Duration::from_secs(60);

fn with_a_product(server: &YoinkProcess) {
    let product = json!({"id": "p", "name": "Sneaker", "price": {"amount": 100, "currency": "EUR"}, "stock": 1_000_000});
    assert_eq!(server.client().post("/v1/admin/products", &product).unwrap().status, 201);
}

fn buy(client: &mut Client, key: &str) -> Result<Response, ClientError> {
    client.post_with_key("/v1/orders", key, &json!({"customer_id": key, "product_id": "p"}))
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The ids of all orders, by customer.
fn orders(server: &YoinkProcess) -> HashMap<String, Value> {
    let mut client = server.client();
    let mut orders = HashMap::new();
    let mut after = json!(0);
    while !after.is_null() {
        let page = client.get(&format!("/v1/orders?limit=1000&after={after}")).unwrap().json();
        for order in page["orders"].as_array().unwrap() {
            let customer = order["customer_id"].as_str().unwrap().to_owned();
            assert_eq!(orders.insert(customer, order["id"].clone()), None, "two orders for one key: {order}");
        }
        after = page["next_after"].clone();
    }
    orders
}

/// What a buyer was told, by key.
type Told = HashMap<String, Value>;

/// Buys on one connection until it is over. Keeps what was accepted; a 503 must say that nothing happened.
fn buy_until(
    is_over: &AtomicBool,
    answers: &AtomicUsize,
    client: &mut Client,
    name: &str,
) -> (Told, Duration) {
    let (mut told, mut longest) = (Told::new(), Duration::ZERO);
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{name}-{number}");
        let begun = Instant::now();
        let answer = buy(client, &key).unwrap();
        longest = longest.max(begun.elapsed());
        match (answer.status, answer.header("order-outcome")) {
            (202, None) => assert_eq!(told.insert(key, answer.json()["id"].clone()), None),
            (503, Some("none")) => {}
            _ => panic!("{key}: {answer:?}"),
        }
        answers.fetch_add(1, Ordering::Relaxed);
    }
    (told, longest)
}

/// Longer than a call may wait for the writer, and shorter than a connection may be without a request.
const STANDSTILL: Duration = Duration::from_secs(11);

#[test]
fn a_process_that_was_stopped_for_longer_than_a_call_may_wait_has_told_everybody_the_truth() {
    let server = Yoink::new(BINARY).start().unwrap();
    with_a_product(&server);
    let (is_over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut told = Told::new();
    std::thread::scope(|scope| {
        let buyers: Vec<_> = (0..16)
            .map(|buyer| {
                let (is_over, answers, mut client) = (&is_over, &answers, server.anonymous_client());
                scope.spawn(move || buy_until(is_over, answers, &mut client, &format!("b{buyer}")))
            })
            .collect();
        let more = |count: usize| {
            let enough = answers.load(Ordering::Relaxed) + count;
            until("buyers are answered", || answers.load(Ordering::Relaxed) >= enough);
        };
        more(500);
        // Short stops catch the writer at many of its steps, the long one makes waiting calls too old.
        for pause in [20, 50, 100, 200].map(Duration::from_millis).into_iter().chain([STANDSTILL]) {
            server.freeze();
            std::thread::sleep(pause);
            server.thaw();
            more(200);
        }
        is_over.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        for buyer in buyers {
            let (accepted, waited) = buyer.join().unwrap();
            told.extend(accepted);
            longest = longest.max(waited);
        }
        assert!(longest >= STANDSTILL, "nobody waited through the standstill: {longest:?}");
    });
    assert_eq!(orders(&server), told);
    let (code, audit) = json_of(&mut yoink_at(&server, &["audit", "--json"]));
    assert_eq!((code, &audit["ok"]), (0, &json!(true)), "{audit}");
}

/// Enough to start and to serve some clients.
const OPEN_FILES_MAX: u32 = 64;

#[test]
fn a_process_without_free_descriptors_serves_who_is_there_and_the_others_when_there_are_some_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Yoink::new(BINARY).data(&data).open_files_max(OPEN_FILES_MAX).start().unwrap();
    with_a_product(&server);
    let mut told = Told::new();
    let mut keep = |client: &mut Client, key: &str| {
        let answer = buy(client, key).unwrap();
        assert_eq!(answer.status, 202, "{key}: {answer:?}");
        assert_eq!(told.insert(key.to_owned(), answer.json()["id"].clone()), None);
    };
    let mut early = server.anonymous_client();
    keep(&mut early, "early");
    let idle: Vec<TcpStream> =
        (0..OPEN_FILES_MAX).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    assert!(server.output_with("cannot accept a connection", PATIENCE).contains("cannot accept"));
    // Who is there already is served, to the ledger.
    for number in 0..200 {
        keep(&mut early, &format!("early-{number}"));
    }
    let waited = early
        .request(
            "POST",
            "/v1/orders",
            &[("prefer", "wait=20"), ("idempotency-key", "w")],
            Some(&json!({"customer_id": "w", "product_id": "p"})),
        )
        .unwrap();
    assert_eq!(waited.status, 201, "{waited:?}");
    assert_rests_between_attempts(&server);
    let late: Vec<_> = std::thread::scope(|scope| {
        let late: Vec<_> = (0..10)
            .map(|number| {
                let mut client = server.anonymous_client();
                scope.spawn(move || (format!("late-{number}"), buy(&mut client, &format!("late-{number}"))))
            })
            .collect();
        drop(idle);
        late.into_iter().map(|late| late.join().unwrap()).collect()
    });
    for (key, answer) in late {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 202, "{key}: {answer:?}");
        told.insert(key, answer.json()["id"].clone());
    }
    told.insert("w".to_owned(), waited.json()["id"].clone());
    assert_eq!(orders(&server), told);
    server.terminate();
    assert!(server.wait_exit(PATIENCE).unwrap().success(), "{}", server.output());
    audit_folder(folder.path(), &data);
}

/// A loop that cannot accept must not burn a core.
fn assert_rests_between_attempts(server: &YoinkProcess) {
    let attempts = || server.output().matches("cannot accept a connection").count();
    let (before, begun) = (attempts(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let (made, seconds) = (attempts() - before, begun.elapsed().as_secs_f64());
    let listeners = std::thread::available_parallelism().unwrap().get();
    let most = seconds * 20.0 * listeners as f64 + listeners as f64;
    assert!(made as f64 <= most, "{made} attempts in {seconds} s, with {listeners} listeners");
    assert!(made > 0, "it does not even try");
}

fn audit_folder(folder: &Path, data: &Path) {
    let (code, audit) = json_of(yoink(folder).args(["audit", "--json", "--data"]).arg(data));
    assert_eq!((code, &audit["ok"]), (0, &json!(true)), "{audit}");
}
