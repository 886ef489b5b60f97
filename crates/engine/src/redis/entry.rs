//! Entries of the stream of grants: one per call of `purchase.lua`, one line per grant.

use yoink_core::{Currency, CustomerId, Timestamp};

use crate::node::order_id::from_hex;
use crate::postgres::Grant;

/// Reads a line; says what is wrong with it otherwise.
pub(crate) fn parse_line(line: &str) -> Result<Grant, &'static str> {
    let mut parts = line.splitn(7, '|');
    let mut next = || parts.next().ok_or("it has fewer than seven parts");
    let order = from_hex(next()?).ok_or("its order id is none")?;
    let number: i64 = next()?.parse().map_err(|_| "its number is none")?;
    let quantity: i32 = next()?.parse().map_err(|_| "its quantity is none")?;
    let accepted_at: i64 = next()?.parse().map_err(|_| "its time is none")?;
    let price: i64 = next()?.parse().map_err(|_| "its price is none")?;
    let currency = Currency::parse(next()?).ok_or("its currency is none")?;
    let customer = CustomerId::parse(next()?).map_err(|_| "its customer is none")?;
    if !(1..=1_000).contains(&quantity) || number < 1 || price < 0 {
        return Err("a figure of it is out of bounds");
    }
    Ok(Grant {
        order,
        number,
        customer: customer.as_str().to_owned(),
        quantity,
        price,
        currency: currency.as_str().to_owned(),
        accepted_at,
    })
}

/// What Redis knows of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: RecordKind,
    pub(crate) grant: Grant,
}

/// Whether an order is still somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// Granted in the epoch on sale, or loaded with it.
    Live,
    /// Its units came back, or there were none for it.
    Ended,
}

/// Reads the record of an order; `None` if it is none. `field` and `value` are one of those that a sale's buyers have.
pub(crate) fn parse_record(field: &[u8], value: &[u8]) -> Option<Record> {
    let id = std::str::from_utf8(field).ok()?.strip_prefix('o')?;
    let (kind, rest) = std::str::from_utf8(value).ok()?.split_once('|')?;
    let kind = match kind {
        "G" | "L" => RecordKind::Live,
        "X" => RecordKind::Ended,
        _ => return None,
    };
    Some(Record { kind, grant: parse_line(&format!("{id}|{rest}")).ok()? })
}

/// The number in a line, as far as it can be read.
pub(crate) fn number_of(line: &str) -> Option<u64> {
    line.split('|').nth(1)?.parse().ok()
}

/// When an entry was written: the first part of its id is the server's time in milliseconds.
pub(crate) fn time_of(id: &str) -> Option<Timestamp> {
    let ms: i64 = id.split('-').next()?.parse().ok()?;
    Some(Timestamp(ms.saturating_mul(1_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_what_is_none_is_not() {
        let field = b"o00000007aaaa8aaa8aaaaaaaaaaaaaaa";
        let read = |value: &[u8]| parse_record(field, value).map(|record| (record.kind, record.grant.number));
        assert_eq!(read(b"G|3|2|5|100|EUR|ann"), Some((RecordKind::Live, 3)));
        assert_eq!(read(b"L|4503599627370496|2|5|100|EUR|a|b"), Some((RecordKind::Live, 1 << 52)));
        assert_eq!(read(b"X|3|2|5|100|EUR|ann"), Some((RecordKind::Ended, 3)));
        for garbage in [&b""[..], b"G", b"G|3|2|5|100|EUR", b"Y|3|2|5|100|EUR|ann", b"G|3|2|5|100|EUR|\xff"] {
            assert_eq!(read(garbage), None, "{garbage:?}");
        }
        assert_eq!(parse_record(b"cann", b"2|"), None);
    }

    #[test]
    fn lines_are_read_and_garbage_is_named() {
        let line = "00000007aaaa8aaa8aaaaaaaaaaaaaaa|3|2|1767607200123456|100|EUR|ann|e";
        let grant = parse_line(line).unwrap();
        assert_eq!((grant.number, grant.quantity, grant.customer.as_str()), (3, 2, "ann|e"));
        assert_eq!(number_of(line), Some(3));
        for garbage in [
            "",
            "x|3|2|1|100|EUR|ann",
            "00000007aaaa8aaa8aaaaaaaaaaaaaaa|3|0|1|100|EUR|ann",
            "00000007aaaa8aaa8aaaaaaaaaaaaaaa|0|1|1|100|EUR|ann",
            "00000007aaaa8aaa8aaaaaaaaaaaaaaa|3|1|1|-100|EUR|ann",
            "00000007aaaa8aaa8aaaaaaaaaaaaaaa|3|1|1|100|EURO|ann",
            "00000007aaaa8aaa8aaaaaaaaaaaaaaa|3|1|1|100|EUR",
            "00000007aaaa8aaa8aaaaaaaaaaaaaaa|3|99999999999|1|100|EUR|ann",
        ] {
            assert!(parse_line(garbage).is_err(), "{garbage}");
        }
    }
}
