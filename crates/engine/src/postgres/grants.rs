//! How many grants of an epoch the ledger has heard of.

use super::{Postgres, PostgresError, row};

/// In three parts, because each has an index.
const GRANTS: &str = "
SELECT (SELECT count(*) FROM orders WHERE product = $1 AND epoch = $2 AND NOT revoked AND NOT collided)
     + (SELECT count(*) FROM orders WHERE product = $1 AND epoch = $2 AND collided)
     + (SELECT count(*) FROM orders WHERE product = $1 AND epoch = $2 AND revoked)
     + (SELECT count(*) FROM refused WHERE product = $1 AND epoch = $2 AND state <> 'retried')
     + (SELECT count(*) FROM credits WHERE product = $1 AND epoch = $2 AND kind = 'void') AS grants";

impl Postgres {
    /// Grants of an epoch that the ledger has: as orders, as refused ones, or as second grants of an order.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn grants_of(&self, product: i32, epoch: i32) -> Result<u64, PostgresError> {
        let rows = self.read("count grants", GRANTS, &[&product, &epoch]).await?;
        row::count(row::only(&rows, "grants")?, "grants")
    }
}
