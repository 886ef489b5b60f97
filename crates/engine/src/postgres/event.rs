//! The ledger's events as facts of the core, and as movements of units.

use serde_json::Value;
use tokio_postgres::Row;
use yoink_core::{
    Currency, Event, Fact, IdempotencyKey, Money, NewProduct, OrderAccepted, ProductChange, Seq,
    StockAdjustment, Timestamp, Window,
};

use super::row::{limit, signed};
use super::{Postgres, PostgresError, row};
use crate::ledger::{EXPORT_ROWS_MAX, Movement, MovementKind};
use crate::limits::READ_EVENTS_MAX;

const EVENTS: &str = "SELECT e.seq, e.at, e.kind, p.id AS product, e.order_id, e.body,
    coalesce(o.customer, r.customer) AS customer, coalesce(o.quantity, r.quantity) AS quantity,
    coalesce(o.price, r.price) AS price, coalesce(o.currency, r.currency) AS currency
    FROM events e JOIN products p ON p.number = e.product
    LEFT JOIN orders o ON o.id = e.order_id
    LEFT JOIN refused r ON r.id = e.order_id
    WHERE e.seq > $1";
const ORDER: &str = "ORDER BY e.seq LIMIT $2";

impl Postgres {
    /// Events after `after`, oldest first and dense, at most `rows` and [`READ_EVENTS_MAX`]. The ledger knows no
    /// idempotency keys, so orders have none.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn events(&self, after: Seq, rows: usize) -> Result<Vec<Event>, PostgresError> {
        let sql = format!("{EVENTS} {ORDER}");
        let rows = self.read("read events", &sql, &[&signed(after), &limit(rows, READ_EVENTS_MAX)]).await?;
        rows.iter().map(event).collect()
    }

    /// The last event.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn last_seq(&self) -> Result<Seq, PostgresError> {
        let rows = self.read("read the last event", "SELECT seq FROM ledger", &[]).await?;
        row::count(row::only(&rows, "ledger")?, "seq")
    }

    /// One page of the movements of units: those after event `after`, at most `rows` and [`EXPORT_ROWS_MAX`].
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn export_movements(&self, after: Seq, rows: usize) -> Result<Vec<Movement>, PostgresError> {
        let sql = format!(
            "{EVENTS} AND e.kind IN ('product-created', 'stock-adjusted', 'order-accepted', 'order-cancelled',
                                     'order-failed') {ORDER}"
        );
        let rows =
            self.read("read movements", &sql, &[&signed(after), &limit(rows, EXPORT_ROWS_MAX)]).await?;
        rows.iter().map(movement).collect()
    }
}

/// What an event says besides what its kind does.
struct Body(Value);

impl Body {
    fn of(row: &Row) -> Result<Self, PostgresError> {
        Ok(Self(row::get::<Option<Value>>(row, "body")?.unwrap_or_default()))
    }

    fn text(&self, field: &'static str) -> Result<&str, PostgresError> {
        self.0.get(field).and_then(Value::as_str).ok_or_else(|| self.wrong(field))
    }

    fn integer(&self, field: &'static str) -> Result<i64, PostgresError> {
        self.0.get(field).and_then(Value::as_i64).ok_or_else(|| self.wrong(field))
    }

    fn count<T: TryFrom<i64>>(&self, field: &'static str) -> Result<T, PostgresError> {
        T::try_from(self.integer(field)?).map_err(|_| self.wrong(field))
    }

    /// `None` if there is no such field, `Some(None)` if it is null.
    fn change<T>(
        &self,
        field: &'static str,
        read: impl FnOnce(&Self) -> Result<T, PostgresError>,
    ) -> Result<Option<Option<T>>, PostgresError> {
        match self.0.get(field) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(_) => read(self).map(|value| Some(Some(value))),
        }
    }

    fn price(&self) -> Result<Money, PostgresError> {
        let currency = Currency::parse(self.text("currency")?).ok_or_else(|| self.wrong("currency"))?;
        Ok(Money { amount: self.integer("price")?, currency })
    }

    fn time(&self, field: &'static str) -> Result<Option<Option<Timestamp>>, PostgresError> {
        self.change(field, |body| body.integer(field).map(Timestamp))
    }

    fn wrong(&self, field: &'static str) -> PostgresError {
        row::not_allowed(field, self.0.to_string())
    }
}

