//! The headers that every answer has, and those that none has.

use std::io::Write;

use serde_json::json;

use crate::engines::Opener;
use crate::harness::{Answer, Request, Server, read_answer};

/// `durability` is what the header of that name says.
fn assert_standard(answer: &Answer, what: &str, durability: Option<&str>) {
    let id = answer.header("request-id").unwrap_or_else(|| panic!("{what}: no Request-Id"));
    assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{what}: {id}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{what}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") || what.contains("/docs"), "{what}: {policy}");
    for absent in ["server", "x-powered-by", "access-control-allow-origin"] {
        assert_eq!(answer.header(absent), None, "{what}: {absent}");
    }
    assert_eq!(answer.header("durability"), durability, "{what}: {}", answer.status);
}

/// Asks every route for what there is and for what there is not, with a key and without.
fn ask_every_route(server: &Server, durability: Option<&str>) {
    for (method, path) in server.contract().operations() {
        if path.ends_with("/stream") {
            continue; // the next test
        }
        for id in ["1", "00000000-0000-0000-0000-000000000000"] {
            let concrete = path.replace("{id}", id).replace("{userId}", "u").replace("{slug}", "sold-out");
            for key in [Some(crate::harness::ADMIN_KEY), None] {
                let mut request =
                    Request::new(&method, &concrete).header("origin", "https://elsewhere.example");
                if let Some(key) = key {
                    request = request.key(key);
                }
                let what = format!("{method} {concrete}");
                assert_standard(&server.send(&request), &what, durability);
            }
        }
    }
    for path in ["/docs/", "/nothing", "/%ff"] {
        assert_standard(&server.get(path), path, durability);
    }
    assert_standard(&server.send(&Request::new("PUT", "/livez")), "405", durability);
    assert_standard(&server.buy("ann"), "202", durability);
}

/// A stream, and an answer that is written before there is a request.
fn ask_for_a_stream_and_without_a_head(server: &Server, durability: Option<&str>) {
    for (what, bytes, status) in [
        ("stream", "GET /v1/products/none/stream HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        ("head", "nonsense\r\n\r\n", 400),
    ] {
        let mut stream = server.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        let answer = read_answer(&mut stream);
        assert_eq!(answer.status, status);
        assert_standard(&answer, what, durability);
    }
}

#[test]
fn every_route_has_them_whatever_it_answers() {
    ask_every_route(&Server::start(), None);
}

#[test]
fn a_stream_and_a_refused_head_have_them_too() {
    ask_for_a_stream_and_without_a_head(&Server::start(), None);
}

#[test]
fn every_answer_of_a_server_that_may_forget_orders_says_so() {
    let opener = Opener::relaxed();
    let server = Server::start_on(opener.open(), Some(opener), |_| {});
    server.create_product(&json!({"id": "1", "stock": 100}));
    ask_every_route(&server, Some("relaxed"));
    ask_for_a_stream_and_without_a_head(&server, Some("relaxed"));
    let document = server.get("/openapi.json").json();
    let description = document["info"]["description"].as_str().unwrap();
    assert!(description.contains("`Durability: relaxed`"), "{description}");
}

#[test]
fn request_ids_differ_and_the_clients_own_is_not_believed() {
    let server = Server::start();
    let ids: std::collections::HashSet<String> = (0..20)
        .map(|_| server.send(&Request::new("GET", "/livez").header("request-id", "mine")))
        .map(|answer| answer.header("request-id").unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 20);
    assert!(!ids.contains("mine"));
}

#[test]
fn a_trace_is_continued_with_a_span_of_ours() {
    let server = Server::start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request =
        |path: &str| Request::new("POST", path).json(&json!({"customer_id": "ann", "product_id": "1"}));
    for path in ["/v1/orders", "/nothing"] {
        let answer =
            server.send(&request(path).header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01")));
        let expected = format!("00-{trace}-{}-01", answer.header("request-id").unwrap());
        assert_eq!(answer.header("traceparent"), Some(expected.as_str()));
        let answer = server.send(&request(path).header("traceparent", "00-nonsense-00f067aa0ba902b7-01"));
        assert_eq!(answer.header("traceparent"), None);
    }
}

#[test]
fn head_is_get_without_a_body() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(b"HEAD /v1/products/1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "{text}");
}
