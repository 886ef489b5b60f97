//! `GET /metrics`.

use serde_json::json;

use crate::harness::{Request, Server, eventually};

fn scrape(server: &Server) -> String {
    let answer = server.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    answer.text().to_owned()
}

/// The value of one series.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no series {series} in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn every_series_is_there_from_the_start_and_is_zero() {
    let server = Server::start();
    let text = scrape(&server);
    for series in [
        "yoink_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/orders\",status_code=\"202\"}",
        "yoink_http_request_duration_seconds_count{method=\"POST\",route=\"/buy\",status_code=\"202\"}",
        "yoink_http_request_duration_seconds_count{method=\"GET\",route=\"/v1/orders/{id}\",status_code=\"200\"}",
        "yoink_decisions_total{outcome=\"accepted\",reason=\"\"}",
        "yoink_decisions_total{outcome=\"rejected\",reason=\"sold-out\"}",
        "yoink_decisions_total{outcome=\"rejected\",reason=\"limit-reached\"}",
        "yoink_orders_total{status=\"accepted\"}",
        "yoink_orders_total{status=\"rejected\"}",
        "yoink_orders_total{status=\"confirmed\"}",
        "yoink_orders_total{status=\"failed\"}",
        "yoink_orders_total{status=\"rolled_back\"}",
        "yoink_orders_total{status=\"rollback_failed\"}",
        "yoink_stock_units{product_id=\"1\",kind=\"sold\"}",
        "yoink_queue_depth{queue=\"inbox\"}",
        "yoink_oldest_undelivered_seconds",
        "yoink_ledger_lag_seconds",
        "yoink_dead_letters",
        "yoink_idempotent_replays_total",
        "yoink_conservation_error_units{product_id=\"1\"}",
        "yoink_total_orders{status=\"ACCEPTED\"}",
        "yoink_total_orders{status=\"ROLLBACK_SUCCESSFUL\"}",
        "flashsale_order_requests_total{status=\"queued\"}",
        "flashsale_order_requests_total{status=\"bad_request\"}",
        "flashsale_orders_processed_total{status=\"confirmed\"}",
        "flashsale_orders_processed_total{status=\"locked\"}",
    ] {
        assert_eq!(value(&text, series), 0.0, "{series}");
    }
    assert_eq!(value(&text, "yoink_inventory_stock_level{product_id=\"1\"}"), 100.0);
    assert_eq!(value(&text, "flashsale_stock_level{product_id=\"1\"}"), 100.0);
    for series in [
        "yoink_commit_duration_seconds_count",
        "yoink_commit_batch_size_count",
        "yoink_ledger_write_duration_seconds_count",
    ] {
        assert!(value(&text, series) >= 0.0);
    }
    for series in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(value(&text, series) > 0.0, "{series}");
    }
    assert!(text.contains("yoink_build_info{version="), "{text}");
}

#[test]
fn what_happens_is_counted_once() {
    let server = Server::start();
    server.create_product(&json!({"id": "gone", "stock": 0}));
    let keyed = Request::new("POST", "/v1/orders").header("idempotency-key", "k");
    let keyed = keyed.json(&json!({"customer_id": "ann", "product_id": "1", "quantity": 3}));
    server.send(&keyed);
    server.send(&keyed);
    server.post("/v1/orders", &json!({"customer_id": "bob", "product_id": "gone"}));
    server.post("/buy", &json!({}));
    server.get("/nothing");
    server.send(&Request::new("DELETE", "/livez"));
    eventually("the order is delivered", || {
        value(&scrape(&server), "yoink_orders_total{status=\"confirmed\"}") == 1.0
    });
    server.wait_until_shown();
    let text = scrape(&server);
    let bought = format!(
        "yoink_http_request_duration_seconds_count{{method=\"POST\",route=\"/v1/orders\",status_code=\"{}\"}}",
        server.status_of_purchases()
    );
    for (series, expected) in [
        ("yoink_decisions_total{outcome=\"accepted\",reason=\"\"}", 1.0),
        ("yoink_decisions_total{outcome=\"replayed\",reason=\"\"}", 1.0),
        ("yoink_decisions_total{outcome=\"rejected\",reason=\"sold-out\"}", 1.0),
        ("yoink_idempotent_replays_total", 1.0),
        ("yoink_stock_units{product_id=\"1\",kind=\"sold\"}", 3.0),
        ("yoink_total_orders{status=\"ACCEPTED\"}", 1.0),
        ("yoink_total_orders{status=\"REJECTED\"}", 1.0),
        ("flashsale_order_requests_total{status=\"queued\"}", 2.0),
        ("flashsale_order_requests_total{status=\"rejected\"}", 1.0),
        ("flashsale_order_requests_total{status=\"bad_request\"}", 1.0),
        (bought.as_str(), 2.0),
        (
            "yoink_http_request_duration_seconds_bucket{le=\"+Inf\",method=\"POST\",route=\"/v1/orders\",status_code=\"409\"}",
            1.0,
        ),
        (
            "yoink_http_request_duration_seconds_count{method=\"POST\",route=\"/buy\",status_code=\"400\"}",
            1.0,
        ),
        (
            "yoink_http_request_duration_seconds_count{method=\"OTHER\",route=\"unmatched\",status_code=\"404\"}",
            1.0,
        ),
        (
            "yoink_http_request_duration_seconds_count{method=\"OTHER\",route=\"/livez\",status_code=\"405\"}",
            1.0,
        ),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
}

#[test]
fn no_client_can_make_up_series() {
    let server = Server::start();
    let ask = || {
        for number in 0..20 {
            server.send(&Request::new(&format!("BREW{number}"), &format!("/made-up/{number}")));
            server.buy(&format!("customer-{number}"));
            server.get(&format!("/v1/orders/00000000-0000-0000-0000-{number:012}"));
        }
        scrape(&server).lines().count()
    };
    let first = ask();
    assert_eq!(ask(), first);
    assert!(!scrape(&server).contains("customer-"));
}

#[test]
fn who_asks_for_openmetrics_gets_it() {
    let server = Server::start();
    let answer = server.send(&Request::new("GET", "/livez"));
    assert_eq!(answer.status, 200);
    let request =
        Request::new("GET", "/metrics").header("accept", "application/openmetrics-text; version=1.0.0");
    let answer = crate::harness::exchange(server.address, &request);
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(answer.text().ends_with("# EOF\n"), "{}", answer.text());
}

#[test]
fn each_family_has_one_type_and_no_series_comes_twice() {
    let server = Server::start();
    let text = scrape(&server);
    let mut types = std::collections::HashSet::new();
    let mut series = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name), "{name} has two types");
            assert!(["counter", "gauge", "histogram", "untyped"].contains(&kind), "{line}");
        } else if !line.starts_with('#') {
            let (name, _) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(name), "{name} comes twice");
        }
    }
    assert!(types.len() > 20, "{types:?}");
}
