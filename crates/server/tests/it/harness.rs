//! Starts a server in this process and talks HTTP to it, checking every answer against the served document.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use yoink_engine::{Confirmed, Engine};
use yoink_server::{KeyHash, Mode, ServeError, Settings, serve};

use crate::contract::Contract;
use crate::engines::{CLOSE_WITHIN, ChangeDelivery, Differences, Opener, block_on};

/// The key with every scope.
pub const ADMIN_KEY: &str = "test-admin-key-0123456789abcdef";

/// Nothing in these tests takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    pub address: SocketAddr,
    pub engine: Engine,
    pub shutdown: CancellationToken,
    contract: Contract,
    /// Whether what is queued can be decided now.
    is_deciding: AtomicBool,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
    /// Ends last: the engine needs it to its own end.
    opener: Option<Opener>,
}

impl Server {
    /// In `--dev`, with product 1 of 100 units.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same with other settings.
    pub fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let server = Self::start_empty(change);
        server.create_product(&json!({"id": "1", "stock": 100}));
        server
    }

    /// Without any product.
    pub fn start_empty(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_with_delivery(|_| {}, change)
    }

    /// Without any product, and with another delivery.
    pub fn start_with_delivery(delivery: ChangeDelivery, change: impl FnOnce(&mut Settings)) -> Self {
        let opener = Opener::new(delivery);
        let engine = opener.open();
        Self::start_on(engine, Some(opener), change)
    }

    /// On an engine that is open.
    pub fn start_on(engine: Engine, opener: Option<Opener>, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            mode: Mode::Dev,
            admin_key: Some(KeyHash::of(ADMIN_KEY)),
            threads: 2,
            ..Settings::default()
        };
        change(&mut settings);
        let shutdown = CancellationToken::new();
        let (ready, is_ready) = sync_channel(1);
        let (serving, token) = (engine.clone(), shutdown.clone());
        let thread = std::thread::spawn(move || {
            serve(serving, settings, |address| ready.send(address).unwrap(), token)
        });
        let Ok(address) = is_ready.recv_timeout(PATIENCE) else {
            panic!("the server did not start: {:?}", thread.join());
        };
        let contract = Contract::new(exchange(address, &Request::new("GET", "/openapi.json")).json());
        let is_deciding = AtomicBool::new(true);
        Self { address, engine, shutdown, contract, is_deciding, thread: Some(thread), opener }
    }

    /// Ends the server and its engine, audits, and starts others on what they leave.
    pub fn restart(mut self) -> Self {
        let opener = self.opener.take();
        drop(self);
        let engine = opener.as_ref().unwrap().open();
        Self::start_on(engine, opener, |_| {})
    }

    /// From now on the ledger takes no order of a customer whose id begins with `prefix`.
    #[cfg(feature = "faults")]
    pub fn refuse_orders_of(&self, prefix: &str) {
        self.is_deciding.store(false, Ordering::Release);
        self.opener.as_ref().unwrap().refuse_orders_of(prefix);
    }

    /// From now on the ledger takes every order again.
    #[cfg(feature = "faults")]
    pub fn take_orders_again(&self) {
        self.opener.as_ref().unwrap().take_orders_again();
        self.is_deciding.store(true, Ordering::Release);
    }

    /// The ledger is down.
    #[cfg(feature = "faults")]
    pub fn stop_ledger(&mut self) {
        self.is_deciding.store(false, Ordering::Release);
        self.opener.as_mut().unwrap().stop_ledger();
    }

    /// The ledger is there again.
    #[cfg(feature = "faults")]
    pub fn start_ledger(&mut self) {
        self.opener.as_mut().unwrap().start_ledger();
        self.is_deciding.store(true, Ordering::Release);
    }

    /// Asserts that the products are spread over every Redis that has some.
    #[track_caller]
    pub fn assert_every_redis_has_products(&self) {
        for keys in self.opener.as_ref().unwrap().keys_per_redis() {
            assert!(keys > 0, "a Redis has no product");
        }
    }

    /// Waits until lists, events and figures have every order accepted so far, where the engine does not have them
    /// there at once.
    #[track_caller]
    pub fn wait_until_shown(&self) {
        if !self.engine.shows_at_once() {
            let shown = block_on(self.engine.wait_delivered(0, PATIENCE));
            assert_eq!(shown, Confirmed::Yes, "the ledger did not take every order in {PATIENCE:?}");
        }
    }

    /// Asserts that a product has so many units left: at once, or a moment later where the engine shows it then.
    #[track_caller]
    pub fn assert_stock(&self, product: &str, units: u64) {
        let stock = || self.get(&format!("/v1/products/{product}")).json()["stock"].clone();
        if self.engine.shows_at_once() {
            assert_eq!(stock(), json!(units));
        }
        eventually(&format!("{product} has {units} units"), || stock() == json!(units));
    }

    /// Creates a product; what is left out of `fields` is filled in.
    pub fn create_product(&self, fields: &Value) -> Value {
        let mut body =
            json!({"name": "Flash Sale Item", "price": {"amount": 19_999, "currency": "EUR"}, "stock": 10});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = self.admin("POST", "/v1/admin/products", Some(&body));
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    /// Buys one unit of product 1.
    pub fn buy(&self, customer: &str) -> Answer {
        self.post("/v1/orders", &json!({"customer_id": customer, "product_id": "1"}))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(&Request::new("GET", path))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(&Request::new("POST", path).json(body))
    }

    /// With the admin key.
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut request = Request::new(method, path).key(ADMIN_KEY);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(&request)
    }

    /// Sends a request on a connection of its own, and checks the answer against the document.
    pub fn send(&self, request: &Request) -> Answer {
        let is_purchase = request.method == "POST" && request.path == "/v1/orders";
        if is_purchase && !self.engine.decides_at_once() && !request.has_header("prefer") {
            return self.send_and_await_decision(request);
        }
        let answer = exchange(self.address, request);
        self.contract.check(&request.method, &request.path, &answer);
        match (&*request.method, &*request.path) {
            ("POST", "/v1/admin/delivery/pause") => self.is_deciding.store(false, Ordering::Release),
            ("POST", "/v1/admin/delivery/resume") => self.is_deciding.store(true, Ordering::Release),
            _ => {}
        }
        answer
    }

    /// The one place where queueing differs from deciding at once. Most tests are about what is decided, and where that
    /// follows the answer, the answer is waited for with `Prefer: wait`. A 201 `confirmed` stands for the 202 `accepted`
    /// that they expect: both say that the units are the customer's. While nothing can be decided, a 202 `queued` stands
    /// for it: it is what a buyer is told then.
    fn send_and_await_decision(&self, request: &Request) -> Answer {
        let is_deciding = self.is_deciding.load(Ordering::Acquire);
        let asked = if is_deciding { request.clone().header("prefer", "wait=15") } else { request.clone() };
        let mut answer = exchange(self.address, &asked);
        self.contract.check(&request.method, &request.path, &answer);
        answer.headers.retain(|(name, _)| name != "preference-applied");
        let (status, from) = if is_deciding { (201, "confirmed") } else { (202, "queued") };
        if answer.status == status {
            let (from, to) = (format!("\"status\":\"{from}\""), "\"status\":\"accepted\"");
            assert!(answer.text().contains(&from), "{}", answer.text());
            (answer.status, answer.body) = (202, answer.text().replace(&from, to).into_bytes());
        }
        answer
    }

    /// The status that the answers really had which tests see as 202: in logs and metrics it is the real one.
    pub fn status_of_purchases(&self) -> u16 {
        if self.engine.decides_at_once() { 202 } else { 201 }
    }

    /// What an order is called until the ledger has it.
    pub fn undecided(&self) -> &'static str {
        if self.engine.decides_at_once() { "accepted" } else { "queued" }
    }

    /// A connection to write anything on.
    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Ends the server and says how it ended.
    pub fn stop(&mut self) -> Result<(), ServeError> {
        self.shutdown.cancel();
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn contract(&self) -> &Contract {
        &self.contract
    }
}

