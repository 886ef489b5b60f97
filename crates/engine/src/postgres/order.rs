//! Reading orders: those in the table, and those that it refuses, which are orders all the same.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;
use uuid::Uuid;
use yoink_core::{Money, OrderId, Seq, Timestamp};

use super::connection::Parameter;
use super::row::{limit, signed};
use super::{Grant, KeptConnection, Postgres, PostgresError, row};
use crate::ledger::EXPORT_ROWS_MAX;
use crate::limits::LIST_ORDERS_MAX;
use crate::views::{Failure, OrderFilter, OrderPage, OrderStatus, OrderView};

const TAKEN: &str =
    "SELECT o.place, o.id, o.number, p.id AS product, o.customer, o.quantity, o.price, o.currency,
    o.accepted_at, o.status, o.ended_at, o.reason
    FROM orders o JOIN products p ON p.number = o.product";
/// One that was taken after all is in the table of orders.
const REFUSED: &str =
    "SELECT o.place, o.id, o.number, p.id AS product, o.customer, o.quantity, o.price, o.currency,
    o.accepted_at, coalesce(o.ended, 'accepted') AS status, o.ended_at, o.ended_reason AS reason
    FROM refused o JOIN products p ON p.number = o.product AND o.state <> 'retried'";

/// What whoever repeats a request is told of its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownOrder {
    /// Its id.
    pub id: OrderId,
    /// The event that accepted it.
    pub seq: Seq,
    /// How many.
    pub quantity: u32,
    /// The price of one unit when it was accepted.
    pub unit_price: Money,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

/// Whether an order that the ledger has is still somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has its units.
    Live,
    /// It was cancelled, or has failed.
    Ended,
}

/// Which tables a page is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Taken,
    Refused,
    Both,
}

/// A statement that reads what `one` finds for each id of its only parameter. `OFFSET 0` keeps it one look into an index for
/// each: taken as a whole, a table that was empty a moment ago would be read from end to end (see `V6__plans.sql`).
fn each_of_ids(one: &str) -> String {
    format!("SELECT found.* FROM unnest($1::uuid[]) AS asked (id), LATERAL ({one} OFFSET 0) found")
}

