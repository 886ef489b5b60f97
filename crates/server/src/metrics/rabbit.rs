//! What only the rabbitmq engine has.

use std::fmt;

use prometheus_client::metrics::MetricType;
use yoink_engine::RabbitStatus;

use super::collector::{Labels, Out, gauge};
use super::redis::encode_connections;

pub(super) fn encode(out: &mut Out<'_, '_>, status: &RabbitStatus) -> fmt::Result {
    let processed = &status.processed;
    let samples: [(&Labels<'_>, u64); 6] = [
        (&[("outcome", "confirmed")], processed.confirmed),
        (&[("outcome", "rejected")], processed.rejected),
        (&[("outcome", "locked")], processed.locked),
        (&[("outcome", "stale")], processed.stale),
        (&[("outcome", "unreadable")], processed.unreadable),
        (&[("outcome", "requeued")], processed.requeued),
    ];
    out.counters("yoink_queue_messages", "What became of queued requests in this process.", samples)?;
    out.family("yoink_broker_connected", "1 while RabbitMQ does its part.", MetricType::Gauge, |encoder| {
        for (role, is_so) in [("publish", status.is_publishing), ("consume", status.is_consuming)] {
            gauge(encoder, &[("role", role)], f64::from(u8::from(is_so)))?;
        }
        Ok(())
    })?;
    let help = "Requests that this process queued and no worker was seen to take.";
    out.gauge("yoink_queue_unseen", help, status.unseen as f64)?;
    encode_connections(out, &status.connections)
}
