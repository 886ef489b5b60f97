//! Orders that the ledger refused for good.

use rusqlite::{Connection, OptionalExtension, Params, Row, ToSql, params};
use yoink_core::{Seq, Timestamp};

use super::{
    Ledger, Retry, Rows,
    row::{NEXT_PARAMETER, OrderRow, order_columns, parsed, seq},
};
use crate::delivery::{DEAD_LETTERS_LISTED_MAX, DeadLetter, DeadLetterFilter, DeadLetterState};

/// What a dead letter becomes when its units are back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThenState {
    Released,
    Discarded,
}

impl ThenState {
    fn name(self) -> &'static str {
        match self {
            Self::Released => DeadLetterState::Released.name(),
            Self::Discarded => DeadLetterState::Discarded.name(),
        }
    }
}

/// A dead letter with everything that delivering it again would need.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetterRow {
    pub letter: DeadLetter,
    pub order: OrderRow,
}

/// The order's columns under their names in this table.
const ORDER_COLUMNS: &str = order_columns!("order_id", "end_reason");
const LETTER_COLUMNS: &str = "id, attempts, error, created_at, updated_at, state, reason";

/// Places in the log of live orders that are dead letters and nothing else.
pub(super) fn live(connection: &Connection) -> Result<Vec<Seq>, rusqlite::Error> {
    let sql = "SELECT seq FROM dead_letters WHERE status = 'confirmed' AND state <> 'retried'";
    connection.prepare(sql)?.query_map([], |row| seq(row, 0))?.collect()
}

/// Dead letters that are not settled.
pub(super) fn count_open(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let sql = "SELECT count(*) FROM dead_letters WHERE state IN ('parked', 'releasing')";
    connection.prepare_cached(sql)?.query_row([], |row| seq(row, 0))
}

impl Ledger {
    /// Dead letters that are not settled.
    pub fn dead_letters_open(&self) -> Result<u64, rusqlite::Error> {
        self.fault.before_read()?;
        count_open(&self.connection)
    }

    /// The dead letters that a filter lets through, oldest first.
    pub fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, rusqlite::Error> {
        let sql = format!(
            "SELECT {LETTER_COLUMNS}, {ORDER_COLUMNS} FROM dead_letters
             WHERE id > ?1 AND (?2 IS NULL OR product = ?2) AND (?3 IS NULL OR instr(error, ?3) > 0)
                 AND (?4 IS NULL OR state = ?4)
             ORDER BY id LIMIT ?5"
        );
        let limit = i64::try_from(filter.limit.min(DEAD_LETTERS_LISTED_MAX)).unwrap_or(i64::MAX);
        let product = filter.product.as_ref().map(|product| product.as_str());
        let state = filter.state.map(DeadLetterState::name);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let parameters = params![filter.after, product, filter.error, state, limit];
        statement.query_map(parameters, |row| Ok(read(row)?.letter))?.collect()
    }

    /// The dead letter with this id.
    pub fn dead_letter(&self, id: i64) -> Result<Option<DeadLetterRow>, rusqlite::Error> {
        self.fault.before_read()?;
        let sql = format!("SELECT {LETTER_COLUMNS}, {ORDER_COLUMNS} FROM dead_letters WHERE id = ?1");
        self.connection.prepare_cached(&sql)?.query_row([id], read).optional()
    }

