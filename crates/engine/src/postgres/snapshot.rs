//! What Redis is filled with: one consistent picture of a product.

use std::fmt;

use tokio_postgres::Row;
use uuid::Uuid;
use yoink_core::OrderId;

use super::product::{COLUMNS, TABLES, product_row};
use super::reading::{Patience, Reading};
use super::{CreditKind, Postgres, PostgresError, ProductRow, row};

/// An order as Redis wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedOrder {
    /// The order.
    pub order: OrderId,
    /// Who bought.
    pub customer: String,
    /// Units.
    pub quantity: i32,
    /// Which grant of its epoch it was.
    pub number: i64,
    /// When it was granted, in microseconds since 1970.
    pub accepted_at: i64,
    /// The price of one unit, in minor units.
    pub price: i64,
    /// In which currency.
    pub currency: String,
    /// Whether it has ended: its units count for nobody.
    pub has_ended: bool,
}

/// A credit of the epoch, which its units have in them already. (Not those that are void: they are in no allocation.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedCredit {
    /// Which one.
    pub id: Uuid,
    /// Units.
    pub units: i64,
    /// Where they come from.
    pub kind: CreditKind,
    /// Whose order returned them.
    pub customer: Option<String>,
}

/// A withdrawal that was made, whose units are gone already. Also one from an earlier epoch: somebody who began it, too,
/// may not know yet, and must not take them from this epoch once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedWithdrawal {
    /// Which adjustment.
    pub adjustment: Uuid,
    /// Units.
    pub units: i64,
}

/// One picture of a product and its orders, however many pages it takes to read it. The next page must be asked for
/// within five seconds, or PostgreSQL ends it.
pub struct SaleSnapshot {
    reading: Reading,
    /// The product; its `units` and `sold` are those of the epoch.
    pub product: ProductRow,
    /// Credits of the epoch.
    pub credits: Vec<LoadedCredit>,
    /// All that were made.
    pub withdrawals: Vec<LoadedWithdrawal>,
}

impl fmt::Debug for SaleSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaleSnapshot").field("product", &self.product).finish_non_exhaustive()
    }
}

const WHAT: &str = "read what is to be loaded";

impl Postgres {
    /// A picture of this epoch of a product and of all its orders; nothing if another epoch is to be sold from.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn sale_snapshot(
        &self,
        number: i32,
        epoch: i32,
    ) -> Result<Option<SaleSnapshot>, PostgresError> {
        let reading = Reading::begin(self, Patience::Usual).await?;
        let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE p.number = $1 AND p.epoch = $2");
        let rows = reading.rows(WHAT, &sql, &[&number, &epoch]).await?;
        let Some(product) = rows.first().map(product_row).transpose()? else {
            reading.finish().await?;
            return Ok(None);
        };
        let sql = "SELECT id, units, kind, customer FROM credits WHERE product = $1 AND epoch = $2";
        let credits = reading.rows(WHAT, sql, &[&number, &epoch]).await?;
        let credits = credits.iter().map(loaded_credit).collect::<Result<_, _>>()?;
        let sql = "SELECT id, -delta AS units FROM adjustments
                   WHERE product = $1 AND delta < 0 AND done";
        let withdrawals = reading.rows(WHAT, sql, &[&number]).await?;
        let withdrawals = withdrawals.iter().map(loaded_withdrawal).collect::<Result<_, _>>()?;
        // Statements that declare take no parameters; a number needs no quotes.
        let sql = format!(
            "DECLARE loaded NO SCROLL CURSOR FOR
             SELECT id, customer, quantity, number, accepted_at, price, currency, status <> 'confirmed' AS has_ended
             FROM orders WHERE product = {number}
             UNION ALL
             SELECT id, customer, quantity, number, accepted_at, price, currency, ended IS NOT NULL
             FROM refused WHERE product = {number} AND state <> 'retried'"
        );
        reading.execute(WHAT, &sql).await?;
        Ok(Some(SaleSnapshot { reading, product, credits, withdrawals }))
    }
}

impl SaleSnapshot {
    /// The next orders, at most `rows`, in no order; none when all were read. Orders whose grant was revoked are among
    /// them, ended: who asks for one again is to be told so.
    ///
    /// # Errors
    /// See [`PostgresError`]. Begin anew then.
    pub async fn next_page(&mut self, rows: usize) -> Result<Vec<LoadedOrder>, PostgresError> {
        let sql = format!("FETCH FORWARD {} FROM loaded", rows.max(1));
        self.reading.rows(WHAT, &sql, &[]).await?.iter().map(loaded_order).collect()
    }

    /// Ends it. Dropping it ends it too, and costs a connection.
    ///
    /// # Errors
    /// See [`PostgresError`]. What was read stays true.
    pub async fn finish(self) -> Result<(), PostgresError> {
        self.reading.finish().await
    }
}

fn loaded_order(row: &Row) -> Result<LoadedOrder, PostgresError> {
    Ok(LoadedOrder {
        order: row::order_id(row, "id")?,
        customer: row::get(row, "customer")?,
        quantity: row::get(row, "quantity")?,
        number: row::get(row, "number")?,
        accepted_at: row::get(row, "accepted_at")?,
        price: row::get(row, "price")?,
        currency: row::get(row, "currency")?,
        has_ended: row::get(row, "has_ended")?,
    })
}

fn loaded_credit(row: &Row) -> Result<LoadedCredit, PostgresError> {
    Ok(LoadedCredit {
        id: row::get(row, "id")?,
        units: row::get(row, "units")?,
        kind: row::parsed(row, "kind", CreditKind::parse)?,
        customer: row::get(row, "customer")?,
    })
}

fn loaded_withdrawal(row: &Row) -> Result<LoadedWithdrawal, PostgresError> {
    Ok(LoadedWithdrawal { adjustment: row::get(row, "id")?, units: row::get(row, "units")? })
}
