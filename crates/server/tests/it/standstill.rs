//! The machine stands still and goes on: nothing is decided for those who have waited too long, and they are told so.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::json;
use yoink_engine::limits::TICKET_WAIT_MAX;
use yoink_engine::{Engine, Options, TimeSource};

use crate::engines::only_embedded;
use crate::harness::{Server, eventually, read_answer};

const WHY: &str =
    "the writer and its clock are the embedded engine's; a script of Redis has the deadline with it";

/// A clock in the test's hand, which the writer can be made to wait for: as if the process were stopped just then.
#[derive(Clone, Default)]
struct Hands(Arc<Inner>);

#[derive(Default)]
struct Inner {
    passed_us: AtomicI64,
    is_stopped: Mutex<bool>,
    goes_on: Condvar,
}

impl Hands {
    fn stop(&self) {
        *self.0.is_stopped.lock().unwrap() = true;
    }

    /// The writer goes on, and finds that so much time has passed.
    fn go_on_after(&self, passed_us: i64) {
        self.0.passed_us.fetch_add(passed_us, Ordering::SeqCst);
        *self.0.is_stopped.lock().unwrap() = false;
        self.0.goes_on.notify_all();
    }
}

impl TimeSource for Hands {
    fn wall_us(&self) -> i64 {
        1_800_000_000_000_000 + self.0.passed_us.load(Ordering::SeqCst)
    }

    fn monotonic_us(&self) -> i64 {
        if std::thread::current().name() == Some("yoink-writer") {
            let mut is_stopped = self.0.is_stopped.lock().unwrap();
            while *is_stopped {
                is_stopped = self.0.goes_on.wait(is_stopped).unwrap();
            }
        }
        self.0.passed_us.load(Ordering::SeqCst)
    }
}

const BUYERS: usize = 24;

fn send(server: &Server, buyer: usize) -> TcpStream {
    let mut stream = server.connect();
    let body = json!({"customer_id": format!("c{buyer}"), "product_id": "1"}).to_string();
    let head = "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nidempotency-key: k";
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Buyers ask, the writer stands still for so long, and goes on.
fn asked_before_a_standstill_of(server: &Server, hands: &Hands, passed_us: i64) -> Vec<TcpStream> {
    hands.stop();
    let waiting: Vec<TcpStream> = (0..BUYERS).map(|buyer| send(server, buyer)).collect();
    // One thread serves, so whoever is being answered has asked the writer already.
    eventually("all of them have asked", || server.get("/livez").status == 503);
    hands.go_on_after(passed_us);
    waiting
}

fn start(hands: &Hands, folder: &Path) -> Server {
    let time = Box::new(hands.clone());
    let engine = Engine::open_with_time(Options::new(folder.join("data")), time).unwrap();
    let server = Server::start_on(engine, None, |settings| {
        (settings.threads, settings.in_flight_max) = (1, BUYERS);
    });
    server.create_product(&json!({"id": "1", "stock": 100}));
    server
}

fn wait_max_us() -> i64 {
    i64::try_from(TICKET_WAIT_MAX.as_micros()).unwrap()
}

#[test]
fn who_waited_longer_than_the_limit_is_told_so_and_nothing_was_decided() {
    if !only_embedded(WHY) {
        return;
    }
    let (hands, folder) = (Hands::default(), tempfile::tempdir().unwrap());
    let server = start(&hands, folder.path());
    let before = server.engine.last_seq();
    for mut waiting in asked_before_a_standstill_of(&server, &hands, wait_max_us() + 1) {
        let answer = read_answer(&mut waiting);
        answer.problem(503, "overloaded");
        assert_eq!(answer.header("order-outcome"), Some("none"));
    }
    assert_eq!(server.engine.last_seq(), before, "an event was made of an expired call");
    assert_eq!(server.engine.figures().expired, BUYERS as u64);
    // The same purchases, asked anew, are new ones.
    for buyer in 0..BUYERS {
        let answer = read_answer(&mut send(&server, buyer));
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (202, None), "{answer:?}");
    }
}

#[test]
fn who_waited_just_as_long_as_the_limit_is_served() {
    if !only_embedded(WHY) {
        return;
    }
    let (hands, folder) = (Hands::default(), tempfile::tempdir().unwrap());
    let server = start(&hands, folder.path());
    for mut waiting in asked_before_a_standstill_of(&server, &hands, wait_max_us()) {
        assert_eq!(read_answer(&mut waiting).status, 202);
    }
    assert_eq!(server.engine.figures().expired, 0);
}
