//! Products and the allocations they are sold from.

use serde_json::{Map, Value, json};
use tokio_postgres::Row;
use uuid::Uuid;
use yoink_core::{Figures, NewProduct, ProductChange, ProductId, Timestamp, Window};

use super::{Postgres, PostgresError, row};

/// A product, with the allocation that is being sold from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductRow {
    /// Its number in this ledger.
    pub number: i32,
    /// Its id.
    pub id: ProductId,
    /// Name, price, window and limits; `stock` is what it began with, and `id` is set.
    pub details: NewProduct,
    /// Whether an operator paused the sale.
    pub paused: bool,
    /// Units ever added.
    pub stocked: u64,
    /// Units withdrawn from sale.
    pub withheld: u64,
    /// Raised by every change of what is said about it.
    pub version: i64,
    /// The epoch that is being sold from.
    pub epoch: i32,
    /// Whether Redis was filled with that epoch.
    pub state: SaleState,
    /// Who fills Redis, or did last.
    pub loader: Option<Uuid>,
    /// Units given to that epoch so far.
    pub units: u64,
    /// Units sold of that epoch, orders that ended since included.
    pub sold: u64,
}

impl ProductRow {
    /// Units ever given to that epoch, those that were withdrawn since included, by a count of its own for each epoch: what
    /// matters is that it never falls.
    pub(crate) fn given(&self) -> u64 {
        self.units.saturating_add(self.withheld)
    }

    /// Its units as the ledger has them: what Redis granted and the ledger does not have yet is still available.
    pub fn figures(&self) -> Figures {
        let available = self.units.saturating_sub(self.sold);
        let sold = self.stocked.saturating_sub(self.withheld).saturating_sub(available);
        Figures { stocked: self.stocked, available, held: 0, sold, withheld: self.withheld }
    }
}

/// Whether a product's epoch is sold from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaleState {
    /// Redis is to be filled with it first.
    Loading,
    /// Redis was filled with it.
    Open,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It was made.
    Done,
    /// There was nothing to change.
    Again,
    /// There is no such product.
    NotFound,
    /// The sale would end before it starts; nothing was changed.
    WindowEmpty,
}

impl Changed {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "done" => Some(Self::Done),
            "again" => Some(Self::Again),
            "not-found" => Some(Self::NotFound),
            "window-empty" => Some(Self::WindowEmpty),
            _ => None,
        }
    }
}

/// The columns that [`product_row`] reads.
pub(super) const COLUMNS: &str = "p.number, p.id, p.name, p.price, p.currency, p.stock, p.starts_at, p.ends_at,
    p.limit_per_customer, p.max_per_order, p.paused, p.stocked, p.withheld, p.version, p.epoch, p.state, p.loader,
    a.units, a.sold";
/// The tables that they are in.
pub(super) const TABLES: &str = "products p JOIN allocations a ON a.product = p.number AND a.epoch = p.epoch";

impl Postgres {
    /// All products, ascending by number.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn products(&self) -> Result<Vec<ProductRow>, PostgresError> {
        let sql = format!("SELECT {COLUMNS} FROM {TABLES} ORDER BY p.number");
        self.read("read the products", &sql, &[]).await?.iter().map(product_row).collect()
    }

    /// The product with this id.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn product(&self, id: &ProductId) -> Result<Option<ProductRow>, PostgresError> {
        let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE p.id = $1");
        let rows = self.read("read a product", &sql, &[&id.as_str()]).await?;
        rows.first().map(product_row).transpose()
    }

    /// The product with this number.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn product_numbered(&self, number: i32) -> Result<Option<ProductRow>, PostgresError> {
        let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE p.number = $1");
        let rows = self.read("read a product", &sql, &[&number]).await?;
        rows.first().map(product_row).transpose()
    }

    /// Puts something on sale; the caller has checked that it fits together. Returns its number, or nothing if its id
    /// is taken. After [`super::ErrorClass::Unknown`] look for the product before asking again.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn create_product(
        &self,
        product: &NewProduct,
        now: Timestamp,
    ) -> Result<Option<i32>, PostgresError> {
        let id = product.id.as_ref().map(ProductId::as_str);
        let body = new_product_body(product);
        let sql = "SELECT create_product($1, $2, $3) AS number";
        let rows = self.change("create a product", sql, &[&id, &body, &now.0]).await?;
        row::get(row::only(&rows, "product")?, "number")
    }

    /// Changes what is said about a product.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn change_product(
        &self,
        id: &ProductId,
        change: &ProductChange,
        now: Timestamp,
    ) -> Result<Changed, PostgresError> {
        let sql = "SELECT change_product($1, $2, $3) AS outcome";
        let body = change_body(change);
        let rows = self.change("change a product", sql, &[&id.as_str(), &body, &now.0]).await?;
        row::parsed(row::only(&rows, "change")?, "outcome", Changed::parse)
    }

    /// Stops selling a product.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn pause_product(&self, id: &ProductId, now: Timestamp) -> Result<Changed, PostgresError> {
        self.set_paused(id, true, now).await
    }

    /// Sells a product again.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn resume_product(&self, id: &ProductId, now: Timestamp) -> Result<Changed, PostgresError> {
        self.set_paused(id, false, now).await
    }

    async fn set_paused(
        &self,
        id: &ProductId,
        paused: bool,
        now: Timestamp,
    ) -> Result<Changed, PostgresError> {
        let sql = "SELECT set_paused($1, $2, $3) AS outcome";
        let rows = self.change("pause or resume a sale", sql, &[&id.as_str(), &paused, &now.0]).await?;
        row::parsed(row::only(&rows, "pause")?, "outcome", Changed::parse)
    }

    /// May `me` fill Redis with this product for the next `seconds`?
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn become_loader(&self, number: i32, me: Uuid, seconds: f64) -> Result<bool, PostgresError> {
        let sql = "SELECT become_loader($1, $2, $3) AS is_loader";
        let rows = self.change("become a product's loader", sql, &[&number, &me, &seconds]).await?;
        row::get(row::only(&rows, "loader")?, "is_loader")
    }

    /// Seals an epoch at what was sold of it and gives the rest to the one after `last`, the last that Redis knows: the
    /// next one, unless the ledger is behind. Returns the epoch that is now to be sold from: that one, or another if this
    /// one was sealed before.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn seal(&self, number: i32, epoch: i32, last: i32) -> Result<i32, PostgresError> {
        let sql = "SELECT seal($1, $2, $3) AS epoch";
        let rows = self.change("seal an epoch", sql, &[&number, &epoch, &last]).await?;
        row::get(row::only(&rows, "epoch")?, "epoch")
    }

    /// Redis was filled with this epoch. `false` if it is not the one to be sold from.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn set_open(&self, number: i32, epoch: i32) -> Result<bool, PostgresError> {
        let sql = "UPDATE products SET state = 'open', loader_until = NULL WHERE number = $1 AND epoch = $2
                   RETURNING number";
        let rows = self.change("open a sale", sql, &[&number, &epoch]).await?;
        Ok(!rows.is_empty())
    }

    /// Writes down a repair that an operator asked for.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn record_repair(
        &self,
        number: i32,
        what: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), PostgresError> {
        let sql = "INSERT INTO repairs (product, what, reason, made_at) VALUES ($1, $2, $3, $4)";
        self.change("write down a repair", sql, &[&number, &what, &reason, &now.0]).await.map(drop)
    }
}

