//! What is in the queue: messages of one or more requests each, one line of text per request, signed so that nobody else
//! can put orders there.
//!
//! ```text
//! SIGNATURE|2|PUBLISHER
//! ORDER|SEQUENCE|QUANTITY|ACCEPTED_AT|PRICE|CURRENCY|CUSTOMER
//! ORDER|...
//! ```
//!
//! The signature is of everything behind it. Version 1, which is still read, had one request, in one line.

use std::fmt::Write as _;

use uuid::Uuid;
use yoink_core::{Currency, CustomerId, QUANTITY_MAX};

use crate::node::order_id::{OrderIds, from_hex, to_hex};
use crate::postgres::Request;

/// The version of the format, and its domain: a signature for anything else is none here.
const VERSION: &str = "2";
/// The version that had one request per message.
const SINGLE_VERSION: &str = "1";
/// Digits of the signature, in hexadecimal.
const SIGNATURE_DIGITS: usize = 32;
/// Requests that one message has at most.
pub(crate) const REQUESTS_MAX: usize = 128;
/// So many requests with the longest customers, and some.
pub(crate) const BYTES_MAX: usize = 64 * 1024;

/// Writes requests of one publisher, at most [`REQUESTS_MAX`], as a message.
pub(crate) fn encode<'a>(
    publisher: Uuid,
    requests: impl IntoIterator<Item = &'a Request>,
    ids: &OrderIds,
) -> String {
    let mut text = format!("{VERSION}|{}", publisher.simple());
    for request in requests {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n{}|{}|{}|{}|{}|{}|{}",
            to_hex(request.order),
            request.sequence,
            request.quantity,
            request.accepted_at,
            request.price,
            request.currency,
            request.customer,
        );
    }
    format!("{}|{text}", ids.sign(&text))
}

/// Reads a message: its requests, at least one. Says what is wrong with it otherwise; then none of it can be trusted.
/// Whatever the bytes are, this ends.
///
/// # Errors
/// It was not written by a node of this ledger, or not as this version writes: what is wrong, for people.
pub(crate) fn decode(bytes: &[u8], ids: &OrderIds) -> Result<Vec<Request>, &'static str> {
    if bytes.len() > BYTES_MAX {
        return Err("it is too long");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let (signature, text) = text.split_once('|').ok_or("it has no parts")?;
    if signature.len() != SIGNATURE_DIGITS || !ids.has_signed(text, signature) {
        return Err("its signature is not of this ledger");
    }
    // Signed, so written by a node of this ledger: perhaps by one of another version.
    match text.split_once('|') {
        Some((VERSION, rest)) => {
            let (publisher, lines) = rest.split_once('\n').ok_or("it has no requests")?;
            let publisher = read_publisher(publisher)?;
            if lines.split('\n').count() > REQUESTS_MAX {
                return Err("it has too many requests");
            }
            lines.split('\n').map(|line| read_request(publisher, line.splitn(7, '|'))).collect()
        }
        Some((SINGLE_VERSION, line)) => {
            let (order, rest) = line.split_once('|').ok_or(TOO_FEW)?;
            let (publisher, rest) = rest.split_once('|').ok_or(TOO_FEW)?;
            let parts = std::iter::once(order).chain(rest.splitn(6, '|'));
            Ok(vec![read_request(read_publisher(publisher)?, parts)?])
        }
        _ => Err("it is of another version"),
    }
}

const TOO_FEW: &str = "it has too few parts";

fn read_publisher(text: &str) -> Result<Uuid, &'static str> {
    Uuid::try_parse(text).map_err(|_| "its publisher is none")
}

