//! Reads every figure where it is kept, at the moment of the scrape, so that nothing is counted twice.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use yoink_engine::{DeliveryStatus, DurationHistogram, EngineFigures, HistogramFigures, RabbitStatus};

use super::{Merged, process, rabbit, redis};
use crate::edge::Core;

/// Every metric.
pub(super) struct Everything {
    core: Arc<Core>,
}

impl fmt::Debug for Everything {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Everything")
    }
}

impl Everything {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let engine = &self.core.engine;
        let shared = &self.core.shared;
        let figures = engine.figures();
        let delivery = engine.delivery().status();
        let edge = Merged::of(shared.counters.iter().map(AsRef::as_ref), &shared.routes);
        let queue = engine.rabbit_status();
        let processed = Processed::of(queue.as_ref());
        let mut out = Out(&mut encoder);
        self.encode_http(&mut out, &edge)?;
        encode_decisions(&mut out, &figures)?;
        encode_orders(&mut out, &figures, &delivery, &processed)?;
        self.encode_stock(&mut out, &figures)?;
        encode_log(&mut out, &figures)?;
        self.encode_delivery(&mut out, &figures, &delivery, &processed)?;
        if let Some(status) = engine.redis_status() {
            redis::encode(&mut out, &status)?;
        }
        if let Some(status) = &queue {
            rabbit::encode(&mut out, status)?;
        }
        encode_old_names(&mut out, &figures, &delivery, &processed, &edge)?;
        encode_process(&mut out)
    }
}

/// What this process found of orders that were decided after they were queued, or carried to the ledger.
struct Processed {
    /// Decided to get nothing. Other engines decide before they answer.
    rejected: u64,
    /// Times that a lock was taken.
    locked: u64,
    /// The requests that wait in the broker's queue, not a number while that cannot be told; `None` without a queue.
    queued: Option<f64>,
}

impl Processed {
    fn of(status: Option<&RabbitStatus>) -> Self {
        Self {
            rejected: status.map_or(0, |status| status.processed.rejected),
            locked: status.map_or(0, |status| status.processed.locked),
            queued: status.map(|status| status.queued.map_or(f64::NAN, |queued| queued as f64)),
        }
    }
}

pub(super) type Labels<'a> = [(&'static str, &'a str)];

/// Writes families of samples.
pub(super) struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    pub(super) fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        samples(&mut self.0.encode_descriptor(name, help, None, kind)?)
    }

    pub(super) fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'l Labels<'l>, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |encoder| {
            samples.into_iter().try_for_each(|(labels, value)| counter(encoder, labels, value))
        })
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |encoder| encoder.encode_gauge(&value))
    }
}

