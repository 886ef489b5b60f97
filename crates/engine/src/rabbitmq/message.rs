//! What is in the queue: one message per request, one line of text, signed so that nobody else can put orders there.

use uuid::Uuid;
use yoink_core::{Currency, CustomerId, QUANTITY_MAX};

use crate::node::order_id::{OrderIds, from_hex, to_hex};
use crate::postgres::Request;

/// The version of the format, and its domain: a signature for anything else is none here.
const VERSION: &str = "1";
/// Bytes of the signature, in hexadecimal digits.
const SIGNATURE_DIGITS: usize = 32;
/// A line with the longest customer, and some.
pub(crate) const BYTES_MAX: usize = 4_096;

/// Writes a request as a message.
pub(crate) fn encode(request: &Request, ids: &OrderIds) -> String {
    let line = format!(
        "{VERSION}|{}|{}|{}|{}|{}|{}|{}|{}",
        to_hex(request.order),
        request.publisher.simple(),
        request.sequence,
        request.quantity,
        request.accepted_at,
        request.price,
        request.currency,
        request.customer,
    );
    format!("{}|{line}", ids.sign(&line))
}

/// Reads a message; says what is wrong with it otherwise. Whatever the bytes are, this ends.
///
/// # Errors
/// It is no request of this ledger's nodes: what is wrong, for people.
pub(crate) fn decode(bytes: &[u8], ids: &OrderIds) -> Result<Request, &'static str> {
    if bytes.len() > BYTES_MAX {
        return Err("it is too long");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let (signature, line) = text.split_once('|').ok_or("it has no parts")?;
    if signature.len() != SIGNATURE_DIGITS || !ids.has_signed(line, signature) {
        return Err("its signature is not of this ledger");
    }
    // Signed, so written by a node of this ledger: perhaps by one of another version.
    let mut parts = line.splitn(9, '|');
    let mut next = || parts.next().ok_or("it has too few parts");
    if next()? != VERSION {
        return Err("it is of another version");
    }
    let order = from_hex(next()?).ok_or("its order id is none")?;
    let publisher = Uuid::try_parse(next()?).map_err(|_| "its publisher is none")?;
    let sequence: i64 = next()?.parse().map_err(|_| "its sequence is none")?;
    let quantity: i32 = next()?.parse().map_err(|_| "its quantity is none")?;
    let accepted_at: i64 = next()?.parse().map_err(|_| "its time is none")?;
    let price: i64 = next()?.parse().map_err(|_| "its price is none")?;
    let currency = Currency::parse(next()?).ok_or("its currency is none")?;
    let customer = CustomerId::parse(next()?).map_err(|_| "its customer is none")?;
    let is_possible = u32::try_from(quantity).is_ok_and(|units| (1..=QUANTITY_MAX).contains(&units))
        && (1..i64::MAX).contains(&sequence)
        && price >= 0;
    if !is_possible {
        return Err("a figure of it is out of bounds");
    }
    Ok(Request {
        order,
        customer: customer.as_str().to_owned(),
        quantity,
        price,
        currency: currency.as_str().to_owned(),
        accepted_at,
        publisher,
        sequence,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use yoink_core::OrderId;

    use super::*;

    fn ids() -> OrderIds {
        OrderIds::new(b"a secret")
    }

    fn request(customer: &str) -> Request {
        Request {
            order: OrderId([7; 16]),
            customer: customer.to_owned(),
            quantity: 2,
            price: 100,
            currency: "EUR".to_owned(),
            accepted_at: 1_767_607_200_123_456,
            publisher: Uuid::from_u128(9),
            sequence: 3,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let request = request("ann|e");
        assert_eq!(decode(encode(&request, &ids()).as_bytes(), &ids()), Ok(request));
    }

    #[test]
    fn garbage_is_named() {
        let signed = |line: &str| format!("{}|{line}", ids().sign(line));
        let good = encode(&request("ann"), &ids());
        let forged = good.replace("|2|", "|1|");
        let foreign = encode(&request("ann"), &OrderIds::new(b"another secret"));
        for (garbage, what) in [
            (String::new(), "it has no parts"),
            ("{}".to_owned(), "it has no parts"),
            (forged, "its signature is not of this ledger"),
            (foreign, "its signature is not of this ledger"),
            (signed("2|x"), "it is of another version"),
            (signed("1|x"), "its order id is none"),
            (signed(&"x".repeat(5_000)), "it is too long"),
            (encode(&Request { quantity: 0, ..request("ann") }, &ids()), "a figure of it is out of bounds"),
            (
                encode(&Request { quantity: 1_001, ..request("ann") }, &ids()),
                "a figure of it is out of bounds",
            ),
            (encode(&Request { sequence: 0, ..request("ann") }, &ids()), "a figure of it is out of bounds"),
            (encode(&Request { price: -1, ..request("ann") }, &ids()), "a figure of it is out of bounds"),
            (
                encode(&Request { currency: "EURO".to_owned(), ..request("ann") }, &ids()),
                "its currency is none",
            ),
        ] {
            assert_eq!(decode(garbage.as_bytes(), &ids()), Err(what), "{garbage}");
        }
        assert_eq!(decode(&[0xFF, 0xFE], &ids()), Err("it is not text"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes, &ids()).is_err());
        }

        #[test]
        fn one_changed_byte_is_noticed(at in 0_usize..130, change in 1_u8..=255) {
            let mut bytes = encode(&request("ann"), &ids()).into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= change;
            prop_assert!(decode(&bytes, &ids()).is_err());
        }
    }
}