impl Drop for Server {
    /// Every test ends with an audit: whatever it did, the books must balance.
    fn drop(&mut self) {
        self.shutdown.cancel();
        let served = self.thread.take().map(|thread| thread.join().unwrap());
        if std::thread::panicking() {
            return;
        }
        assert!(matches!(served, None | Some(Ok(()))), "{served:?}");
        let audit = block_on(self.engine.reconcile()).unwrap();
        assert!(audit.ok, "{audit:#?}");
        self.engine.close_blocking(CLOSE_WITHIN);
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: None }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    fn has_header(&self, wanted: &str) -> bool {
        self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut text =
            format!("{} {} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// Asserts that this is a problem of this kind, and gives the document.
    #[track_caller]
    pub fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{:?}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let document = self.json();
        assert_eq!(document["type"], format!("/problems/{slug}"), "{document}");
        assert_eq!(document["status"], status);
        assert!(document["title"].is_string() && document["detail"].is_string(), "{document}");
        document
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn exchange(address: SocketAddr, request: &Request) -> Answer {
    let mut stream = connect(address);
    // A server that refuses a long body early closes before all of it is written.
    let _ = stream.write_all(&request.to_bytes());
    read_answer(&mut stream)
}

/// Reads one answer from a connection that closes behind it or says how long it is.
pub fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        assert!(
            read_some(stream, &mut bytes) > 0,
            "closed within the head: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut body = bytes.split_off(head_end + 4);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let find = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if let Some(length) = find("content-length") {
        let length: usize = length.parse().unwrap();
        while body.len() < length && read_some(stream, &mut body) > 0 {}
        assert_eq!(body.len(), length, "{head}");
    } else {
        while read_some(stream, &mut body) > 0 {}
        if find("transfer-encoding") == Some("chunked") {
            body = unchunk(&body);
        }
    }
    Answer { status, headers, body }
}

fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> usize {
    let mut space = [0; 16_384];
    match stream.read(&mut space) {
        Ok(count) => {
            bytes.extend_from_slice(&space[..count]);
            count
        }
        // The server closed while we were still writing; what it said before is there.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(bytes)),
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").expect("a chunk is cut off");
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + length]);
        bytes = &bytes[end + 2 + length + 2..];
    }
}

/// Waits for something that must come, however slow the machine is.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
