//! Bytes by chance: requests cut, doubled, spliced, blown up, with bits turned. Never a 5xx, never a silence, and those
//! who behave are served. `YOINK_SEED=number` repeats a run.

use std::io::{BufRead, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};
use yoink_testkit::Chance;

use crate::harness::{ADMIN_KEY, Server, connect};

const CLIENTS: u64 = 4;
/// Of each client. Each round is some requests whose framing is sound, and one of which nothing is.
const ROUNDS: usize = 420;
const SOUND_PER_ROUND: usize = 11;

/// A few places of these bytes become others.
fn spoil(chance: &mut Chance, bytes: &mut Vec<u8>, words: &[&str]) {
    for _ in 0..=chance.below(4) {
        let start = chance.below(bytes.len() + 1);
        let end = (start + chance.below(40)).min(bytes.len());
        match chance.below(7) {
            0 | 1 if start < bytes.len() => bytes[start] ^= 1 << chance.below(8),
            2 => drop(bytes.drain(start..end)),
            3 => {
                let part = bytes[start..end].repeat(1 + chance.below(3));
                bytes.splice(end..end, part).for_each(drop);
            }
            4 if chance.below(8) == 0 => {
                let letter = chance.number().to_le_bytes()[0];
                let long = vec![letter; chance.below(10_000)];
                bytes.splice(start..start, long).for_each(drop);
            }
            5 => bytes.truncate(start.max(bytes.len() / 2)),
            _ => bytes.splice(start..start, chance.pick(words).bytes()).for_each(drop),
        }
    }
}

/// A request that can be taken apart.
#[derive(Clone)]
struct Message {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

impl Message {
    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn signed_by_operator(self) -> Self {
        self.header("authorization", &format!("Bearer {ADMIN_KEY}"))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: test\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
        }
        let body = self.body.iter().flatten().copied();
        head.into_bytes().into_iter().chain(*b"\r\n").chain(body).collect()
    }
}

fn get(path: impl Into<String>) -> Message {
    Message { method: "GET", path: path.into(), headers: Vec::new(), body: None }
}

fn post(path: impl Into<String>, body: &Value) -> Message {
    Message { method: "POST", body: Some(body.to_string().into_bytes()), ..get(path) }
}

/// What buyers, operators and everybody else send. Nothing here stops a sale.
fn good_messages(order: &str) -> Vec<Message> {
    let purchase = json!({"customer_id": "ann", "product_id": "1", "quantity": 1});
    let compatible = json!({"userId": "ann", "productId": "1", "quantity": 1});
    let product = json!({
        "name": "Thing", "price": {"amount": 1, "currency": "EUR"}, "stock": 5, "limit_per_customer": 1,
        "starts_at": "2026-01-01T00:00:00Z", "max_per_order": 2,
    });
    let reason = json!({"reason": "no"});
    let restock = json!({"delta": 1, "reason": "found"});
    let token = "Bearer x.y.z";
    vec![
        post("/v1/orders", &purchase),
        post("/v1/orders", &purchase).header("idempotency-key", "k-1"),
        post("/v1/orders", &purchase).header("prefer", "wait=1").header("x-forwarded-for", "10.0.0.1, ::1"),
        post("/orders", &compatible),
        post("/buy", &compatible).header("idempotency-key", "k-2"),
        post("/purchase", &compatible),
        post(format!("/v1/orders/{order}/cancel"), &reason).header("authorization", token),
        get(format!("/v1/orders/{order}")),
        get("/v1/products/1"),
        get("/purchase/orders/ann"),
        get("/livez").header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        get("/health"),
        post("/v1/admin/products", &product).signed_by_operator(),
        post("/v1/admin/products/1/stock", &restock).header("idempotency-key", "r-1").signed_by_operator(),
        post("/products/restock", &json!({"productId": 1, "amount": 1})).signed_by_operator(),
        get("/v1/orders?customer_id=ann&limit=10&after=0").signed_by_operator(),
        get("/v1/events?after=0&limit=10").signed_by_operator(),
        get("/v1/admin/dead-letters?limit=10").signed_by_operator(),
        post("/v1/admin/dead-letters/1/discard", &reason).signed_by_operator(),
    ]
}

