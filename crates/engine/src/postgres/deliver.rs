//! Grants become orders, and orders end.

use tokio_postgres::Row;
use yoink_core::{OrderId, Timestamp};

use super::columns::{Columns, Parts};
use super::connection::Parameter;
use super::row::limit;
use super::{Postgres, PostgresError, row};

/// Refused orders that one look finds at most.
const DUE_MAX: usize = 1_000;

/// What Redis granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The order.
    pub order: OrderId,
    /// Which grant of its epoch it is.
    pub number: i64,
    /// Who bought.
    pub customer: String,
    /// Units, from 1.
    pub quantity: i32,
    /// The price of one unit, in minor units.
    pub price: i64,
    /// In which currency.
    pub currency: String,
    /// When it was granted, in microseconds since 1970.
    pub accepted_at: i64,
}

impl Grant {
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

/// How grants are written to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// While their epoch is on sale. What comes after it was sealed is not written at all and is told apart
    /// ([`Delivered::Sealed`]).
    Carry,
    /// As [`Self::Carry`], and what comes after the epoch was sealed is revoked: for orders that got no unit of the epoch
    /// on sale either.
    Deliver,
    /// Those that the ledger does not have, into an epoch that Redis is yet to be filled with, as [`Self::Deliver`] would.
    /// Those that it has are [`Delivered::Known`]. All are [`Delivered::Sealed`], and nothing is written, if another epoch
    /// is on sale by now or this one was opened.
    Rescue,
    /// As [`Self::Rescue`], for orders that had ended: they take no unit. Those that the ledger did not have are
    /// [`Delivered::Revoked`].
    RescueEnded,
}

impl Way {
    /// The function of the ledger that does it.
    fn function(self) -> &'static str {
        match self {
            Self::Carry => "carry",
            Self::Deliver => "deliver",
            Self::Rescue => "rescue",
            Self::RescueEnded => "rescue_ended",
        }
    }
}

/// What became of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivered {
    /// It is an order now.
    Confirmed,
    /// It is an order now, and its number is another order's: Redis had gone back in time when it granted it.
    Collided,
    /// It was here before; nothing changed.
    Known,
    /// The table of orders refuses it. Its units are charged; it is kept and tried again.
    Refused,
    /// Its order is here under another number: Redis had forgotten it. Its units are on their way back to Redis.
    Duplicate,
    /// The ledger has no unit for it, or its customer would have more than was ever allowed: the order has failed
    /// without taking a unit.
    Revoked,
    /// Its epoch is sealed and the ledger does not know it: nothing was written. It is to be offered to the epoch that
    /// is on sale.
    Sealed,
}

impl Delivered {
    /// Whether it shows that what Redis says of the epoch is wrong.
    pub(crate) fn is_distrusted(self) -> bool {
        matches!(self, Self::Collided | Self::Duplicate | Self::Revoked)
    }

    /// Whether the units of the grant are, or were before, charged to its epoch.
    pub(crate) fn is_charged(self) -> bool {
        match self {
            Self::Confirmed | Self::Collided | Self::Known | Self::Refused => true,
            Self::Duplicate | Self::Revoked | Self::Sealed => false,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "confirmed" => Some(Self::Confirmed),
            "collided" => Some(Self::Collided),
            "known" => Some(Self::Known),
            "refused" => Some(Self::Refused),
            "duplicate" => Some(Self::Duplicate),
            "revoked" => Some(Self::Revoked),
            "sealed" => Some(Self::Sealed),
            _ => None,
        }
    }
}

/// How an order ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    /// Somebody gave the units back.
    Cancelled,
    /// The ledger can never take it.
    Failed,
}

impl EndKind {
    /// Its word in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// What became of ending an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It ended now; its units are a credit.
    Now,
    /// It had ended so before; nothing changed.
    Again,
    /// It had ended otherwise; nothing changed.
    Otherwise(EndKind),
    /// The ledger has no such order.
    NotFound,
}

