//! What this node knows of the products: read from the ledger a few times a second, so that a purchase needs no trip
//! to it, and so that selling goes on while the ledger is down.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use yoink_core::{Figures, ProductId};

use crate::postgres::{Postgres, PostgresError, ProductRow, SaleState};
use crate::views::ProductView;

/// A product as this node knows it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) row: ProductRow,
    live: Arc<Live>,
}

/// What is newer than the row: kept while rows are read again.
#[derive(Debug)]
struct Live {
    epoch: AtomicI32,
    /// Units for sale, as of the last look.
    available: AtomicU64,
    /// How often units came (back) since this node was started. Whoever writes `available` holds it.
    arrivals: Mutex<Arrivals>,
    /// Nobody has looked since units came.
    is_out_of_date: AtomicBool,
    /// Redis has lost something of this epoch, or says what the ledger knows to be wrong: it is to be filled with the
    /// next. 0 if all is well.
    distrusted_epoch: AtomicI32,
    /// It is being sold from that epoch.
    is_selling: AtomicBool,
}

/// What was seen before more units came is out of date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrivals(u64);

impl Listed {
    pub(crate) fn epoch(&self) -> i32 {
        self.live.epoch.load(Ordering::Acquire)
    }

    /// Whether the ledger was seen to say that the epoch on sale was opened.
    pub(crate) fn is_open_in_ledger(&self) -> bool {
        self.row.epoch == self.epoch() && self.row.state == SaleState::Open
    }

    pub(crate) fn available(&self) -> u64 {
        self.live.available.load(Ordering::Acquire)
    }

    pub(crate) fn set_available(&self, units: u64) {
        self.live.available.store(units, Ordering::Release);
    }

    /// To be asked before a look at Redis, for [`Self::saw_available`].
    pub(crate) fn arrivals(&self) -> Arrivals {
        *self.live.arrivals.lock()
    }

    /// What a look found that began after `arrivals`; nothing if more units came since.
    pub(crate) fn saw_available(&self, arrivals: Arrivals, units: u64) {
        let now = self.live.arrivals.lock();
        if *now == arrivals {
            self.set_available(units);
            self.live.is_out_of_date.store(false, Ordering::Release);
        }
    }

    /// Units came (back): whoever looked before knows nothing any more.
    pub(crate) fn note_arrival(&self) {
        let mut arrivals = self.live.arrivals.lock();
        arrivals.0 = arrivals.0.wrapping_add(1);
        self.live.is_out_of_date.store(true, Ordering::Release);
    }

    /// Whether the last look found nothing, and no units came since.
    pub(crate) fn is_sold_out(&self) -> bool {
        self.available() == 0 && !self.live.is_out_of_date.load(Ordering::Acquire)
    }

    pub(crate) fn is_selling(&self) -> bool {
        self.live.is_selling.load(Ordering::Acquire)
    }

    pub(crate) fn set_selling(&self, is_selling: bool) {
        self.live.is_selling.store(is_selling, Ordering::Release);
    }

