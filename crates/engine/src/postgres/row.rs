//! Columns as types, and back.

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;
use yoink_core::{Currency, CustomerId, Money, OrderId, ProductId};

use super::PostgresError;

/// A column.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, PostgresError> {
    row.try_get(column).map_err(|source| PostgresError::Column { column: column.to_owned(), source })
}

/// The one row of an answer that has always one.
pub(super) fn only<'a>(rows: &'a [Row], what: &'static str) -> Result<&'a Row, PostgresError> {
    match rows {
        [row] => Ok(row),
        rows => Err(not_allowed(what, format!("{} rows", rows.len()))),
    }
}

/// A text that must be one of something.
pub(super) fn parsed<T>(
    row: &Row,
    column: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, PostgresError> {
    let text: &str = get(row, column)?;
    parse(text).ok_or_else(|| not_allowed(column, text))
}

/// A figure that is never below zero.
pub(super) fn count(row: &Row, column: &'static str) -> Result<u64, PostgresError> {
    let value: i64 = get(row, column)?;
    u64::try_from(value).map_err(|_| not_allowed(column, value.to_string()))
}

/// A small figure that is never below zero.
pub(super) fn small(row: &Row, column: &'static str) -> Result<u32, PostgresError> {
    let value: i32 = get(row, column)?;
    u32::try_from(value).map_err(|_| not_allowed(column, value.to_string()))
}

pub(super) fn order_id(row: &Row, column: &'static str) -> Result<OrderId, PostgresError> {
    Ok(OrderId(get::<Uuid>(row, column)?.into_bytes()))
}

pub(super) fn product_id(row: &Row, column: &'static str) -> Result<ProductId, PostgresError> {
    parsed(row, column, |text| ProductId::parse(text).ok())
}

/// A customer. Refused orders hold what a table of orders would not; they must be shown all the same.
pub(super) fn customer(row: &Row, column: &'static str) -> Result<CustomerId, PostgresError> {
    let text: &str = get(row, column)?;
    if let Ok(customer) = CustomerId::parse(text) {
        return Ok(customer);
    }
    let shown: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let shown = shown.get(..shown.floor_char_boundary(CustomerId::BYTES_MAX)).unwrap_or_default();
    CustomerId::parse(if shown.is_empty() { "?" } else { shown }).map_err(|_| not_allowed(column, text))
}

/// The price in two columns. A refused order may have any text as its currency; it is shown as "XXX", which is none.
pub(super) fn money(row: &Row) -> Result<Money, PostgresError> {
    let currency = parsed(row, "currency", |text| Currency::parse(text).or_else(|| Currency::parse("XXX")))?;
    Ok(Money { amount: get(row, "price")?, currency })
}

pub(super) fn not_allowed(what: &'static str, text: impl Into<String>) -> PostgresError {
    PostgresError::NotAllowed { what, text: text.into() }
}

pub(super) fn uuid(order: OrderId) -> Uuid {
    Uuid::from_bytes(order.0)
}

/// A limit of rows as PostgreSQL's integer.
pub(super) fn limit(rows: usize, rows_max: usize) -> i64 {
    i64::try_from(rows.min(rows_max)).unwrap_or(i64::MAX)
}

/// A place or number as PostgreSQL's signed integer; what is beyond it is beyond every row.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
