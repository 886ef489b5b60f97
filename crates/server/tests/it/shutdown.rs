//! The way down: nothing accepted is lost, nobody is cut off, and it ends in time.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use yoink_core::CustomerId;
use yoink_engine::OrderFilter;

use crate::engines::{block_on, only_embedded};
use crate::harness::{Server, connect, eventually, read_answer};

#[test]
fn under_load_every_order_that_was_answered_is_there_afterwards() {
    let mut server = Server::start_empty(|_| {});
    server.create_product(&json!({"id": "1", "stock": 1_000_000}));
    let address = server.address;
    let (is_over, accepted_count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let accepted: Vec<String> = std::thread::scope(|scope| {
        let buyers: Vec<_> = (0..8)
            .map(|buyer| {
                let (is_over, accepted_count) = (&is_over, &accepted_count);
                scope.spawn(move || {
                    let mut accepted = Vec::new();
                    let mut stream = connect(address);
                    for number in 0.. {
                        let body = json!({"customer_id": format!("{buyer}-{number}"), "product_id": "1"}).to_string();
                        let head = format!(
                            "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                            body.len()
                        );
                        if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
                            break;
                        }
                        let mut byte = [0];
                        if !matches!(stream.peek(&mut byte), Ok(1)) {
                            break;
                        }
                        let answer = read_answer(&mut stream);
                        if answer.status == 202 {
                            accepted.push(answer.json()["id"].as_str().unwrap().to_owned());
                            accepted_count.fetch_add(1, Ordering::Relaxed);
                        }
                        if answer.header("connection") == Some("close") || is_over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    accepted
                })
            })
            .collect();
        eventually("they have bought a lot", || accepted_count.load(Ordering::Relaxed) > 100);
        server.stop().unwrap();
        is_over.store(true, Ordering::Relaxed);
        buyers.into_iter().flat_map(|buyer| buyer.join().unwrap()).collect()
    });
    assert!(accepted.len() > 100, "{}", accepted.len());
    server.wait_until_shown();
    let mut known = std::collections::HashSet::new();
    let mut after = 0;
    loop {
        let filter = OrderFilter { after, limit: 1_000, ..OrderFilter::default() };
        let page = block_on(server.engine.orders(filter)).unwrap();
        known.extend(page.orders.iter().map(|order| order.id.to_string()));
        let Some(next) = page.next_after else { break };
        after = next;
    }
    for id in &accepted {
        assert!(known.contains(id), "{id} was accepted and is gone");
    }
    assert!(CustomerId::parse("0-0").is_ok());
}

#[test]
fn idle_connections_and_long_waits_do_not_hold_the_server() {
    let mut server = Server::start();
    server.admin("POST", "/v1/admin/delivery/pause", None);
    let mut idle = server.connect();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut idle).status, 200);
    let mut waiting = server.connect();
    let body = r#"{"customer_id":"ann","product_id":"1"}"#;
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nprefer: wait=30\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    waiting.write_all(head.as_bytes()).unwrap();
    eventually("the order is accepted or queued", || server.engine.figures().accepted == 1);
    let start = Instant::now();
    server.stop().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let answer = read_answer(&mut waiting);
    assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn for_the_delay_a_closing_server_says_so_and_sells_on() {
    let delay = Duration::from_secs(2);
    let mut server = Server::start_with(|settings| settings.drain_delay = delay);
    assert_eq!(server.get("/readyz").status, 200);
    let start = Instant::now();
    server.shutdown.cancel();
    let not_ready = server.get("/readyz").problem(503, "not-ready");
    assert_eq!(not_ready["detail"], "The server is closing.");
    assert_eq!(server.buy("ann").status, 202);
    server.stop().unwrap();
    assert!(start.elapsed() >= delay, "{:?}", start.elapsed());
    assert!(start.elapsed() < delay + Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(std::net::TcpStream::connect(server.address).is_err(), "the listeners are closed");
}

#[test]
fn a_client_that_never_finishes_is_cut_off_at_the_deadline() {
    let mut server = Server::start_with(|settings| {
        settings.drain_timeout = Duration::from_millis(300);
        settings.body_timeout = Duration::from_secs(60);
    });
    let mut stream = server.connect();
    stream
        .write_all(b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
        .unwrap();
    // Another request on the way proves nothing about this one, so wait until it counts as being answered.
    eventually("it is being read", || server.get("/health").json()["pool"]["total"].as_u64().unwrap() >= 2);
    let start = Instant::now();
    server.stop().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_port_that_is_taken_is_an_error_that_says_so() {
    let server = Server::start();
    let settings = yoink_server::Settings { listen: server.address, ..Default::default() };
    let error = yoink_server::serve(server.engine.clone(), settings, |_| {}, Default::default()).unwrap_err();
    assert!(error.to_string().contains(&format!("cannot listen on {}", server.address)), "{error}");
    assert_eq!(server.buy("ann").status, 202, "the one that was there sells on");
}

/// A log that can no longer be written stops the engine, and with it the process: a supervisor's restart reads the log.
#[test]
fn an_engine_that_stopped_ends_the_server_with_an_error() {
    if !only_embedded("a disk that fails is a fault of the embedded engine's log") {
        return;
    }
    let disk = yoink_faultfs::Disk::new(7);
    let mount = disk.mount().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut options = yoink_engine::Options::new(folder.path());
    options.log_vfs = Some(mount.name().to_owned());
    let engine = yoink_engine::Engine::open(options).unwrap();
    let settings = yoink_server::Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        mode: yoink_server::Mode::Dev,
        threads: 1,
        ..yoink_server::Settings::default()
    };
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let serving = engine.clone();
    let server = std::thread::spawn(move || {
        let shutdown = yoink_server::ShutdownSignal::new();
        yoink_server::serve(serving, settings, |address| ready.send(address).unwrap(), shutdown)
    });
    let mut stream = connect(is_ready.recv_timeout(Duration::from_secs(10)).unwrap());
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let product = yoink_core::NewProduct {
            id: None,
            name: "Mug".into(),
            price: yoink_core::Money { amount: 1, currency: yoink_core::Currency::parse("EUR").unwrap() },
            stock: 5,
            window: yoink_core::Window::default(),
            limit_per_customer: None,
            max_per_order: 1,
        };
        engine.create_product(product).await.unwrap();
    });
    disk.fail_next_sync();
    let body = r#"{"customer_id":"ann","product_id":"1"}"#;
    let length = body.len();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}"
    );
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
    let answer = read_answer(&mut stream);
    assert_eq!((answer.status, answer.header("order-outcome")), (503, Some("unknown")), "{answer:?}");
    let served = server.join().unwrap();
    assert!(matches!(served, Err(yoink_server::ServeError::EngineStopped)), "{served:?}");
}