/// What happens to an order that was refused for good.
pub use crate::delivery::OnDeadLetter as OnRefusal;

/// What became of trying a refused order again, or of giving one up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is an order now.
    Confirmed,
    /// Refused again; it will be tried again.
    Retrying,
    /// It is a dead letter and waits for an operator.
    Parked,
    /// It is a dead letter, has failed, and its units are a credit.
    Released,
    /// There was nothing to do.
    Settled,
}

impl Retried {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "confirmed" => Some(Self::Confirmed),
            "retrying" => Some(Self::Retrying),
            "parked" => Some(Self::Parked),
            "released" => Some(Self::Released),
            "settled" => Some(Self::Settled),
            _ => None,
        }
    }
}

impl Postgres {
    /// Writes grants of an epoch of a product to the ledger, in one transaction. May be called again with the same grants:
    /// what is there stays as it is. `retry_at` is when refused ones are tried again.
    ///
    /// # Errors
    /// See [`PostgresError`]. [`super::ErrorClass::Permanent`]: one of the grants cannot even be sent, or has no
    /// units; nothing happened, so try them one by one.
    pub async fn deliver(
        &self,
        way: Way,
        (product, epoch): (i32, i32),
        (retry_at, now): (Timestamp, Timestamp),
        grants: &[Grant],
    ) -> Result<Vec<(OrderId, Delivered)>, PostgresError> {
        let numbers: Vec<i64> = grants.iter().map(|grant| grant.number).collect();
        let columns: Columns<'_> = grants.iter().map(Grant::parts).collect();
        let sql = format!(
            "SELECT order_id, outcome FROM {}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            way.function()
        );
        let parameters: [Parameter<'_>; 11] = [
            &product,
            &epoch,
            &now.0,
            &retry_at.0,
            &columns.ids,
            &numbers,
            &columns.customers,
            &columns.quantities,
            &columns.prices,
            &columns.currencies,
            &columns.times,
        ];
        let rows = self.change("deliver orders", &sql, &parameters).await?;
        let delivered =
            |row: &Row| Ok((row::order_id(row, "order_id")?, row::parsed(row, "outcome", Delivered::parse)?));
        rows.iter().map(delivered).collect()
    }

