//! Restocks and withdrawals.

use tokio_postgres::Row;
use uuid::Uuid;
use yoink_core::{ProductId, STOCK_UNITS_MAX, Seq, StockAdjustment, Timestamp};

use super::row::{limit, signed};
use super::{Postgres, PostgresError, row};

/// Withdrawals that one listing returns at most.
const WITHDRAWALS_MAX: usize = 1_000;

/// What became of an adjustment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdjustmentOutcome {
    /// It was made; a restock's units are a credit now.
    Done(AdjustmentBegun),
    /// It was made before.
    Again(AdjustmentBegun),
    /// Take the units from this epoch of Redis, then call [`Postgres::finish_withdrawal`].
    Withdraw(AdjustmentBegun),
    /// The key was used for another adjustment of this product.
    KeyReused,
    /// The product would have had more units in its life than [`STOCK_UNITS_MAX`].
    TooLarge,
    /// There is no such product.
    NotFound,
}

/// An adjustment in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdjustmentBegun {
    /// Which one; a restock's credit has the same id.
    pub adjustment: Uuid,
    /// Of which product.
    pub product: i32,
    /// The epoch that is being sold from.
    pub epoch: i32,
    /// The event that made it, if it was made.
    pub event: Option<Seq>,
}

/// A withdrawal that waits for its units to be taken from Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// Which adjustment.
    pub adjustment: Uuid,
    /// Of which product, by number.
    pub product: i32,
    /// Of which product, by id.
    pub id: ProductId,
    /// The epoch that is being sold from.
    pub epoch: i32,
    /// How many are to be taken.
    pub units: u64,
    /// When it was asked for.
    pub made_at: Timestamp,
}

/// How a withdrawal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithdrawalEnd {
    /// It was made, by this event.
    Done(Seq),
    /// It was not made, and is forgotten.
    Refused,
    /// Redis was filled anew meanwhile, with these units: take them from the new epoch.
    Elsewhere,
}

impl Postgres {
    /// Begins an adjustment. A restock is done with it; a withdrawal must take its units from Redis first. Asking
    /// again with the same key does it once.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn adjust_stock(
        &self,
        asked: &StockAdjustment,
        now: Timestamp,
    ) -> Result<AdjustmentOutcome, PostgresError> {
        let sql = "SELECT * FROM adjust_stock($1, $2, $3, $4, $5, $6)";
        let (product, key, reason) = (asked.product.as_str(), asked.key.as_str(), &*asked.reason);
        let units_max = signed(STOCK_UNITS_MAX);
        let rows = self
            .change("adjust stock", sql, &[&product, &asked.delta, &key, &reason, &units_max, &now.0])
            .await?;
        let row = row::only(&rows, "adjustment")?;
        Ok(match row::get(row, "outcome")? {
            "done" => AdjustmentOutcome::Done(begun(row)?),
            "again" => AdjustmentOutcome::Again(begun(row)?),
            "withdraw" => AdjustmentOutcome::Withdraw(begun(row)?),
            "key-reused" => AdjustmentOutcome::KeyReused,
            "too-large" => AdjustmentOutcome::TooLarge,
            "not-found" => AdjustmentOutcome::NotFound,
            other => return Err(row::not_allowed("outcome", other)),
        })
    }

    /// The units of a withdrawal were taken from this epoch of Redis.
    ///
    /// # Errors
    /// See [`PostgresError`]. [`super::ErrorClass::Permanent`]: the ledger has not so many, so Redis says more than is
    /// true.
    pub async fn finish_withdrawal(
        &self,
        adjustment: Uuid,
        epoch: i32,
        now: Timestamp,
    ) -> Result<WithdrawalEnd, PostgresError> {
        self.end_withdrawal(adjustment, epoch, true, now).await
    }

    /// This epoch of Redis does not have the units of a withdrawal, and none were taken: it is forgotten.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn refuse_withdrawal(
        &self,
        adjustment: Uuid,
        epoch: i32,
        now: Timestamp,
    ) -> Result<WithdrawalEnd, PostgresError> {
        self.end_withdrawal(adjustment, epoch, false, now).await
    }

    async fn end_withdrawal(
        &self,
        adjustment: Uuid,
        epoch: i32,
        taken: bool,
        now: Timestamp,
    ) -> Result<WithdrawalEnd, PostgresError> {
        let sql = "SELECT * FROM finish_withdrawal($1, $2, $3, $4)";
        let rows = self.change("end a withdrawal", sql, &[&adjustment, &epoch, &taken, &now.0]).await?;
        let row = row::only(&rows, "withdrawal")?;
        Ok(match row::get(row, "outcome")? {
            "done" => WithdrawalEnd::Done(row::count(row, "event")?),
            "refused" => WithdrawalEnd::Refused,
            "elsewhere" => WithdrawalEnd::Elsewhere,
            other => return Err(row::not_allowed("outcome", other)),
        })
    }

    /// Withdrawals that were begun before `older_than` and have not ended: whoever began them has died.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn withdrawals_waiting(&self, older_than: Timestamp) -> Result<Vec<Withdrawal>, PostgresError> {
        let sql = "SELECT x.id AS adjustment, x.product, p.id, p.epoch, -x.delta AS units, x.made_at
                   FROM adjustments x JOIN products p ON p.number = x.product
                   WHERE NOT x.done AND x.made_at < $1 ORDER BY x.made_at LIMIT $2";
        let rows_max = limit(WITHDRAWALS_MAX, WITHDRAWALS_MAX);
        let rows = self.read("read the withdrawals", sql, &[&older_than.0, &rows_max]).await?;
        let withdrawal = |row: &Row| {
            Ok(Withdrawal {
                adjustment: row::get(row, "adjustment")?,
                product: row::get(row, "product")?,
                id: row::product_id(row, "id")?,
                epoch: row::get(row, "epoch")?,
                units: row::count(row, "units")?,
                made_at: Timestamp(row::get(row, "made_at")?),
            })
        };
        rows.iter().map(withdrawal).collect()
    }
}

fn begun(row: &Row) -> Result<AdjustmentBegun, PostgresError> {
    Ok(AdjustmentBegun {
        adjustment: row::get(row, "adjustment")?,
        product: row::get(row, "product_number")?,
        epoch: row::get(row, "product_epoch")?,
        event: row::get::<Option<i64>>(row, "event")?.and_then(|seq| Seq::try_from(seq).ok()),
    })
}
