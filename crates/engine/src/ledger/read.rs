//! Reading the ledger: what an audit counts and what is exported.

use hashbrown::HashMap;
use rusqlite::{Row, params};
use yoink_core::{OrderId, ProductId, Seq, Timestamp};

use super::{
    Ledger,
    row::{COLUMNS, OrderRow, integer, parsed, product, seq, status},
};
use crate::{OrderStatus, OrderView};

/// Rows that one call of an export returns at most. Delivery stands still while they are read.
pub const EXPORT_ROWS_MAX: usize = 4_096;

/// The ledger, counted anew from its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounts {
    /// The last event whose effect is in the ledger; the figures are those after it.
    pub position: Seq,
    /// One entry per product that has orders, ascending by id.
    pub products: Vec<LedgerProduct>,
    /// Rows of live orders.
    pub confirmed: u64,
    /// Rows of orders that were cancelled.
    pub cancelled: u64,
    /// Rows of orders that failed after the ledger had them. Orders that it never took have no row.
    pub failed: u64,
    /// Orders that are refused for now and will be tried again.
    pub retrying: u64,
    /// Dead letters that are not settled.
    pub dead_letters_open: u64,
    /// Rows that share their id with another. Always 0: anything else means that the file is damaged.
    pub duplicates: u64,
}

/// The orders of one product in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerProduct {
    /// Which product.
    pub product: ProductId,
    /// Live orders in the ledger.
    pub live_orders: u64,
    /// Their units.
    pub live_units: u64,
    /// Live orders at or before the position that are not in the ledger: waiting to be tried again, or dead letters.
    pub undelivered_orders: u64,
    /// Their units.
    pub undelivered_units: u64,
}

/// Units that came to, or left, what is available of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The event that moved them.
    pub seq: Seq,
    /// When.
    pub at: Timestamp,
    /// Of which product.
    pub product: ProductId,
    /// Why in general.
    pub kind: MovementKind,
    /// How many were added to what is available, or taken from it if below zero.
    pub units: i64,
    /// Why in particular.
    pub reason: Option<Box<str>>,
    /// The order that took or returned them.
    pub order: Option<OrderId>,
}

/// Why units moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MovementKind {
    /// The product came with them.
    Created,
    /// They were added.
    Restocked,
    /// They were taken off sale.
    Withdrawn,
    /// An order took them.
    Sold,
    /// An order that ended gave them back.
    Returned,
}

impl MovementKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Created, Self::Restocked, Self::Withdrawn, Self::Sold, Self::Returned];

    /// The kind's name in exports and in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Restocked => "restocked",
            Self::Withdrawn => "withdrawn",
            Self::Sold => "sold",
            Self::Returned => "returned",
        }
    }
}

impl Ledger {
    /// Counts every row. Takes about a second per million orders.
    pub fn counts(&self) -> Result<LedgerCounts, rusqlite::Error> {
        let count = |sql: &str| self.connection.query_row(sql, [], |row| seq(row, 0));
        let mut counts = LedgerCounts {
            position: count("SELECT position FROM meta")?,
            retrying: count("SELECT count(*) FROM retries")?,
            dead_letters_open: self.dead_letters_open()?,
            duplicates: count(
                "SELECT coalesce(sum(rows - 1), 0) FROM
                     (SELECT count(*) AS rows FROM orders GROUP BY id HAVING count(*) > 1)",
            )?,
            ..LedgerCounts::default()
        };
        let mut products = HashMap::new();
        self.count_orders(&mut counts, &mut products)?;
        self.count_undelivered(&mut products)?;
        counts.products = products.into_values().collect();
        counts.products.sort_unstable_by_key(|counted| counted.product);
        Ok(counts)
    }

    fn count_orders(
        &self,
        counts: &mut LedgerCounts,
        products: &mut HashMap<ProductId, LedgerProduct>,
    ) -> Result<(), rusqlite::Error> {
        let sql = "SELECT product, status, count(*), sum(quantity) FROM orders GROUP BY product, status";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (orders, units) = (seq(row, 2)?, seq(row, 3)?);
            let counted = entry(products, product(row, 0)?);
            let total = match status(row, 1)? {
                OrderStatus::Cancelled => &mut counts.cancelled,
                OrderStatus::Failed => &mut counts.failed,
                // This ledger's table has no others; what is foreign shows in the sums.
                OrderStatus::Confirmed
                | OrderStatus::Accepted
                | OrderStatus::Queued
                | OrderStatus::Rejected => {
                    counted.live_orders = orders;
                    counted.live_units = units;
                    &mut counts.confirmed
                }
            };
            *total = total.saturating_add(orders);
        }
        Ok(())
    }

    fn count_undelivered(
        &self,
        products: &mut HashMap<ProductId, LedgerProduct>,
    ) -> Result<(), rusqlite::Error> {
        let sql = "SELECT product, count(*), sum(quantity) FROM (
                       SELECT product, quantity FROM retries WHERE status = 'confirmed'
                       UNION ALL
                       SELECT product, quantity FROM dead_letters WHERE status = 'confirmed' AND state <> 'retried'
                   ) GROUP BY product";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let counted = entry(products, product(row, 0)?);
            counted.undelivered_orders = seq(row, 1)?;
            counted.undelivered_units = seq(row, 2)?;
        }
        Ok(())
    }

    /// Orders after event `after`, in the order of the log, at most `limit` and at most [`EXPORT_ROWS_MAX`].
    pub fn orders(&self, after: Seq, limit: usize) -> Result<Vec<OrderView>, rusqlite::Error> {
        let sql = format!("SELECT {COLUMNS} FROM orders WHERE seq > ?1 ORDER BY seq LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let parameters = params![integer(after)?, rows_max(limit)];
        statement.query_map(parameters, |row| Ok(OrderRow::read(row, 0)?.into()))?.collect()
    }

    /// Movements of units after event `after`, in the order of the log, at most `limit` and at most
    /// [`EXPORT_ROWS_MAX`].
    pub fn movements(&self, after: Seq, limit: usize) -> Result<Vec<Movement>, rusqlite::Error> {
        let sql = "SELECT seq, at, product, kind, units, reason, order_id FROM movements WHERE seq > ?1
                   ORDER BY seq LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.query_map(params![integer(after)?, rows_max(limit)], movement)?.collect()
    }
}

fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit.min(EXPORT_ROWS_MAX)).unwrap_or(i64::MAX)
}

fn entry(products: &mut HashMap<ProductId, LedgerProduct>, product: ProductId) -> &mut LedgerProduct {
    products.entry(product).or_insert(LedgerProduct {
        product,
        live_orders: 0,
        live_units: 0,
        undelivered_orders: 0,
        undelivered_units: 0,
    })
}

fn movement(row: &Row<'_>) -> Result<Movement, rusqlite::Error> {
    Ok(Movement {
        seq: seq(row, 0)?,
        at: Timestamp(row.get(1)?),
        product: product(row, 2)?,
        kind: parsed(row, 3, |text| MovementKind::ALL.into_iter().find(|kind| kind.name() == text))?,
        units: row.get(4)?,
        reason: row.get(5)?,
        order: row.get::<_, Option<[u8; 16]>>(6)?.map(OrderId),
    })
}