const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r\n\r\n",
    "\0",
    " ",
    "\t",
    "\u{feff}",
    "é",
    "%00",
    "%2e%2e%2f",
    "%",
    "?",
    "&limit=-1",
    "#",
    "//",
    "*",
    "HTTP/1.0",
    "HTTP/2.0",
    "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "Content-Length: 0\r\n",
    "content-length: 18446744073709551616\r\n",
    "content-length: +1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding: gzip, chunked\r\n",
    "0\r\n\r\n",
    "ffffffffffffffff\r\n",
    "connection: close\r\n",
    "connection: upgrade\r\nupgrade: websocket\r\n",
    "host: y\r\n",
    "expect: x\r\n",
    " folded\r\n",
    "\"",
    "\\u0000",
    "\\ud800",
    "[[[[",
    "{\"a\":",
    "null",
    "-1",
    "1e400",
    ",",
    ":",
    "18446744073709551616",
    "9223372036854775807",
    "true",
];

/// Spoils what may be spoilt while it remains clear where the message ends: its body, its path, a header's value.
fn spoil_within(chance: &mut Chance, mut message: Message) -> Message {
    let is_visible = |byte: &u8| byte.is_ascii_graphic();
    match chance.below(4) {
        0 => {
            let mut path = message.path.into_bytes();
            spoil(chance, &mut path, WORDS);
            path.retain(|byte| is_visible(byte) && !b"\"<>\\^`{|}#".contains(byte));
            path.truncate(2_000);
            message.path = format!("/{}", String::from_utf8(path).unwrap());
        }
        1 => {
            let mut value = b"wait=1,Bearer00-4bf9".to_vec();
            spoil(chance, &mut value, WORDS);
            value.retain(is_visible);
            value.truncate(2_000);
            let names =
                ["idempotency-key", "prefer", "authorization", "traceparent", "x-forwarded-for", "cookie"];
            message.headers.push((names[chance.below(names.len())], String::from_utf8(value).unwrap()));
        }
        _ => {
            let mut body = message.body.unwrap_or_default();
            spoil(chance, &mut body, WORDS);
            message.body = Some(body);
        }
    }
    message
}

/// Reads one answer and no further. Says its status, and whether the connection ends behind it.
fn read_one(stream: &mut impl BufRead) -> std::io::Result<(u16, bool)> {
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).map(|_| line.trim_end().to_ascii_lowercase())
    };
    let status = line()?.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or(ErrorKind::UnexpectedEof)?;
    let (mut body_bytes, mut closes) = (0, false);
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        closes |= line == "connection: close";
        if let Some(value) = line.strip_prefix("content-length: ") {
            body_bytes = value.parse().unwrap();
        }
        assert!(!line.starts_with("transfer-encoding:"), "nobody asked for a stream: {line}");
    }
    stream.read_exact(&mut vec![0; body_bytes])?;
    Ok((status, closes))
}

/// Sends requests, some at once, and reads an answer to each. Where a connection ends behind an answer, because the body
/// that belonged to it was not read, the rest is sent on another one; the first on a connection must be answered there.
fn exchange_sound(address: SocketAddr, requests: &[Vec<u8>]) -> TcpStream {
    let open = || BufReader::new(connect(address));
    let (mut stream, mut is_fresh) = (open(), true);
    for burst in requests.chunks(4) {
        let mut number = 0;
        let mut is_sent = false;
        while let Some(request) = burst.get(number) {
            if !is_sent {
                // What the server does not read it may refuse to take.
                let _ = stream.get_mut().write_all(&burst[number..].concat());
                is_sent = true;
            }
            let shown = || String::from_utf8_lossy(request).chars().take(2_000).collect::<String>();
            let ends = match read_one(&mut stream) {
                Ok((status, closes)) => {
                    assert!((200..500).contains(&status), "{status} to\n{:?}", shown());
                    number += 1;
                    is_fresh = false;
                    closes
                }
                Err(error) => {
                    let is_end =
                        matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
                    assert!(is_end && !is_fresh, "{error}: no answer to\n{:?}", shown());
                    true
                }
            };
            if ends {
                (stream, is_fresh, is_sent) = (open(), true, false);
            }
        }
    }
    stream.into_inner()
}

