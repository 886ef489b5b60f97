//! The report as one JSON document.

use serde_json::{Map, Value, json};

use super::{Percentiles, StormReport};
use crate::audit::{AuditReport, StockCounts};

pub(super) fn document(report: &StormReport) -> Value {
    json!({
        "ok": report.is_ok(),
        "problems": report.problems(),
        "requests": report.requests,
        "accepted": report.accepted,
        "rejected": report.rejected,
        "errors": report.errors(),
        "rps": round(report.rps),
        "latency_ms": milliseconds(&report.latency),
        "sold_out_after_s": report.sold_out_after.map(|after| after.as_secs_f64()),
        "audit": report.audit.as_ref().map(|audit| audit_document(report, audit)),
        "target": report.target,
        "product": report.product,
        "quantity": report.quantity,
        "seed": report.seed,
        "storm": report.description,
        "preset": report.preset,
        "queued": report.queued,
        "replayed": report.replayed,
        "errors_by_kind": report.failures,
        "status_429": report.too_many_requests,
        "status_503": report.unavailable,
        "elapsed_s": report.elapsed.as_secs_f64(),
        "last_accepted_after_s": report.last_accepted_after.map(|after| after.as_secs_f64()),
        "lateness_ms": report.lateness.as_ref().map(milliseconds),
        "skipped": report.skipped,
        "checks": report.checks,
        "assertions": report.assertions,
        "notes": report.notes,
    })
}

fn audit_document(report: &StormReport, audit: &AuditReport) -> Value {
    json!({
        "ok": audit.is_ok(),
        "oversold": audit.oversold,
        "lost": audit.lost,
        "duplicated": audit.duplicated,
        "stuck": audit.stuck,
        "products": [product(&report.product, &audit.after)],
        "orders": audit.orders,
        "invariants": audit.invariants,
        "unverified": audit.unverified,
        "looked_up": audit.looked_up,
        "without_id": audit.without_id,
        "stock_before": audit.before,
        "unanswered": audit.resolution,
        "findings": audit.findings,
    })
}

fn product(id: &str, stock: &StockCounts) -> Value {
    json!({
        "id": id,
        "stocked": stock.stocked,
        "available": stock.available,
        "held": stock.held,
        "sold": stock.sold,
        "withheld": stock.withheld,
    })
}

/// `null` for each if there is nothing to measure: a zero would look like an excellent result.
fn milliseconds(percentiles: &Percentiles) -> Value {
    let value = |us: u64| {
        if percentiles.count == 0 { Value::Null } else { json!(us as f64 / 1_000.0) }
    };
    let fields: Map<String, Value> =
        percentiles.named().into_iter().map(|(name, us)| (name.to_owned(), value(us))).collect();
    Value::Object(fields)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_contracts_fields_with_the_contracts_types() {
        let mut report = StormReport::empty_for_tests();
        report.requests = 3;
        report.accepted = 2;
        report.rejected.insert("sold-out".to_owned(), 1);
        report.latency = Percentiles { count: 3, p50_us: 1_500, ..Percentiles::default() };
        report.audit = Some(AuditReport { looked_up: 2, ..AuditReport::default() });
        let json = document(&report);
        assert_eq!(json["requests"], 3);
        assert_eq!(json["accepted"], 2);
        assert_eq!(json["rejected"], json!({ "sold-out": 1 }));
        assert_eq!(json["errors"], 0);
        assert!(json["rps"].is_number());
        assert_eq!(json["latency_ms"]["p50"], 1.5);
        for name in ["p50", "p90", "p95", "p99", "p999", "max"] {
            assert!(json["latency_ms"][name].is_number(), "{name}");
        }
        assert_eq!(json["sold_out_after_s"], Value::Null);
        for name in ["oversold", "lost", "duplicated", "stuck"] {
            assert_eq!(json["audit"][name], 0, "{name}");
        }
        assert!(json["audit"]["ok"].is_boolean());
        let mut product: Vec<&String> = json["audit"]["products"][0].as_object().unwrap().keys().collect();
        product.sort();
        assert_eq!(product, ["available", "held", "id", "sold", "stocked", "withheld"]);
        assert_eq!(
            json["audit"]["orders"],
            json!({ "accepted": 0, "confirmed": 0, "cancelled": 0, "failed": 0, "rejected": 0 })
        );
        assert!(json["audit"]["invariants"].is_array());
    }

    #[test]
    fn latency_of_nothing_is_null_and_not_zero() {
        let json = document(&StormReport::empty_for_tests());
        assert_eq!(json["latency_ms"]["p99"], Value::Null);
        assert_eq!(json["audit"], Value::Null);
    }
}