    /// Ends an order, once; its units go to the epoch that is being sold from, and from there to Redis as a credit.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn end_order(
        &self,
        order: OrderId,
        kind: EndKind,
        reason: &str,
        now: Timestamp,
    ) -> Result<Ended, PostgresError> {
        let sql = "SELECT end_order($1, $2, $3, $4) AS outcome";
        let rows =
            self.change("end an order", sql, &[&row::uuid(order), &kind.name(), &reason, &now.0]).await?;
        row::parsed(row::only(&rows, "end")?, "outcome", |text| match text {
            "ended" => Some(Ended::Now),
            "again" => Some(Ended::Again),
            "cancelled" => Some(Ended::Otherwise(EndKind::Cancelled)),
            "failed" => Some(Ended::Otherwise(EndKind::Failed)),
            "not-found" => Some(Ended::NotFound),
            _ => None,
        })
    }

    /// Refused orders that are to be tried again by now, those that wait longest first.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn due_refused(&self, now: Timestamp, rows: usize) -> Result<Vec<OrderId>, PostgresError> {
        let sql =
            "SELECT id FROM refused WHERE state = 'retrying' AND next_at <= $1 ORDER BY next_at LIMIT $2";
        let found = self.read("look for refused orders", sql, &[&now.0, &limit(rows, DUE_MAX)]).await?;
        found.iter().map(|row| row::order_id(row, "id")).collect()
    }

    /// Tries a refused order again; after `attempts_max` attempts it is a dead letter. `retry_at` is when it is tried
    /// the next time.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn retry_refused(
        &self,
        order: OrderId,
        attempts_max: u32,
        then: OnRefusal,
        (retry_at, now): (Timestamp, Timestamp),
    ) -> Result<Retried, PostgresError> {
        let attempts_max = i32::try_from(attempts_max).unwrap_or(i32::MAX);
        let release = then == OnRefusal::Release;
        let sql = "SELECT retry_refused($1, $2, $3, $4, $5) AS outcome";
        let id = row::uuid(order);
        let rows = self
            .change("try a refused order again", sql, &[&id, &attempts_max, &release, &retry_at.0, &now.0])
            .await?;
        row::parsed(row::only(&rows, "retry")?, "outcome", Retried::parse)
    }

    /// Counts an attempt at a refused order for which not even the function that tries it comes to an end, as when a trigger
    /// of somebody else's is broken for it. After `attempts_max` of them it is a dead letter that waits for a person.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn postpone_refused(
        &self,
        order: OrderId,
        error: &str,
        attempts_max: u32,
        (retry_at, now): (Timestamp, Timestamp),
    ) -> Result<Retried, PostgresError> {
        let attempts_max = i32::try_from(attempts_max).unwrap_or(i32::MAX);
        // As in `retry_refused`, the wait doubles with every attempt.
        let sql = "UPDATE refused SET attempts = attempts + 1, error = $2, updated_at = $5::bigint, \
                   next_at = $5::bigint + ($4::bigint - $5::bigint) * (1 << least(attempts, 10)), \
                   state = CASE WHEN attempts + 1 < $3::integer THEN state ELSE 'parked' END, \
                   created_at = CASE WHEN attempts + 1 < $3::integer OR dead_letter IS NOT NULL \
                   THEN created_at ELSE $5::bigint END, \
                   dead_letter = CASE WHEN attempts + 1 < $3::integer THEN dead_letter \
                   ELSE coalesce(dead_letter, nextval('dead_letter_numbers')) END \
                   WHERE id = $1 AND state = 'retrying' RETURNING state AS outcome";
        let parameters: &[Parameter<'_>] = &[&row::uuid(order), &error, &attempts_max, &retry_at.0, &now.0];
        let rows = self.change("postpone a refused order", sql, parameters).await?;
        match rows.first() {
            Some(row) => row::parsed(row, "outcome", Retried::parse),
            None => Ok(Retried::Settled),
        }
    }

    /// Makes a grant that failed `attempts` times, for an error that nobody could classify and while others were taken, a
    /// dead letter, as if the table of orders had refused it. [`Retried::Settled`]: nothing was done, because the ledger has
    /// it or its epoch is not on sale, or it was revoked, because there is no unit for it.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn give_up(
        &self,
        (product, epoch): (i32, i32),
        grant: &Grant,
        (attempts, error): (u32, &str),
        then: OnRefusal,
        now: Timestamp,
    ) -> Result<Retried, PostgresError> {
        let sql = "SELECT give_up($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS outcome";
        let attempts = i32::try_from(attempts).unwrap_or(i32::MAX);
        let (release, order) = (then == OnRefusal::Release, row::uuid(grant.order));
        let parameters: [Parameter<'_>; 13] = [
            &product,
            &epoch,
            &error,
            &attempts,
            &release,
            &now.0,
            &order,
            &grant.number,
            &grant.customer,
            &grant.quantity,
            &grant.price,
            &grant.currency,
            &grant.accepted_at,
        ];
        let rows = self.change("give an order up", sql, &parameters).await?;
        row::parsed(row::only(&rows, "give up")?, "outcome", Retried::parse)
    }

    /// Keeps what could not be read as an order at all, once.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn note_unreadable(
        &self,
        stream: &str,
        entry: &str,
        bytes: &[u8],
        error: &str,
        now: Timestamp,
    ) -> Result<(), PostgresError> {
        let sql = "INSERT INTO unreadable (stream, entry, bytes, error, found_at) VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT DO NOTHING";
        self.change("keep what cannot be read", sql, &[&stream, &entry, &bytes, &error, &now.0])
            .await
            .map(drop)
    }
}