impl Postgres {
    /// One order. Refused ones that have not ended are accepted.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn order(&self, id: OrderId) -> Result<Option<OrderView>, PostgresError> {
        let sql = format!("{TAKEN} WHERE o.id = $1 UNION ALL {REFUSED} WHERE o.id = $1");
        let rows = self.read("read an order", &sql, &[&row::uuid(id)]).await?;
        rows.first().map(order_view).transpose()
    }

    /// Those of these orders that the ledger has, whatever became of them, and whether or not it has their product.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn known_orders(
        &self,
        kept: &mut KeptConnection,
        ids: &[OrderId],
    ) -> Result<Vec<KnownOrder>, PostgresError> {
        let ids: Vec<Uuid> = ids.iter().copied().map(row::uuid).collect();
        let columns = "o.id, o.number, o.quantity, o.price, o.currency, o.accepted_at";
        let one = format!(
            "SELECT {columns} FROM orders o WHERE o.id = asked.id
             UNION ALL SELECT {columns} FROM refused o WHERE o.id = asked.id AND o.state <> 'retried'"
        );
        let sql = each_of_ids(&one);
        let rows = self.read_on(kept, "look for orders", &sql, &[&ids]).await?;
        rows.iter().map(known_order).collect()
    }

    /// When and why an order failed, whether or not the ledger has its product; `None` if it did not.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn failure(&self, id: OrderId) -> Result<Option<Failure>, PostgresError> {
        let sql = "SELECT ended_at, reason FROM orders WHERE id = $1 AND status = 'failed'
                   UNION ALL SELECT ended_at, ended_reason FROM refused
                   WHERE id = $1 AND ended = 'failed' AND state <> 'retried'";
        let rows = self.read("read why an order failed", sql, &[&row::uuid(id)]).await?;
        let failure = |row: &Row| {
            let (at, reason) =
                (Timestamp(row::get(row, "ended_at")?), row::get::<&str>(row, "reason")?.into());
            Ok(Failure { at, reason })
        };
        rows.first().map(failure).transpose()
    }

    /// Which of these orders are settled, and how: confirmed, cancelled, failed or rejected. The others are unknown to the
    /// ledger, or refused and to be tried again.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn order_statuses(
        &self,
        ids: &[OrderId],
    ) -> Result<Vec<(OrderId, OrderStatus)>, PostgresError> {
        let ids: Vec<Uuid> = ids.iter().copied().map(row::uuid).collect();
        let sql = each_of_ids(
            "SELECT id, status FROM orders o WHERE o.id = asked.id
             UNION ALL SELECT id, ended FROM refused r WHERE r.id = asked.id AND r.ended IS NOT NULL",
        );
        let rows = self.read("look for orders", &sql, &[&ids]).await?;
        rows.iter().map(|row| Ok((row::order_id(row, "id")?, status(row)?))).collect()
    }

    /// Which of these orders the ledger has, and whether they have ended.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn standing(&self, ids: &[OrderId]) -> Result<HashMap<OrderId, Standing>, PostgresError> {
        let ids: Vec<Uuid> = ids.iter().copied().map(row::uuid).collect();
        let sql = each_of_ids(
            "SELECT o.id, o.status <> 'confirmed' AS has_ended FROM orders o WHERE o.id = asked.id
             UNION ALL SELECT r.id, r.ended IS NOT NULL FROM refused r WHERE r.id = asked.id AND r.state <> 'retried'",
        );
        let rows = self.read("look for orders", &sql, &[&ids]).await?;
        let standing = |row: &Row| {
            let is_live = !row::get::<bool>(row, "has_ended")?;
            Ok((row::order_id(row, "id")?, if is_live { Standing::Live } else { Standing::Ended }))
        };
        rows.iter().map(standing).collect()
    }

    /// Which of these grants of an epoch the ledger has, each by its order and its number: as orders, as refused ones, or as
    /// second grants of an order. What it has of an order under another number is another grant.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn grants_among(
        &self,
        product: i32,
        epoch: i32,
        grants: &[Grant],
    ) -> Result<HashSet<(OrderId, i64)>, PostgresError> {
        let ids: Vec<Uuid> = grants.iter().map(|grant| row::uuid(grant.order)).collect();
        let numbers: Vec<i64> = grants.iter().map(|grant| grant.number).collect();
        // One look into an index for each, as in `each_of_ids`.
        let sql = "SELECT asked.id, asked.number FROM unnest($1::uuid[], $2::bigint[]) AS asked (id, number),
             LATERAL (SELECT 1 FROM orders o WHERE o.id = asked.id AND o.epoch = $4 AND o.number = asked.number
                      UNION ALL
                      SELECT 1 FROM refused r WHERE r.id = asked.id AND r.epoch = $4 AND r.number = asked.number
                      UNION ALL
                      SELECT 1 FROM credits c
                      WHERE c.id = md5($3::integer || ' ' || $4::integer || ' ' || asked.number)::uuid OFFSET 0) found";
        let rows = self.read("look for grants", sql, &[&ids, &numbers, &product, &epoch]).await?;
        rows.iter().map(|row| Ok((row::order_id(row, "id")?, row::get(row, "number")?))).collect()
    }

    /// A page of orders in the order of arrival. Here `after` and `next_after` are places, which are the ledger's own
    /// and no numbers of events.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn orders(&self, filter: &OrderFilter) -> Result<OrderPage, PostgresError> {
        let from = match filter.status {
            Some(OrderStatus::Accepted) => From::Refused,
            // What is only queued is in no table: its page is empty.
            Some(OrderStatus::Confirmed | OrderStatus::Rejected | OrderStatus::Queued) => From::Taken,
            Some(OrderStatus::Cancelled | OrderStatus::Failed) | None => From::Both,
        };
        self.page(filter, from, filter.limit.min(LIST_ORDERS_MAX)).await
    }

    /// A page of the table of orders for an export, as [`Self::orders`]: those after place `after`, at most `rows` and
    /// at most [`EXPORT_ROWS_MAX`].
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn export_orders(&self, after: u64, rows: usize) -> Result<OrderPage, PostgresError> {
        let filter = OrderFilter { after, ..OrderFilter::default() };
        self.page(&filter, From::Taken, rows.min(EXPORT_ROWS_MAX)).await
    }

    async fn page(
        &self,
        filter: &OrderFilter,
        from: From,
        rows_max: usize,
    ) -> Result<OrderPage, PostgresError> {
        // One more tells whether it is the last page.
        let (after, rows_limit) = (signed(filter.after), limit(rows_max + 1, rows_max + 1));
        let customer = filter.customer.as_ref().map(|customer| customer.as_str());
        let product = filter.product.as_ref().map(|product| product.as_str());
        let ended = match filter.status {
            Some(OrderStatus::Cancelled) => Some(OrderStatus::Cancelled.name()),
            Some(OrderStatus::Failed) => Some(OrderStatus::Failed.name()),
            Some(OrderStatus::Rejected) => Some(OrderStatus::Rejected.name()),
            Some(OrderStatus::Queued) => Some(OrderStatus::Queued.name()),
            // The choice of tables has said it all, but for orders that ended.
            Some(OrderStatus::Accepted | OrderStatus::Confirmed) | None => None,
        };
        let mut parameters: Vec<Parameter<'_>> = vec![&after, &rows_limit];
        let sql = page_sql(filter, from, |value| {
            match value {
                Value::Customer => parameters.push(&customer),
                Value::Product => parameters.push(&product),
                Value::Ended => parameters.push(&ended),
            }
            parameters.len()
        });
        let mut rows = self.read("list orders", &sql, &parameters).await?;
        let is_last = rows.len() <= rows_max;
        rows.truncate(rows_max);
        let last = rows.last().filter(|_| !is_last).map(|row| row::count(row, "place")).transpose()?;
        let orders = rows.iter().map(order_view).collect::<Result<_, _>>()?;
        Ok(OrderPage { orders, next_after: last })
    }
}

