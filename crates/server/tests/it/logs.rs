//! The log: one line per request, safe to read, without secrets.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::{ADMIN_KEY, Request, Server, eventually, read_answer};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn answered(&self) -> Vec<Value> {
        let lines = self.text();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
        lines.filter(|line| line["fields"]["message"] == "answered").collect()
    }
}

#[test]
fn each_request_is_one_line_with_its_route_and_trace_and_no_secret() {
    let lines = Lines::default();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::DEBUG).with_writer(lines.clone());
    // The server has threads of its own. The only test that sets it.
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let server = Server::start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = Request::new("POST", "/v1/orders")
        .key(ADMIN_KEY)
        .header("idempotency-key", "secret-key")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))
        .json(&json!({"customer_id": "private-customer", "product_id": "1"}));
    let answer = server.send(&request);
    let id = answer.header("request-id").unwrap().to_owned();
    server.get("/v1/orders/nonsense%0a%1b[2J%e2%80%ae?secret=query");
    let mut stream = server.connect();
    stream.write_all(b"GET /\x1b[2J HTTP/1.1\r\nhost: \x1b[2J\r\n\r\n").unwrap();
    read_answer(&mut stream);
    eventually("the lines are written", || lines.answered().len() >= 4);
    let line = lines.answered().into_iter().find(|line| line["fields"]["request_id"] == *id).unwrap();
    let fields = &line["fields"];
    assert_eq!(
        (&fields["method"], &fields["route"], &fields["status"]),
        (&json!("POST"), &json!("/v1/orders"), &json!(server.status_of_purchases()))
    );
    assert_eq!(fields["trace_id"], trace);
    assert!(fields["duration_us"].is_u64());
    let text = lines.text();
    for secret in [ADMIN_KEY, "secret", "private-customer", "\u{1b}", "\u{202e}"] {
        assert!(!text.contains(secret), "{secret:?} is in the log");
    }
}
