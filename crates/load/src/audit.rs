//! The verdict: every answer is looked up again, and the stock before and after is compared with what was sold.
//!
//! It assumes that nobody withdraws stock or cancels older orders of the same product while the storm is on; other
//! people may buy.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::resolve::Resolution;

mod look_up;
mod unnamed;

pub(crate) use look_up::{Looked, look_up_all};
pub(crate) use unnamed::{Unnamed, has_orders, list_all};

/// Findings that are told in words; all are counted.
const FINDINGS_MAX: usize = 20;

/// Units of a product, as the server tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockCounts {
    /// Units that there ever were.
    pub stocked: i64,
    /// Units that can be bought.
    pub available: i64,
    /// Units set aside.
    #[serde(default)]
    pub held: i64,
    /// Units of live orders.
    pub sold: i64,
    /// Units that an operator keeps back.
    #[serde(default)]
    pub withheld: i64,
}

impl StockCounts {
    fn is_conserved(&self) -> bool {
        self.stocked == self.available + self.held + self.sold + self.withheld
    }
}

/// Who made a purchase.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// Purchase `n` of this storm: customer and key follow from it.
    Numbered(u64),
    /// From a record.
    Named { customer: String, key: String, quantity: u32 },
}

impl Who {
    pub(crate) fn customer(&self, plan: &Plan) -> String {
        match self {
            Who::Numbered(n) => plan.template.customer(*n),
            Who::Named { customer, .. } => customer.clone(),
        }
    }

    pub(crate) fn key(&self, plan: &Plan) -> String {
        match self {
            Who::Numbered(n) => plan.template.key(*n),
            Who::Named { key, .. } => key.clone(),
        }
    }

    pub(crate) fn quantity(&self, plan: &Plan) -> u64 {
        match self {
            Who::Numbered(_) => plan.quantity.into(),
            Who::Named { quantity, .. } => (*quantity).into(),
        }
    }
}

/// An acceptance that somebody was told.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) who: Who,
    pub(crate) order_id: Option<Box<str>>,
    /// It repeats an order from before this storm, so its units were bought before.
    pub(crate) replayed: bool,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `lost`, `duplicated` or `unverified`.
    pub kind: &'static str,
    /// What, about which order and customer.
    pub detail: String,
}

/// One promise and whether it was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invariant {
    /// A short name.
    pub id: &'static str,
    /// Whether it held.
    pub ok: bool,
    /// With figures.
    pub detail: String,
}

/// Orders of this storm by what they were found to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OrderCounts {
    /// Not yet in the ledger.
    pub accepted: u64,
    /// In the ledger.
    pub confirmed: u64,
    /// Given back by somebody.
    pub cancelled: u64,
    /// Could never enter the ledger; their units came back.
    pub failed: u64,
    /// Were queued, and then decided to get nothing.
    pub rejected: u64,
}

/// What the look-ups showed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Units given away that the product did not have.
    pub oversold: u64,
    /// Acceptances whose order is not there or is another one, by id or, without one, by customer.
    pub lost: u64,
    /// Keys with two orders, and orders with two customers.
    pub duplicated: u64,
    /// Units that are still there although buyers were told that nothing is left.
    pub stuck: u64,
    /// Acceptances that could not be looked up, so nothing is known about them.
    pub unverified: u64,
    /// Orders looked up by their id.
    pub looked_up: u64,
    /// Purchases accepted on a compatible route that names no order; they are looked up by customer.
    pub without_id: u64,
    /// What the orders were found to be.
    pub orders: OrderCounts,
    /// The product's units before the storm, if it was there to see them.
    pub before: Option<StockCounts>,
    /// The product's units afterwards.
    pub after: StockCounts,
    /// What became of purchases without an answer.
    pub resolution: Resolution,
    /// Up to twenty findings in words.
    pub findings: Vec<Finding>,
    /// The promises.
    pub invariants: Vec<Invariant>,
}

impl AuditReport {
    /// Whether every promise was kept, and could be seen to be.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.invariants.iter().all(|invariant| invariant.ok)
    }
}

