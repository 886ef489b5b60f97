//! What this node accepted, or had in hand for the ledger, and the ledger is not known to have: if Redis is lost, these
//! orders are offered to the next filling of it, so that losing Redis alone loses no order.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use yoink_core::{Currency, CustomerId, Money, OrderId, Timestamp};

use crate::postgres::Grant;

/// An accepted order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) order: OrderId,
    pub(crate) customer: CustomerId,
    pub(crate) quantity: u32,
    pub(crate) price: Money,
    pub(crate) accepted_at: Timestamp,
}

impl Offer {
    /// What the ledger could be told, as an offer; `None` if it is none that Redis could have granted.
    pub(crate) fn of(grant: &Grant) -> Option<Self> {
        let currency = Currency::parse(&grant.currency)?;
        Some(Self {
            order: grant.order,
            customer: CustomerId::parse(&grant.customer).ok()?,
            quantity: u32::try_from(grant.quantity).ok()?,
            price: Money { amount: grant.price, currency },
            accepted_at: Timestamp(grant.accepted_at),
        })
    }

    /// As the ledger is told, with the number that it was granted under.
    pub(crate) fn grant(&self, number: u64) -> Grant {
        Grant {
            order: self.order,
            number: i64::try_from(number).unwrap_or(i64::MAX),
            customer: self.customer.as_str().to_owned(),
            quantity: i32::try_from(self.quantity).unwrap_or(i32::MAX),
            price: self.price.amount,
            currency: self.price.currency.as_str().to_owned(),
            accepted_at: self.accepted_at.0,
        }
    }
}

/// By epoch and number; and by order, because a Redis that went back in time gives numbers again.
type ByGrant = BTreeMap<(i32, u64, OrderId), Offer>;

/// The place before every order of a number.
fn place((epoch, number): (i32, u64)) -> (i32, u64, OrderId) {
    (epoch, number, OrderId([0; 16]))
}

/// Accepted orders by product and by grant.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    by_product: Mutex<HashMap<i32, ByGrant>>,
}

impl Offers {
    pub(crate) fn add(&self, product: i32, grant: (i32, u64), offer: Offer) {
        self.by_product.lock().entry(product).or_default().insert((grant.0, grant.1, offer.order), offer);
    }

    /// The ledger has every grant of `epoch` below `number`.
    pub(crate) fn settle_below(&self, product: i32, epoch: i32, number: u64) {
        let mut by_product = self.by_product.lock();
        if let Some(offers) = by_product.get_mut(&product) {
            // What is of an earlier epoch is to be offered again.
            let mut of_later = offers.split_off(&place((epoch, number)));
            offers.retain(|(of, ..), _| *of < epoch);
            offers.append(&mut of_later);
        }
    }

    /// What was granted in epochs before this one. It stays until [`Self::remove`].
    pub(crate) fn before(&self, product: i32, epoch: i32) -> Vec<((i32, u64), Offer)> {
        let by_product = self.by_product.lock();
        let Some(offers) = by_product.get(&product) else { return Vec::new() };
        let before = offers.range(..place((epoch, 0)));
        before.map(|((of, number, _), offer)| ((*of, *number), offer.clone())).collect()
    }

    /// The order does not wait under this grant any more.
    pub(crate) fn remove(&self, product: i32, grant: (i32, u64), order: OrderId) {
        if let Some(offers) = self.by_product.lock().get_mut(&product) {
            offers.remove(&(grant.0, grant.1, order));
        }
    }

    /// The highest number of a grant of this epoch that waits; 0 if none does.
    pub(crate) fn newest(&self, product: i32, epoch: i32) -> u64 {
        let by_product = self.by_product.lock();
        let of_epoch =
            by_product.get(&product).map(|offers| offers.range(place((epoch, 0))..place((epoch + 1, 0))));
        of_epoch.and_then(|mut offers| offers.next_back()).map_or(0, |((_, number, _), _)| *number)
    }

    /// How many wait.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.by_product.lock().values().map(BTreeMap::len).sum()
    }

    /// Whether any of this product wait that were granted in epochs before this one.
    pub(crate) fn has_before(&self, product: i32, epoch: i32) -> bool {
        let by_product = self.by_product.lock();
        by_product.get(&product).is_some_and(|offers| offers.range(..place((epoch, 0))).next().is_some())
    }

    /// Whether any of this product wait.
    pub(crate) fn has(&self, product: i32) -> bool {
        self.by_product.lock().get(&product).is_some_and(|offers| !offers.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(order: u8) -> Offer {
        Offer {
            order: OrderId([order; 16]),
            customer: CustomerId::parse("ann").unwrap(),
            quantity: 1,
            price: Money { amount: 1, currency: Currency::parse("EUR").unwrap() },
            accepted_at: Timestamp(1),
        }
    }

    #[test]
    fn what_the_ledger_has_is_forgotten_and_what_an_earlier_epoch_granted_is_not() {
        let offers = Offers::default();
        for grant in [(1, 9), (2, 1), (2, 2), (2, 3)] {
            offers.add(7, grant, offer(7));
        }
        assert_eq!((offers.newest(7, 1), offers.newest(7, 2), offers.newest(7, 3)), (9, 3, 0));
        offers.settle_below(7, 2, 3);
        assert_eq!(offers.count(), 2, "(1, 9) and (2, 3) are left");
        let before = offers.before(7, 2);
        assert_eq!(before.iter().map(|(grant, _)| *grant).collect::<Vec<_>>(), [(1, 9)]);
        assert!(offers.has_before(7, 2), "it waits until it has an answer");
        offers.remove(7, (1, 9), OrderId([7; 16]));
        assert!(!offers.has_before(7, 2));
        assert!(offers.has(7));
        assert!(!offers.has(8));
    }

    #[test]
    fn an_offer_is_the_grant_that_it_came_from() {
        let offer = offer(7);
        assert_eq!(Offer::of(&offer.grant(9)), Some(offer.clone()));
        assert_eq!(offer.grant(9).number, 9);
    }

    #[test]
    fn two_orders_of_one_number_are_both_kept() {
        let offers = Offers::default();
        offers.add(7, (2, 1), offer(1));
        offers.add(7, (2, 1), offer(2));
        offers.add(7, (2, 1), offer(2));
        offers.settle_below(7, 2, 1);
        assert!(!offers.has_before(7, 2));
        assert_eq!(offers.before(7, 3).len(), 2);
    }
}