/// Sends anything, then no more, and reads until the server hangs up. Says how many answers there were.
fn exchange_anything(mut stream: TcpStream, bytes: &[u8]) -> usize {
    // The server may have hung up before all was written.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut said = Vec::new();
    if let Err(error) = stream.read_to_end(&mut said) {
        let is_reset = error.kind() == ErrorKind::ConnectionReset;
        assert!(is_reset, "{error}: neither an answer nor an end to\n{:?}", String::from_utf8_lossy(bytes));
    }
    let said = String::from_utf8_lossy(&said);
    let statuses = said.split("HTTP/1.1 ").skip(1).map(|answer| answer.get(..3).unwrap_or(answer));
    let statuses: Vec<&str> = statuses.collect();
    let is_fine = |status: &&str| status.starts_with(['2', '3', '4']);
    assert!(statuses.iter().all(is_fine), "{statuses:?} to\n{:?}", String::from_utf8_lossy(bytes));
    statuses.len()
}

/// Says how many answers it got.
fn throw(address: SocketAddr, good: &[Message], chance: &mut Chance) -> usize {
    let mut answers = 0;
    for _ in 0..ROUNDS {
        let sound: Vec<Vec<u8>> = (0..SOUND_PER_ROUND)
            .map(|_| {
                let message = chance.pick(good).clone();
                spoil_within(chance, message).to_bytes()
            })
            .collect();
        let stream = exchange_sound(address, &sound);
        let mut anything = chance.pick(good).to_bytes();
        if chance.below(2) == 0 {
            anything.truncate(chance.below(anything.len() + 1));
            anything.extend(chance.pick(good).to_bytes());
        }
        spoil(chance, &mut anything, WORDS);
        answers += sound.len() + exchange_anything(stream, &anything);
    }
    answers
}

#[test]
fn twenty_thousand_spoilt_requests_are_answered_and_a_good_one_behind_them_is_served() {
    let chance = Chance::new("spoilt requests");
    let server = Server::start_empty(|settings| {
        settings.rate_limits.purchase_compat = None;
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    server.create_product(&json!({"id": "1", "stock": 1_000_000}));
    let order = server.buy("ann").json()["id"].as_str().unwrap().to_owned();
    let good = good_messages(&order);
    let statuses = good.iter().map(|message| {
        let mut stream = BufReader::new(connect(server.address));
        stream.get_mut().write_all(&message.to_bytes()).unwrap();
        read_one(&mut stream).unwrap().0
    });
    let statuses: Vec<u16> = statuses.collect();
    let refused = statuses.iter().filter(|status| **status >= 300).count();
    assert_eq!(refused, 1, "there is no dead letter, and the others are good: {statuses:?}");
    let begun = Instant::now();
    let answers: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| (server.address, chance.part(number), &good))
            .map(|(address, mut chance, good)| scope.spawn(move || throw(address, good, &mut chance)))
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let sent = usize::try_from(CLIENTS).unwrap() * ROUNDS * (SOUND_PER_ROUND + 1);
    writeln!(std::io::stderr(), "{answers} answers to {sent} requests in {:?}", begun.elapsed()).unwrap();
    // Of what was spoilt altogether some is no request any more.
    assert!(sent >= 20_000 && answers > sent * 9 / 10, "{answers} answers to {sent} requests");
    assert_eq!(server.buy("bob").status, 202);
    assert_eq!(server.get("/readyz").status, 200);
}
