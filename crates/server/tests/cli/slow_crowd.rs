//! Thousands of clients that trickle their requests, and buyers among them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use yoink_testkit::{Client, Yoink, YoinkProcess};

use crate::BINARY;

/// Where the system grants so many descriptors to a process; otherwise as many as it grants.
const CROWD: usize = 5_000;
/// For all that is not the crowd, here and in the server.
const OTHER_DESCRIPTORS: usize = 200;
/// More than the default, so that a busy machine can get the whole crowd together before the first must go.
const HEAD_WITHIN: Duration = Duration::from_secs(12);
/// What one slow client may cost the server, as the tests build it.
const CLIENT_BYTES_MAX: u64 = 32 << 10;
/// What buyers' purchases may cost besides.
const PURCHASES_BYTES_MAX: u64 = 32 << 20;
/// How long a buyer may wait while the crowd is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Lets this process have as many descriptors as the system grants, as the server does by itself.
fn crowd_that_fits() -> usize {
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let granted = files.maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap());
    CROWD.min(granted.saturating_sub(OTHER_DESCRIPTORS))
}

fn slow_client(server: &YoinkProcess) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"POST /v1/orders HTTP/1.1\r\nhost: x\r\nx-slow: ").unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

fn open_connections(server: &YoinkProcess) -> u64 {
    server.client().get("/health").unwrap().json()["pool"]["total"].as_u64().unwrap()
}

/// Buys until it is over. Says how often, and how long the longest wait was.
fn buy_until(is_over: &AtomicBool, mut client: Client, buyer: usize) -> (usize, Duration) {
    let mut longest = Duration::ZERO;
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return (number, longest);
        }
        let begun = Instant::now();
        let body = json!({"customer_id": format!("{buyer}-{number}"), "product_id": "p"});
        assert_eq!(client.post("/v1/orders", &body).unwrap().status, 202);
        longest = longest.max(begun.elapsed());
    }
    unreachable!("a buyer never counts so far")
}

#[test]
fn buyers_among_thousands_of_slow_clients_are_served_and_the_slow_ones_are_gone_in_time() {
    let crowd_size = crowd_that_fits();
    assert!(crowd_size >= 500, "only {crowd_size} descriptors are left for the crowd: raise `ulimit -Hn`");
    let server = Yoink::new(BINARY)
        .env("YOINK_HTTP_HEADER_READ_TIMEOUT_MS", HEAD_WITHIN.as_millis().to_string())
        .start()
        .unwrap();
    let product =
        json!({"id": "p", "name": "Sneaker", "price": {"amount": 1, "currency": "EUR"}, "stock": 1_000_000});
    assert_eq!(server.client().post("/v1/admin/products", &product).unwrap().status, 201);
    let at_rest = server.resident_bytes().unwrap();
    let mut crowd: Vec<TcpStream> = (0..crowd_size).map(|_| slow_client(&server)).collect();
    let complete = Instant::now();
    let is_over = AtomicBool::new(false);
    let mut most = 0;
    std::thread::scope(|scope| {
        let buyers: Vec<_> = (0..4)
            .map(|buyer| (buyer, &is_over, server.anonymous_client()))
            .map(|(buyer, is_over, client)| scope.spawn(move || buy_until(is_over, client, buyer)))
            .collect();
        for _ in 0..4 {
            // Those that were sent away already cannot be written to.
            crowd.iter_mut().for_each(|slow| drop(slow.write(b"y")));
            most = most.max(server.resident_bytes().unwrap());
            std::thread::sleep(Duration::from_millis(250));
        }
        let open = open_connections(&server);
        is_over.store(true, Ordering::Relaxed);
        assert!(open >= crowd_size as u64, "only {open} connections were open when it mattered");
        for buyer in buyers {
            let (count, longest) = buyer.join().unwrap();
            assert!(count >= 20 && longest <= ANSWER_WITHIN, "{count} purchases, one took {longest:?}");
        }
    });
    let grown = most.saturating_sub(at_rest);
    let allowed = CLIENT_BYTES_MAX * crowd_size as u64 + PURCHASES_BYTES_MAX;
    assert!(
        grown <= allowed,
        "{grown} bytes for {crowd_size} slow clients, {} each",
        grown / crowd_size as u64
    );
    while open_connections(&server) > 5 {
        assert!(
            complete.elapsed() < HEAD_WITHIN + Duration::from_secs(5),
            "{} are left",
            open_connections(&server)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    for slow in &mut crowd {
        slow.set_nonblocking(false).unwrap();
        let mut said = Vec::new();
        // What was still on its way to the server resets the connection, and may take the answer with it.
        let _ = slow.read_to_end(&mut said);
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&said));
    }
    writeln!(std::io::stderr().lock(), "{crowd_size} slow clients, {grown} bytes more").unwrap();
}
