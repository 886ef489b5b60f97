//! Requests from a queue are decided here: the ledger is the only one who knows.

use tokio_postgres::Row;
use uuid::Uuid;
use yoink_core::{OrderId, Rejection, Timestamp};

use super::columns::{Columns, Parts};
use super::connection::Parameter;
use super::{Postgres, PostgresError, row};

/// A request that was queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The order that it is to become.
    pub order: OrderId,
    /// Who buys.
    pub customer: String,
    /// Units, from 1.
    pub quantity: i32,
    /// The price of one unit that was promised, in minor units.
    pub price: i64,
    /// In which currency.
    pub currency: String,
    /// When it was queued, in microseconds since 1970.
    pub accepted_at: i64,
    /// Who queued it.
    pub publisher: Uuid,
    /// Which of the publisher's messages it is, from 1.
    pub sequence: i64,
}

impl Request {
    fn parts(&self) -> Parts<'_> {
        Parts {
            order: self.order,
            customer: &self.customer,
            quantity: self.quantity,
            price: self.price,
            currency: &self.currency,
            accepted_at: self.accepted_at,
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is an order now.
    Confirmed,
    /// Its units are charged, but the table of orders refuses it; it is tried again.
    Refused,
    /// It was decided before; nothing changed.
    Known,
    /// The customer has too many units.
    LimitReached {
        /// Units that the customer had.
        used: u64,
    },
    /// There were not enough units left.
    SoldOut {
        /// How many there were.
        available: u64,
    },
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// Each request was decided, in the order given; the token is good for the next batch.
    Done {
        /// The fencing token.
        fence: i64,
        /// One for each request.
        verdicts: Vec<Verdict>,
    },
    /// Somebody else has begun to decide for this product: nothing happened.
    Stale,
}

impl Postgres {
    /// Decides requests of one product in their order, in one transaction. `fence` is the token of the batch before, or
    /// `None` for a worker that begins: it gets one, and all older ones are void. May be called again with the same
    /// requests. `retry_at` is when refused ones are tried again.
    ///
    /// # Errors
    /// See [`PostgresError`]. [`super::ErrorClass::Permanent`]: one of the requests cannot even be sent, or there is no
    /// such product; nothing happened, so try them one by one.
    pub async fn decide(
        &self,
        product: i32,
        fence: Option<i64>,
        (retry_at, now): (Timestamp, Timestamp),
        requests: &[Request],
    ) -> Result<Decided, PostgresError> {
        let senders: Vec<Uuid> = requests.iter().map(|request| request.publisher).collect();
        let sequences: Vec<i64> = requests.iter().map(|request| request.sequence).collect();
        let columns: Columns<'_> = requests.iter().map(Request::parts).collect();
        let sql = "SELECT * FROM decide($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        let decided = self
            .change(
                "decide orders",
                sql,
                &[
                    &product,
                    &fence,
                    &now.0,
                    &retry_at.0,
                    &senders,
                    &sequences,
                    &columns.ids,
                    &columns.customers,
                    &columns.quantities,
                    &columns.prices,
                    &columns.currencies,
                    &columns.times,
                ],
            )
            .await;
        let rows = match decided {
            // Held for ever otherwise: what is not there by now, although somebody sold it, will not come.
            Err(error) if error.is_missing_row() && !self.has_product(product).await? => {
                return Err(error.permanent());
            }
            decided => decided?,
        };
        let row = row::only(&rows, "decision")?;
        if row::get(row, "stale")? {
            return Ok(Decided::Stale);
        }
        Ok(Decided::Done { fence: row::get(row, "new_fence")?, verdicts: verdicts(row)? })
    }

    async fn has_product(&self, number: i32) -> Result<bool, PostgresError> {
        let sql = "SELECT FROM products WHERE number = $1";
        Ok(!self.read("look for a product", sql, &[&number]).await?.is_empty())
    }

    /// Keeps a request that can never be decided, as its message `bytes` from `queue`, where operators see it; for its sender
    /// it is an order that has failed. Doing it again does nothing, and neither does doing it with one that was decided.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn keep_undecidable(
        &self,
        (queue, bytes): (&str, &[u8]),
        error: &str,
        (product, request): (i32, &Request),
        now: Timestamp,
    ) -> Result<(), PostgresError> {
        let sql = "SELECT keep_undecidable($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        let order = row::uuid(request.order);
        let parameters: [Parameter<'_>; 13] = [
            &queue,
            &bytes,
            &error,
            &request.publisher,
            &request.sequence,
            &product,
            &order,
            &request.customer,
            &request.quantity,
            &request.price,
            &request.currency,
            &request.accepted_at,
            &now.0,
        ];
        self.change("keep what cannot be decided", sql, &parameters).await.map(drop)
    }

    /// Why a request was rejected; `None` if it was not.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn rejection(&self, order: OrderId) -> Result<Option<Rejection>, PostgresError> {
        let sql = "SELECT o.reason, o.figure, o.customer, o.product, p.limit_per_customer
                   FROM orders o JOIN products p ON p.number = o.product WHERE o.id = $1 AND o.status = 'rejected'";
        let rows = self.read("read a rejection", sql, &[&row::uuid(order)]).await?;
        let Some(found) = rows.first() else { return Ok(None) };
        let figure = row::get::<Option<i64>>(found, "figure")?.unwrap_or(0).unsigned_abs();
        match row::get::<Option<&str>>(found, "reason")? {
            Some("sold-out") => Ok(Some(Rejection::SoldOut { available: figure })),
            Some("limit-reached") => {
                let limit: Option<i32> = row::get(found, "limit_per_customer")?;
                // Raised or lifted meanwhile: what was allowed then is at least what the customer had.
                let limit = limit.map_or(figure, |limit| u64::from(limit.unsigned_abs()));
                let existing =
                    self.live_orders_of(row::get(found, "product")?, row::get(found, "customer")?).await?;
                let fitting = |units: u64| u32::try_from(units).unwrap_or(u32::MAX);
                Ok(Some(Rejection::LimitReached { limit: fitting(limit), used: fitting(figure), existing }))
            }
            other => Err(row::not_allowed("reason", other.unwrap_or("no reason"))),
        }
    }

    /// The customer's live orders of a product, oldest first, as many as a rejection tells of.
    async fn live_orders_of(&self, product: i32, customer: &str) -> Result<Vec<OrderId>, PostgresError> {
        let sql = "SELECT id FROM orders WHERE product = $1 AND customer = $2 AND status = 'confirmed'
                   ORDER BY place LIMIT $3";
        let rows_max = row::limit(Rejection::EXISTING_MAX, Rejection::EXISTING_MAX);
        let rows = self.read("read a customer's orders", sql, &[&product, &customer, &rows_max]).await?;
        rows.iter().map(|row| row::order_id(row, "id")).collect()
    }
}

fn verdicts(row: &Row) -> Result<Vec<Verdict>, PostgresError> {
    let outcomes: Vec<&str> = row::get(row, "outcomes")?;
    let figures: Vec<Option<i64>> = row::get(row, "figures")?;
    let each = outcomes.into_iter().zip(figures.into_iter().chain(std::iter::repeat(None)));
    each.map(|(outcome, figure)| {
        let figure = figure.unwrap_or(0).unsigned_abs();
        Ok(match outcome {
            "confirmed" => Verdict::Confirmed,
            "refused" => Verdict::Refused,
            "known" => Verdict::Known,
            "limit-reached" => Verdict::LimitReached { used: figure },
            "sold-out" => Verdict::SoldOut { available: figure },
            other => return Err(row::not_allowed("outcome", other)),
        })
    })
    .collect()
}
