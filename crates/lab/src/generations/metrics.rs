//! The older system's metrics, under their names and with its buckets. The label `version` tells the generations apart.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Generation, Generations};

/// Upper bounds in seconds, as the older system has them.
const BUCKETS: [f64; 8] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5];

type Labels = Vec<(&'static str, String)>;
/// How long answers took, by method, route and status: one family for all generations.
pub(crate) type Latencies = Family<Labels, Histogram, fn() -> Histogram>;

/// No answer yet.
pub(super) fn latencies() -> Latencies {
    Family::new_with_constructor(|| Histogram::new(BUCKETS))
}

/// What one generation counts while it sells. Everything begins at zero.
pub(crate) struct Figures {
    latencies: Latencies,
    route: String,
    accepted: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
}

impl Figures {
    pub(super) fn new(latencies: Latencies, version: u8) -> Self {
        Self {
            latencies,
            route: format!("/api/v{version}/buy"),
            accepted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    pub(super) fn answered(&self, status: u16, took: Duration) {
        let labels = vec![
            ("method", "POST".to_owned()),
            ("route", self.route.clone()),
            ("status_code", status.to_string()),
        ];
        self.latencies.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(super) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Everything, as a scraper reads it.
///
/// # Errors
/// The books cannot be asked.
pub(super) async fn text(generations: &Generations) -> Result<String> {
    let mut registry = Registry::default();
    let orders: Family<Labels, Gauge> = Family::default();
    let stock: Family<Labels, Gauge> = Family::default();
    for generation in &generations.all {
        count(generation, &orders, &stock).await?;
    }
    registry.register(
        "yoink_http_request_duration_seconds",
        "Time to answer a purchase",
        generations.latencies.clone(),
    );
    registry.register("yoink_inventory_stock_level", "Units left in the database", stock);
    // The old name of this counter does not end in _total, which a counter's must here.
    registry.register("yoink_total_orders", "Orders by what became of them", orders);
    let mut text = String::new();
    encode(&mut text, &registry).context("the metrics cannot be written")?;
    Ok(text)
}

async fn count(
    generation: &Generation,
    orders: &Family<Labels, Gauge>,
    stock: &Family<Labels, Gauge>,
) -> Result<()> {
    let version = || ("version", format!("v{}", generation.version));
    let client = generation.shop.stores.postgres().await?;
    let statuses = client.query("SELECT status, count(*) FROM orders GROUP BY status", &[]).await?;
    let written = |wanted: &str| {
        let row = statuses.iter().find(|row| row.get::<_, &str>(0) == wanted);
        row.map_or(0, |row| row.get::<_, i64>(1))
    };
    let figures = &generation.figures;
    let counted = |figure: &AtomicU64| i64::try_from(figure.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
    for (status, figure) in [
        ("ACCEPTED", counted(&figures.accepted)),
        ("REJECTED", counted(&figures.rejected)),
        ("CONFIRMED", written("CONFIRMED")),
        ("FAILED", counted(&figures.failed)),
        ("ROLLBACK_SUCCESSFUL", written("FAILED")),
        ("ROLLBACK_FAILED", 0),
    ] {
        orders.get_or_create(&vec![("status", status.to_owned()), version()]).set(figure);
    }
    for row in client.query("SELECT id, stock FROM products", &[]).await? {
        let labels = vec![("product_id", row.get::<_, String>(0)), version()];
        stock.get_or_create(&labels).set(i64::from(row.get::<_, i32>(1)));
    }
    Ok(())
}