fn event(row: &Row) -> Result<Event, PostgresError> {
    let product = row::product_id(row, "product")?;
    let body = Body::of(row)?;
    let fact = match row::get(row, "kind")? {
        "product-created" => Fact::ProductCreated { id: product, product: new_product(product, &body)? },
        "product-changed" => Fact::ProductChanged { product, change: product_change(&body)? },
        "stock-adjusted" => Fact::StockAdjusted(StockAdjustment {
            product,
            delta: body.integer("delta")?,
            reason: body.text("reason")?.into(),
            key: IdempotencyKey::parse(body.text("key")?).map_err(|_| body.wrong("key"))?,
        }),
        "sale-paused" => Fact::SalePaused { product },
        "sale-resumed" => Fact::SaleResumed { product },
        "order-accepted" => Fact::OrderAccepted(OrderAccepted {
            order: row::order_id(row, "order_id")?,
            customer: row::customer(row, "customer")?,
            product,
            quantity: row::small(row, "quantity")?,
            unit_price: row::money(row)?,
            key: None,
        }),
        "order-cancelled" => Fact::OrderCancelled {
            order: row::order_id(row, "order_id")?,
            reason: body.text("reason")?.into(),
        },
        "order-failed" => {
            Fact::OrderFailed { order: row::order_id(row, "order_id")?, reason: body.text("reason")?.into() }
        }
        other => return Err(row::not_allowed("kind of event", other)),
    };
    Ok(Event { seq: row::count(row, "seq")?, at: Timestamp(row::get(row, "at")?), fact })
}

fn new_product(id: yoink_core::ProductId, body: &Body) -> Result<NewProduct, PostgresError> {
    Ok(NewProduct {
        id: Some(id),
        name: body.text("name")?.into(),
        price: body.price()?,
        stock: body.count("stock")?,
        window: Window {
            starts_at: body.time("starts_at")?.flatten(),
            ends_at: body.time("ends_at")?.flatten(),
        },
        limit_per_customer: body
            .change("limit_per_customer", |body| body.count("limit_per_customer"))?
            .flatten(),
        max_per_order: body.count("max_per_order")?,
    })
}

fn product_change(body: &Body) -> Result<ProductChange, PostgresError> {
    Ok(ProductChange {
        name: body.change("name", |body| body.text("name").map(Into::into))?.flatten(),
        price: body.change("price", Body::price)?.flatten(),
        starts_at: body.time("starts_at")?,
        ends_at: body.time("ends_at")?,
        limit_per_customer: body.change("limit_per_customer", |body| body.count("limit_per_customer"))?,
        max_per_order: body.change("max_per_order", |body| body.count("max_per_order"))?.flatten(),
    })
}

fn movement(row: &Row) -> Result<Movement, PostgresError> {
    let body = Body::of(row)?;
    let quantity = || row::get::<i32>(row, "quantity").map(i64::from);
    let reason = || body.text("reason").map(|reason| Some(reason.into()));
    let (kind, units, reason) = match row::get(row, "kind")? {
        "product-created" => (MovementKind::Created, body.integer("stock")?, None),
        "stock-adjusted" => {
            let delta = body.integer("delta")?;
            let kind = if delta < 0 { MovementKind::Withdrawn } else { MovementKind::Restocked };
            (kind, delta, reason()?)
        }
        "order-accepted" => (MovementKind::Sold, quantity()?.saturating_neg(), None),
        "order-cancelled" | "order-failed" => (MovementKind::Returned, quantity()?, reason()?),
        other => return Err(row::not_allowed("kind of movement", other)),
    };
    let order: Option<uuid::Uuid> = row::get(row, "order_id")?;
    Ok(Movement {
        seq: row::count(row, "seq")?,
        at: Timestamp(row::get(row, "at")?),
        product: row::product_id(row, "product")?,
        kind,
        units,
        reason,
        order: order.map(|id| yoink_core::OrderId(id.into_bytes())),
    })
}