/// What the judge is given.
pub(crate) struct Evidence {
    pub(crate) claims: Vec<Claim>,
    pub(crate) looked: HashMap<Box<str>, Looked>,
    pub(crate) unnamed: Vec<Unnamed>,
    pub(crate) before: Option<StockCounts>,
    pub(crate) after: StockCounts,
    pub(crate) resolution: Resolution,
    pub(crate) sold_out_customers: u64,
}

/// Weighs the evidence. Pure: asks nobody.
pub(crate) fn judge(plan: &Plan, evidence: &Evidence) -> AuditReport {
    let mut report = AuditReport {
        before: evidence.before,
        after: evidence.after,
        resolution: evidence.resolution.clone(),
        looked_up: evidence.looked.len() as u64,
        ..AuditReport::default()
    };
    find_duplicates(plan, evidence, &mut report);
    let mut units = weigh_claims(plan, evidence, &mut report);
    let sold_at_least = units.live + unnamed::weigh(plan, &evidence.unnamed, &mut report, &mut units);
    report.oversold = oversold(evidence, &units);
    report.stuck = stuck(plan, evidence, &units);
    report.invariants = invariants(&report);
    if let (Some(before), 1..) = (&report.before, report.without_id) {
        let sold = report.after.sold - before.sold;
        report.invariants.push(Invariant {
            id: "every-acceptance-sold",
            ok: sold >= sold_at_least,
            detail: format!("{sold} units sold during the storm; at least {sold_at_least} were accepted"),
        });
    }
    report
}

fn note(report: &mut AuditReport, kind: &'static str, detail: String) {
    if report.findings.len() < FINDINGS_MAX {
        report.findings.push(Finding { kind, detail });
    }
}

fn find_duplicates(plan: &Plan, evidence: &Evidence, report: &mut AuditReport) {
    let mut order_of: HashMap<&Who, &str> = HashMap::new();
    let mut owner_of: HashMap<&str, &Who> = HashMap::new();
    for claim in &evidence.claims {
        let Some(order_id) = claim.order_id.as_deref() else {
            continue;
        };
        match order_of.entry(&claim.who) {
            Entry::Occupied(first) if *first.get() != order_id => {
                report.duplicated += 1;
                let (key, first) = (claim.who.key(plan), first.get());
                note(report, "duplicated", format!("key {key} was given two orders: {first} and {order_id}"));
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(order_id);
            }
        }
        match owner_of.entry(order_id) {
            Entry::Occupied(first) if *first.get() != &claim.who => {
                report.duplicated += 1;
                let (one, other) = (first.get().key(plan), claim.who.key(plan));
                note(
                    report,
                    "duplicated",
                    format!("order {order_id} was given to two purchases: {one} and {other}"),
                );
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(&claim.who);
            }
        }
    }
}

/// Units of this storm's acceptances.
#[derive(Default)]
struct Units {
    /// Of orders that were found and live.
    live: i64,
    /// Of orders that should be live, found or not.
    promised: i64,
    /// Of orders found cancelled or failed.
    returned: i64,
    /// Customers who were told that nothing is left only after their request was queued.
    denied_later: u64,
}

fn weigh_claims(plan: &Plan, evidence: &Evidence, report: &mut AuditReport) -> Units {
    let mut units = Units::default();
    let mut seen = std::collections::HashSet::new();
    for claim in &evidence.claims {
        let Some(order_id) = claim.order_id.as_deref() else {
            continue;
        };
        let first = seen.insert((order_id, &claim.who));
        let quantity = i64::try_from(claim.who.quantity(plan)).unwrap_or(i64::MAX);
        let bought_now = if claim.replayed || !first { 0 } else { quantity };
        units.promised += bought_now;
        let who = || format!("order {order_id} of {}", claim.who.customer(plan));
        match evidence.looked.get(order_id) {
            Some(Looked::Found(order)) => {
                if let Some(difference) = look_up::difference(plan, &claim.who, order) {
                    report.lost += u64::from(first);
                    note(report, "lost", format!("{} is not what was accepted: {difference}", who()));
                    continue;
                }
                match order.status.as_str() {
                    "cancelled" | "failed" => {
                        units.returned += bought_now;
                        units.promised -= bought_now;
                    }
                    "rejected" => {
                        units.promised -= bought_now;
                        units.denied_later += u64::from(first && order.reason.as_deref() == Some("sold-out"));
                    }
                    _ => units.live += bought_now,
                }
                if first {
                    count_status(&mut report.orders, &order.status);
                }
            }
            Some(Looked::NotFound) => {
                report.lost += u64::from(first);
                note(report, "lost", format!("{} was accepted and cannot be found", who()));
            }
            Some(Looked::Unreadable(reason)) => {
                report.unverified += u64::from(first);
                note(report, "unverified", format!("{} could not be looked up: {reason}", who()));
            }
            None => report.unverified += u64::from(first),
        }
    }
    units
}

