//! Writing orders, their ends, and other movements of units.

use rusqlite::params;
use yoink_core::{OrderId, ProductId, Seq, StockAdjustment, Timestamp};

use super::{
    ErrorClass, Rows,
    row::{OrderEndRow, OrderRow, QUANTITY_PARAMETER, integer, order_columns},
};

/// What became of an order's row.
#[derive(Debug)]
pub(crate) enum Inserted {
    /// It is in the ledger now.
    New,
    /// It was there: this event was carried before.
    AlreadyThere,
    /// The ledger can not take it; nothing else in the transaction is touched.
    Refused(rusqlite::Error),
}

/// Where an order was when its end arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// In the ledger: its row says now how it ended.
    InLedger,
    /// Waiting to be tried again, or a dead letter: it can no longer become a live row.
    Undelivered(Seq),
    /// Nowhere, or it ended before.
    Nowhere,
}

/// The ledger has another order at this place of the log, or this order at another.
#[derive(Debug, thiserror::Error)]
#[error("the ledger has another order at event {seq}")]
struct OtherOrder {
    seq: Seq,
}

impl Rows<'_> {
    /// Adds an order.
    ///
    /// One order is one statement, and SQLite undoes a refused statement alone while the transaction stays open: so
    /// one bad order in a batch is found at once, without trying halves of the batch.
    ///
    /// # Errors
    /// The transaction cannot go on.
    pub fn insert_order(&self, order: &OrderRow) -> Result<Inserted, rusqlite::Error> {
        let inserted = self.try_insert(order);
        match inserted {
            Ok(1) => Ok(Inserted::New),
            Ok(_) if self.has_order(order)? => Ok(Inserted::AlreadyThere),
            Ok(_) => {
                let other = OtherOrder { seq: order.seq };
                Ok(Inserted::Refused(rusqlite::Error::ToSqlConversionFailure(Box::new(other))))
            }
            // Some errors end the whole transaction, whatever their code.
            Err(error) if self.transaction.is_autocommit() => Err(error),
            Err(error) => match ErrorClass::of_statement(&error) {
                ErrorClass::PermanentForOrder => Ok(Inserted::Refused(error)),
                ErrorClass::Transient | ErrorClass::Unknown => Err(error),
            },
        }
    }

    fn try_insert(&self, order: &OrderRow) -> Result<usize, rusqlite::Error> {
        const INSERT: &str = concat!(
            "INSERT INTO orders (",
            order_columns!("id", "reason"),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT DO NOTHING"
        );
        let mut insert = self.transaction.prepare_cached(INSERT)?;
        order.bind(&mut insert)?;
        insert.raw_bind_parameter(QUANTITY_PARAMETER, self.fault.quantity(order))?;
        insert.raw_execute()
    }

    fn has_order(&self, order: &OrderRow) -> Result<bool, rusqlite::Error> {
        self.transaction
            .prepare_cached("SELECT 1 FROM orders WHERE seq = ?1 AND id = ?2")?
            .exists(params![integer(order.seq)?, order.id.0])
    }

    /// Writes down how an order ended, wherever it is now.
    ///
    /// # Errors
    /// The transaction cannot go on.
    pub fn end_order(&self, id: OrderId, end: &OrderEndRow) -> Result<Ended, rusqlite::Error> {
        let parameters = params![id.0, end.status.name(), integer(end.seq)?, end.at.0, &*end.reason];
        let in_ledger = self
            .transaction
            .prepare_cached(
                "UPDATE orders SET status = ?2, ended_seq = ?3, ended_at = ?4, reason = ?5
                 WHERE id = ?1 AND status = 'confirmed'",
            )?
            .execute(parameters)?;
        if in_ledger > 0 {
            return Ok(Ended::InLedger);
        }
        let in_retries = self.end_retry(parameters)?;
        let in_dead_letters = self.end_dead_letter(parameters)?;
        Ok(in_retries.or(in_dead_letters).map_or(Ended::Nowhere, Ended::Undelivered))
    }

    /// Writes down that a product came with its first units.
    ///
    /// # Errors
    /// The transaction cannot go on.
    pub fn product_created(
        &self,
        event: (Seq, Timestamp),
        product: &ProductId,
        units: u64,
    ) -> Result<(), rusqlite::Error> {
        self.insert_adjustment(event, product, ("created", units, None))
    }

    /// Writes down a restock or a withdrawal.
    ///
    /// # Errors
    /// The transaction cannot go on.
    pub fn stock_adjusted(
        &self,
        event: (Seq, Timestamp),
        adjustment: &StockAdjustment,
    ) -> Result<(), rusqlite::Error> {
        let kind = if adjustment.delta < 0 { "withdrawn" } else { "restocked" };
        let what = (kind, adjustment.delta.unsigned_abs(), Some(&*adjustment.reason));
        self.insert_adjustment(event, &adjustment.product, what)
    }

    fn insert_adjustment(
        &self,
        (seq, at): (Seq, Timestamp),
        product: &ProductId,
        (kind, units, reason): (&str, u64, Option<&str>),
    ) -> Result<(), rusqlite::Error> {
        self.transaction
            .prepare_cached(
                "INSERT INTO adjustments (seq, at, product, kind, units, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![integer(seq)?, at.0, product.as_str(), kind, integer(units)?, reason])?;
        Ok(())
    }
}