    /// What Redis has of this epoch is not to be sold from. Who says so of an epoch that was replaced meanwhile is late.
    pub(crate) fn distrust(&self, epoch: i32) {
        self.live.distrusted_epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    /// The epoch of which that was said, until it is replaced or filled.
    pub(crate) fn distrusted(&self) -> Option<i32> {
        Some(self.live.distrusted_epoch.load(Ordering::Acquire)).filter(|epoch| *epoch >= self.epoch())
    }

    /// What that was said of was filled, for the first time or anew.
    pub(crate) fn trust_again(&self, epoch: i32) {
        let distrusted = &self.live.distrusted_epoch;
        // Another one that was named meanwhile stays so.
        let _ = distrusted.compare_exchange(epoch, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Its units: the ledger's word on how many there are, the last look's on how many are left.
    pub(crate) fn figures(&self) -> Figures {
        let (stocked, withheld) = (self.row.stocked, self.row.withheld);
        // The two are read one after the other; a restock may be in one of them only.
        let available = self.available().min(stocked.saturating_sub(withheld));
        let sold = stocked.saturating_sub(withheld).saturating_sub(available);
        Figures { stocked, available, held: 0, sold, withheld }
    }

    pub(crate) fn view(&self) -> ProductView {
        ProductView {
            id: self.row.id,
            details: self.row.details.clone(),
            paused: self.row.paused,
            figures: self.figures(),
        }
    }
}

/// All products.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    known: ArcSwap<Known>,
    /// Who reads the ledger and replaces it holds this meanwhile, so that what is read later is never older.
    reading: tokio::sync::Mutex<LastReading>,
    /// Readings that were begun.
    begun: AtomicU64,
}

/// How the last reading of the ledger ended.
#[derive(Debug, Default)]
struct LastReading {
    has_failed: bool,
}

#[derive(Debug, Default)]
struct Known {
    /// In order of creation.
    listed: Vec<Arc<Listed>>,
    by_id: HashMap<ProductId, Arc<Listed>>,
    by_number: HashMap<i32, Arc<Listed>>,
}

impl Catalogue {
    pub(crate) fn find(&self, id: &ProductId) -> Option<Arc<Listed>> {
        self.known.load().by_id.get(id).cloned()
    }

    pub(crate) fn by_number(&self, number: i32) -> Option<Arc<Listed>> {
        self.known.load().by_number.get(&number).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Listed>> {
        self.known.load().listed.clone()
    }

    /// How many times sixteen products there are, from 1.
    pub(crate) fn crowd(&self) -> u32 {
        u32::try_from(self.known.load().listed.len() / 16).unwrap_or(u32::MAX).max(1)
    }

    /// The epoch that is being sold from, or 1 for a product that is not known yet.
    pub(crate) fn epoch(&self, number: i32) -> i32 {
        self.by_number(number).map_or(1, |listed| listed.epoch())
    }

    /// What Redis says of this epoch of a product is wrong.
    pub(crate) fn distrust(&self, number: i32, epoch: i32) {
        if let Some(listed) = self.by_number(number) {
            listed.distrust(epoch);
        }
    }

    /// Reads the ledger's products, from an instant after this was called. Those who come while somebody reads wait for
    /// one reading together: a crowd that waits for a ledger that does not answer waits no longer than one.
    ///
    /// # Errors
    /// The ledger cannot be asked. What was known stays.
    pub(crate) async fn refresh(&self, postgres: &Postgres) -> Result<(), PostgresError> {
        let before = self.begun.load(Ordering::Acquire);
        let mut last = self.reading.lock().await;
        if self.begun.load(Ordering::Acquire) > before {
            return match last.has_failed {
                true => Err(PostgresError::NoConnection {
                    what: "read the products",
                    reason: "somebody else could not read them a moment ago",
                    source: None,
                }),
                false => Ok(()),
            };
        }
        self.begun.fetch_add(1, Ordering::AcqRel);
        // Also if it is given up.
        last.has_failed = true;
        let rows = postgres.products().await?;
        last.has_failed = false;
        self.replace(rows);
        Ok(())
    }

    /// Takes over what the ledger says. It may say less than before: one that was restored to an earlier state does not
    /// know any more what it said.
    fn replace(&self, rows: Vec<ProductRow>) {
        let before = self.known.load();
        let mut known = Known::default();
        for row in rows {
            let live = match before.by_number.get(&row.number) {
                Some(listed) => {
                    listed.live.epoch.store(row.epoch, Ordering::Release);
                    if went_back(&row, &listed.row) {
                        tracing::error!(
                            product = %row.id,
                            "the ledger has gone back to an earlier state: it does not know any more what it said"
                        );
                        listed.live.distrusted_epoch.fetch_max(row.epoch, Ordering::AcqRel);
                    }
                    Arc::clone(&listed.live)
                }
                None => Arc::new(Live {
                    epoch: AtomicI32::new(row.epoch),
                    available: AtomicU64::new(row.units.saturating_sub(row.sold)),
                    arrivals: Mutex::default(),
                    is_out_of_date: AtomicBool::new(false),
                    distrusted_epoch: AtomicI32::new(0),
                    is_selling: AtomicBool::new(false),
                }),
            };
            let listed = Arc::new(Listed { row, live });
            known.by_id.insert(listed.row.id, Arc::clone(&listed));
            known.by_number.insert(listed.row.number, Arc::clone(&listed));
            known.listed.push(listed);
        }
        self.known.store(Arc::new(known));
    }
}

/// Whether the ledger has lost what it said when the other row was read, which was before: none of these figures ever
/// falls.
fn went_back(row: &ProductRow, known: &ProductRow) -> bool {
    row.epoch < known.epoch
        || row.version < known.version
        || row.stocked < known.stocked
        || row.withheld < known.withheld
        || (row.epoch == known.epoch && (row.sold < known.sold || row.given() < known.given()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use yoink_core::{Currency, MAX_PER_ORDER_DEFAULT, Money, NewProduct, Window};

    fn row(number: i32) -> ProductRow {
        let id = ProductId::parse("shoe").unwrap();
        let details = NewProduct {
            id: Some(id),
            name: "Shoe".into(),
            price: Money { amount: 1, currency: Currency::parse("EUR").unwrap() },
            stock: 5,
            window: Window::default(),
            limit_per_customer: None,
            max_per_order: MAX_PER_ORDER_DEFAULT,
        };
        let (paused, stocked, withheld, version, epoch) = (false, 5, 0, 1, 1);
        let (state, loader, units, sold) = (SaleState::Open, None, 5, 0);
        ProductRow {
            number,
            id,
            details,
            paused,
            stocked,
            withheld,
            version,
            epoch,
            state,
            loader,
            units,
            sold,
        }
    }

    #[test]
    fn what_was_seen_before_more_units_came_tells_nobody_that_all_are_sold() {
        let catalogue = Catalogue::default();
        catalogue.replace(vec![row(7)]);
        let listed = catalogue.by_number(7).unwrap();
        let early = listed.arrivals();
        listed.saw_available(early, 0);
        assert!(listed.is_sold_out());
        listed.note_arrival();
        assert!(!listed.is_sold_out(), "units came");
        listed.saw_available(early, 0);
        assert!(!listed.is_sold_out(), "it was asked before they came, and answered later");
        listed.saw_available(listed.arrivals(), 0);
        assert!(listed.is_sold_out(), "somebody has bought them");
    }

    #[test]
    fn a_ledger_that_went_back_is_followed_and_what_redis_has_is_distrusted() {
        let known = ProductRow { epoch: 3, version: 4, stocked: 9, withheld: 2, units: 7, sold: 5, ..row(7) };
        let lost: [fn(&mut ProductRow); 6] = [
            |row| (row.epoch, row.sold) = (2, 6),
            |row| row.version -= 1,
            |row| row.stocked -= 1,
            |row| row.withheld -= 1,
            |row| row.sold -= 1,
            |row| row.units -= 1,
        ];
        for (which, lose) in lost.into_iter().enumerate() {
            let catalogue = Catalogue::default();
            catalogue.replace(vec![known.clone(), row(8)]);
            let mut earlier = known.clone();
            lose(&mut earlier);
            catalogue.replace(vec![earlier.clone()]);
            let listed = catalogue.by_number(7).unwrap();
            assert_eq!((&listed.row, listed.epoch()), (&earlier, earlier.epoch), "{which}");
            assert_eq!(listed.distrusted(), Some(earlier.epoch), "{which}");
            assert!(catalogue.by_number(8).is_none(), "it was made later");
        }
    }

    #[test]
    fn a_ledger_that_goes_on_is_not_taken_for_one_that_went_back() {
        let known = ProductRow { epoch: 3, stocked: 9, units: 9, sold: 5, ..row(7) };
        let later = [
            ProductRow { sold: 6, ..known.clone() },
            ProductRow { units: 7, withheld: 2, ..known.clone() },
            ProductRow { epoch: 4, units: 4, sold: 0, state: SaleState::Loading, ..known.clone() },
        ];
        for row in later {
            assert!(!went_back(&row, &known), "{row:?}");
        }
    }

    #[test]
    fn an_epoch_is_distrusted_until_it_is_replaced_or_filled() {
        let catalogue = Catalogue::default();
        catalogue.replace(vec![row(7)]);
        let listed = catalogue.by_number(7).unwrap();
        assert_eq!(listed.distrusted(), None);
        listed.distrust(1);
        assert_eq!((listed.distrusted(), listed.distrusted()), (Some(1), Some(1)));
        listed.trust_again(1);
        assert_eq!(listed.distrusted(), None);
        listed.distrust(1);
        catalogue.replace(vec![ProductRow { epoch: 2, ..row(7) }]);
        assert_eq!(listed.distrusted(), None, "it is not sold from any more");
    }
}
