//! Counting the ledger anew from its rows.

use tokio_postgres::Row;
use yoink_core::{ProductId, Seq, Timestamp};

use super::reading::{Patience, Reading};
use super::{Postgres, PostgresError, row};

/// The ledger, counted at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerAudit {
    /// The last event.
    pub last_seq: Seq,
    /// By product, ascending by number.
    pub products: Vec<ProductCounts>,
    /// Orders that are there twice. Always 0: anything else means that somebody else wrote there.
    pub duplicates: u64,
}

/// One product, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductCounts {
    /// Its number.
    pub number: i32,
    /// Its id.
    pub product: ProductId,
    /// The epoch that is being sold from.
    pub epoch: i32,
    /// Units ever added.
    pub stocked: u64,
    /// Units withdrawn.
    pub withheld: u64,
    /// Units over all allocations.
    pub units: u64,
    /// Units sold of all allocations, orders that ended since included.
    pub sold: u64,
    /// Allocations that were sold beyond their units. Always 0.
    pub oversold: u64,
    /// Live orders in the table.
    pub live_orders: u64,
    /// Their units.
    pub live_units: u64,
    /// Orders that were cancelled.
    pub cancelled: u64,
    /// Orders that failed after they had been charged.
    pub failed: u64,
    /// Orders that failed because there was no unit for them.
    pub revoked: u64,
    /// Requests that were queued and then refused; they never were orders.
    pub rejected: u64,
    /// Live orders that the table refuses.
    pub refused_orders: u64,
    /// Their units.
    pub refused_units: u64,
    /// Units of orders that ended, revoked ones left out.
    pub ended_units: u64,
    /// Units of credits that orders returned.
    pub returned_units: u64,
    /// Units of credits that Redis is not known to have.
    pub waiting_units: u64,
    /// Customers who have more units than one was ever allowed to have. Always 0: anything else means that somebody
    /// else wrote there, or that an earlier version took what it should not have.
    pub customers_above_limit: u64,
}

impl ProductCounts {
    /// What its units lack to add up; 0 while all is well. Every unit that was stocked is in an allocation, and those
    /// that came back are in a second one; every unit that was sold is that of a live order or came back.
    pub fn conservation_error_units(&self) -> i64 {
        let wide = i128::from;
        let allocated = wide(self.stocked) - wide(self.withheld) + wide(self.returned_units);
        let charged = wide(self.live_units) + wide(self.refused_units) + wide(self.ended_units);
        let errors = [
            allocated - wide(self.units),
            charged - wide(self.sold),
            wide(self.ended_units) - wide(self.returned_units),
        ];
        let error = errors.into_iter().find(|error| *error != 0).unwrap_or(0);
        i64::try_from(error).unwrap_or(if error < 0 { i64::MIN } else { i64::MAX })
    }
}

/// What waits, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Credits that Redis is not known to have.
    pub credits_waiting: u64,
    /// Since when the oldest of them waits.
    pub credits_since: Option<Timestamp>,
    /// Refused orders that will be tried again.
    pub refused_retrying: u64,
    /// Since when the oldest of them waits.
    pub refused_since: Option<Timestamp>,
    /// Dead letters that are not settled.
    pub dead_letters_open: u64,
    /// Since when the oldest of them is one.
    pub dead_letters_since: Option<Timestamp>,
    /// Withdrawals that have not ended.
    pub withdrawals_waiting: u64,
    /// Entries that could not be read as orders.
    pub unreadable: u64,
}

const COUNTS: &str = "
SELECT p.number, p.id, p.epoch, p.stocked, p.withheld, a.units, a.sold, a.oversold,
       coalesce(o.live_orders, 0) AS live_orders, coalesce(o.live_units, 0) AS live_units,
       coalesce(o.cancelled, 0) + coalesce(r.cancelled, 0) AS cancelled,
       coalesce(o.failed, 0) + coalesce(r.failed, 0) AS failed,
       coalesce(o.revoked, 0) + coalesce(r.revoked, 0) AS revoked,
       coalesce(o.rejected, 0) AS rejected,
       coalesce(r.live_orders, 0) AS refused_orders, coalesce(r.live_units, 0) AS refused_units,
       coalesce(o.ended_units, 0) + coalesce(r.ended_units, 0) AS ended_units,
       coalesce(c.returned, 0)::bigint AS returned_units, coalesce(c.waiting, 0)::bigint AS waiting_units,
       coalesce(l.above, 0) AS customers_above_limit
FROM products p
JOIN (SELECT product, sum(units)::bigint AS units, sum(sold)::bigint AS sold,
             count(*) FILTER (WHERE sold > units) AS oversold
      FROM allocations GROUP BY product) a ON a.product = p.number
LEFT JOIN (SELECT product, count(*) FILTER (WHERE status = 'confirmed') AS live_orders,
                  sum(quantity) FILTER (WHERE status = 'confirmed') AS live_units,
                  count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
                  count(*) FILTER (WHERE status = 'failed' AND NOT revoked) AS failed,
                  count(*) FILTER (WHERE revoked AND status = 'failed') AS revoked,
                  count(*) FILTER (WHERE status = 'rejected') AS rejected,
                  sum(quantity) FILTER (WHERE status <> 'confirmed' AND NOT revoked) AS ended_units
           FROM orders GROUP BY product) o ON o.product = p.number
