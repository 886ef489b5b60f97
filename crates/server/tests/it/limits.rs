//! Rate limits, connection limits, and where a request comes from.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use yoink_engine::RateLimit;
use yoink_server::{Policy, Settings};

use crate::engines::{Opener, only_redis};
use crate::harness::{Request, Server, eventually, read_answer};

fn purchase(customer: &str) -> Request {
    Request::new("POST", "/v1/orders").json(&json!({"customer_id": customer, "product_id": "1"}))
}

const TWO_AN_HOUR: Policy = Policy { requests: 2, window_s: 3_600 };

#[test]
fn a_customer_over_the_limit_is_429_and_told_when_to_return() {
    let server = Server::start_with(|settings| settings.rate_limits.per_customer = Some(TWO_AN_HOUR));
    assert_eq!(server.buy("ann").status, 202);
    assert_eq!(server.buy("ann").status, 202);
    let refused = server.buy("ann");
    refused.problem(429, "quota-exceeded");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"customer\";q=2;w=3600"));
    let seconds = refused.header("retry-after").unwrap();
    assert_eq!(refused.header("ratelimit"), Some(format!("\"customer\";r=0;t={seconds}").as_str()));
    assert_eq!(server.buy("bob").status, 202);
}

#[test]
fn a_replay_is_never_limited_nor_counted_and_a_reused_key_is_told_so() {
    let server = Server::start_with(|settings| settings.rate_limits.per_customer = Some(TWO_AN_HOUR));
    let first = server.send(&purchase("ann").header("idempotency-key", "k"));
    for _ in 0..5 {
        let again = server.send(&purchase("ann").header("idempotency-key", "k"));
        assert_eq!((again.status, &again.body), (202, &first.body));
    }
    assert_eq!(server.buy("ann").status, 202, "five replays were counted");
    server.buy("ann").problem(429, "quota-exceeded");
    let again = server.send(&purchase("ann").header("idempotency-key", "k"));
    assert_eq!((again.status, &again.body), (202, &first.body));
    let reused = Request::new("POST", "/v1/orders").header("idempotency-key", "k");
    let reused = reused.json(&json!({"customer_id": "ann", "product_id": "1", "quantity": 2}));
    server.send(&reused).problem(422, "idempotency-key-reused");
}

#[test]
fn behind_two_nodes_a_customer_may_buy_as_often_as_behind_one() {
    if !only_redis("no other engine keeps a rate limit for all its nodes") {
        return;
    }
    let policy = Policy { requests: 2, window_s: 60 };
    let limit = RateLimit { requests: policy.requests, window_s: policy.window_s };
    let opener = Opener::new(|_| {});
    let start = || {
        let limit_edge = |settings: &mut Settings| settings.rate_limits.per_customer = Some(policy);
        Server::start_on(opener.open_with(Some(limit)), None, limit_edge)
    };
    let (first, second) = (start(), start());
    first.create_product(&json!({"id": "1", "stock": 100}));
    eventually("the second node knows it", || second.get("/v1/products/1").status == 200);
    let keyed = |key: &str| purchase("ann").header("idempotency-key", key);
    let begun = Instant::now();
    assert_eq!(first.send(&keyed("one")).status, 202);
    assert_eq!(second.send(&keyed("two")).status, 202);
    for (node, last) in [(&first, "three"), (&second, "three"), (&first, "four"), (&second, "four")] {
        let refused = node.send(&keyed(last));
        refused.problem(429, "quota-exceeded");
        assert_eq!(refused.header("order-outcome"), Some("none"));
        assert_eq!(refused.header("ratelimit-policy"), Some("\"customer\";q=2;w=60"));
        let seconds = refused.header("retry-after").unwrap();
        assert_eq!(refused.header("ratelimit"), Some(format!("\"customer\";r=0;t={seconds}").as_str()));
        assert!((1..=30).contains(&seconds.parse::<u64>().unwrap()), "{seconds}");
    }
    for (node, key) in [(&first, "one"), (&first, "two"), (&second, "one"), (&second, "two")] {
        assert_eq!(node.send(&keyed(key)).status, 202, "a replay is never limited");
    }
    assert_eq!(second.buy("bob").status, 202);
    assert!(begun.elapsed() < Duration::from_secs(30), "so long that one more was allowed");
}

#[test]
fn what_the_sale_refuses_anyway_is_not_counted() {
    let server = Server::start_with(|settings| settings.rate_limits.per_customer = Some(TWO_AN_HOUR));
    server.create_product(&json!({"id": "gone", "stock": 0}));
    for _ in 0..5 {
        server
            .post("/v1/orders", &json!({"customer_id": "ann", "product_id": "gone"}))
            .problem(409, "sold-out");
        server
            .post("/v1/orders", &json!({"customer_id": "ann", "product_id": "none"}))
            .problem(404, "not-found");
    }
    assert_eq!(server.buy("ann").status, 202);
}

