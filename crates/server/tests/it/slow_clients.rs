//! Clients that take their time do not take the server's.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Server, read_answer};

const SOON: Duration = Duration::from_millis(300);

fn impatient() -> Server {
    Server::start_with(|settings| {
        settings.header_read_timeout = SOON;
        settings.body_timeout = SOON;
        settings.idle_timeout = SOON;
        settings.write_timeout = SOON;
    })
}

#[test]
fn a_head_that_does_not_end_is_408() {
    let server = impatient();
    let mut stream = server.connect();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n").unwrap();
    let start = Instant::now();
    read_answer(&mut stream).problem(408, "timeout");
    assert!(start.elapsed() >= SOON / 2, "{:?}", start.elapsed());
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_head_that_drips_is_408_all_the_same() {
    let server = impatient();
    let mut stream = server.connect();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n").unwrap();
    let mut writer = stream.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        // Ends by itself when the server has hung up.
        while writer.write_all(b"x-y: z\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let answer = read_answer(&mut stream);
    // Either limit may be the first to be met: 64 lines, or the time.
    assert!(matches!(answer.status, 408 | 431), "{answer:?}");
    drop(stream);
    dripping.join().unwrap();
}

#[test]
fn a_body_that_does_not_come_is_408() {
    let server = impatient();
    for path in ["/v1/orders", "/buy"] {
        let mut stream = server.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let answer = read_answer(&mut stream);
        answer.problem(408, "timeout");
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the rest of the body can't be told from a request");
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = impatient();
    let mut stream = server.connect();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    let mut stream = server.connect();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream).status, 200);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_stream_and_a_long_wait_are_not_idle() {
    let server = impatient();
    server.admin("POST", "/v1/admin/delivery/pause", None);
    let mut stock = server.connect();
    stock.write_all(b"GET /v1/products/1/stream HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut waiting = server.connect();
    let body = json!({"customer_id": "ann", "product_id": "1"}).to_string();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nprefer: wait=2\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    waiting.write_all(head.as_bytes()).unwrap();
    let start = Instant::now();
    assert_eq!(read_answer(&mut waiting).status, 202);
    assert!(start.elapsed() > 4 * SOON, "{:?}", start.elapsed());
    server.admin("POST", "/v1/admin/products/1/pause", None);
    let mut text = String::new();
    while !text.contains("\"paused\":true") {
        let mut space = [0; 1_024];
        let count = stock.read(&mut space).unwrap();
        assert!(count > 0, "the stream ended: {text}");
        text.push_str(std::str::from_utf8(&space[..count]).unwrap());
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let server = impatient();
    for number in 0..50 {
        server.buy(&format!("{}-{number}", "x".repeat(100)));
    }
    let mut stream = server.connect();
    // Many long answers fill every buffer on the way.
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut writer = stream.try_clone().unwrap();
    let asking = std::thread::spawn(move || {
        for _ in 0..2_000 {
            if writer.write_all(request).is_err() {
                return;
            }
        }
    });
    // The server hangs up although we read nothing; what we then find is cut off.
    crate::harness::eventually("the server hung up", || {
        server.get("/health").json()["pool"]["total"].as_u64().unwrap() <= 1
    });
    let mut sink = Vec::new();
    let _ = stream.read_to_end(&mut sink);
    drop(stream);
    asking.join().unwrap();
}

#[test]
fn many_slow_clients_do_not_keep_a_quick_one_waiting() {
    let server = Server::start();
    let slow: Vec<_> = (0..500)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"POST /v1/orders HTTP/1.1\r\nhost: x\r\n").unwrap();
            stream
        })
        .collect();
    let start = Instant::now();
    assert_eq!(server.buy("ann").status, 202);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop(slow);
}