fn count_status(orders: &mut OrderCounts, status: &str) {
    match status {
        "confirmed" => orders.confirmed += 1,
        "cancelled" => orders.cancelled += 1,
        "failed" => orders.failed += 1,
        "rejected" => orders.rejected += 1,
        _ => orders.accepted += 1,
    }
}

/// The worst of three views of the same question: what the product says of itself, what it says it sold against what
/// was found, and what was promised against what there was.
fn oversold(evidence: &Evidence, units: &Units) -> u64 {
    let after = &evidence.after;
    let by_itself = after.sold - after.stocked;
    let (by_count, by_promise) = match &evidence.before {
        Some(before) => (
            units.live - (after.sold - before.sold),
            units.promised - (after.stocked.max(before.stocked) - before.sold),
        ),
        // Without a "before" (an audit of a record) all that is sold bounds what these buyers can have.
        None => (units.live - after.sold, units.promised - after.stocked),
    };
    u64::try_from(by_itself.max(by_count).max(by_promise)).unwrap_or(0)
}

/// Units that buyers were denied although they are there. Units that came back or were added after the denial are
/// explained, and so are those that are too few for one purchase.
fn stuck(plan: &Plan, evidence: &Evidence, units: &Units) -> u64 {
    let restocked = evidence.before.map_or(0, |before| (evidence.after.stocked - before.stocked).max(0));
    let left = evidence.after.available - units.returned - restocked;
    let quantity = u64::from(plan.quantity.max(1));
    let purchases = u64::try_from(left).unwrap_or(0) / quantity;
    purchases.min(evidence.sold_out_customers + units.denied_later) * quantity
}

fn acceptances_found(report: &AuditReport) -> String {
    let by_customer = match report.without_id {
        0 => String::new(),
        count => format!(", {count} acceptances without an order id by customer"),
    };
    let AuditReport { looked_up, lost, unverified, .. } = report;
    format!("{looked_up} orders looked up{by_customer}; lost {lost}, unverified {unverified}")
}

fn invariants(report: &AuditReport) -> Vec<Invariant> {
    let after = &report.after;
    let resolution = &report.resolution;
    let line = |id, ok, detail| Invariant { id, ok, detail };
    vec![
        line(
            "no-oversell",
            report.oversold == 0,
            format!("{} units sold of {}; oversold {}", after.sold, after.stocked, report.oversold),
        ),
        line("every-acceptance-found", report.lost == 0 && report.unverified == 0, acceptances_found(report)),
        line("one-order-per-key", report.duplicated == 0, format!("duplicated {}", report.duplicated)),
        line(
            "nothing-stuck",
            report.stuck == 0,
            format!("{} units available; stuck {}", after.available, report.stuck),
        ),
        line(
            "units-add-up",
            after.is_conserved(),
            format!(
                "stocked {} = available {} + held {} + sold {} + withheld {}",
                after.stocked, after.available, after.held, after.sold, after.withheld
            ),
        ),
        line(
            "every-attempt-resolved",
            resolution.unresolved == 0,
            format!(
                "{} unanswered: {} were orders, {} were refused, {} still unknown",
                resolution.asked, resolution.accepted, resolution.refused, resolution.unresolved
            ),
        ),
    ]
}