pub(super) fn product_row(row: &Row) -> Result<ProductRow, PostgresError> {
    let id = row::product_id(row, "id")?;
    let limit: Option<i32> = row::get(row, "limit_per_customer")?;
    Ok(ProductRow {
        number: row::get(row, "number")?,
        id,
        details: NewProduct {
            id: Some(id),
            name: row::get::<&str>(row, "name")?.into(),
            price: row::money(row)?,
            stock: row::count(row, "stock")?,
            window: Window {
                starts_at: row::get::<Option<i64>>(row, "starts_at")?.map(Timestamp),
                ends_at: row::get::<Option<i64>>(row, "ends_at")?.map(Timestamp),
            },
            limit_per_customer: limit.and_then(|limit| u32::try_from(limit).ok()),
            max_per_order: row::small(row, "max_per_order")?,
        },
        paused: row::get(row, "paused")?,
        stocked: row::count(row, "stocked")?,
        withheld: row::count(row, "withheld")?,
        version: row::get(row, "version")?,
        epoch: row::get(row, "epoch")?,
        state: row::parsed(row, "state", |text| match text {
            "loading" => Some(SaleState::Loading),
            "open" => Some(SaleState::Open),
            _ => None,
        })?,
        loader: row::get(row, "loader")?,
        units: row::count(row, "units")?,
        sold: row::count(row, "sold")?,
    })
}

fn new_product_body(product: &NewProduct) -> Value {
    json!({
        "name": &*product.name,
        "price": product.price.amount,
        "currency": product.price.currency.as_str(),
        "stock": product.stock,
        "starts_at": product.window.starts_at.map(|at| at.0),
        "ends_at": product.window.ends_at.map(|at| at.0),
        "limit_per_customer": product.limit_per_customer.map(fitting),
        "max_per_order": product.max_per_order,
    })
}

/// The columns that change, and nothing else.
fn change_body(change: &ProductChange) -> Value {
    let ProductChange { name, price, starts_at, ends_at, limit_per_customer, max_per_order } = change;
    let mut body = Map::new();
    if let Some(name) = name {
        body.insert("name".to_owned(), json!(&**name));
    }
    if let Some(price) = price {
        body.insert("price".to_owned(), json!(price.amount));
        body.insert("currency".to_owned(), json!(price.currency.as_str()));
    }
    for (column, time) in [("starts_at", starts_at), ("ends_at", ends_at)] {
        if let Some(time) = time {
            body.insert(column.to_owned(), json!(time.map(|at| at.0)));
        }
    }
    if let Some(limit) = limit_per_customer {
        body.insert("limit_per_customer".to_owned(), json!(limit.map(fitting)));
    }
    if let Some(max) = max_per_order {
        body.insert("max_per_order".to_owned(), json!(max));
    }
    Value::Object(body)
}

/// A limit that the column can hold. Nobody reaches a higher one: it is above the most units a product may have.
fn fitting(limit: u32) -> u32 {
    limit.min(i32::MAX.unsigned_abs())
}
