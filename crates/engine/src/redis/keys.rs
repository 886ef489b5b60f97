//! What a sale is called in Redis.

use crate::node::KeyPrefix;

/// The consumer group of the workers.
pub(crate) const GROUP: &str = "workers";

/// The keys of one product's sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SaleKeys {
    /// Hash: the figures of the sale and what is said about it.
    pub(crate) sale: String,
    /// Hash: orders by id, customers' units, marks of what was done once.
    pub(crate) buyers: String,
    /// Stream: grants on their way to the ledger. One per epoch, so that a grant cannot be taken for one of another.
    pub(crate) grants: String,
}

impl SaleKeys {
    /// To be asked for by [`super::Shared::keys`], which knows the ledger.
    pub(super) fn new(prefix: &KeyPrefix, product: i32, epoch: i32) -> Self {
        let product = prefix.of_product(product);
        Self {
            sale: format!("{product}:sale"),
            buyers: format!("{product}:buyers"),
            grants: format!("{product}:grants:{epoch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_sale_have_one_hash_tag() {
        let prefix = KeyPrefix::of(uuid::Uuid::nil());
        let keys = SaleKeys::new(&prefix, 7, 2);
        assert_eq!(keys.grants, "yoink:000000000000:{7}:grants:2");
        let tagged = |key: &&String| key.starts_with("yoink:000000000000:{7}:");
        assert!([&keys.sale, &keys.buyers].iter().all(tagged));
    }
}