fn read_request<'a>(
    publisher: Uuid,
    mut parts: impl Iterator<Item = &'a str>,
) -> Result<Request, &'static str> {
    let mut next = || parts.next().ok_or(TOO_FEW);
    let order = from_hex(next()?).ok_or("an order id of it is none")?;
    let sequence: i64 = next()?.parse().map_err(|_| "a sequence of it is none")?;
    let quantity: i32 = next()?.parse().map_err(|_| "a quantity of it is none")?;
    let accepted_at: i64 = next()?.parse().map_err(|_| "a time of it is none")?;
    let price: i64 = next()?.parse().map_err(|_| "a price of it is none")?;
    let currency = Currency::parse(next()?).ok_or("a currency of it is none")?;
    let customer = CustomerId::parse(next()?).map_err(|_| "a customer of it is none")?;
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

    const PUBLISHER: Uuid = Uuid::from_u128(9);

    fn ids() -> OrderIds {
        OrderIds::new(b"a secret")
    }

    fn request(customer: &str, sequence: i64) -> Request {
        Request {
            order: OrderId([7; 16]),
            customer: customer.to_owned(),
            quantity: 2,
            price: 100,
            currency: "EUR".to_owned(),
            accepted_at: 1_767_607_200_123_456,
            publisher: PUBLISHER,
            sequence,
        }
    }

    fn written(requests: &[Request]) -> String {
        encode(PUBLISHER, requests, &ids())
    }

    fn signed(text: &str) -> String {
        format!("{}|{text}", ids().sign(text))
    }

    #[test]
    fn what_is_written_is_read() {
        for count in [1, 2, REQUESTS_MAX] {
            let requests: Vec<Request> =
                (0..count).map(|at| request(&format!("ann|{at}|ü"), at as i64 + 1)).collect();
            assert_eq!(decode(written(&requests).as_bytes(), &ids()), Ok(requests));
        }
    }

    #[test]
    fn the_longest_requests_fit() {
        let longest = Request {
            quantity: QUANTITY_MAX as i32,
            price: i64::MAX,
            accepted_at: i64::MIN,
            ..request(&"x".repeat(CustomerId::BYTES_MAX), i64::MAX - 1)
        };
        let message = written(&vec![longest; REQUESTS_MAX]);
        assert_eq!(decode(message.as_bytes(), &ids()).map(|requests| requests.len()), Ok(REQUESTS_MAX));
    }

    #[test]
    fn the_version_before_is_read() {
        let line = "1|07070707070707070707070707070707|00000000000000000000000000000009|3|2|1767607200123456|100|EUR|ann|e";
        assert_eq!(decode(signed(line).as_bytes(), &ids()), Ok(vec![request("ann|e", 3)]));
        assert_eq!(decode(signed("1|07|x").as_bytes(), &ids()), Err("it has too few parts"));
    }

    #[test]
    fn garbage_is_named() {
        let good = written(&[request("ann", 3)]);
        let forged = good.replace("|2|1767", "|1|1767");
        assert_ne!(forged, good);
        let foreign = encode(PUBLISHER, &[request("ann", 3)], &OrderIds::new(b"another secret"));
        let publisher = PUBLISHER.simple();
        let bad = |change: fn(&mut Request)| {
            let mut other = request("bob", 4);
            change(&mut other);
            // One of several is wrong.
            written(&[request("ann", 3), other, request("cid", 5)])
        };
        for (garbage, what) in [
            (String::new(), "it has no parts"),
            ("{}".to_owned(), "it has no parts"),
            (forged, "its signature is not of this ledger"),
            (foreign, "its signature is not of this ledger"),
            (good.replace('\n', ""), "its signature is not of this ledger"),
            (signed("3|x"), "it is of another version"),
            (signed(""), "it is of another version"),
            (signed("2|x"), "it has no requests"),
            (signed("2|x\n1"), "its publisher is none"),
            (signed(&format!("2|{publisher}\n")), "an order id of it is none"),
            (signed(&format!("2|{publisher}\n{}|1", "07".repeat(16))), "it has too few parts"),
            (signed(&"x".repeat(BYTES_MAX)), "it is too long"),
            (written(&vec![request("ann", 1); REQUESTS_MAX + 1]), "it has too many requests"),
            (bad(|request| request.quantity = 0), "a figure of it is out of bounds"),
            (bad(|request| request.quantity = 1_001), "a figure of it is out of bounds"),
            (bad(|request| request.sequence = 0), "a figure of it is out of bounds"),
            (bad(|request| request.price = -1), "a figure of it is out of bounds"),
            (bad(|request| request.currency = "EURO".to_owned()), "a currency of it is none"),
            (bad(|request| request.customer = String::new()), "a customer of it is none"),
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
        fn no_signed_text_is_too_strange(text in "[12]\\|(.|\n){0,200}") {
            // Nothing but its form is wrong with it.
            let _ = decode(signed(&text).as_bytes(), &ids());
        }

        #[test]
        fn one_changed_byte_is_noticed(at in 0_usize..1_000, change in 1_u8..=255) {
            let mut bytes = written(&[request("ann", 1), request("bob", 2), request("cid", 3)]).into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= change;
            prop_assert!(decode(&bytes, &ids()).is_err());
        }
    }
}
