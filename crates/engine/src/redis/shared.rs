//! What the parts of one node share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use yoink_core::{OrderId, Timestamp};

use super::catalogue::Catalogue;
use super::mistakes::Mistakes;
use super::offers::Offers;
use super::open::RedisOptions;
use super::order_id::OrderIds;
use super::status::Gauges;
use super::waiters::Waiters;
use super::worker::CarryError;
use crate::EngineState;
use crate::delivery::{DeliveryStatus, DurationHistogram};
use crate::embedded::clock::{Clock, SystemTime};
use crate::figures::{Counters, Histogram};
use crate::postgres::{Delivered, PostgresError, Retried, SettingsCheck};
use crate::storefront::Storefront;

/// How often at most a product that is not known is looked for.
const LOOK_FOR_PRODUCTS_EVERY_US: i64 = 20_000;

/// The grants of one product that wait for the ledger.
#[derive(Clone, Copy, Debug, Default)]
struct Backlog {
    granted: u64,
    settled: u64,
    oldest_at: Option<Timestamp>,
}

/// What the parts of one node share.
pub(crate) struct Shared {
    pub(crate) options: RedisOptions,
    pub(crate) order_ids: OrderIds,
    pub(crate) catalogue: Catalogue,
    pub(crate) storefront: Storefront,
    /// Who publishes the storefront holds this, so that what is older is not published later.
    publishing: Mutex<()>,
    pub(crate) offers: Offers,
    /// In which epoch a product was last seen to take offers only, and when first.
    offers_since: Mutex<HashMap<i32, (i32, Instant)>>,
    pub(crate) waiters: Waiters,
    pub(crate) counters: Counters,
    clock: Clock,
    state: AtomicU8,
    backlogs: Mutex<HashMap<i32, Backlog>>,
    delivery: Mutex<DeliveryStatus>,
    delivery_paused: AtomicBool,
    settings_complaints: Mutex<Vec<String>>,
    /// Figures that do not add up in Redis, by product.
    pub(crate) differences: Mutex<HashMap<i32, i64>>,
    /// The time that tests set; 0 otherwise.
    now_override: AtomicI64,
    /// When a product that was not known was last looked for, on the monotonic clock.
    looked_us: AtomicI64,
    ledger_write: Histogram,
    pub(crate) gauges: Gauges,
}

impl Shared {
    pub(crate) fn new(options: RedisOptions, secret: &[u8]) -> Self {
        Self {
            order_ids: OrderIds::new(secret),
            catalogue: Catalogue::default(),
            storefront: Storefront::empty(),
            publishing: Mutex::default(),
            offers: Offers::default(),
            offers_since: Mutex::default(),
            waiters: Waiters::default(),
            counters: Counters::new(),
            clock: Clock::new(Box::new(SystemTime::default()), Timestamp(0)),
            state: AtomicU8::new(0),
            backlogs: Mutex::default(),
            delivery: Mutex::new(DeliveryStatus {
                running: options.workers > 0,
                ..DeliveryStatus::default()
            }),
            delivery_paused: AtomicBool::new(false),
            settings_complaints: Mutex::default(),
            differences: Mutex::default(),
            now_override: AtomicI64::new(0),
            looked_us: AtomicI64::new(i64::MIN / 2),
            ledger_write: Histogram::new(&DurationHistogram::BOUNDS_SECONDS),
            gauges: Gauges::new(),
            options,
        }
    }

    /// The engine's time: this node's clock, which follows the machine's without jumping.
    pub(crate) fn now(&self) -> Timestamp {
        match self.now_override() {
            Some(now_us) => Timestamp(now_us),
            None => self.clock.now(),
        }
    }

    /// Lets the clock follow the machine's.
    pub(crate) fn tick(&self) {
        self.clock.tick();
    }

    pub(crate) fn clock_steps(&self) -> u64 {
        self.clock.steps()
    }

    /// The time that tests set, for every decision.
    pub(crate) fn now_override(&self) -> Option<i64> {
        match self.now_override.load(Ordering::Acquire) {
            0 => None,
            now_us => Some(now_us),
        }
    }

    #[cfg(feature = "faults")]
    pub(crate) fn set_now(&self, now: Timestamp) {
        self.now_override.store(now.0, Ordering::Release);
    }

    /// Constant, and so gone, in a build that cannot make mistakes.
    pub(crate) fn mistakes(&self) -> Mistakes {
        match cfg!(feature = "faults") {
            true => self.options.mistakes,
            false => Mistakes::default(),
        }
    }

    pub(crate) fn state(&self) -> EngineState {
        match self.state.load(Ordering::Acquire) {
            0 => EngineState::Ready,
            _ => EngineState::Closing,
        }
    }

    pub(crate) fn close(&self) {
        self.state.store(1, Ordering::Release);
    }

    pub(crate) fn delivery_is_paused(&self) -> bool {
        self.delivery_paused.load(Ordering::Acquire)
    }

    pub(crate) fn set_delivery_paused(&self, paused: bool) {
        self.delivery_paused.store(paused, Ordering::Release);
        self.delivery.lock().paused = paused;
    }