fn counter(encoder: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: u64) -> fmt::Result {
    if labels.is_empty() {
        return encoder.encode_counter::<NoLabelSet, _, u64>(&value, None);
    }
    encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

/// Stock figures are far below 2^53, so as a float they are exact.
pub(super) fn gauge(encoder: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: f64) -> fmt::Result {
    encoder.encode_family(&labels)?.encode_gauge(&value)
}

/// `buckets` are upper bounds and counts, not cumulative.
pub(super) fn histogram(encoder: &mut MetricEncoder<'_>, sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
    let count = buckets.iter().map(|(_, count)| count).sum();
    encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
}

pub(super) fn buckets_of(figures: &HistogramFigures) -> Vec<(f64, u64)> {
    let bounds = figures.bounds.iter().copied().chain([f64::INFINITY]);
    bounds.zip(figures.counts.iter().copied()).collect()
}

impl Everything {
    fn encode_http(&self, out: &mut Out<'_, '_>, edge: &Merged) -> fmt::Result {
        out.family(
            "yoink_http_request_duration_seconds",
            "Time from a request's head to its answer.",
            MetricType::Histogram,
            |encoder| {
                for series in edge.durations(&self.core.shared.routes) {
                    let status = match series.status {
                        0 => "other".to_owned(),
                        status => status.to_string(),
                    };
                    let labels: &Labels<'_> =
                        &[("method", series.method), ("route", series.route), ("status_code", &status)];
                    histogram(&mut encoder.encode_family(&labels)?, series.sum_seconds, &series.buckets)?;
                }
                Ok(())
            },
        )?;
        let connections = self.core.shared.connections.load(std::sync::atomic::Ordering::Relaxed);
        out.gauge("yoink_http_connections", "Open connections.", connections as f64)?;
        out.family("yoink_build", "What is running.", MetricType::Info, |encoder| {
            let labels: &Labels<'_> =
                &[("version", env!("CARGO_PKG_VERSION")), ("engine", self.core.engine.name())];
            encoder.encode_info(&labels)
        })
    }

    fn encode_stock(&self, out: &mut Out<'_, '_>, figures: &EngineFigures) -> fmt::Result {
        let products = self.core.engine.storefront().products();
        out.family(
            "yoink_stock_units",
            "Units of a product, by what they are.",
            MetricType::Gauge,
            |encoder| {
                for product in &products {
                    let units = product.figures;
                    for (kind, value) in [
                        ("stocked", units.stocked),
                        ("available", units.available),
                        ("held", units.held),
                        ("sold", units.sold),
                        ("withheld", units.withheld),
                    ] {
                        gauge(encoder, &[("product_id", product.id.as_str()), ("kind", kind)], value as f64)?;
                    }
                }
                Ok(())
            },
        )?;
        let help = "Units that do not add up; must be 0.";
        out.family("yoink_conservation_error_units", help, MetricType::Gauge, |encoder| {
            figures
                .conservation_error_units
                .iter()
                .try_for_each(|(id, error)| gauge(encoder, &[("product_id", id.as_str())], *error as f64))
        })?;
        for (name, help) in [
            ("yoink_inventory_stock_level", "Units a buyer can have now (Yoink's old name)."),
            ("flashsale_stock_level", "Units a buyer can have now (Flash Sale Engine's old name)."),
        ] {
            out.family(name, help, MetricType::Gauge, |encoder| {
                products.iter().try_for_each(|product| {
                    gauge(encoder, &[("product_id", product.id.as_str())], product.figures.available as f64)
                })
            })?;
        }
        Ok(())
    }

    fn encode_delivery(
        &self,
        out: &mut Out<'_, '_>,
        figures: &EngineFigures,
        delivery: &DeliveryStatus,
        processed: &Processed,
    ) -> fmt::Result {
        let engine = &self.core.engine;
        let behind = engine.last_seq().saturating_sub(delivery.position);
        out.family("yoink_queue_depth", "What waits in a queue.", MetricType::Gauge, |encoder| {
            gauge(encoder, &[("queue", "inbox")], figures.inbox_tickets as f64)?;
            gauge(encoder, &[("queue", "delivery")], behind as f64)?;
            if engine.name() == "redis" {
                // What is delivered there are grants out of a stream.
                gauge(encoder, &[("queue", "grants")], behind as f64)?;
            }
            if let Some(queued) = processed.queued {
                gauge(encoder, &[("queue", "orders")], queued)?;
            }
            gauge(encoder, &[("queue", "retry")], delivery.retrying as f64)
        })?;
        let oldest = oldest_undelivered_seconds(engine.now(), delivery);
        out.gauge(
            "yoink_oldest_undelivered_seconds",
            "Age of the oldest order that the ledger does not have.",
            oldest,
        )?;
        out.gauge("yoink_ledger_lag_seconds", "How far the ledger is behind the log.", oldest)?;
        out.gauge("yoink_ledger_lag_events", "Events that the ledger does not have.", behind as f64)?;
        out.gauge(
            "yoink_dead_letters",
            "Dead letters that wait for an operator.",
            delivery.dead_letters_open as f64,
        )?;
        out.gauge(
            "yoink_delivery_paused",
            "1 while an operator paused delivery.",
            f64::from(u8::from(delivery.paused)),
        )?;
        let help = "Time of one transaction of the ledger, COMMIT included.";
        out.family("yoink_ledger_write_duration_seconds", help, MetricType::Histogram, |encoder| {
            let bounds = DurationHistogram::BOUNDS_SECONDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(delivery.write_duration.counts).collect();
            histogram(encoder, delivery.write_duration.sum_seconds, &buckets)
        })
    }
}

/// Seconds since the oldest undelivered order was accepted; 0 if there is none.
pub(crate) fn oldest_undelivered_seconds(now: yoink_core::Timestamp, delivery: &DeliveryStatus) -> f64 {
    let microseconds = delivery.oldest_undelivered_at.map_or(0, |at| now.0.saturating_sub(at.0).max(0));
    microseconds as f64 / 1e6
}

fn encode_decisions(out: &mut Out<'_, '_>, figures: &EngineFigures) -> fmt::Result {
    out.family("yoink_decisions", "Purchases decided.", MetricType::Counter, |encoder| {
        counter(encoder, &[("outcome", "accepted"), ("reason", "")], figures.accepted)?;
        counter(encoder, &[("outcome", "replayed"), ("reason", "")], figures.replayed)?;
        for (reason, count) in &figures.rejected {
            counter(encoder, &[("outcome", "rejected"), ("reason", reason)], *count)?;
        }
        for (reason, count) in [
            ("too-often", figures.too_often),
            ("overloaded", figures.overloaded),
            ("expired", figures.expired),
            ("storage-full", figures.storage_full),
            ("rebuilding", figures.rebuilding),
            ("unsafe-settings", figures.unsafe_settings),
            ("unreachable", figures.unreachable),
            ("closing", figures.closing),
        ] {
            counter(encoder, &[("outcome", "turned-away"), ("reason", reason)], count)?;
        }
        counter(encoder, &[("outcome", "unknown"), ("reason", "")], figures.outcome_unknown)
    })?;
    let samples: [(&Labels<'_>, u64); 1] = [(&[], figures.replayed)];
    out.counters("yoink_idempotent_replays", "Purchases that had been accepted before.", samples)
}

fn rejected(figures: &EngineFigures, processed: &Processed) -> u64 {
    figures.rejected.iter().map(|(_, count)| count).sum::<u64>() + processed.rejected
}

fn encode_orders(
    out: &mut Out<'_, '_>,
    figures: &EngineFigures,
    delivery: &DeliveryStatus,
    processed: &Processed,
) -> fmt::Result {
    let samples: [(&Labels<'_>, u64); 7] = [
        (&[("status", "accepted")], figures.accepted),
        (&[("status", "rejected")], rejected(figures, processed)),
        (&[("status", "confirmed")], delivery.confirmed_total),
        (&[("status", "cancelled")], figures.cancelled),
        (&[("status", "failed")], delivery.failed_total),
        (&[("status", "rolled_back")], delivery.rolled_back_total),
        (&[("status", "rollback_failed")], delivery.rollback_failed_total),
    ];
    out.counters("yoink_orders", "Orders by what became of them.", samples)
}

fn encode_log(out: &mut Out<'_, '_>, figures: &EngineFigures) -> fmt::Result {
    let help = "Time of one commit of the log, fsync included.";
    out.family("yoink_commit_duration_seconds", help, MetricType::Histogram, |encoder| {
        histogram(encoder, figures.commit_seconds.sum, &buckets_of(&figures.commit_seconds))
    })?;
    out.family(
        "yoink_commit_batch_size",
        "Events in one commit of the log.",
        MetricType::Histogram,
        |encoder| histogram(encoder, figures.batch_events.sum, &buckets_of(&figures.batch_events)),
    )?;
    let samples: [(&Labels<'_>, u64); 1] = [(&[], figures.clock_steps)];
    out.counters("yoink_clock_steps", "Jumps of the wall clock.", samples)
}

fn encode_old_names(
    out: &mut Out<'_, '_>,
    figures: &EngineFigures,
    delivery: &DeliveryStatus,
    processed: &Processed,
    edge: &Merged,
) -> fmt::Result {
    // The old name of this counter does not end in _total, which only this type lets pass.
    let help = "Orders by what became of them (Yoink's old name).";
    out.family("yoink_total_orders", help, MetricType::Unknown, |encoder| {
        for (status, count) in [
            ("ACCEPTED", figures.accepted),
            ("REJECTED", rejected(figures, processed)),
            ("CONFIRMED", delivery.confirmed_total),
            ("FAILED", delivery.failed_total),
            ("ROLLBACK_SUCCESSFUL", delivery.rolled_back_total),
            ("ROLLBACK_FAILED", delivery.rollback_failed_total),
        ] {
            gauge(encoder, &[("status", status)], count as f64)?;
        }
        Ok(())
    })?;
    let requests: [(&Labels<'_>, u64); 3] = [
        (&[("status", "queued")], edge.queued),
        (&[("status", "rejected")], edge.rejected),
        (&[("status", "bad_request")], edge.bad_request),
    ];
    out.counters(
        "flashsale_order_requests",
        "Purchases asked for (Flash Sale Engine's old name).",
        requests,
    )?;
    // What found nothing left, the original called failed.
    let processed: [(&Labels<'_>, u64); 3] = [
        (&[("status", "confirmed")], delivery.confirmed_total),
        (&[("status", "failed")], delivery.failed_total + processed.rejected),
        (&[("status", "locked")], processed.locked),
    ];
    out.counters(
        "flashsale_orders_processed",
        "Orders carried to the ledger (Flash Sale Engine's old name).",
        processed,
    )
}

fn encode_process(out: &mut Out<'_, '_>) -> fmt::Result {
    let process = process::read();
    out.family("process_cpu_seconds", "Processor time used.", MetricType::Counter, |encoder| {
        encoder.encode_counter::<NoLabelSet, _, u64>(&process.cpu_seconds, None)
    })?;
    out.gauge("process_resident_memory_bytes", "Memory in use.", process.resident_bytes as f64)?;
    out.gauge("process_virtual_memory_bytes", "Address space in use.", process.virtual_bytes as f64)?;
    out.gauge("process_open_fds", "Open files and sockets.", process.open_fds as f64)?;
    out.gauge("process_max_fds", "The most of them that are allowed.", process.max_fds as f64)?;
    out.gauge("process_threads", "Threads.", process.threads as f64)?;
    out.gauge("process_start_time_seconds", "When the process started, since 1970.", process.start_seconds)
}
