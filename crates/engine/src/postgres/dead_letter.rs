//! Dead letters, and the switch of delivery.

use tokio_postgres::Row;
use yoink_core::{ProductId, Timestamp};

use super::row::limit;
use super::{Postgres, PostgresError, row};
use crate::delivery::{
    DEAD_LETTERS_LISTED_MAX, DeadLetter, DeadLetterFilter, DeadLetterRefusal, DeadLetterState,
};

/// The dead letter after it was touched, or why it was not.
type Settled = Result<DeadLetter, DeadLetterRefusal>;

/// Characters of what could not be read that are shown.
const SHOWN_MAX: usize = 500;

const LETTERS: &str =
    "SELECT number, id, grant_number, product, customer, quantity, error, attempts, created_at,
    updated_at, reason, state, bytes FROM dead_letters";

impl Postgres {
    /// The dead letters that a filter lets through, oldest first.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, PostgresError> {
        let sql = format!(
            "{LETTERS} WHERE number > $1 AND ($2::text IS NULL OR product = $2)
                 AND ($3::text IS NULL OR strpos(error, $3) > 0) AND ($4::text IS NULL OR state = $4)
             ORDER BY number LIMIT $5"
        );
        let product = filter.product.as_ref().map(ProductId::as_str);
        let state = filter.state.map(DeadLetterState::name);
        let rows_max = limit(filter.limit, DEAD_LETTERS_LISTED_MAX);
        let parameters: [super::connection::Parameter<'_>; 5] =
            [&filter.after, &product, &filter.error, &state, &rows_max];
        self.read("list dead letters", &sql, &parameters).await?.iter().map(dead_letter).collect()
    }

    /// The dead letter with this number.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, PostgresError> {
        let sql = format!("{LETTERS} WHERE number = $1");
        let rows = self.read("read a dead letter", &sql, &[&id]).await?;
        rows.first().map(dead_letter).transpose()
    }

    /// Sends a parked dead letter to be tried again, with all its attempts. Doing it twice does it once.
    ///
    /// # Errors
    /// See [`PostgresError`]; inside, why it is refused.
    pub async fn retry_dead_letter(&self, id: i64, now: Timestamp) -> Result<Settled, PostgresError> {
        let sql = "SELECT retry_letter($1, $2) AS outcome";
        let rows = self.change("retry a dead letter", sql, &[&id, &now.0]).await?;
        match row::get(row::only(&rows, "outcome")?, "outcome")? {
            "done" | "retrying" | "retried" => self.read_again(id).await,
            "released" => Ok(Err(DeadLetterRefusal::AlreadyReleased)),
            "discarded" => Ok(Err(DeadLetterRefusal::AlreadyDiscarded)),
            "unreadable" => Ok(Err(DeadLetterRefusal::Unreadable)),
            "not-found" => Ok(Err(DeadLetterRefusal::NotFound)),
            other => Err(row::not_allowed("outcome", other)),
        }
    }

    /// Gives the units of a dead letter back, unless they are back, and archives it. Doing it twice does it once.
    ///
    /// # Errors
    /// See [`PostgresError`]; inside, why it is refused.
    pub async fn discard_dead_letter(
        &self,
        id: i64,
        reason: &str,
        now: Timestamp,
    ) -> Result<Settled, PostgresError> {
        let sql = "SELECT discard_letter($1, $2, $3) AS outcome";
        let rows = self.change("discard a dead letter", sql, &[&id, &reason, &now.0]).await?;
        match row::get(row::only(&rows, "outcome")?, "outcome")? {
            "done" | "discarded" => self.read_again(id).await,
            "retrying" | "retried" => Ok(Err(DeadLetterRefusal::AlreadyRetried)),
            "not-found" => Ok(Err(DeadLetterRefusal::NotFound)),
            other => Err(row::not_allowed("outcome", other)),
        }
    }

    async fn read_again(&self, id: i64) -> Result<Settled, PostgresError> {
        Ok(self.dead_letter(id).await?.ok_or(DeadLetterRefusal::NotFound))
    }

    /// Whether an operator paused delivery, everywhere.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn delivery_is_paused(&self) -> Result<bool, PostgresError> {
        let rows = self.read("read the switch", "SELECT delivery_paused FROM ledger", &[]).await?;
        row::get(row::only(&rows, "ledger")?, "delivery_paused")
    }

    /// Stops carrying orders to the ledger, everywhere. Selling goes on.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn pause_delivery(&self) -> Result<(), PostgresError> {
        self.change("pause delivery", "UPDATE ledger SET delivery_paused = true", &[]).await.map(drop)
    }

    /// Carries orders to the ledger again.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn resume_delivery(&self) -> Result<(), PostgresError> {
        self.change("resume delivery", "UPDATE ledger SET delivery_paused = false", &[]).await.map(drop)
    }
}

fn dead_letter(row: &Row) -> Result<DeadLetter, PostgresError> {
    let bytes: Option<&[u8]> = row::get(row, "bytes")?;
    let is_order = bytes.is_none();
    Ok(DeadLetter {
        id: row::get(row, "number")?,
        order: is_order.then(|| row::order_id(row, "id")).transpose()?,
        seq: is_order.then(|| row::count(row, "grant_number")).transpose()?,
        product: is_order.then(|| row::product_id(row, "product")).transpose()?,
        customer: is_order.then(|| row::customer(row, "customer")).transpose()?,
        quantity: is_order.then(|| row::small(row, "quantity")).transpose()?,
        message: bytes.map(shown),
        error: row::get(row, "error")?,
        attempts: row::small(row, "attempts")?,
        created_at: Timestamp(row::get(row, "created_at")?),
        updated_at: Timestamp(row::get(row, "updated_at")?),
        state: row::parsed(row, "state", DeadLetterState::parse)?,
        reason: row::get(row, "reason")?,
    })
}

/// The beginning of what could not be read, as text that harms no terminal.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    for c in text.chars().take(SHOWN_MAX) {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_shown_as_harmless_text() {
        assert_eq!(shown(b"{\"a\":\n\x1b[2J\xff}"), "{\"a\":\\n\\u{1b}[2J\u{fffd}}");
        assert_eq!(shown("é".repeat(600).as_bytes()), "é".repeat(500));
    }
}
