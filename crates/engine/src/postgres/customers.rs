//! What customers have of a product.

use std::collections::HashMap;

use uuid::Uuid;

use super::reading::{Patience, Reading};
use super::{Postgres, PostgresError, row};

const WHAT: &str = "count what customers have";
/// Customers that are read at once.
const PAGE_CUSTOMERS: usize = 10_000;

impl Postgres {
    /// Tells `take` of every customer who has units of this product in live orders: who, and how many units. All of it as
    /// of one instant.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn units_of_all_customers(
        &self,
        product: i32,
        mut take: impl FnMut(&str, u64),
    ) -> Result<(), PostgresError> {
        let reading = Reading::begin(self, Patience::Minutes).await?;
        // Statements that declare take no parameters; a number needs no quotes.
        let live = live_orders(&product.to_string());
        let sql = format!(
            "DECLARE customers NO SCROLL CURSOR FOR
             SELECT customer, sum(quantity)::bigint AS units FROM ({live}) live GROUP BY customer"
        );
        reading.execute(WHAT, &sql).await?;
        let next = format!("FETCH FORWARD {PAGE_CUSTOMERS} FROM customers");
        loop {
            let page = reading.rows(WHAT, &next, &[]).await?;
            if page.is_empty() {
                return reading.finish().await;
            }
            for customer in &page {
                take(row::get(customer, "customer")?, row::count(customer, "units")?);
            }
        }
    }

    /// How many units of this product some customers have in live orders, those in `without` left out. Who has none is not
    /// in the answer.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn units_of_customers(
        &self,
        product: i32,
        customers: &[&str],
        without: &[Uuid],
    ) -> Result<HashMap<String, u64>, PostgresError> {
        let sql = format!(
            "SELECT customer, sum(quantity)::bigint AS units FROM ({}) live
             WHERE customer = ANY ($2) AND id <> ALL ($3) GROUP BY customer",
            live_orders("$1")
        );
        let rows = self.read(WHAT, &sql, &[&product, &customers, &without]).await?;
        rows.iter().map(|one| Ok((row::get(one, "customer")?, row::count(one, "units")?))).collect()
    }
}

/// The orders that count, also those that the table of orders refuses.
fn live_orders(product: &str) -> String {
    format!(
        "SELECT id, customer, quantity FROM orders WHERE product = {product} AND status = 'confirmed'
         UNION ALL
         SELECT id, customer, quantity FROM refused
         WHERE product = {product} AND ended IS NULL AND state <> 'retried'"
    )
}
