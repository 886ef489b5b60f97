//! Orders that the ledger refused and that will be tried again.

use rusqlite::{Connection, OptionalExtension, Params, ToSql};
use yoink_core::{Seq, Timestamp};

use super::{
    Rows,
    row::{COLUMNS, NEXT_PARAMETER, OrderRow, integer, order_columns, seq},
};

/// An order that will be tried again.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    pub order: OrderRow,
    /// How often it was refused so far.
    pub attempts: u32,
    /// Not before this.
    pub next_at: Timestamp,
    /// Why it was refused the last time.
    pub error: String,
}

/// When an order will be tried again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub seq: Seq,
    pub accepted_at: Timestamp,
    pub next_at: Timestamp,
}

/// All that wait.
pub(super) fn schedule(connection: &Connection) -> Result<Vec<Due>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT seq, accepted_at, next_at FROM retries")?;
    let rows = statement.query_map([], |row| {
        Ok(Due { seq: seq(row, 0)?, accepted_at: Timestamp(row.get(1)?), next_at: Timestamp(row.get(2)?) })
    })?;
    rows.collect()
}

impl Retry {
    /// When it will be tried again.
    pub fn due(&self) -> Due {
        Due { seq: self.order.seq, accepted_at: self.order.accepted_at, next_at: self.next_at }
    }
}

impl Rows<'_> {
    /// Puts an order on the list, or changes what the list says of it.
    pub fn put_retry(&self, retry: &Retry) -> Result<(), rusqlite::Error> {
        const INSERT: &str = concat!(
            "INSERT INTO retries (",
            order_columns!("id", "reason"),
            ", attempts, next_at, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
             ON CONFLICT (seq) DO UPDATE SET attempts = excluded.attempts, next_at = excluded.next_at,
                 error = excluded.error"
        );
        let mut insert = self.transaction.prepare_cached(INSERT)?;
        retry.order.bind(&mut insert)?;
        let rest: [&dyn ToSql; 3] = [&retry.attempts, &retry.next_at.0, &retry.error];
        (NEXT_PARAMETER..)
            .zip(rest)
            .try_for_each(|(place, value)| insert.raw_bind_parameter(place, value))?;
        insert.raw_execute()?;
        Ok(())
    }

    /// The order at this place of the log, if it waits to be tried again.
    pub fn retry(&self, order: Seq) -> Result<Option<Retry>, rusqlite::Error> {
        let sql = format!("SELECT attempts, next_at, error, {COLUMNS} FROM retries WHERE seq = ?1");
        self.transaction
            .prepare_cached(&sql)?
            .query_row([integer(order)?], |row| {
                Ok(Retry {
                    order: OrderRow::read(row, 3)?,
                    attempts: row.get(0)?,
                    next_at: Timestamp(row.get(1)?),
                    error: row.get(2)?,
                })
            })
            .optional()
    }

    /// Takes an order off the list.
    pub fn remove_retry(&self, order: Seq) -> Result<(), rusqlite::Error> {
        self.transaction.prepare_cached("DELETE FROM retries WHERE seq = ?1")?.execute([integer(order)?])?;
        Ok(())
    }

    /// An order that waits has ended: when it is delivered, it is delivered as what it is now.
    pub(super) fn end_retry(&self, end: impl Params) -> Result<Option<Seq>, rusqlite::Error> {
        self.transaction
            .prepare_cached(
                "UPDATE retries SET status = ?2, ended_seq = ?3, ended_at = ?4, reason = ?5
                 WHERE id = ?1 AND status = 'confirmed' RETURNING seq",
            )?
            .query_row(end, |row| seq(row, 0))
            .optional()
    }
}
