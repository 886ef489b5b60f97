//! The verdict: compares what the crowd was told with what the books hold. It knows nothing of how was sold.

use std::collections::{BTreeMap, BTreeSet};

use crate::books::{BookedOrder, Books};
use crate::catalogue::Broken;

/// One purchase, as the crowd remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its idempotency key.
    pub key: String,
    /// Who wanted it.
    pub customer: String,
    /// What was wanted.
    pub product: String,
    /// Units.
    pub quantity: i64,
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
    let (mut undeliverable, mut unreal, mut stuck) = (0, 0, 0);
    for count in &books.counts {
        let sold = sold(books, &count.product);
        let rest = i128::from(count.stocked) - i128::from(sold) - i128::from(count.available);
        verdict.stocked += count.stocked;
        verdict.sold += sold;
        // Product by product: what one has too few is no comfort to whoever bought another. Units that nobody stocked are
        // sold too many times, also those that still wait on the shelf for whoever comes next.
        let too_many = sold.saturating_sub(count.stocked);
        undeliverable += too_many;
        unreal += u64::try_from(-rest).unwrap_or(0).saturating_sub(too_many);
        stuck += u64::try_from(rest).unwrap_or(0);
    }
    let (sold, stocked) = (verdict.sold, verdict.stocked);
    let units = [
        (
            Broken::Oversold,
            undeliverable + unreal,
            format!("{sold} units were sold of {stocked}: {}", oversold_in_words(undeliverable, unreal)),
        ),
        (Broken::Stuck, stuck, format!("{stuck} units are neither sold nor for sale")),
    ];
    let units = units.into_iter().filter(|(_, count, _)| *count > 0);
    verdict.findings =
        units.map(|(breaks, count, says)| Finding { breaks, count, says, keys: Vec::new() }).collect();
    let orders = [duplicated(books), phantom(books, told)];
    verdict.findings.extend(promises(books, told).into_iter().chain(orders).flatten());
    verdict.findings.sort_by_key(|finding| finding.breaks);
    verdict
}

