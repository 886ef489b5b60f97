//! Acceptances that name no order: looked up by customer, because a yes that nobody can find again is worth nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;

use super::look_up::{LOOKING_MAX, PAUSE, is_known, is_undecided};
use super::{AuditReport, Claim, Units, Who, count_status, note};
use crate::api::{orders_request, read_orders};
use crate::client::Client;
use crate::plan::Plan;

/// A server whose list never ends must not keep the audit for ever.
const PAGES_MAX: usize = 1_000;

/// What one customer was promised without an order id, and what the server lists for that customer.
#[derive(Clone, Debug)]
pub(crate) struct Unnamed {
    promise: Promise,
    listed: Listed,
}

/// Purchases of one customer that were accepted without an order id.
#[derive(Clone, Debug)]
struct Promise {
    customer: String,
    /// Units of each.
    quantity: u64,
    /// How many there are.
    accepted: u64,
    /// Of these, how many bought in this storm; the others repeat an earlier one.
    bought_now: u64,
}

/// What the server lists of a customer's orders for the product in the promised quantity, those known by id left out.
#[derive(Clone, Debug)]
enum Listed {
    Orders {
        /// Of live and ended orders, oldest first.
        statuses: Vec<String>,
        undecided: u64,
    },
    /// The list cannot be read, and asking again will not change that.
    Refused(String),
    /// The list could not be read this time.
    NoAnswer(String),
}

/// Lists the orders of every customer who was promised one without its id.
pub(crate) async fn list_all(plan: &Arc<Plan>, claims: &[Claim]) -> Vec<Unnamed> {
    // One deadline for all: the ledger is as far behind for the last customer as for the first.
    let deadline = Instant::now() + plan.audit_patience;
    let promises: Arc<[Promise]> = promises(plan, claims).into();
    let known: HashSet<Box<str>> = claims.iter().filter_map(|claim| claim.order_id.clone()).collect();
    let known = Arc::new(known);
    let next = Arc::new(AtomicUsize::new(0));
    let mut looking = JoinSet::new();
    for _ in 0..promises.len().min(LOOKING_MAX) {
        let (plan, promises, known) = (Arc::clone(plan), Arc::clone(&promises), Arc::clone(&known));
        let next = Arc::clone(&next);
        looking.spawn(async move {
            let mut client = Client::new(plan.target.address, plan.timeout);
            let mut all = Vec::new();
            while let Some(promise) = promises.get(next.fetch_add(1, Ordering::Relaxed)) {
                let listed = list(&plan, &mut client, promise, &known, deadline).await;
                all.push(Unnamed { promise: promise.clone(), listed });
            }
            all
        });
    }
    let mut all: Vec<Unnamed> = looking.join_all().await.into_iter().flatten().collect();
    all.sort_unstable_by(|one, other| one.promise.customer.cmp(&other.promise.customer));
    all
}

/// Whether the customer of purchase 0 has orders already, so that this storm repeats an earlier one. Compatible routes
/// need not say which of their acceptances are replays.
pub(crate) async fn has_orders(plan: &Plan, client: &mut Client) -> bool {
    let customer = plan.template.customer(0);
    let promise = Promise { customer, quantity: plan.quantity.into(), accepted: 0, bought_now: 0 };
    match list_once(plan, client, &promise, &HashSet::new()).await {
        Listed::Orders { statuses, undecided } => !statuses.is_empty() || undecided > 0,
        Listed::Refused(_) | Listed::NoAnswer(_) => false,
    }
}

/// A purchase that was accepted several times is one promise, and none if one of the answers named its order.
fn promises(plan: &Plan, claims: &[Claim]) -> Vec<Promise> {
    let named: HashSet<&Who> =
        claims.iter().filter(|claim| claim.order_id.is_some()).map(|claim| &claim.who).collect();
    let mut bought_now: HashMap<&Who, bool> = HashMap::new();
    for claim in claims.iter().filter(|claim| !named.contains(&claim.who)) {
        *bought_now.entry(&claim.who).or_default() |= !claim.replayed;
    }
    let mut promises: BTreeMap<(String, u64), Promise> = BTreeMap::new();
    for (who, bought_now) in bought_now {
        let (customer, quantity) = (who.customer(plan), who.quantity(plan));
        let promise = promises.entry((customer.clone(), quantity)).or_insert(Promise {
            customer,
            quantity,
            accepted: 0,
            bought_now: 0,
        });
        promise.accepted += 1;
        promise.bought_now += u64::from(bought_now);
    }
    promises.into_values().collect()
}

