//! Order ids that every node derives alike: a repetition of a request names the same order on any node, also where the
//! outcome of the first is unknown.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use yoink_core::{CustomerId, IdempotencyKey, OrderId};

/// Bytes of a signature that are kept.
const SIGNATURE_BYTES: usize = 16;
/// Bytes at the end of an order id that are its seal.
const SEAL_BYTES: usize = 2;

/// Derives order ids with the ledger's secret, so that nobody without it can name somebody's order.
pub(crate) struct OrderIds {
    key: hmac::Key,
    /// Signs messages.
    signing: hmac::Key,
    /// Seals order ids.
    sealing: hmac::Key,
}

impl OrderIds {
    pub(crate) fn new(secret: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        // No order id is derived from either text: what those are derived from has a zero byte in it.
        let derived =
            |what: &str| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, what.as_bytes()).as_ref());
        Self { signing: derived("yoink messages"), sealing: derived("yoink order ids"), key }
    }

    /// A signature that only nodes of this ledger can make: 32 hexadecimal digits.
    pub(crate) fn sign(&self, line: &str) -> String {
        hex(first(hmac::sign(&self.signing, line.as_bytes()).as_ref(), SIGNATURE_BYTES))
    }

    /// Whether a node of this ledger has signed exactly this.
    pub(crate) fn has_signed(&self, line: &str, signature: &str) -> bool {
        verify_slices_are_equal(self.sign(line).as_bytes(), signature.as_bytes()).is_ok()
    }

    /// The same order id with a seal as its last two bytes: that it was made for this ledger can be told without asking
    /// anyone. One in 65,536 guessed ids passes, so a seal is a hint and no proof.
    pub(crate) fn seal(&self, order: OrderId) -> OrderId {
        let mut bytes = order.0;
        let seal = self.seal_of(&order);
        for (to, from) in bytes.iter_mut().rev().take(SEAL_BYTES).zip(seal) {
            *to = from;
        }
        OrderId(bytes)
    }

    /// Whether an order id carries this ledger's seal.
    pub(crate) fn is_sealed(&self, order: OrderId) -> bool {
        self.seal(order) == order
    }

    fn seal_of(&self, order: &OrderId) -> [u8; SEAL_BYTES] {
        let tag = hmac::sign(&self.sealing, first(&order.0, order.0.len() - SEAL_BYTES));
        let mut seal = [0; SEAL_BYTES];
        for (to, from) in seal.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        seal
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

fn first(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(..count).unwrap_or(bytes)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xF)]).collect()
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

    #[test]
    fn a_seal_is_of_one_ledger_and_changes_nothing_else() {
        let (ids, others) = (OrderIds::new(b"one"), OrderIds::new(b"two"));
        let order = ids.seal(OrderIds::random(7));
        assert!(ids.is_sealed(order));
        assert_eq!(ids.seal(order), order);
        assert_eq!(product_of(order), 7);
        assert_eq!(uuid::Uuid::from_bytes(order.0).get_version_num(), 8);
        // One in 65,536 passes by chance.
        let orders = || std::iter::repeat_with(|| ids.seal(OrderIds::random(7))).take(1_000);
        assert!(orders().filter(|order| others.is_sealed(*order)).count() < 5);
        assert!(orders().filter(|order| ids.is_sealed(OrderIds::random(product_of(*order)))).count() < 5);
    }

    #[test]
    fn only_what_was_signed_is_signed() {
        let ids = OrderIds::new(b"one");
        let signature = ids.sign("a line");
        assert_eq!(signature.len(), 32);
        assert!(ids.has_signed("a line", &signature));
        assert!(!ids.has_signed("b line", &signature));
        assert!(!ids.has_signed("a line", &signature[1..]));
        assert!(!OrderIds::new(b"two").has_signed("a line", &signature));
    }
}
