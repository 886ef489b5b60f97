//! The verdict: compares what the crowd was told with what the books hold. It knows nothing of how was sold.

use std::collections::{BTreeMap, BTreeSet};

use crate::books::Books;
use crate::catalogue::Broken;

/// One purchase, as the crowd remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its idempotency key.
    pub key: String,
    /// Whether a yes came back.
    pub is_accepted: bool,
    /// The order that was named, if one was.
    pub order: Option<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is broken.
    pub breaks: Broken,
    /// How many units or orders it concerns.
    pub count: u64,
    /// In one sentence.
    pub says: String,
    /// Requests that it concerns, where it concerns particular ones.
    pub keys: Vec<String>,
}

/// What an audit found. Every count is zero where everything adds up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Units that were there to sell.
    pub stocked: u64,
    /// Units of live orders.
    pub sold: u64,
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// How much of that is broken.
    #[must_use]
    pub fn count(&self, breaks: Broken) -> u64 {
        self.findings.iter().filter(|finding| finding.breaks == breaks).map(|finding| finding.count).sum()
    }

    /// Whether every number adds up.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Judges.
#[must_use]
pub fn judge(books: &Books, told: &[Told]) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut oversold, mut stuck) = (0, 0);
    for count in &books.counts {
        let sold = sold(books, &count.product);
        let rest = i128::from(count.stocked) - i128::from(sold) - i128::from(count.available);
        verdict.stocked += count.stocked;
        verdict.sold += sold;
        // Product by product: what one has too few is no comfort to whoever bought another. Units that nobody stocked are
        // sold too many times, also those that still wait on the shelf for whoever comes next.
        oversold += u64::try_from(-rest).unwrap_or(0).max(sold.saturating_sub(count.stocked));
        stuck += u64::try_from(rest).unwrap_or(0);
    }
    let (sold, stocked) = (verdict.sold, verdict.stocked);
    let units = [
        (
            Broken::Oversold,
            oversold,
            format!("{sold} units were sold of {stocked}: {oversold} cannot be delivered"),
        ),
        (Broken::Stuck, stuck, format!("{stuck} units are neither sold nor for sale")),
    ];
    let units = units.into_iter().filter(|(_, count, _)| *count > 0);
    verdict.findings =
        units.map(|(breaks, count, says)| Finding { breaks, count, says, keys: Vec::new() }).collect();
    verdict.findings.extend([lost(books, told), duplicated(books)].into_iter().flatten());
    verdict.findings.sort_by_key(|finding| finding.breaks);
    verdict
}

/// Units of a product's live orders. An order for less than one unit sells none: it cannot make good for another.
fn sold(books: &Books, product: &str) -> u64 {
    let mut units = 0;
    for order in &books.orders {
        if order.product == product && order.is_live && order.quantity > 0 {
            units += order.quantity.unsigned_abs();
        }
    }
    units
}

fn lost(books: &Books, told: &[Told]) -> Option<Finding> {
    let booked: BTreeSet<&str> = books.orders.iter().map(|order| order.key.as_str()).collect();
    let promised: BTreeSet<&str> =
        told.iter().filter(|told| told.is_accepted).map(|told| told.key.as_str()).collect();
    let keys: Vec<String> = promised.difference(&booked).map(|key| (*key).to_owned()).collect();
    let count = u64::try_from(keys.len()).unwrap_or(u64::MAX);
    let says = format!("{count} buyers were told yes, and the books know nothing of their orders");
    (count > 0).then_some(Finding { breaks: Broken::Lost, count, says, keys })
}

