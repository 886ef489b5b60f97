//! Order ids that every node derives alike: a repetition of a request names the same order on any node, also where the
//! outcome of the first is unknown.

use aws_lc_rs::hmac;
use yoink_core::{CustomerId, IdempotencyKey, OrderId};

/// Derives order ids with the ledger's secret, so that nobody without it can name somebody's order.
pub(crate) struct OrderIds {
    key: hmac::Key,
}

impl OrderIds {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The id of the order that this request is, or was, about: a UUID of version 8 (RFC 9562) whose first four bytes
    /// are the product's number and whose rest is HMAC-SHA256 of product, customer and key.
    pub(crate) fn derive(&self, product: i32, customer: &CustomerId, key: &IdempotencyKey) -> OrderId {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&product.to_be_bytes());
        context.update(customer.as_str().as_bytes());
        // Neither of them may contain it.
        context.update(b"\0");
        context.update(key.as_str().as_bytes());
        let tag = context.sign();
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(product.to_be_bytes().iter().chain(tag.as_ref())) {
            *to = *from;
        }
        OrderId(uuid::Builder::from_custom_bytes(bytes).into_uuid().into_bytes())
    }

    /// An id for a request that has no key: nobody will ask for it again.
    pub(crate) fn random(product: i32) -> OrderId {
        let mut bytes: [u8; 16] = rand::random();
        for (to, from) in bytes.iter_mut().zip(product.to_be_bytes()) {
            *to = from;
        }
        OrderId(uuid::Builder::from_custom_bytes(bytes).into_uuid().into_bytes())
    }
}

/// The number of the product that an order is of.
pub(crate) fn product_of(order: OrderId) -> i32 {
    let [a, b, c, d, ..] = order.0;
    i32::from_be_bytes([a, b, c, d])
}

/// An order id without hyphens: 32 hexadecimal digits.
pub(crate) fn to_hex(order: OrderId) -> String {
    uuid::Uuid::from_bytes(order.0).simple().to_string()
}

/// The other way round.
pub(crate) fn from_hex(text: &str) -> Option<OrderId> {
    uuid::Uuid::try_parse(text).ok().map(|id| OrderId(id.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_is_the_same_order_everywhere_and_no_other_is() {
        let ids = |secret: &[u8]| OrderIds::new(secret);
        let (ann, bob) = (CustomerId::parse("ann").unwrap(), CustomerId::parse("bob").unwrap());
        let key = |text| IdempotencyKey::parse(text).unwrap();
        let order = ids(b"one").derive(7, &ann, &key("k"));
        assert_eq!(order, ids(b"one").derive(7, &ann, &key("k")));
        for other in [
            ids(b"two").derive(7, &ann, &key("k")),
            ids(b"one").derive(8, &ann, &key("k")),
            ids(b"one").derive(7, &bob, &key("k")),
            ids(b"one").derive(7, &ann, &key("l")),
            OrderIds::random(7),
        ] {
            assert_ne!(order, other);
        }
        assert_eq!(product_of(order), 7);
        assert_eq!(uuid::Uuid::from_bytes(order.0).get_version_num(), 8);
        assert_eq!(from_hex(&to_hex(order)), Some(order));
    }
}
