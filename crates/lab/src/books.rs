//! What the stores hold when all is done.

use anyhow::{Context as _, Result};
use tokio_postgres::Client;

/// An order as it stands in the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookedOrder {
    /// Its id.
    pub id: String,
    /// The idempotency key of the request that it came from.
    pub key: String,
    /// Who bought.
    pub customer: String,
    /// What was bought.
    pub product: String,
    /// Units; a bug may have let through less than one.
    pub quantity: i64,
    /// Whether its units belong to the buyer. Otherwise it stands there as failed, with its units given back.
    pub is_live: bool,
}

/// One product's count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The product.
    pub product: String,
    /// Units that there were to sell.
    pub stocked: u64,
    /// Units that the shop would still sell.
    pub available: i64,
}

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Every product.
    pub counts: Vec<Count>,
    /// All orders.
    pub orders: Vec<BookedOrder>,
}

/// Reads the orders of a shop of the lab's.
///
/// # Errors
/// PostgreSQL cannot be asked.
pub async fn read_orders(client: &Client) -> Result<Vec<BookedOrder>> {
    let rows = client
        .query(
            "SELECT id, request, user_id, product_id, quantity, status FROM orders ORDER BY created_at, id",
            &[],
        )
        .await
        .context("cannot read the orders")?;
    Ok(rows
        .iter()
        .map(|row| BookedOrder {
            id: row.get(0),
            key: row.get(1),
            customer: row.get(2),
            product: row.get(3),
            quantity: i64::from(row.get::<_, i32>(4)),
            is_live: row.get::<_, &str>(5) == "CONFIRMED",
        })
        .collect())
}