    /// Up to `limit` dead letters whose units are to be given back, oldest first.
    pub fn releasing(&self, limit: usize) -> Result<Vec<DeadLetterRow>, rusqlite::Error> {
        let sql = format!(
            "SELECT {LETTER_COLUMNS}, {ORDER_COLUMNS} FROM dead_letters WHERE state = 'releasing' ORDER BY id LIMIT ?1"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.connection.prepare_cached(&sql)?.query_map([limit], read)?.collect()
    }
}

impl Rows<'_> {
    /// An order is a dead letter from now on, or again: then `attempts` are added to those it had.
    pub fn put_dead_letter(
        &self,
        failed: &Retry,
        state: DeadLetterState,
        now: Timestamp,
    ) -> Result<(), rusqlite::Error> {
        const INSERT: &str = concat!(
            "INSERT INTO dead_letters (",
            order_columns!("order_id", "end_reason"),
            ", attempts, error, created_at, updated_at, state, then_state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?16, ?17, ?18)
             ON CONFLICT (seq) DO UPDATE SET attempts = attempts + excluded.attempts, error = excluded.error,
                 updated_at = excluded.updated_at, state = excluded.state, then_state = excluded.then_state,
                 status = excluded.status, ended_seq = excluded.ended_seq, ended_at = excluded.ended_at,
                 end_reason = excluded.end_reason"
        );
        let then_state = (state == DeadLetterState::Releasing).then(|| ThenState::Released.name());
        let mut insert = self.transaction.prepare_cached(INSERT)?;
        failed.order.bind(&mut insert)?;
        let rest: [&dyn ToSql; 5] = [&failed.attempts, &failed.error, &now.0, &state.name(), &then_state];
        (NEXT_PARAMETER..)
            .zip(rest)
            .try_for_each(|(place, value)| insert.raw_bind_parameter(place, value))?;
        insert.raw_execute()?;
        Ok(())
    }

    /// The units of a dead letter are to be given back; it then becomes `then`.
    pub fn begin_release(
        &self,
        id: i64,
        then: ThenState,
        (now, reason): (Timestamp, &str),
    ) -> Result<(), rusqlite::Error> {
        self.transaction.execute(
            "UPDATE dead_letters SET state = 'releasing', then_state = ?2, updated_at = ?3, reason = ?4 WHERE id = ?1",
            params![id, then.name(), now.0, reason],
        )?;
        Ok(())
    }

    /// The units of a dead letter are back.
    pub fn finish_release(&self, id: i64, now: Timestamp) -> Result<(), rusqlite::Error> {
        self.transaction
            .prepare_cached(
                "UPDATE dead_letters SET state = then_state, then_state = NULL, updated_at = ?2
                 WHERE id = ?1 AND state = 'releasing'",
            )?
            .execute(params![id, now.0])?;
        Ok(())
    }

    /// A dead letter goes to the archive, or back to be delivered; nothing is given back.
    pub fn settle_dead_letter(
        &self,
        id: i64,
        state: DeadLetterState,
        (now, reason): (Timestamp, Option<&str>),
    ) -> Result<(), rusqlite::Error> {
        self.transaction.execute(
            "UPDATE dead_letters SET state = ?2, then_state = NULL, updated_at = ?3, reason = ?4 WHERE id = ?1",
            params![id, state.name(), now.0, reason],
        )?;
        Ok(())
    }

    /// The order of a dead letter has ended.
    pub(super) fn end_dead_letter(&self, end: impl Params) -> Result<Option<Seq>, rusqlite::Error> {
        self.transaction
            .prepare_cached(
                "UPDATE dead_letters SET status = ?2, ended_seq = ?3, ended_at = ?4, end_reason = ?5
                 WHERE order_id = ?1 AND status = 'confirmed' RETURNING seq",
            )?
            .query_row(end, |row| seq(row, 0))
            .optional()
    }
}

fn read(row: &Row<'_>) -> Result<DeadLetterRow, rusqlite::Error> {
    let order = OrderRow::read(row, LETTER_COLUMNS_COUNT)?;
    let letter = DeadLetter {
        id: row.get(0)?,
        order: Some(order.id),
        seq: Some(order.seq),
        product: Some(order.product),
        customer: Some(order.customer.clone()),
        quantity: Some(order.quantity),
        message: None,
        attempts: row.get(1)?,
        error: row.get(2)?,
        created_at: Timestamp(row.get(3)?),
        updated_at: Timestamp(row.get(4)?),
        state: parsed(row, 5, DeadLetterState::parse)?,
        reason: row.get(6)?,
    };
    Ok(DeadLetterRow { letter, order })
}

/// Columns in [`LETTER_COLUMNS`]; those of the order come behind.
const LETTER_COLUMNS_COUNT: usize = 7;
