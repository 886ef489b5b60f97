//! What Redis is filled with: the orders and customers of the ledger, the figures of the epoch, and what is said about
//! the product.

use std::collections::HashMap;
#[cfg(feature = "faults")]
use std::time::Duration;

use super::keys::GROUP;
use super::loader::{LoadError, Loader};
use super::servers::Server;
use crate::node::order_id::to_hex;
use crate::postgres::{CreditKind, LoadedOrder, ProductRow, SaleSnapshot};

/// Orders that are read and written at once.
const PAGE_ORDERS: usize = 1_000;
/// Fields that one call writes at most.
const FIELDS_MAX: usize = 1_000;

/// When the mistake of a stock that expires happens.
#[cfg(feature = "faults")]
const STOCK_LASTS: Duration = Duration::from_secs(1);

impl Loader {
    /// `has_rescued`: what the ledger lacked of the sale that was there before is in it now.
    pub(super) async fn fill(
        &self,
        server: &Server,
        product: i32,
        epoch: i32,
        has_rescued: bool,
    ) -> Result<(), LoadError> {
        let Some(mut snapshot) = self.postgres.sale_snapshot(product, epoch).await? else {
            return Err(LoadError::Refused("another epoch is on sale by now".to_owned()));
        };
        let rescued = if has_rescued { "rescued" } else { "" };
        self.step(server, product, epoch, |call| call.arg("begin").arg(GROUP).arg(rescued)).await?;
        let mut fields = 0_usize;
        let mut customers: HashMap<String, (u64, String)> = HashMap::new();
        loop {
            let page = snapshot.next_page(PAGE_ORDERS).await?;
            if page.is_empty() {
                break;
            }
            let records = page.iter().map(|order| (format!("o{}", to_hex(order.order)), record(order)));
            fields += self.add(server, product, epoch, records.collect()).await?;
            for order in page.iter().filter(|order| !order.has_ended) {
                let (units, ids) = customers.entry(order.customer.clone()).or_default();
                *units = units.saturating_add(u64::from(order.quantity.unsigned_abs()));
                // The newest first, as the script keeps them.
                ids.insert_str(0, &to_hex(order.order));
                ids.truncate(20 * 32);
            }
        }
        let customers = customers
            .into_iter()
            .map(|(customer, (units, ids))| (format!("c{customer}"), format!("{units}|{ids}")));
        fields += self.add(server, product, epoch, customers.collect()).await?;
        fields += self.add(server, product, epoch, marks(&snapshot)).await?;
        let sale = self.sale_fields(server, &snapshot.product);
        self.step(server, product, epoch, |call| {
            call.arg("open").arg(fields);
            sale.iter().fold(call, |call, (name, value)| call.arg(*name).arg(value))
        })
        .await?;
        #[cfg(feature = "faults")]
        if self.shared.mistakes().reseed {
            let mut expiry = redis::cmd("PEXPIRE");
            expiry.arg(self.shared.keys(product, epoch).sale).arg(STOCK_LASTS.as_millis() as u64);
            let _: i64 = expiry.query_async(&mut server.connection.clone()).await?;
        }
        Ok(snapshot.finish().await?)
    }

    /// The mistake: what the ledger says is left may be on its way to somebody.
    #[cfg(feature = "faults")]
    pub(super) async fn reseed(&self, server: &Server, row: &ProductRow) -> Result<(), LoadError> {
        let mut fields = self.sale_fields(server, row);
        fields.extend([("epoch", row.epoch.to_string()), ("state", "open".to_owned())]);
        let sale = self.shared.keys(row.number, row.epoch).sale;
        let mut call = redis::cmd("HSET");
        call.arg(sale).arg(fields);
        Ok(call.query_async(&mut server.connection.clone()).await?)
    }

    async fn add(
        &self,
        server: &Server,
        product: i32,
        epoch: i32,
        fields: Vec<(String, String)>,
    ) -> Result<usize, LoadError> {
        for some in fields.chunks(FIELDS_MAX) {
            self.step(server, product, epoch, |call| {
                some.iter().fold(call.arg("add"), |call, (name, value)| call.arg(name).arg(value))
            })
            .await?;
        }
        Ok(fields.len())
    }

    fn sale_fields(&self, server: &Server, row: &ProductRow) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("server", server.identity.to_string()),
            ("product", row.id.to_string()),
            ("state", "offers".to_owned()),
            ("available", row.units.saturating_sub(row.sold).to_string()),
            ("credited", row.units.to_string()),
            ("granted", row.sold.to_string()),
            ("number", "0".to_owned()),
            ("done", "0".to_owned()),
            ("delivered", row.sold.to_string()),
            ("given", row.given().to_string()),
            ("version", row.version.to_string()),
        ];
        fields.extend(description(row));
        fields
    }
}

/// An order as `purchase.lua` keeps it: one that the ledger has.
fn record(order: &LoadedOrder) -> String {
    format!(
        "{}|{}|{}|{}|{}|{}|{}",
        if order.has_ended { 'X' } else { 'L' },
        order.number,
        order.quantity,
        order.accepted_at,
        order.price,
        order.currency,
        order.customer
    )
}

/// What was given to the epoch, or taken from it, before it was loaded: its units tell already.
fn marks(snapshot: &SaleSnapshot) -> Vec<(String, String)> {
    let credits = snapshot.credits.iter().filter(|credit| credit.kind == CreditKind::Restocked);
    let credits = credits.map(|credit| (credit.id, credit.units));
    let withdrawals = snapshot.withdrawals.iter().map(|taken| (taken.adjustment, -taken.units));
    credits.chain(withdrawals).map(|(id, units)| (format!("m{}", id.simple()), units.to_string())).collect()
}

/// What is said about a product, as `purchase.lua` reads it.
pub(crate) fn description(row: &ProductRow) -> Vec<(&'static str, String)> {
    let or_empty = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    let details = &row.details;
    vec![
        ("limit", or_empty(details.limit_per_customer.map(i64::from))),
        ("max", details.max_per_order.to_string()),
        ("starts_at", or_empty(details.window.starts_at.map(|at| at.0))),
        ("ends_at", or_empty(details.window.ends_at.map(|at| at.0))),
        ("paused", u8::from(row.paused).to_string()),
        ("price", format!("{}|{}", details.price.amount, details.price.currency.as_str())),
    ]
}