async fn list(
    plan: &Plan,
    client: &mut Client,
    promise: &Promise,
    known: &HashSet<Box<str>>,
    deadline: Instant,
) -> Listed {
    loop {
        let listed = list_once(plan, client, promise, known).await;
        let is_final = match &listed {
            Listed::Orders { statuses, .. } => statuses.len() as u64 >= promise.accepted,
            Listed::Refused(_) => true,
            Listed::NoAnswer(_) => false,
        };
        if is_final || Instant::now() >= deadline {
            return listed;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads all pages once.
async fn list_once(plan: &Plan, client: &mut Client, promise: &Promise, known: &HashSet<Box<str>>) -> Listed {
    let mut seen = HashSet::new();
    let (mut statuses, mut undecided) = (Vec::new(), 0);
    let mut after = 0;
    for _ in 0..PAGES_MAX {
        let request = orders_request(&plan.target, plan.read_key.as_deref(), &promise.customer, after);
        let answer = match request {
            Ok(request) => client.send(request).await,
            Err(error) => return Listed::Refused(error.to_string()),
        };
        let page = match answer {
            Ok(answer) if answer.status == 200 => read_orders(&answer.body),
            Ok(answer) if matches!(answer.status, 408 | 429 | 500..) => {
                return Listed::NoAnswer(format!("the server answered {}", answer.status));
            }
            Ok(answer) => return Listed::Refused(format!("the server answered {}", answer.status)),
            Err(error) => return Listed::NoAnswer(error.to_string()),
        };
        let Some(page) = page else {
            return Listed::Refused("the answer is not a list of orders".to_owned());
        };
        for (id, order) in page.orders {
            let is_meant = order.customer == promise.customer
                && order.product == plan.product
                && order.quantity == promise.quantity;
            if !is_meant || known.contains(id.as_str()) || !seen.insert(id) {
                continue;
            }
            undecided += u64::from(is_undecided(&order.status));
            if is_known(&order.status) {
                statuses.push(order.status);
            }
        }
        match page.next_after {
            Some(next) if next > after => after = next,
            Some(_) => return Listed::Refused("its pages do not advance".to_owned()),
            None => return Listed::Orders { statuses, undecided },
        }
    }
    Listed::Refused(format!("it has more than {PAGES_MAX} pages"))
}

/// Adds what was found to `report` and `units`. Returns the units that the product must have sold for these promises:
/// all that were bought now, except those of orders that ended.
pub(super) fn weigh(plan: &Plan, unnamed: &[Unnamed], report: &mut AuditReport, units: &mut Units) -> i64 {
    let mut sold_at_least = 0;
    for Unnamed { promise, listed } in unnamed {
        let Promise { customer, accepted, .. } = promise;
        let quantity = i64::try_from(promise.quantity).unwrap_or(i64::MAX);
        report.without_id += accepted;
        let promised = quantity.saturating_mul(i64::try_from(promise.bought_now).unwrap_or(i64::MAX));
        units.promised += promised;
        sold_at_least += promised;
        let (statuses, undecided) = match listed {
            Listed::Orders { statuses, undecided } => (statuses, *undecided),
            Listed::Refused(reason) | Listed::NoAnswer(reason) => {
                report.unverified += accepted;
                let detail = format!(
                    "{accepted} acceptances of {customer} name no order, and GET /v1/orders?customer_id=… cannot be \
                     read: {reason}"
                );
                note(report, "unverified", detail);
                continue;
            }
        };
        count_missing(plan, promise, (statuses.len() as u64, undecided), report);
        // The newest are this storm's.
        for (place, status) in (0..*accepted).zip(statuses.iter().rev()) {
            count_status(&mut report.orders, status);
            let bought = if place < promise.bought_now { quantity } else { 0 };
            match status.as_str() {
                "cancelled" | "failed" | "rejected" => {
                    units.returned += if status == "rejected" { 0 } else { bought };
                    units.promised -= bought;
                    sold_at_least -= bought;
                }
                _ => units.live += bought,
            }
        }
    }
    sold_at_least
}

fn count_missing(plan: &Plan, promise: &Promise, (found, undecided): (u64, u64), report: &mut AuditReport) {
    let Promise { customer, quantity, accepted, .. } = promise;
    let missing = accepted.saturating_sub(found);
    let waiting = missing.min(undecided);
    let lost = missing - waiting;
    report.unverified += waiting;
    report.lost += lost;
    let told = format!("{accepted} purchases of {customer} were accepted without an order id");
    if waiting > 0 {
        note(report, "unverified", format!("{told}, and {waiting} of their orders are still undecided"));
    }
    if lost > 0 {
        let product = &plan.product;
        let detail = format!("{told}, and {found} orders of {quantity} of product {product} are listed");
        note(report, "lost", detail);
    }
}
