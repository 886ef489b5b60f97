//! What everything that one ledger keeps in Redis begins with: several ledgers may use the same Redis, and none of them
//! sees anything of another.

use std::sync::Arc;

use uuid::Uuid;

/// Digits of the ledger's id that are in its names: 48 bits, all of them random in a UUID of version 4 (RFC 9562).
const DIGITS: usize = 12;

/// The beginning of all names of one ledger. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyPrefix(Arc<str>);

impl KeyPrefix {
    /// That of the ledger with this id.
    pub(crate) fn of(ledger: Uuid) -> Self {
        let digits: String = ledger.simple().to_string().chars().take(DIGITS).collect();
        Self(format!("yoink:{digits}").into())
    }

    /// What the names of a product's keys begin with. All of them have one hash tag, so they are in one slot of a cluster;
    /// the tag is a number that the ledger gave, so nothing that a user sends can move a key elsewhere.
    pub(crate) fn of_product(&self, product: i32) -> String {
        format!("{}:{}", self.0, hash_tag(product))
    }
}

/// The part of a product's keys that says in which slot of a cluster they are.
pub(crate) fn hash_tag(product: i32) -> String {
    format!("{{{product}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ledgers_have_no_name_in_common() {
        let [one, other] = ["01234567-89ab-4def", "01234567-89ac-4def"]
            .map(|id| KeyPrefix::of(Uuid::parse_str(&format!("{id}-8123-456789abcdef")).unwrap()));
        assert_eq!(one.of_product(7), "yoink:0123456789ab:{7}");
        assert_eq!(other.of_product(7), "yoink:0123456789ac:{7}");
    }
}