/// What became of units that nobody stocked: those that were sold, and those that are still for sale.
fn oversold_in_words(undeliverable: u64, unreal: u64) -> String {
    match (undeliverable, unreal) {
        (_, 0) => format!("{undeliverable} cannot be delivered"),
        (0, _) => format!("{unreal} are for sale that do not exist"),
        _ => format!("{undeliverable} cannot be delivered, {unreal} more are for sale that do not exist"),
    }
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

/// Who was told yes has an order as he was told, or another one, or none.
fn promises(books: &Books, told: &[Told]) -> [Option<Finding>; 2] {
    let (mut by_id, mut by_key) = (BTreeMap::new(), BTreeMap::new());
    for order in &books.orders {
        by_id.entry(order.id.as_str()).or_insert_with(Vec::new).push(order);
        by_key.entry(order.key.as_str()).or_insert_with(Vec::new).push(order);
    }
    let (mut lost, mut mismatched) = (BTreeSet::new(), BTreeSet::new());
    for told in told.iter().filter(|told| told.is_accepted) {
        let of_request = by_key.get(told.key.as_str());
        // Who was told no id has whatever order his request became.
        let promised = told.order.as_ref().map_or(of_request, |id| by_id.get(id.as_str()));
        match (promised, of_request) {
            (Some(orders), _) if orders.iter().any(|order| is_as_told(order, told)) => continue,
            (None, None) => lost.insert(told.key.as_str()),
            _ => mismatched.insert(told.key.as_str()),
        };
    }
    [
        finding(Broken::Lost, lost, "buyers were told yes, and the books know nothing of their orders"),
        finding(
            Broken::Mismatched,
            mismatched,
            "buyers were told yes, and have another order in the books than they were told of",
        ),
    ]
}

fn is_as_told(order: &BookedOrder, told: &Told) -> bool {
    let booked = (&order.key, &order.customer, &order.product, order.quantity);
    booked == (&told.key, &told.customer, &told.product, told.quantity)
}

/// Orders of requests that nobody sent.
fn phantom(books: &Books, told: &[Told]) -> Option<Finding> {
    let sent: BTreeSet<&str> = told.iter().map(|told| told.key.as_str()).collect();
    let booked = books.orders.iter().map(|order| order.key.as_str());
    let says = "orders are in the books for which nobody has asked";
    finding(Broken::Phantom, booked.filter(|key| !sent.contains(key)), says)
}

/// What concerns one request or order for each of `keys`; nothing if there are none.
fn finding<'a>(breaks: Broken, keys: impl IntoIterator<Item = &'a str>, says: &str) -> Option<Finding> {
    let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
    let count = u64::try_from(keys.len()).unwrap_or(u64::MAX);
    (count > 0).then(|| Finding { breaks, count, says: format!("{count} {says}"), keys })
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

    /// An order of the customer who sends the request `key`.
    fn order(id: &str, key: &str, quantity: i64, is_live: bool) -> BookedOrder {
        let (customer, product) = (format!("customer of {key}"), "p".to_owned());
        BookedOrder { id: id.to_owned(), key: key.to_owned(), customer, product, quantity, is_live }
    }

    fn books(stocked: u64, available: i64, orders: Vec<BookedOrder>) -> Books {
        Books { counts: vec![Count { product: "p".to_owned(), stocked, available }], orders }
    }

    fn no(key: &str) -> Told {
        Told {
            key: key.to_owned(),
            customer: format!("customer of {key}"),
            product: "p".to_owned(),
            quantity: 1,
            ..Told::default()
        }
    }

    fn yes(key: &str) -> Told {
        Told { is_accepted: true, ..no(key) }
    }

    fn yes_to(key: &str, quantity: i64) -> Told {
        Told { quantity, ..yes(key) }
    }

    fn yes_as(key: &str, order: &str) -> Told {
        Told { order: Some(order.to_owned()), ..yes(key) }
    }

    fn found(books: &Books, told: &[Told]) -> Vec<(Broken, u64)> {
        judge(books, told).findings.iter().map(|finding| (finding.breaks, finding.count)).collect()
    }

    #[test]
    fn books_in_order_have_no_finding() {
        let orders = vec![order("1", "a", 1, true), order("2", "b", 2, true), order("3", "c", 1, false)];
        let books = books(5, 2, orders);
        let verdict = judge(&books, &[yes_as("a", "1"), yes_to("b", 2), yes("c"), no("d")]);
        assert!(verdict.is_ok(), "{verdict:?}");
        assert_eq!((verdict.stocked, verdict.sold), (5, 3));
    }

    #[test]
    fn more_units_sold_than_there_were() {
        let orders = vec![order("1", "a", 1, true), order("2", "b", 2, true)];
        let books = books(2, 0, orders);
        assert_eq!(found(&books, &[yes("a"), yes_to("b", 2)]), [(Broken::Oversold, 1)]);
    }

    #[test]
    fn units_for_sale_that_nobody_stocked() {
        let books = books(5, 5, vec![order("1", "a", 1, true)]);
        assert_eq!(found(&books, &[yes("a")]), [(Broken::Oversold, 1)]);
        let says = &judge(&books, &[yes("a")]).findings[0].says;
        assert_eq!(says, "1 units were sold of 5: 1 are for sale that do not exist");
    }

    #[test]
    fn units_that_were_sold_too_many_are_told_apart_from_those_still_for_sale() {
        let orders = vec![order("1", "a", 1, true), order("2", "b", 3, true)];
        let told = [yes("a"), yes_to("b", 3)];
        let says = |available| judge(&books(2, available, orders.clone()), &told).findings[0].says.clone();
        assert_eq!(says(0), "4 units were sold of 2: 2 cannot be delivered");
        assert_eq!(
            says(5),
            "4 units were sold of 2: 2 cannot be delivered, 5 more are for sale that do not exist"
        );
        assert_eq!(found(&books(2, 5, orders.clone()), &told), [(Broken::Oversold, 7)]);
        assert_eq!(found(&books(2, -1, orders.clone()), &told), [(Broken::Oversold, 2)]);
    }

    #[test]
    fn an_order_for_less_than_nothing_makes_good_for_no_other() {
        let orders = vec![order("1", "a", -5, true), order("2", "b", 7, true)];
        let books = books(2, 0, orders);
        assert_eq!(found(&books, &[yes_to("a", -5), yes_to("b", 7)]), [(Broken::Oversold, 5)]);
    }

    #[test]
    fn a_promise_that_the_books_do_not_know() {
        let books = books(2, 1, vec![order("1", "a", 1, true)]);
        let told = [yes_as("a", "1"), yes("b"), no("c"), yes_as("d", "2"), yes_as("d", "2")];
        assert_eq!(found(&books, &told), [(Broken::Lost, 2)]);
        assert_eq!(judge(&books, &told).findings[0].keys, ["b", "d"]);
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
    fn two_yes_to_one_request_that_name_two_orders() {
        let books = books(2, 0, vec![order("1", "a", 1, true), order("2", "a", 1, true)]);
        assert_eq!(found(&books, &[yes_as("a", "1"), yes_as("a", "2")]), [(Broken::Duplicated, 1)]);
    }

    #[test]
    fn an_order_that_is_another_customers() {
        let theirs = BookedOrder { customer: "thief".to_owned(), ..order("1", "a", 1, true) };
        let books = books(1, 0, vec![theirs]);
        for told in [yes("a"), yes_as("a", "1")] {
            assert_eq!(found(&books, &[told]), [(Broken::Mismatched, 1)]);
        }
        assert!(judge(&books, &[no("a")]).is_ok(), "nobody was told anything of it");
    }

    #[test]
    fn an_order_for_another_quantity_or_product() {
        let two = books(2, 0, vec![order("1", "a", 2, true)]);
        let elsewhere = BookedOrder { product: "q".to_owned(), ..order("1", "a", 1, true) };
        let mut elsewhere = books(0, 0, vec![elsewhere]);
        elsewhere.counts.push(Count { product: "q".to_owned(), stocked: 1, available: 0 });
        for books in [two, elsewhere] {
            for told in [yes("a"), yes_as("a", "1")] {
                assert_eq!(found(&books, &[told]), [(Broken::Mismatched, 1)]);
            }
        }
    }

    #[test]
    fn an_order_that_was_named_to_two_buyers_is_the_ones_who_asked_for_it() {
        let books = books(1, 0, vec![order("1", "a", 1, true)]);
        let verdict = judge(&books, &[yes_as("a", "1"), yes_as("b", "1")]);
        assert_eq!(verdict.count(Broken::Mismatched), 1);
        assert_eq!((verdict.findings.len(), &*verdict.findings[0].keys), (1, &["b".to_owned()][..]));
    }

    #[test]
    fn an_order_that_was_named_for_two_requests_of_one_buyer() {
        let books = books(1, 0, vec![order("1", "a", 1, true)]);
        let again = Told { customer: "customer of a".to_owned(), ..yes_as("b", "1") };
        assert_eq!(found(&books, &[yes_as("a", "1"), again]), [(Broken::Mismatched, 1)]);
    }

    #[test]
    fn an_order_that_stands_there_under_another_id() {
        let books = books(1, 0, vec![order("2", "a", 1, true)]);
        assert_eq!(found(&books, &[yes_as("a", "1")]), [(Broken::Mismatched, 1)]);
    }

    #[test]
    fn orders_for_which_nobody_asked() {
        let orders = vec![order("1", "a", 1, true), order("2", "b", 1, true), order("3", "b", 1, false)];
        let books = books(2, 0, orders);
        assert!(judge(&books, &[yes("a"), no("b")]).is_ok(), "whoever got no answer has asked");
        let verdict = judge(&books, &[yes("a")]);
        assert_eq!(verdict.count(Broken::Phantom), 2, "also one that has failed");
        assert_eq!(
            (verdict.findings.len(), &*verdict.findings[0].keys),
            (1, &["b".to_owned(), "b".to_owned()][..])
        );
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
        let orders = vec![
            order("1", "a", 1, true),
            order("2", "a", 1, true),
            order("3", "c", 2, true),
            order("4", "nobody", 1, true),
        ];
        let books = books(1, -6, orders);
        assert_eq!(
            found(&books, &[yes("a"), yes("b"), yes("c")]),
            [
                (Broken::Oversold, 4),
                (Broken::Lost, 1),
                (Broken::Duplicated, 1),
                (Broken::Mismatched, 1),
                (Broken::Phantom, 1),
                (Broken::Stuck, 2),
            ]
        );
    }
}