#[test]
fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
    let limited = |trusted: &[&str]| {
        let trusted: Vec<_> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        Server::start_with(|settings| {
            settings.rate_limits.per_address = Some(TWO_AN_HOUR);
            settings.trusted_proxies = trusted;
        })
    };
    let send = |server: &Server, customer: &str, forwarded: &str| {
        server.send(&purchase(customer).header("x-forwarded-for", forwarded)).status
    };
    let server = limited(&[]);
    let statuses: Vec<u16> =
        (0..3).map(|number| send(&server, "ann", &format!("203.0.113.{number}"))).collect();
    assert_eq!(statuses, [202, 202, 429], "nobody is trusted, so all come from the same peer");
    let server = limited(&["127.0.0.0/8"]);
    let statuses: Vec<u16> =
        (0..3).map(|number| send(&server, "ann", &format!("203.0.113.{number}"))).collect();
    assert_eq!(statuses, [202, 202, 202], "three clients behind one proxy");
    let statuses: Vec<u16> =
        (0..3).map(|number| send(&server, "ann", &format!("6.6.6.{number}, 198.51.100.1"))).collect();
    assert_eq!(statuses, [202, 202, 429], "what a client says of itself is left of what the proxy says");
    let statuses: Vec<u16> =
        (0..3).map(|number| send(&server, "ann", &format!("2001:db8:0:1::{number}"))).collect();
    assert_eq!(statuses, [202, 202, 429], "an IPv6 /64 is one client");
}

