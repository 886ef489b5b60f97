//! What an audit says.

use core::fmt;

use crate::{ProductId, Seq};

/// What must hold at every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InvariantId {
    /// Units sold never exceed units stocked.
    NoOversell,
    /// What is available is what is stocked, less what is held, sold and withheld, and never below 0.
    Conservation,
    /// An order id is given once.
    OneOrderPerId,
    /// A customer has one order per idempotency key.
    OneOrderPerKey,
    /// Units of a customer's live orders are within the limit as of the acceptance.
    LimitPerCustomer,
    /// Units of an order come back at most once.
    UnitsBackOnce,
    /// An order has 1 to `max_per_order` units, as of its acceptance.
    QuantityInRange,
    /// An order is accepted inside the sale window, as of its acceptance.
    InsideWindow,
    /// An order is not accepted while the sale is paused.
    NotWhilePaused,
    /// An order has the price that the product had when it was accepted.
    PriceAsListed,
    /// A product id is given once.
    OneProductPerId,
    /// A product's stock is adjusted once per idempotency key.
    OneAdjustmentPerKey,
    /// Every product and order that an event names is there.
    KnownNames,
    /// Events are numbered from 1 without a repetition, and without a gap but where the log says that a loss was
    /// accepted.
    DenseLog,
    /// No event is older than the one before it.
    TimeForward,
}

impl InvariantId {
    /// Every invariant, in the order in which they are printed.
    pub const ALL: [Self; 15] = [
        Self::NoOversell,
        Self::Conservation,
        Self::OneOrderPerId,
        Self::OneOrderPerKey,
        Self::LimitPerCustomer,
        Self::UnitsBackOnce,
        Self::QuantityInRange,
        Self::InsideWindow,
        Self::NotWhilePaused,
        Self::PriceAsListed,
        Self::OneProductPerId,
        Self::OneAdjustmentPerKey,
        Self::KnownNames,
        Self::DenseLog,
        Self::TimeForward,
    ];

    /// The invariant's name in reports and metrics; it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoOversell => "no-oversell",
            Self::Conservation => "conservation",
            Self::OneOrderPerId => "one-order-per-id",
            Self::OneOrderPerKey => "one-order-per-key",
            Self::LimitPerCustomer => "limit-per-customer",
            Self::UnitsBackOnce => "units-back-once",
            Self::QuantityInRange => "quantity-in-range",
            Self::InsideWindow => "inside-window",
            Self::NotWhilePaused => "not-while-paused",
            Self::PriceAsListed => "price-as-listed",
            Self::OneProductPerId => "one-product-per-id",
            Self::OneAdjustmentPerKey => "one-adjustment-per-key",
            Self::KnownNames => "known-names",
            Self::DenseLog => "dense-log",
            Self::TimeForward => "time-forward",
        }
    }

    /// What it promises, as a phrase for people.
    pub fn promise(self) -> &'static str {
        match self {
            Self::NoOversell => "units sold never exceed units stocked",
            Self::Conservation => "stocked = available + held + sold + withheld, and none below 0",
            Self::OneOrderPerId => "an order id is given once",
            Self::OneOrderPerKey => "a customer has one order per idempotency key",
            Self::LimitPerCustomer => "a customer's live orders stay within the limit",
            Self::UnitsBackOnce => "units of an order come back at most once",
            Self::QuantityInRange => "an order has at least 1 unit and at most what the product allows",
            Self::InsideWindow => "orders are accepted inside the sale window",
            Self::NotWhilePaused => "no order is accepted while the sale is paused",
            Self::PriceAsListed => "an order has the price listed when it was accepted",
            Self::OneProductPerId => "a product id is given once",
            Self::OneAdjustmentPerKey => "stock is adjusted once per idempotency key",
            Self::KnownNames => "every product and order named is there",
            Self::DenseLog => "events are numbered from 1 without a gap, but for accepted losses",
            Self::TimeForward => "no event is older than the one before it",
        }
    }
}

impl fmt::Display for InvariantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where an invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which one.
    pub invariant: InvariantId,
    /// The event at which it broke.
    pub seq: Seq,
    /// What broke, for people.
    pub detail: String,
}

/// Units of one product, recounted. `available` is below 0 where more was given away than was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductCount {
    /// Which product.
    pub id: ProductId,
    /// Units ever added.
    pub stocked: i128,
    /// `stocked - held - sold - withheld`.
    pub available: i128,
    /// Units set aside for a while (none yet: holds come later).
    pub held: i128,
    /// Units of live orders.
    pub sold: i128,
    /// Units withdrawn from sale.
    pub withheld: i128,
}

/// Orders, recounted: `accepted = live + cancelled + failed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderCount {
    /// Ever accepted.
    pub accepted: u64,
    /// Accepted and not ended.
    pub live: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Failed.
    pub failed: u64,
}

/// The result of a recount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The last event that was counted.
    pub seq: Seq,
    /// In order of creation.
    pub products: Vec<ProductCount>,
    /// Over all products.
    pub orders: OrderCount,
    /// What was found wrong, oldest first, at most [`Report::FINDINGS_PER_INVARIANT_MAX`] of each invariant, so that
    /// a flood of one hides no other; [`Report::count`] knows them all.
    pub findings: Vec<Finding>,
    /// Units that were sold although they were not there, whether or not they came back later.
    pub oversold_units: u64,
    /// Orders too many: accepted under an id, or a customer's key, that had one.
    pub duplicated_orders: u64,
    counts: [u64; InvariantId::ALL.len()],
}

impl Report {
    /// How many findings of one invariant are kept.
    pub const FINDINGS_PER_INVARIANT_MAX: u64 = 10;

    /// Whether nothing was found wrong.
    pub fn is_clean(&self) -> bool {
        self.findings_total() == 0
    }

    /// How often anything was found wrong.
    pub fn findings_total(&self) -> u64 {
        self.counts.iter().fold(0, |total, count| total.saturating_add(*count))
    }

    /// How often this invariant did not hold.
    pub fn count(&self, invariant: InvariantId) -> u64 {
        self.counts.get(invariant as usize).copied().unwrap_or(0)
    }

    /// One product's units.
    pub fn product(&self, id: &ProductId) -> Option<&ProductCount> {
        self.products.iter().find(|product| product.id == *id)
    }
}

/// Findings while they come in.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The event at which findings are added.
    pub(super) seq: Seq,
    pub(super) oversold_units: u64,
    pub(super) duplicated_orders: u64,
    list: Vec<Finding>,
    counts: [u64; InvariantId::ALL.len()],
}

impl Findings {
    pub(super) fn add(&mut self, invariant: InvariantId, detail: impl FnOnce() -> String) {
        let Some(count) = self.counts.get_mut(invariant as usize) else {
            return;
        };
        *count = count.saturating_add(1);
        if *count <= Report::FINDINGS_PER_INVARIANT_MAX {
            self.list.push(Finding { invariant, seq: self.seq, detail: detail() });
        }
    }

    pub(super) fn report(&self, products: Vec<ProductCount>, orders: OrderCount) -> Report {
        Report {
            seq: self.seq,
            products,
            orders,
            findings: self.list.clone(),
            oversold_units: self.oversold_units,
            duplicated_orders: self.duplicated_orders,
            counts: self.counts,
        }
    }
}
