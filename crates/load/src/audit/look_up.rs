//! Looking up accepted orders, a bounded number at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Claim, Who};
use crate::api::{FoundOrder, order_request, read_order, read_status, refused};
use crate::client::Client;
use crate::error::StormError;
use crate::plan::Plan;

/// Look-ups at once.
pub(super) const LOOKING_MAX: usize = 32;
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// What was found under an order's id.
#[derive(Clone, Debug)]
pub(crate) enum Looked {
    Found(FoundOrder),
    NotFound,
    /// The server gave no answer that says whether the order exists.
    Unreadable(String),
}

/// Looks every order of `claims` up once.
///
/// # Errors
/// [`StormError::Refused`] if the server does not let this key see orders: then there can be no verdict at all.
pub(crate) async fn look_up_all(
    plan: &Arc<Plan>,
    claims: &[Claim],
) -> Result<HashMap<Box<str>, Looked>, StormError> {
    let mut ids: Vec<Box<str>> = claims.iter().filter_map(|claim| claim.order_id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    let ids: Arc<[Box<str>]> = ids.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut looking = JoinSet::new();
    for _ in 0..ids.len().min(LOOKING_MAX) {
        let (plan, ids, next) = (Arc::clone(plan), Arc::clone(&ids), Arc::clone(&next));
        looking.spawn(async move {
            let mut client = Client::new(plan.target.address, plan.timeout);
            let mut found = Vec::new();
            while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                found.push((id.clone(), look_up(&plan, &mut client, id).await?));
            }
            Ok::<_, StormError>(found)
        });
    }
    let mut all = HashMap::with_capacity(ids.len());
    for found in looking.join_all().await {
        all.extend(found?);
    }
    Ok(all)
}

async fn look_up(plan: &Plan, client: &mut Client, id: &str) -> Result<Looked, StormError> {
    let deadline = Instant::now() + plan.audit_patience;
    loop {
        let request = order_request(&plan.target, plan.read_key.as_deref(), id)?;
        let reason = match client.send(request).await {
            Ok(answer) if answer.status == 404 => return Ok(Looked::NotFound),
            Ok(answer) if matches!(answer.status, 401 | 403) => {
                return Err(refused(
                    "GET /v1/orders/… (the audit needs a key that may read orders)".into(),
                    &answer,
                ));
            }
            Ok(answer) if answer.status == 200 => {
                match (read_status(&answer.body), read_order(&answer.body)) {
                    (Some(status), _) if is_undecided(&status) => format!("it is still {status:?}"),
                    (_, Some(order)) => return Ok(Looked::Found(order)),
                    (_, None) => return Ok(Looked::Unreadable("the answer is not an order".to_owned())),
                }
            }
            Ok(answer) => format!("the server answered {}", answer.status),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Ok(Looked::Unreadable(reason));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Some engines, and older systems, queue first and decide later.
pub(super) fn is_undecided(status: &str) -> bool {
    ["queued", "pending", "processing"].iter().any(|undecided| status.eq_ignore_ascii_case(undecided))
}

/// How a found order differs from what was accepted; `None` if it does not.
pub(super) fn difference(plan: &Plan, who: &Who, order: &FoundOrder) -> Option<String> {
    let customer = who.customer(plan);
    if order.customer != customer {
        return Some(format!("it belongs to {}", order.customer));
    }
    if order.product != plan.product {
        return Some(format!("it is for product {}", order.product));
    }
    if order.quantity != who.quantity(plan) {
        return Some(format!("it is for {} units", order.quantity));
    }
    (!is_known(&order.status)).then(|| format!("its status is {:?}", order.status))
}

/// A status that says whether the order has its units.
pub(super) fn is_known(status: &str) -> bool {
    ["accepted", "confirmed", "cancelled", "failed", "rejected"].contains(&status)
}
