//! What `purchase.lua` answers.

use std::time::Duration;

use yoink_core::{Currency, Money, OrderId, Rejection, Timestamp};

use crate::node::order_id::from_hex;

/// The answer to one purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The units are the customer's.
    Granted(Grant),
    /// They were already: the same request was granted before, in this epoch.
    Replay(Grant),
    /// They were already, and the ledger knows it.
    OldReplay(Grant),
    /// The same order id was granted for another quantity.
    KeyReused,
    /// The sale says no.
    Refused(Rejection),
    /// The customer was granted as much as he may be for now.
    TooOften {
        /// When he may be granted more.
        wait: Duration,
    },
    /// Too many grants wait for the ledger.
    Backlog,
    /// The sale is of another epoch, and this is it.
    OtherEpoch(i32),
    /// The sale has to be loaded, or is being loaded.
    NotLoaded(NotLoaded),
    /// The deadline had passed.
    Expired,
}

/// What is wrong with a sale in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotLoaded {
    /// It is not there.
    Missing,
    /// It was loaded into another incarnation of the server.
    OtherServer,
    /// It is being loaded.
    Loading,
}

/// What a grant says beyond what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Which grant of its epoch.
    pub(crate) number: u64,
    /// When.
    pub(crate) at: Timestamp,
    /// For one unit.
    pub(crate) price: Money,
}

/// Reads an answer; `None` if it is not one that the script gives.
pub(crate) fn parse(text: &str) -> Option<Answer> {
    let mut parts = text.split('|');
    let answer = match parts.next()? {
        "G" => Answer::Granted(grant(&mut parts)?),
        "P" => Answer::Replay(replay(&mut parts)?),
        "O" => Answer::OldReplay(replay(&mut parts)?),
        "K" => Answer::KeyReused,
        "Q" => Answer::Refused(Rejection::QuantityAboveMax { max_per_order: parts.next()?.parse().ok()? }),
        "C" => Answer::Refused(Rejection::ConservationBroken),
        "Y" => Answer::Refused(Rejection::SaleNotStarted { starts_at: time(parts.next()?)? }),
        "Z" => Answer::Refused(Rejection::SaleEnded { ends_at: time(parts.next()?)? }),
        "U" => Answer::Refused(Rejection::SalePaused),
        "L" => Answer::Refused(Rejection::LimitReached {
            limit: parts.next()?.parse().ok()?,
            used: parts.next()?.parse().ok()?,
            existing: orders(parts.next()?),
        }),
        "S" => Answer::Refused(Rejection::SoldOut { available: parts.next()?.parse().ok()? }),
        "R" => Answer::TooOften { wait: Duration::from_millis(parts.next()?.parse().ok()?) },
        "B" => Answer::Backlog,
        "N" => Answer::NotLoaded(NotLoaded::Missing),
        "I" => Answer::NotLoaded(NotLoaded::OtherServer),
        "W" => Answer::NotLoaded(NotLoaded::Loading),
        "E" => Answer::OtherEpoch(parts.next()?.parse().ok()?),
        "T" => Answer::Expired,
        _ => return None,
    };
    Some(answer)
}

fn grant<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Grant> {
    let number = parts.next()?.parse().ok()?;
    Some(Grant { number, ..priced(parts)? })
}

fn replay<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Grant> {
    let number = parts.next()?.parse().ok()?;
    let _quantity = parts.next()?;
    Some(Grant { number, ..priced(parts)? })
}

/// Time and price; the number is the caller's to fill in.
fn priced<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Grant> {
    let at = time(parts.next()?)?;
    let amount = parts.next()?.parse().ok()?;
    let currency = Currency::parse(parts.next()?)?;
    Some(Grant { number: 0, at, price: Money { amount, currency } })
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(Timestamp)
}

/// Ids of 32 digits each, one after the other.
fn orders(text: &str) -> Vec<OrderId> {
    let ids = text.as_bytes().chunks(32).filter_map(|id| std::str::from_utf8(id).ok());
    ids.filter_map(from_hex).take(Rejection::EXISTING_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_nonsense_is_none() {
        let euro = Currency::parse("EUR").unwrap();
        let grant = Grant { number: 7, at: Timestamp(5), price: Money { amount: 100, currency: euro } };
        assert_eq!(parse("G|7|5|100|EUR"), Some(Answer::Granted(grant)));
        assert_eq!(parse("P|7|2|5|100|EUR"), Some(Answer::Replay(grant)));
        assert_eq!(parse("O|7|2|5|100|EUR"), Some(Answer::OldReplay(grant)));
        assert_eq!(parse("S|3"), Some(Answer::Refused(Rejection::SoldOut { available: 3 })));
        assert_eq!(parse("E|4"), Some(Answer::OtherEpoch(4)));
        assert_eq!(parse("R|1500"), Some(Answer::TooOften { wait: Duration::from_millis(1_500) }));
        let id = "00000007aaaa8aaa8aaaaaaaaaaaaaaa";
        let limit = Rejection::LimitReached { limit: 1, used: 1, existing: vec![from_hex(id).unwrap()] };
        assert_eq!(parse(&format!("L|1|1|{id}")), Some(Answer::Refused(limit)));
        for nonsense in ["", "G", "G|x|5|100|EUR", "G|7|5|100", "S|", "?", "L|1", "R|", "R|-1"] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
