//! Orders as rows, and back.

use rusqlite::{Row, Statement, ToSql, types::Type};
use yoink_core::{
    Currency, CustomerId, IdempotencyKey, Money, OrderAccepted, OrderId, ProductId, Seq, Timestamp,
};

use crate::{OrderStatus, OrderView};

/// An order as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderRow {
    pub seq: Seq,
    pub id: OrderId,
    pub product: ProductId,
    pub customer: CustomerId,
    pub key: Option<IdempotencyKey>,
    pub quantity: u32,
    pub unit_price: Money,
    pub accepted_at: Timestamp,
    /// `None` while it lives.
    pub end: Option<OrderEndRow>,
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderEndRow {
    /// [`OrderStatus::Cancelled`] or [`OrderStatus::Failed`].
    pub status: OrderStatus,
    pub seq: Seq,
    pub at: Timestamp,
    pub reason: Box<str>,
}

/// The columns of an order, in the order in which [`OrderRow::read`] and [`OrderRow::bind`] want them, with the names
/// that a table has for its id and for the reason of its end.
macro_rules! order_columns {
    ($id:literal, $reason:literal) => {
        concat!(
            "seq, ",
            $id,
            ", product, customer, key, quantity, amount, currency, status, accepted_at, ended_seq, ended_at, ",
            $reason
        )
    };
}
pub(super) use order_columns;

/// For tables with the ordinary names.
pub(super) const COLUMNS: &str = order_columns!("id", "reason");

/// The parameter of an order's quantity where [`OrderRow::bind`] binds it.
pub(super) const QUANTITY_PARAMETER: usize = 6;
/// The first parameter behind those of an order.
pub(super) const NEXT_PARAMETER: usize = 14;

impl OrderRow {
    /// The row of an order that was just accepted.
    pub fn accepted(seq: Seq, at: Timestamp, accepted: OrderAccepted) -> Self {
        let OrderAccepted { order, customer, product, quantity, unit_price, key } = accepted;
        Self { seq, id: order, product, customer, key, quantity, unit_price, accepted_at: at, end: None }
    }

    /// The status that the row has in the ledger.
    pub fn status(&self) -> OrderStatus {
        self.end.as_ref().map_or(OrderStatus::Confirmed, |end| end.status)
    }

    /// Binds the order's columns to the first parameters of a statement.
    pub fn bind(&self, statement: &mut Statement<'_>) -> Result<(), rusqlite::Error> {
        let end = self.end.as_ref();
        let values: [&dyn ToSql; NEXT_PARAMETER - 1] = [
            &integer(self.seq)?,
            &self.id.0,
            &self.product.as_str(),
            &self.customer.as_str(),
            &self.key.as_ref().map(|key| key.as_str()),
            &self.quantity,
            &self.unit_price.amount,
            &self.unit_price.currency.as_str(),
            &self.status().name(),
            &self.accepted_at.0,
            &end.map(|end| integer(end.seq)).transpose()?,
            &end.map(|end| end.at.0),
            &end.map(|end| &*end.reason),
        ];
        (1..).zip(values).try_for_each(|(place, value)| statement.raw_bind_parameter(place, value))
    }

    /// Reads the columns of [`COLUMNS`], beginning with column `first`.
    pub fn read(row: &Row<'_>, first: usize) -> Result<Self, rusqlite::Error> {
        let at = |offset: usize| first.saturating_add(offset);
        let status = status(row, at(8))?;
        let end = match row.get::<_, Option<i64>>(at(10))? {
            None => None,
            Some(_) => Some(OrderEndRow {
                status,
                seq: seq(row, at(10))?,
                at: Timestamp(row.get(at(11))?),
                reason: row.get::<_, Option<Box<str>>>(at(12))?.unwrap_or_default(),
            }),
        };
        Ok(Self {
            seq: seq(row, at(0))?,
            id: OrderId(row.get(at(1))?),
            product: product(row, at(2))?,
            customer: parsed(row, at(3), |text| CustomerId::parse(text).ok())?,
            key: match row.get_ref(at(4))? {
                rusqlite::types::ValueRef::Null => None,
                _ => Some(parsed(row, at(4), |text| IdempotencyKey::parse(text).ok())?),
            },
            quantity: row.get(at(5))?,
            unit_price: Money { amount: row.get(at(6))?, currency: parsed(row, at(7), Currency::parse)? },
            accepted_at: Timestamp(row.get(at(9))?),
            end,
        })
    }
}

impl From<OrderRow> for OrderView {
    fn from(row: OrderRow) -> Self {
        Self {
            id: row.id,
            seq: row.seq,
            status: row.status(),
            customer: row.customer,
            product: row.product,
            quantity: row.quantity,
            unit_price: row.unit_price,
            accepted_at: row.accepted_at,
            ended_at: row.end.as_ref().map(|end| end.at),
            reason: row.end.map(|end| end.reason),
        }
    }
}

impl OrderEndRow {
    /// The end that `event` is to an order.
    pub fn new(status: OrderStatus, event: (Seq, Timestamp), reason: Box<str>) -> Self {
        let (seq, at) = event;
        Self { status, seq, at, reason }
    }
}

/// A place in the log as SQLite's signed integer.
pub(super) fn integer(seq: Seq) -> Result<i64, rusqlite::Error> {
    i64::try_from(seq).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// A place in the log, or a count, from a column.
pub(super) fn seq(row: &Row<'_>, column: usize) -> Result<Seq, rusqlite::Error> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// A product's id from a column.
pub(super) fn product(row: &Row<'_>, column: usize) -> Result<ProductId, rusqlite::Error> {
    parsed(row, column, |text| ProductId::parse(text).ok())
}

/// An order's status from a column.
pub(super) fn status(row: &Row<'_>, column: usize) -> Result<OrderStatus, rusqlite::Error> {
    parsed(row, column, |text| OrderStatus::ALL.into_iter().find(|status| status.name() == text))
}

/// A text column that must be one of something.
pub(super) fn parsed<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, rusqlite::Error> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).ok_or_else(|| {
        let what = NotAllowed { text: text.to_owned() };
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(what))
    })
}

/// A text that this column cannot hold.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is none of the values that this column can have")]
struct NotAllowed {
    text: String,
}
