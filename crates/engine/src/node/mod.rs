//! What a node that works on PostgreSQL is made of, whichever engine it runs.
//!
//! ```text
//! Node       what the parts of one node share: clock, catalogue, storefront, counters, how delivery is
//! Background the runtime on which all of it goes on
//! Desk       what the edge asks of the ledger, on the background's runtime
//! follow.rs  what every node does again and again: reading the ledger, telling who waits for it
//! ```

pub(crate) mod audit;
mod background;
pub(crate) mod catalogue;
mod claim;
mod count;
mod desk;
mod follow;
mod key_prefix;
pub(crate) mod order_id;
mod patience;
mod ping;
mod progress;
mod waiters;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};

use parking_lot::Mutex;
use yoink_core::Timestamp;

pub(crate) use self::background::Background;
use self::catalogue::Catalogue;
pub use self::claim::ClaimError;
pub(crate) use self::claim::open_ledger;
pub(crate) use self::desk::Desk;
pub(crate) use self::follow::check_postgres;
pub(crate) use self::key_prefix::{KeyPrefix, hash_tag};
use self::order_id::OrderIds;
pub(crate) use self::patience::Patience;
pub use self::ping::Ping;
use self::progress::Progress;
use self::waiters::Waiters;
use crate::delivery::DeliveryOptions;
use crate::embedded::clock::{Clock, SystemTime};
use crate::figures::Counters;
use crate::postgres::{ErrorClass, PostgresError, SettingsCheck};
use crate::storefront::Storefront;
use crate::{CallError, EngineState};

/// How often at most a product that is not known is looked for.
const LOOK_FOR_PRODUCTS_EVERY_US: i64 = 20_000;

/// How a node works, whichever engine it runs.
#[derive(Clone, Debug)]
pub(crate) struct NodeOptions {
    /// Whether servers whose settings can lose orders are used.
    pub(crate) settings: SettingsCheck,
    /// Workers in this process; 0 leaves delivery to others.
    pub(crate) workers: usize,
    /// How the ledger's refusals are handled.
    pub(crate) delivery: DeliveryOptions,
}

/// What the parts of one node share.
pub(crate) struct Node {
    pub(crate) options: NodeOptions,
    pub(crate) order_ids: OrderIds,
    pub(crate) catalogue: Catalogue,
    pub(crate) storefront: Storefront,
    /// Who publishes the storefront holds this, so that what is older is not published later.
    publishing: Mutex<()>,
    pub(crate) waiters: Waiters,
    pub(crate) counters: Counters,
    clock: Clock,
    state: AtomicU8,
    progress: Progress,
    delivery_paused: AtomicBool,
    /// By server, those that have none left out.
    settings_complaints: Mutex<BTreeMap<String, Vec<String>>>,
    /// The time that tests set; 0 otherwise.
    now_override: AtomicI64,
    /// When a product that was not known was last looked for, on the monotonic clock.
    looked_us: AtomicI64,
}

impl Node {
    /// A node that knows nothing yet. `secret` is the ledger's, with which order ids are derived.
    pub(crate) fn new(options: NodeOptions, secret: &[u8]) -> Self {
        Self {
            order_ids: OrderIds::new(secret),
            catalogue: Catalogue::default(),
            storefront: Storefront::empty(),
            publishing: Mutex::default(),
            waiters: Waiters::default(),
            counters: Counters::new(),
            clock: Clock::new(Box::new(SystemTime::default()), Timestamp(0)),
            state: AtomicU8::new(0),
            progress: Progress::new(options.workers > 0),
            delivery_paused: AtomicBool::new(false),
            settings_complaints: Mutex::default(),
            now_override: AtomicI64::new(0),
            looked_us: AtomicI64::new(i64::MIN / 2),
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

    pub(crate) fn state(&self) -> EngineState {
        match self.state.load(Ordering::Acquire) {
            0 => EngineState::Ready,
            _ => EngineState::Closing,
        }
    }

    pub(crate) fn close(&self) {
        self.state.store(1, Ordering::Release);
    }

    /// What everybody may see without asking anyone.
    pub(crate) fn publish_storefront(&self) {
        self.tick();
        let _publishing = self.publishing.lock();
        let views = self.catalogue.all().iter().map(|listed| listed.view()).collect();
        self.storefront.publish_views(views);
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

    /// What is wrong with the settings of one server. While there is anything, nothing is sold.
    pub(crate) fn note_settings(&self, server: &str, complaints: Vec<String>) {
        let mut known = self.settings_complaints.lock();
        if complaints.is_empty() {
            known.remove(server);
        } else if known.get(server) != Some(&complaints) {
            for complaint in &complaints {
                tracing::error!("{complaint}");
            }
            known.insert(server.to_owned(), complaints);
        }
    }

    /// Only these servers are used: what was wrong with others does not matter any more.
    pub(crate) fn forget_settings_but(&self, servers: &[String]) {
        self.settings_complaints.lock().retain(|server, _| servers.contains(server));
    }

    /// Whether the servers keep what they are told, or somebody has said that they need not.
    pub(crate) fn may_sell(&self) -> bool {
        self.options.settings == SettingsCheck::Relaxed || self.settings_complaints.lock().is_empty()
    }
}

impl From<PostgresError> for CallError {
    fn from(error: PostgresError) -> Self {
        tracing::warn!(%error, "the ledger gave no answer");
        match error.class() {
            ErrorClass::Unknown => Self::OutcomeUnknown,
            ErrorClass::Transient | ErrorClass::Unclassified | ErrorClass::Permanent => Self::Unreachable,
        }
    }
}
