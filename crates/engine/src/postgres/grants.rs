//! How many grants of an epoch the ledger has heard of.

use yoink_core::OrderId;

use super::{Postgres, PostgresError, row};

/// Numbers from this one on are of orders that were rescued, whose grants are of an epoch that the ledger does not know
/// any more: above every number that Redis gives, and below 2^53, up to which JSON keeps integers for everybody.
const RESCUED_FROM: i64 = 1 << 52;

/// The number of an order that was rescued: the same whoever rescues it.
pub(crate) fn number_of_rescued(order: OrderId) -> i64 {
    let low = order.0.iter().skip(8).fold(0_i64, |low, byte| low.wrapping_shl(8) | i64::from(*byte));
    RESCUED_FROM | (low & (RESCUED_FROM - 1))
}

/// In three parts, because each has an index.
const GRANTS: &str = "
SELECT (SELECT count(*) FROM orders WHERE product = $1 AND epoch = $2 AND number < $3 AND NOT revoked AND NOT collided)
     + (SELECT count(*) FROM orders WHERE product = $1 AND epoch = $2 AND number < $3 AND collided)
     + (SELECT count(*) FROM orders WHERE product = $1 AND epoch = $2 AND number < $3 AND revoked)
     + (SELECT count(*) FROM refused WHERE product = $1 AND epoch = $2 AND number < $3 AND state <> 'retried')
     + (SELECT count(*) FROM credits WHERE product = $1 AND epoch = $2 AND kind = 'void') AS grants";

impl Postgres {
    /// Grants of an epoch that the ledger has: as orders, as refused ones, or as second grants of an order. What was
    /// rescued into it was granted in another.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn grants_of(&self, product: i32, epoch: i32) -> Result<u64, PostgresError> {
        let rows = self.read("count grants", GRANTS, &[&product, &epoch, &RESCUED_FROM]).await?;
        row::count(row::only(&rows, "grants")?, "grants")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_rescued_order_is_its_own_and_above_all_that_redis_gives() {
        let number = |last| {
            number_of_rescued(OrderId([
                7, 7, 7, 7, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, last,
            ]))
        };
        assert_eq!(number(255), (1 << 53) - 1, "as large as they get");
        assert_eq!(number(255) - number(0), 255);
        assert_eq!(number_of_rescued(OrderId([0; 16])), 1 << 52, "as small");
    }
}