fn duplicated(books: &Books) -> Option<Finding> {
    let mut orders: BTreeMap<&str, u64> = BTreeMap::new();
    for order in &books.orders {
        if order.is_live {
            *orders.entry(&order.key).or_default() += 1;
        }
    }
    let twice = orders.into_iter().filter(|(_, count)| *count > 1);
    let (mut count, mut keys) = (0, Vec::new());
    for (key, orders) in twice {
        count += orders - 1;
        keys.push(key.to_owned());
    }
    let says = format!("{count} orders came from requests that had one already");
    (count > 0).then_some(Finding { breaks: Broken::Duplicated, count, says, keys })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::{BookedOrder, Count};

    fn order(id: &str, key: &str, quantity: i64, is_live: bool) -> BookedOrder {
        let product = "p".to_owned();
        BookedOrder { id: id.to_owned(), key: key.to_owned(), product, quantity, is_live }
    }

    fn books(stocked: u64, available: i64, orders: Vec<BookedOrder>) -> Books {
        Books { counts: vec![Count { product: "p".to_owned(), stocked, available }], orders }
    }

    fn yes(key: &str) -> Told {
        Told { key: key.to_owned(), is_accepted: true, order: None }
    }

    fn no(key: &str) -> Told {
        Told { key: key.to_owned(), is_accepted: false, order: None }
    }

    fn found(books: &Books, told: &[Told]) -> Vec<(Broken, u64)> {
        judge(books, told).findings.iter().map(|finding| (finding.breaks, finding.count)).collect()
    }

    #[test]
    fn books_in_order_have_no_finding() {
        let orders = vec![order("1", "a", 1, true), order("2", "b", 2, true), order("3", "c", 1, false)];
        let books = books(5, 2, orders);
        let verdict = judge(&books, &[yes("a"), yes("b"), yes("c"), no("d")]);
        assert!(verdict.is_ok(), "{verdict:?}");
        assert_eq!((verdict.stocked, verdict.sold), (5, 3));
    }

    #[test]
    fn more_units_sold_than_there_were() {
        let orders = vec![order("1", "a", 1, true), order("2", "b", 2, true)];
        let books = books(2, 0, orders);
        assert_eq!(found(&books, &[yes("a"), yes("b")]), [(Broken::Oversold, 1)]);
    }

    #[test]
    fn units_for_sale_that_nobody_stocked() {
        let books = books(5, 5, vec![order("1", "a", 1, true)]);
        assert_eq!(found(&books, &[yes("a")]), [(Broken::Oversold, 1)]);
    }

    #[test]
    fn an_order_for_less_than_nothing_makes_good_for_no_other() {
        let orders = vec![order("1", "a", -5, true), order("2", "b", 7, true)];
        let books = books(2, 0, orders);
        assert_eq!(found(&books, &[yes("a"), yes("b")]), [(Broken::Oversold, 5)]);
    }

    #[test]
    fn a_promise_that_the_books_do_not_know() {
        let books = books(2, 1, vec![order("1", "a", 1, true)]);
        let verdict = judge(&books, &[yes("a"), yes("b"), no("c")]);
        assert_eq!(verdict.count(Broken::Lost), 1);
        assert_eq!(verdict.findings[0].keys, ["b"]);
    }

    #[test]
    fn a_failed_order_is_known_and_not_lost() {
        let books = books(1, 1, vec![order("1", "a", 1, false)]);
        assert!(judge(&books, &[yes("a")]).is_ok());
    }

    #[test]
    fn two_orders_of_one_request() {
        let orders = vec![order("1", "a", 1, true), order("2", "a", 1, true), order("3", "a", 1, false)];
        let books = books(3, 1, orders);
        let verdict = judge(&books, &[yes("a")]);
        assert_eq!(found(&books, &[yes("a")]), [(Broken::Duplicated, 1)]);
        assert_eq!(verdict.findings[0].keys, ["a"]);
    }

    #[test]
    fn units_that_are_nowhere() {
        let books = books(3, 1, vec![order("1", "a", 1, true)]);
        assert_eq!(found(&books, &[yes("a")]), [(Broken::Stuck, 1)]);
    }

    #[test]
    fn what_one_product_has_left_makes_good_for_no_other() {
        let mut both = books(1, 0, vec![order("1", "a", 1, true), order("2", "b", 1, true)]);
        both.counts.push(Count { product: "q".to_owned(), stocked: 1, available: 0 });
        assert_eq!(found(&both, &[yes("a"), yes("b")]), [(Broken::Oversold, 1), (Broken::Stuck, 1)]);
    }

    #[test]
    fn everything_at_once_is_told_apart() {
        let orders = vec![order("1", "a", 1, true), order("2", "a", 1, true)];
        let books = books(1, -3, orders);
        assert_eq!(
            found(&books, &[yes("a"), yes("b")]),
            [(Broken::Oversold, 1), (Broken::Lost, 1), (Broken::Duplicated, 1), (Broken::Stuck, 2)]
        );
    }
}
