//! What only the redis engine has, and what every engine on PostgreSQL has.

use std::fmt;

use prometheus_client::metrics::MetricType;
use yoink_engine::postgres::Connections;
use yoink_engine::redis::RedisStatus;

use super::collector::{Labels, Out, buckets_of, gauge, histogram};

pub(super) fn encode(out: &mut Out<'_, '_>, status: &RedisStatus) -> fmt::Result {
    let help = "Time until Redis answered, by what it was asked.";
    out.family("yoink_redis_command_duration_seconds", help, MetricType::Histogram, |encoder| {
        for (command, figures) in &status.commands {
            let labels: &Labels<'_> = &[("command", command)];
            histogram(&mut encoder.encode_family(&labels)?, figures.sum, &buckets_of(figures))?;
        }
        Ok(())
    })?;
    let help = "The epoch that a product is sold from: one more each time Redis is filled anew.";
    out.family("yoink_sale_epoch", help, MetricType::Gauge, |encoder| {
        let mut sales = status.sales.iter();
        sales.try_for_each(|sale| {
            gauge(encoder, &[("product_id", sale.product.as_str())], f64::from(sale.epoch))
        })
    })?;
    let help = "1 while Redis sells a product (or would, if it is paused or its window is closed), else 0.";
    out.family("yoink_sale_open", help, MetricType::Gauge, |encoder| {
        let mut sales = status.sales.iter();
        sales.try_for_each(|sale| {
            gauge(encoder, &[("product_id", sale.product.as_str())], f64::from(u8::from(sale.is_selling)))
        })
    })?;
    let help = "Credits (restocks, returned units) that Redis does not have yet.";
    out.gauge("yoink_credits_waiting", help, status.credits_waiting as f64)?;
    let help = "1 while the settings of Redis and PostgreSQL keep what is promised, else 0.";
    out.gauge("yoink_settings_safe", help, f64::from(u8::from(status.may_sell)))?;
    let samples: [(&Labels<'_>, u64); 1] = [(&[], status.rebuilds)];
    out.counters("yoink_rebuilds", "How often this process filled Redis anew with a product.", samples)?;
    let help =
        "Orders that this process has written to a restored PostgreSQL which did not have them any more.";
    let samples: [(&Labels<'_>, u64); 1] = [(&[], status.rescued)];
    out.counters("yoink_orders_rescued", help, samples)?;
    encode_connections(out, &status.connections)
}

/// The pool of connections to the ledger.
pub(super) fn encode_connections(out: &mut Out<'_, '_>, connections: &Connections) -> fmt::Result {
    out.family("yoink_postgres_connections", "Connections to PostgreSQL.", MetricType::Gauge, |encoder| {
        for (state, count) in
            [("open", connections.total), ("idle", connections.idle), ("waited_for", connections.waiting)]
        {
            gauge(encoder, &[("state", state)], count as f64)?;
        }
        Ok(())
    })
}
