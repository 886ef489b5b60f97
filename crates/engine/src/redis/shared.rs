//! What the parts of one node share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use uuid::Uuid;
use yoink_core::OrderId;

use super::doubts::Doubts;
use super::entry::time_of;
use super::keys::SaleKeys;
use super::mistakes::Mistakes;
use super::offers::{Offer, Offers};
use super::open::RedisOptions;
use super::rush::Rush;
use super::shown::Shown;
use super::status::Gauges;
use crate::node::order_id::to_hex;
use crate::node::{KeyPrefix, Node};
use crate::postgres::{Delivered, Grant};

/// What the parts of one node share.
pub(crate) struct Shared {
    pub(crate) options: RedisOptions,
    pub(crate) node: Arc<Node>,
    pub(crate) offers: Offers,
    pub(crate) doubts: Doubts,
    prefix: KeyPrefix,
    /// In which epoch a product was last seen to take offers only, and when first.
    offers_since: Mutex<HashMap<i32, (i32, Instant)>>,
    /// Units that do not add up in Redis, by product; those that add up are not in it.
    differences: Mutex<HashMap<i32, i64>>,
    /// What the last look at each product's sale showed of the ledger.
    shown: Mutex<HashMap<i32, Shown>>,
    pub(crate) gauges: Gauges,
    pub(crate) rush: Rush,
}

impl Shared {
    pub(crate) fn new(options: RedisOptions, node: Arc<Node>, ledger: Uuid) -> Self {
        Self {
            options,
            node,
            offers: Offers::default(),
            doubts: Doubts::default(),
            prefix: KeyPrefix::of(ledger),
            offers_since: Mutex::default(),
            differences: Mutex::default(),
            shown: Mutex::default(),
            gauges: Gauges::new(),
            rush: Rush::default(),
        }
    }

    /// The keys of a product's sale.
    pub(crate) fn keys(&self, product: i32, epoch: i32) -> SaleKeys {
        SaleKeys::new(&self.prefix, product, epoch)
    }

    /// Constant, and so gone, in a build that cannot make mistakes.
    pub(crate) fn mistakes(&self) -> Mistakes {
        match cfg!(feature = "faults") {
            true => self.options.mistakes,
            false => Mistakes::default(),
        }
    }

    /// When an epoch of a product was first seen to take offers only; now, if this is the first time. An epoch before
    /// it is forgotten: nothing is sold from it again.
    pub(crate) fn offers_since(&self, product: i32, epoch: i32) -> Instant {
        let mut since = self.offers_since.lock();
        let (of, at) = since.entry(product).or_insert_with(|| (epoch, Instant::now()));
        if *of != epoch {
            (*of, *at) = (epoch, Instant::now());
        }
        *at
    }

    /// By how many units the figures of a product in Redis differed in the last look: what is available, less what was
    /// given and not granted.
    pub(crate) fn note_difference(&self, product: i32, units: i64) {
        let mut differences = self.differences.lock();
        let before = match units {
            0 => differences.remove(&product),
            _ => differences.insert(product, units),
        };
        if units != 0 && before != Some(units) {
            tracing::error!(product, units, "the figures of a product in Redis do not add up");
        }
    }

    /// What was noted last; 0 if all adds up.
    pub(crate) fn difference(&self, product: i32) -> i64 {
        self.differences.lock().get(&product).copied().unwrap_or(0)
    }

    /// What a look at a product's sale showed of the ledger; nothing if there was none.
    pub(crate) fn note_shown(&self, product: i32, shown: Option<Shown>) {
        let mut all = self.shown.lock();
        match shown {
            Some(shown) => drop(all.insert(product, shown)),
            None => drop(all.remove(&product)),
        }
    }

    /// What the last looks showed of the ledger, by product.
    pub(crate) fn shown(&self) -> HashMap<i32, Shown> {
        self.shown.lock().clone()
    }

    /// What the ledger says of grants may show that Redis is to be filled anew: it said more than is true, lost count of
    /// what a customer has, forgot an order, or gave a number twice. What came after the epoch was sealed is kept, to be
    /// offered again.
    pub(crate) fn heed_delivered(
        &self,
        product: i32,
        epoch: i32,
        grants: &[Grant],
        delivered: &[(OrderId, Delivered)],
    ) {
        for (order, _) in delivered.iter().filter(|(_, outcome)| *outcome == Delivered::Sealed) {
            if let Some(grant) = grants.iter().find(|grant| grant.order == *order)
                && let Some(offer) = Offer::of(grant)
            {
                self.offers.add(product, (epoch, grant.number.unsigned_abs()), offer);
            }
        }
        let Some((order, outcome)) = delivered.iter().find(|(_, outcome)| outcome.is_distrusted()) else {
            return;
        };
        let order = to_hex(*order);
        tracing::error!(
            product,
            epoch,
            order,
            ?outcome,
            "Redis granted what it should not have: it is filled anew"
        );
        self.node.catalogue.distrust(product, epoch);
    }

    /// How many grants of a product were made and settled, and the id of the oldest entry that waits.
    pub(crate) fn note_backlog(&self, product: i32, granted: u64, settled: u64, oldest: Option<&str>) {
        self.node.note_backlog(product, granted, settled, oldest.and_then(time_of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::DeliveryOptions;
    use crate::node::NodeOptions;
    use crate::postgres::SettingsCheck;

    #[test]
    fn the_time_of_offers_begins_with_each_epoch_and_the_one_before_is_forgotten() {
        let options =
            NodeOptions { settings: SettingsCheck::Strict, workers: 0, delivery: DeliveryOptions::default() };
        let shared =
            Shared::new(RedisOptions::new("", ""), Arc::new(Node::new(options, b"secret")), Uuid::nil());
        let first = shared.offers_since(7, 1);
        assert_eq!(shared.offers_since(7, 1), first);
        let second = shared.offers_since(7, 2);
        assert!(second > first);
        assert_eq!(shared.offers_since(7, 2), second);
        shared.offers_since(8, 1);
        assert_eq!(shared.offers_since.lock().len(), 2, "one of each product");
    }
}