/// Behind a proxy on this machine, with two purchases an hour from one address.
fn behind_a_proxy() -> Server {
    Server::start_with(|settings| {
        settings.rate_limits.per_address = Some(TWO_AN_HOUR);
        settings.rate_limits.purchase_compat = None;
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
}

/// What becomes of purchases by different customers, each from the address named.
#[track_caller]
fn expect_from(server: &Server, cases: &[(&str, u16)]) {
    for (number, (forwarded, expected)) in cases.iter().enumerate() {
        let customer = format!("{}-{number}", cases[0].0);
        let answer = server.send(&purchase(&customer).header("x-forwarded-for", forwarded));
        assert_eq!(answer.status, *expected, "{number}: {forwarded}");
        if *expected == 429 {
            assert_eq!(answer.header("ratelimit-policy"), Some("\"address\";q=2;w=3600"), "{forwarded}");
        }
    }
}

#[test]
fn all_of_an_ipv6_64_is_one_client_and_the_next_one_is_another() {
    let server = behind_a_proxy();
    expect_from(
        &server,
        &[
            ("2001:db8:0:1::", 202),
            ("2001:db8:0:1:ffff:ffff:ffff:ffff", 202),
            ("2001:DB8:0:1:8000::", 429),
            ("[2001:db8:0000:0001::7]:443", 429),
            ("2001:db8:0:0:ffff:ffff:ffff:ffff", 202),
            ("2001:db8:0:2::", 202),
            ("2001:db8:1:1::", 202),
        ],
    );
    // A flood from random hosts of one network is one client as well.
    let hosts: Vec<String> = (0..200_u64).map(|n| format!("2001:db8:0:2:{:x}::{n:x}", n * 327)).collect();
    let statuses: Vec<u16> = hosts
        .iter()
        .map(|host| server.send(&purchase(host).header("x-forwarded-for", host)).status)
        .collect();
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1, "{statuses:?}");
}

#[test]
fn an_ipv4_address_is_one_client_however_it_is_written_and_its_neighbour_is_another() {
    expect_from(
        &behind_a_proxy(),
        &[
            ("203.0.113.7", 202),
            ("::ffff:203.0.113.7", 202),
            ("203.0.113.7:1234", 429),
            ("[::ffff:203.0.113.7]:80", 429),
            ("::FFFF:cb00:7107", 429),
            ("203.0.113.8", 202),
            ("203.0.113.6", 202),
        ],
    );
}

#[test]
fn what_a_client_adds_to_the_header_makes_it_nobody_else() {
    let server = behind_a_proxy();
    let many = |first: u8| format!("198.51.100.{first},{} 203.0.113.7", "127.0.0.9,".repeat(500));
    expect_from(
        &server,
        &[
            ("198.51.100.1, 203.0.113.7", 202),
            ("2001:db8::1,198.51.100.2 ,203.0.113.7,127.0.0.9", 202),
            ("nonsense, 203.0.113.7", 429),
            (&many(3), 429),
            (&many(4), 429),
        ],
    );
    let two_lines = purchase("two-lines").header("x-forwarded-for", "198.51.100.5");
    assert_eq!(server.send(&two_lines.header("x-forwarded-for", "203.0.113.7")).status, 429);
    // Where the last entry is none, the proxy is the client, whatever else is written.
    for (number, (forwarded, expected)) in
        [("203.0.113.8, x", 202), ("", 202), ("203.0.113.9,", 429), ("\"203.0.113.9\"", 429)]
            .iter()
            .enumerate()
    {
        let answer = server.send(&purchase(&format!("none-{number}")).header("x-forwarded-for", forwarded));
        assert_eq!(answer.status, *expected, "{forwarded:?}");
    }
    for name in ["x-real-ip", "forwarded", "true-client-ip", "cf-connecting-ip"] {
        let value = if name == "forwarded" { "for=198.51.100.6" } else { "198.51.100.6" };
        let answer = server.send(&purchase(name).header(name, value));
        assert_eq!(answer.status, 429, "{name} was believed");
    }
}

#[test]
fn a_network_has_a_limit_of_its_own_which_an_address_over_its_limit_does_not_use_up() {
    let server = Server::start_with(|settings| {
        settings.rate_limits.per_address = Some(TWO_AN_HOUR);
        settings.rate_limits.per_network = Some(Policy { requests: 4, window_s: 3_600 });
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let refused_by = |forwarded: &str, number: usize| {
        let customer = format!("{forwarded}-{number}");
        let answer = server.send(&purchase(&customer).header("x-forwarded-for", forwarded));
        answer.header("ratelimit-policy").map(|policy| policy.split(';').next().unwrap().to_owned())
    };
    for (addresses, outside) in [
        (["203.0.113.1", "203.0.113.77", "203.0.113.255"], "203.0.112.1"),
        (["2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:1:ffff::1"], "2001:db8:2:1::1"),
    ] {
        let by_address = Some("\"address\"".to_owned());
        let first: Vec<_> = (0..6).map(|number| refused_by(addresses[0], number)).collect();
        assert_eq!(first, [&[None, None][..], &vec![by_address; 4]].concat());
        assert_eq!([0, 1].map(|number| refused_by(addresses[1], number)), [None, None]);
        assert_eq!(refused_by(addresses[2], 0).as_deref(), Some("\"network\""));
        assert_eq!(refused_by(outside, 0), None);
    }
}

#[test]
fn an_address_has_one_limit_for_all_doors_and_a_customer_one_for_all_addresses() {
    let server = behind_a_proxy();
    let doors = ["/v1/orders", "/orders", "/buy", "/purchase"];
    let through = |door: &str, address: &str, customer: &str| {
        let native = json!({"customer_id": customer, "product_id": "1"});
        let compatible = json!({"userId": customer, "productId": "1"});
        let body = if door == "/v1/orders" { native } else { compatible };
        server.send(&Request::new("POST", door).header("x-forwarded-for", address).json(&body)).status
    };
    for (number, last) in doors.iter().enumerate() {
        let address = format!("203.0.113.{number}");
        for (other, door) in doors.iter().filter(|door| *door != last).take(2).enumerate() {
            let status = through(door, &address, &format!("{number}-{other}"));
            assert!((200..300).contains(&status), "{door}: {status}");
        }
        assert_eq!(through(last, &address, &format!("{number}-last")), 429, "{last} is another limit");
    }
    let server = Server::start_with(|settings| {
        settings.rate_limits.per_customer = Some(TWO_AN_HOUR);
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let statuses = [1, 2, 3].map(|number| {
        server.send(&purchase("ann").header("x-forwarded-for", &format!("2001:db8:{number}::1"))).status
    });
    assert_eq!(statuses, [202, 202, 429]);
}

/// A connection that is certainly being served: it had an answer.
fn open_connection(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream).status, 200);
    stream
}

#[test]
fn one_connection_more_than_allowed_is_told_so_and_closed() {
    let server = Server::start_with(|settings| settings.connections_max = 3);
    let open: Vec<TcpStream> = eventually_open(&server, 3);
    let refused = read_answer(&mut server.connect());
    refused.problem(503, "overloaded");
    assert_eq!(refused.header("order-outcome"), Some("none"));
    drop(open);
    eventually("a place is free", || {
        let mut stream = server.connect();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        read_answer(&mut stream).status == 200
    });
}

#[test]
fn one_connection_more_than_an_address_may_have_is_told_so() {
    let server = Server::start_with(|settings| settings.connections_per_address_max = Some(2));
    let open = eventually_open(&server, 2);
    read_answer(&mut server.connect()).problem(429, "quota-exceeded");
    drop(open);
    eventually("a place is free", || {
        let mut stream = server.connect();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        read_answer(&mut stream).status == 200
    });
}

/// Opens as many connections as fit. The ones that set the test up may still be closing.
fn eventually_open(server: &Server, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    eventually("the connections fit", || {
        let mut stream = server.connect();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        if read_answer(&mut stream).status == 200 {
            open.push(stream);
        }
        open.len() == count
    });
    open
}

#[test]
fn more_requests_at_once_than_allowed_are_503() {
    let server = Server::start_with(|settings| {
        settings.threads = 1;
        settings.in_flight_max = 1;
    });
    server.admin("POST", "/v1/admin/delivery/pause", None);
    let mut waiting = open_connection(&server);
    let body = r#"{"customer_id":"ann","product_id":"1"}"#;
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nprefer: wait=20\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    waiting.write_all(head.as_bytes()).unwrap();
    eventually("the first is being answered", || server.get("/livez").status == 503);
    let refused = server.buy("bob");
    refused.problem(503, "overloaded");
    assert_eq!(refused.header("order-outcome"), Some("none"));
    // The wait ends when the ledger has it, or with the server.
    server.shutdown.cancel();
    assert_eq!(read_answer(&mut waiting).status, 202);
}