LEFT JOIN (SELECT product, count(*) FILTER (WHERE ended IS NULL) AS live_orders,
                  sum(quantity) FILTER (WHERE ended IS NULL) AS live_units,
                  count(*) FILTER (WHERE ended = 'cancelled') AS cancelled,
                  count(*) FILTER (WHERE ended = 'failed' AND NOT revoked) AS failed,
                  count(*) FILTER (WHERE revoked AND ended = 'failed') AS revoked,
                  sum(quantity) FILTER (WHERE ended IS NOT NULL AND NOT revoked) AS ended_units
           FROM refused WHERE state <> 'retried' GROUP BY product) r ON r.product = p.number
LEFT JOIN (SELECT product, sum(units) FILTER (WHERE kind = 'returned') AS returned,
                  sum(units) FILTER (WHERE NOT applied) AS waiting
           FROM credits GROUP BY product) c ON c.product = p.number
LEFT JOIN (SELECT used.product, count(*) AS above
           FROM (SELECT product, customer, sum(quantity) AS units
                 FROM (SELECT product, customer, quantity FROM orders WHERE status = 'confirmed'
                       UNION ALL
                       SELECT product, customer, quantity FROM refused
                       WHERE ended IS NULL AND state <> 'retried') live
                 GROUP BY product, customer) used
           JOIN products q ON q.number = used.product
           WHERE used.units > q.limit_highest GROUP BY used.product) l ON l.product = p.number
ORDER BY p.number";

const DUPLICATES: &str = "
SELECT count(*) AS duplicates
FROM (SELECT id FROM (SELECT id FROM orders UNION ALL SELECT id FROM refused WHERE state <> 'retried') every
      GROUP BY id HAVING count(*) > 1) twice";

const BACKLOG: &str = "
SELECT c.waiting, c.since, r.retrying, r.since AS refused_since, d.open, d.since AS letters_since,
       (SELECT count(*) FROM adjustments WHERE NOT done) AS withdrawals,
       (SELECT count(*) FROM unreadable) AS unreadable
FROM (SELECT count(*) AS waiting, min(made_at) AS since FROM credits WHERE NOT applied) c,
     (SELECT count(*) AS retrying, min(created_at) AS since FROM refused WHERE state = 'retrying') r,
     (SELECT count(*) AS open, min(created_at) AS since FROM dead_letters
      WHERE state IN ('parked', 'releasing')) d";

impl Postgres {
    /// Counts every row, all at one instant. Takes about a second per million orders.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn audit(&self) -> Result<LedgerAudit, PostgresError> {
        let reading = Reading::begin(self, Patience::Minutes).await?;
        let what = "count the ledger";
        let last = reading.rows(what, "SELECT seq FROM ledger", &[]).await?;
        let last_seq = row::count(row::only(&last, "ledger")?, "seq")?;
        let products = reading.rows(what, COUNTS, &[]).await?;
        let products = products.iter().map(product_counts).collect::<Result<_, _>>()?;
        let twice = reading.rows(what, DUPLICATES, &[]).await?;
        let duplicates = row::count(row::only(&twice, "duplicates")?, "duplicates")?;
        reading.finish().await?;
        Ok(LedgerAudit { last_seq, products, duplicates })
    }

    /// What waits.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn backlog(&self) -> Result<Backlog, PostgresError> {
        let rows = self.read("count what waits", BACKLOG, &[]).await?;
        let row = row::only(&rows, "backlog")?;
        let since = |column| Ok::<_, PostgresError>(row::get::<Option<i64>>(row, column)?.map(Timestamp));
        Ok(Backlog {
            credits_waiting: row::count(row, "waiting")?,
            credits_since: since("since")?,
            refused_retrying: row::count(row, "retrying")?,
            refused_since: since("refused_since")?,
            dead_letters_open: row::count(row, "open")?,
            dead_letters_since: since("letters_since")?,
            withdrawals_waiting: row::count(row, "withdrawals")?,
            unreadable: row::count(row, "unreadable")?,
        })
    }
}

fn product_counts(row: &Row) -> Result<ProductCounts, PostgresError> {
    Ok(ProductCounts {
        number: row::get(row, "number")?,
        product: row::product_id(row, "id")?,
        epoch: row::get(row, "epoch")?,
        stocked: row::count(row, "stocked")?,
        withheld: row::count(row, "withheld")?,
        units: row::count(row, "units")?,
        sold: row::count(row, "sold")?,
        oversold: row::count(row, "oversold")?,
        live_orders: row::count(row, "live_orders")?,
        live_units: row::count(row, "live_units")?,
        cancelled: row::count(row, "cancelled")?,
        failed: row::count(row, "failed")?,
        revoked: row::count(row, "revoked")?,
        rejected: row::count(row, "rejected")?,
        refused_orders: row::count(row, "refused_orders")?,
        refused_units: row::count(row, "refused_units")?,
        ended_units: row::count(row, "ended_units")?,
        returned_units: row::count(row, "returned_units")?,
        waiting_units: row::count(row, "waiting_units")?,
        customers_above_limit: row::count(row, "customers_above_limit")?,
    })
}