    /// What everybody may see without asking anyone.
    pub(crate) fn publish_storefront(&self) {
        self.tick();
        let _publishing = self.publishing.lock();
        let views = self.catalogue.all().iter().map(|listed| listed.view()).collect();
        self.storefront.publish_views(views);
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

    /// How many grants of a product were made and settled, and the id of the oldest entry that waits.
    pub(crate) fn note_backlog(&self, product: i32, granted: u64, settled: u64, oldest: Option<&str>) {
        // The first part of an entry's id is the server's time in milliseconds.
        let oldest_at = oldest
            .and_then(|id| id.split('-').next()?.parse::<i64>().ok())
            .map(|ms| Timestamp(ms.saturating_mul(1_000)));
        let mut backlogs = self.backlogs.lock();
        backlogs.insert(product, Backlog { granted, settled, oldest_at });
        let oldest_at = backlogs.values().filter_map(|backlog| backlog.oldest_at).min();
        let position = backlogs.values().map(|backlog| backlog.settled).sum();
        drop(backlogs);
        let mut delivery = self.delivery.lock();
        delivery.position = position;
        delivery.oldest_undelivered_at = oldest_at;
    }

    /// Grants made in the epochs that are on sale.
    pub(crate) fn granted(&self) -> u64 {
        self.backlogs.lock().values().map(|backlog| backlog.granted).sum()
    }

    pub(crate) fn delivery_status(&self) -> DeliveryStatus {
        let mut status = self.delivery.lock().clone();
        status.write_duration = DurationHistogram::of(&self.ledger_write);
        status
    }

    /// Whether a product that is not known may be looked for in the ledger now: a crowd that asks for what there is not
    /// must not become a crowd there.
    pub(crate) fn may_look_for_products(&self) -> bool {
        let now_us = self.clock.monotonic_us();
        let last_us = self.looked_us.load(Ordering::Acquire);
        let is_due = now_us.saturating_sub(last_us) >= LOOK_FOR_PRODUCTS_EVERY_US;
        is_due
            && self.looked_us.compare_exchange(last_us, now_us, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn note_delivered(&self, took: Duration, delivered: &[(OrderId, Delivered)]) {
        self.ledger_write.observe(took.as_secs_f64());
        let confirmed = delivered.iter().filter(|(_, outcome)| *outcome == Delivered::Confirmed).count();
        let mut delivery = self.delivery.lock();
        delivery.confirmed_total = delivery.confirmed_total.saturating_add(confirmed as u64);
        delivery.last_error = None;
    }

    pub(crate) fn note_retried(&self, tried: Retried) {
        let mut delivery = self.delivery.lock();
        match tried {
            Retried::Confirmed => delivery.confirmed_total += 1,
            Retried::Parked => delivery.failed_total += 1,
            Retried::Released => {
                delivery.failed_total += 1;
                delivery.rolled_back_total += 1;
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
            Retried::Retrying | Retried::Settled => {}
        }
    }

    pub(crate) fn note_refused(&self, retrying: u64, dead_letters_open: u64) {
        let mut delivery = self.delivery.lock();
        delivery.retrying = retrying;
        delivery.dead_letters_open = dead_letters_open;
    }

    pub(crate) fn note_delivery_error(&self, error: &CarryError) {
        let text = error.to_string();
        let mut delivery = self.delivery.lock();
        // Once per trouble: a worker tries again several times a second.
        if delivery.last_error.as_ref() != Some(&text) {
            tracing::warn!(%error, "delivery waits; every accepted order stays in the stream");
        }
        delivery.last_error = Some(text);
    }

    pub(crate) fn note_ledger(&self, error: Option<&PostgresError>) {
        if let Some(error) = error {
            tracing::debug!(%error, "the ledger could not be asked");
        }
        let has_nothing_to_do = self.granted() == self.delivery.lock().position;
        let mut delivery = self.delivery.lock();
        match error {
            Some(error) => delivery.last_error = Some(error.to_string()),
            // While something waits, only what is delivered shows that the trouble is over.
            None if self.options.workers == 0 || has_nothing_to_do => delivery.last_error = None,
            None => {}
        }
    }

    /// What is wrong with the settings of the servers. While there is anything, nothing is sold.
    pub(crate) fn note_settings(&self, complaints: Vec<String>) {
        let mut known = self.settings_complaints.lock();
        if *known != complaints {
            for complaint in &complaints {
                tracing::error!("{complaint}");
            }
            *known = complaints;
        }
    }

    /// Whether the servers keep what they are told, or somebody has said that they need not.
    pub(crate) fn may_sell(&self) -> bool {
        self.options.settings == SettingsCheck::Relaxed || self.settings_complaints.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_offers_begins_with_each_epoch_and_the_one_before_is_forgotten() {
        let shared = Shared::new(RedisOptions::new("", ""), b"secret");
        let first = shared.offers_since(7, 1);
        assert_eq!(shared.offers_since(7, 1), first);
        let second = shared.offers_since(7, 2);
        assert!(second > first);
        assert_eq!(shared.offers_since(7, 2), second);
        shared.offers_since(8, 1);
        assert_eq!(shared.offers_since.lock().len(), 2, "one of each product");
    }
}
