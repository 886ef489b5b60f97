//! Whatever is sent: 4xx with a clear problem, never 5xx, and the server goes on.

use std::io::Write;

use serde_json::{Value, json};

use crate::harness::{Answer, Request, Server, read_answer};

/// Bodies that `POST /v1/orders` must refuse, and where it must point.
fn bad_bodies() -> Vec<(Vec<u8>, &'static str)> {
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    let texts: Vec<(String, &'static str)> = vec![
        ("".into(), ""),
        ("null".into(), ""),
        ("[]".into(), ""),
        ("\"text\"".into(), ""),
        ("{".into(), ""),
        ("{}".into(), "/product_id"),
        (r#"{"customer_id":"a"}"#.into(), "/product_id"),
        (r#"{"product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":null,"product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":"","product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":"a","product_id":""}"#.into(), "/product_id"),
        (r#"{"customer_id":true,"product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":{"a":1},"product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":["a"],"product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":1.5,"product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":-1,"product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":9007199254740992,"product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":1e400,"product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":"a\u0000b","product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":"a\nb","product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":"a\u001b[2J","product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":"\ud800","product_id":"1"}"#.into(), "/customer_id"),
        (format!(r#"{{"customer_id":"{}","product_id":"1"}}"#, "x".repeat(129)), "/customer_id"),
        (r#"{"customer_id":"a","product_id":"a b"}"#.into(), "/product_id"),
        (r#"{"customer_id":"a","product_id":"../1"}"#.into(), "/product_id"),
        (r#"{"customer_id":"a","product_id":"{1}"}"#.into(), "/product_id"),
        (format!(r#"{{"customer_id":"a","product_id":"{}"}}"#, "x".repeat(40)), "/product_id"),
        (r#"{"customer_id":"a","product_id":"1","quantity":-5}"#.into(), "/quantity"),
        (r#"{"customer_id":"a","product_id":"1","quantity":1e0}"#.into(), "/quantity"),
        (r#"{"customer_id":"a","product_id":"1","quantity":-0}"#.into(), "/quantity"),
        (r#"{"customer_id":"a","product_id":"1","quantity":99999999999999999999}"#.into(), "/quantity"),
        (r#"{"customer_id":"a","product_id":"1","quantity":[1]}"#.into(), "/quantity"),
        (r#"{"customer_id":"a","product_id":"1","price":0}"#.into(), "/price"),
        (r#"{"customer_id":"a","customer_id":"b","product_id":"1"}"#.into(), "/customer_id"),
        (r#"{"customer_id":"a","product_id":"1","quantity":1,"quantity":2}"#.into(), "/quantity"),
        (r#"{"customer_id":"a","product_id":"1"} {}"#.into(), ""),
        (r#"{"customer_id":"a","product_id":"1",}"#.into(), ""),
        (r#"{'customer_id':'a','product_id':'1'}"#.into(), ""),
        (deep.clone(), ""),
        (format!(r#"{{"customer_id":{},"product_id":"1"}}"#, "[".repeat(1_500)), "/customer_id"),
        ("\u{feff}{\"customer_id\":\"a\",\"product_id\":\"1\"}".into(), ""),
    ];
    let mut bodies: Vec<_> = texts.into_iter().map(|(text, pointer)| (text.into_bytes(), pointer)).collect();
    bodies.push((b"{\"customer_id\":\"a\xff\",\"product_id\":\"1\"}".to_vec(), "/customer_id"));
    bodies.push((b"{\"customer_id\":\"a\0\",\"product_id\":\"1\"}".to_vec(), "/customer_id"));
    bodies.push((vec![0; 100], ""));
    bodies
}

#[test]
fn a_body_that_is_not_a_purchase_is_400_and_says_where() {
    let server = Server::start();
    for (body, pointer) in bad_bodies() {
        let shown = String::from_utf8_lossy(&body).chars().take(80).collect::<String>();
        let request =
            Request::new("POST", "/v1/orders").header("content-type", "application/json").body(body);
        let problem = server.send(&request).problem(400, "validation");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{shown}: {problem}");
        assert!(!problem["errors"][0]["detail"].as_str().unwrap().is_empty(), "{shown}: {problem}");
    }
    assert_eq!(server.buy("ann").status, 202);
}

#[test]
fn the_same_bodies_never_make_an_operators_or_a_compatible_route_stumble() {
    let server = Server::start();
    for path in [
        "/orders",
        "/buy",
        "/purchase",
        "/products/restock",
        "/v1/admin/products",
        "/v1/admin/products/1/stock",
        "/v1/admin/dead-letters/retry",
        "/v1/admin/dead-letters/discard",
        "/v1/admin/dead-letters/1/discard",
        "/v1/orders/00000000-0000-0000-0000-000000000000/cancel",
    ] {
        for (body, _) in bad_bodies() {
            // The compatible routes ignore what they do not know, as they always did, and purchase takes 5 a minute.
            let shown = String::from_utf8_lossy(&body).into_owned();
            let is_fine_there = shown.contains("\"price\":0");
            let request = Request::new("POST", path).key(crate::harness::ADMIN_KEY);
            let request = request.header("content-type", "application/json").body(body);
            let answer = server.send(&request);
            let is_refused = (400..500).contains(&answer.status);
            assert!(is_refused || (is_fine_there && answer.status < 300), "{path} {shown}: {answer:?}");
        }
    }
}

#[test]
fn only_plain_json_is_read() {
    let server = Server::start();
    let body = json!({"customer_id": "ann", "product_id": "1"}).to_string();
    let send = |headers: &[(&str, &str)]| {
        let request = Request::new("POST", "/v1/orders").body(body.clone());
        server.send(&headers.iter().fold(request, |request, (name, value)| request.header(name, value)))
    };
    for headers in [
        vec![],
        vec![("content-type", "text/plain")],
        vec![("content-type", "application/x-www-form-urlencoded")],
        vec![("content-type", "application/json; charset=utf-16")],
        vec![("content-type", "application/json"), ("content-type", "text/plain")],
        vec![("content-type", "application/json"), ("content-encoding", "gzip")],
        vec![("content-type", "application/json"), ("content-encoding", "identity")],
    ] {
        send(&headers).problem(415, "unsupported-media-type");
    }
    assert_eq!(send(&[("content-type", "application/json; charset=utf-8")]).status, 202);
}

#[test]
fn a_body_beyond_the_limit_is_413_announced_or_not() {
    let server = Server::start();
    let long = |bytes: usize| json!({"customer_id": "a".repeat(bytes), "product_id": "1"}).to_string();
    for body in [long(4_100), "x".repeat(1 << 20)] {
        for path in ["/v1/orders", "/buy", "/v1/admin/products"] {
            let request =
                Request::new("POST", path).header("content-type", "application/json").body(body.clone());
            let answer = server.send(&request);
            assert_eq!(answer.status, 413, "{path}");
        }
    }
    let mut stream = server.connect();
    let head = "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..5 {
        stream.write_all(format!("400\r\n{}\r\n", "x".repeat(1_024)).as_bytes()).unwrap();
    }
    read_answer(&mut stream).problem(413, "too-large");
    assert_eq!(server.buy("ann").status, 202);
}

#[test]
fn an_idempotency_key_that_is_none_is_400() {
    let server = Server::start();
    let request =
        || Request::new("POST", "/v1/orders").json(&json!({"customer_id": "ann", "product_id": "1"}));
    let long = "x".repeat(256);
    for keys in
        [vec![""], vec!["a b"], vec!["ключ"], vec![&long], vec!["a", "b"], vec!["a", "a"], vec!["a\tb"]]
    {
        let request = keys.iter().fold(request(), |request, key| request.header("idempotency-key", key));
        server.send(&request).problem(400, "validation");
    }
    assert_eq!(server.send(&request().header("idempotency-key", &"x".repeat(255))).status, 202);
}

/// Sends bytes as they are and reads one answer.
fn raw(server: &Server, bytes: &[u8]) -> Answer {
    let mut stream = server.connect();
    let _ = stream.write_all(bytes);
    read_answer(&mut stream)
}

#[test]
fn a_head_that_is_not_http_is_400_with_a_problem_and_the_connection_ends() {
    let server = Server::start();
    for head in [
        "nonsense\r\n\r\n",
        "GET /livez\r\n\r\n",
        "GET /livez HTTP/3.0\r\nhost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: x\r\nbad header: y\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: x\r\nname\0: y\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: x\r\nname: a\0b\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: x\r\nname: a\r\n folded\r\n\r\n",
        "GET /livez HTTP/1.1\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /livez HTTP/1.1\nhost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: x\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: x\r\n\n",
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 5x\r\n\r\nhello",
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let answer = raw(&server, head.as_bytes());
        answer.problem(400, "validation");
        assert!(answer.header("request-id").is_some(), "{head:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{head:?}");
    }
    assert_eq!(server.get("/livez").status, 200);
}

/// A proxy in front may take these for other requests than they are here.
#[test]
fn behind_a_head_with_two_readings_nothing_is_served() {
    let server = Server::start();
    let hidden = "GET /v1/time HTTP/1.1\r\nhost: x\r\n\r\n";
    let first = "POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n\n\n";
    for head in [
        "GET /livez HTTP/1.1\r\nhost: x\n\r\n",
        "GET /livez HTTP/1.1\nhost: x\n\n",
        "POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nContent-Length: 0\r\n\r\n",
        "POST /livez HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n",
    ] {
        let statuses = statuses_of_all(&server, &format!("{first}{head}{hidden}"));
        assert_eq!(statuses, ["404", "400"], "{head:?}");
    }
    let chunked = "POST /livez HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(statuses_of_all(&server, &format!("{chunked}{hidden}")), ["405"]);
}

/// Sends bytes as they are and reads until the server closes.
fn statuses_of_all(server: &Server, text: &str) -> Vec<String> {
    let mut stream = server.connect();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answers = Vec::new();
    // Closing with bytes unread resets the connection; what was answered before is there.
    let _ = std::io::Read::read_to_end(&mut stream, &mut answers);
    let answers = String::from_utf8(answers).unwrap();
    answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect()
}

#[test]
fn too_many_or_too_long_headers_are_431() {
    let server = Server::start();
    let many: String = (0..100).map(|number| format!("x-{number}: y\r\n")).collect();
    let flood: String = (0..10_000).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(9_000));
    let huge = format!("x: {}\r\n", "y".repeat(1 << 20));
    for headers in [many, flood, long, huge] {
        let answer = raw(&server, format!("GET /livez HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes());
        answer.problem(431, "headers-too-large");
    }
    let exactly: String = (0..62).map(|number| format!("x-{number}: y\r\n")).collect();
    let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{exactly}\r\n");
    assert_eq!(raw(&server, head.as_bytes()).status, 200);
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn a_path_that_is_nothing_is_404_and_a_method_that_does_not_work_is_405() {
    let server = Server::start();
    for path in [
        "/",
        "/v1",
        "/v1/orders/",
        "/v2/orders",
        "/..%2f..%2fetc%2fpasswd",
        "/v1/orders/a/b",
        "/api/v1/buy",
        "//v1/orders",
        "/%00",
        "/problems/none",
    ] {
        server.get(path).problem(404, "not-found");
    }
    for (method, path, allow) in [
        ("DELETE", "/v1/orders", "POST,GET,HEAD"),
        ("PUT", "/v1/products/1", "GET,HEAD"),
        ("GET", "/buy", "POST"),
        ("GET", "/v1/admin/products", "POST"),
        ("OPTIONS", "/livez", "GET,HEAD"),
        ("TRACE", "/livez", "GET,HEAD"),
        ("BREW", "/livez", "GET,HEAD"),
    ] {
        let answer = server.send(&Request::new(method, path));
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

#[test]
fn every_kind_of_problem_can_be_looked_up() {
    let server = Server::start();
    let kind = server.get("/nothing").json()["type"].as_str().unwrap().to_owned();
    let page = server.get(&kind);
    assert_eq!((page.status, page.text()), (200, "404 not-found: There is no such thing\n"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut stream = server.connect();
    let body = |number: u32| json!({"customer_id": format!("c{number}"), "product_id": "1"}).to_string();
    let mut bytes = String::new();
    for number in 0..20 {
        let body = body(number);
        bytes.push_str(&format!(
            "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
    }
    bytes.push_str("nonsense\r\n\r\n");
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    let customers: Vec<Value> = text
        .split("HTTP/1.1 ")
        .filter(|answer| answer.starts_with("202"))
        .map(|answer| {
            let start = answer.find("\r\n\r\n").unwrap() + 4;
            serde_json::from_str::<Value>(&answer[start..]).unwrap()["customer_id"].clone()
        })
        .collect();
    let expected: Vec<Value> = (0..20).map(|number| json!(format!("c{number}"))).collect();
    assert_eq!(customers, expected);
    assert!(text.contains("HTTP/1.1 400 Bad Request"), "{text}");
}

/// The rest of such a body is not read, so no request behind it could be.
#[test]
fn an_answer_to_a_body_beyond_the_limit_says_that_the_connection_ends() {
    let server = Server::start();
    for (request, status) in [("POST /v1/orders", 413), ("POST /buy", 413), ("GET /livez", 200)] {
        let body = "x".repeat(5_000);
        let head = format!(
            "{request} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n"
        );
        let answer = raw(&server, format!("{head}{body}").as_bytes());
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{request}");
    }
}
