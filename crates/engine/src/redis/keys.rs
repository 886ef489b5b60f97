//! What a sale is called in Redis. All its keys have one hash tag, so they are in one slot of a cluster, and the tag is
//! a number that the ledger gave, so nothing that a user sends can move a key elsewhere.

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
    pub(crate) fn new(product: i32, epoch: i32) -> Self {
        let tag = format!("yoink:{{{product}}}");
        Self {
            sale: format!("{tag}:sale"),
            buyers: format!("{tag}:buyers"),
            grants: format!("{tag}:grants:{epoch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_sale_have_one_hash_tag() {
        let keys = SaleKeys::new(7, 2);
        assert_eq!(keys.grants, "yoink:{7}:grants:2");
        assert!([&keys.sale, &keys.buyers].iter().all(|key| key.starts_with("yoink:{7}:")));
    }
}