/// What a listing is narrowed down to.
enum Value {
    Customer,
    Product,
    Ended,
}

/// Only the conditions that there are: a statement that has them all, switched off by NULL, is planned for none of
/// them. `number` makes a value a parameter and returns its number.
fn page_sql(filter: &OrderFilter, from: From, mut number: impl FnMut(Value) -> usize) -> String {
    let mut narrowed = String::from(" WHERE o.place > $1");
    if filter.customer.is_some() {
        narrowed.push_str(&format!(" AND o.customer = ${}", number(Value::Customer)));
    }
    if filter.product.is_some() {
        narrowed.push_str(&format!(" AND p.id = ${}", number(Value::Product)));
    }
    let ended = match filter.status {
        Some(OrderStatus::Cancelled | OrderStatus::Failed | OrderStatus::Rejected | OrderStatus::Queued) => {
            Some(number(Value::Ended))
        }
        Some(OrderStatus::Accepted | OrderStatus::Confirmed) | None => None,
    };
    let taken = match (filter.status, ended) {
        (_, Some(ended)) => format!(" AND o.status = ${ended}"),
        (Some(_), None) => " AND o.status = 'confirmed'".to_owned(),
        (None, None) => String::new(),
    };
    let refused = match (filter.status, ended) {
        (_, Some(ended)) => format!(" AND o.ended = ${ended}"),
        (Some(_), None) => " AND o.ended IS NULL".to_owned(),
        (None, None) => String::new(),
    };
    let page = " ORDER BY o.place LIMIT $2";
    match from {
        From::Taken => format!("{TAKEN}{narrowed}{taken}{page}"),
        From::Refused => format!("{REFUSED}{narrowed}{refused}{page}"),
        From::Both => format!(
            "({TAKEN}{narrowed}{taken}{page}) UNION ALL ({REFUSED}{narrowed}{refused}{page}) ORDER BY place LIMIT $2"
        ),
    }
}

fn status(row: &Row) -> Result<OrderStatus, PostgresError> {
    row::parsed(row, "status", |text| OrderStatus::ALL.into_iter().find(|status| status.name() == text))
}

fn known_order(row: &Row) -> Result<KnownOrder, PostgresError> {
    Ok(KnownOrder {
        id: row::order_id(row, "id")?,
        seq: row::count(row, "number")?,
        quantity: row::small(row, "quantity")?,
        unit_price: row::money(row)?,
        accepted_at: Timestamp(row::get(row, "accepted_at")?),
    })
}

fn order_view(row: &Row) -> Result<OrderView, PostgresError> {
    Ok(OrderView {
        id: row::order_id(row, "id")?,
        seq: row::count(row, "number")?,
        status: status(row)?,
        customer: row::customer(row, "customer")?,
        product: row::product_id(row, "product")?,
        quantity: row::small(row, "quantity")?,
        unit_price: row::money(row)?,
        accepted_at: Timestamp(row::get(row, "accepted_at")?),
        ended_at: row::get::<Option<i64>>(row, "ended_at")?.map(Timestamp),
        reason: row::get::<Option<&str>>(row, "reason")?.map(Into::into),
    })
}
