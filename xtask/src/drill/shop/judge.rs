//! Everything is mended: is what the buyers were told what the shop has?

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::buyer::{Buyer, LIMIT, LIMITED, Loss, Promise, Purchase, SCARCE, Told, each};
use super::processes::Shop;
use super::stock::Moved;
use crate::drill::record::{Cancel, Wish};

/// How long the shop may take to sell again, and to have everything in the ledger.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Units that are bought in one purchase until so many are not left.
const REST_QUANTITIES: [u64; 2] = [10, 1];
const REST_TRIES: u32 = 20;

/// What the judging of a whole drill found that is allowed.
#[derive(Debug, Default)]
pub(in crate::drill) struct Verdict {
    pub(in crate::drill) audits: u32,
    pub(in crate::drill) orders: usize,
    pub(in crate::drill) cancelled: usize,
    /// Requests that were queued and then rejected.
    pub(in crate::drill) rejected: usize,
    /// Orders that failed because Redis lost them and somebody else got the units.
    pub(in crate::drill) revoked: usize,
    /// Accepted orders that went with Redis and the node that knew them.
    pub(in crate::drill) vanished: usize,
    /// Orders whose buyers had given up an unanswered request.
    pub(in crate::drill) late: usize,
}

/// An order as the ledger has it.
#[derive(Clone, Debug)]
pub(in crate::drill) struct Found {
    id: String,
    product: String,
    customer: String,
    quantity: u64,
    status: String,
    reason: String,
    is_revoked: bool,
}

/// A shop that is to be well again.
pub(in crate::drill) struct Judge<'a> {
    pub(in crate::drill) shop: &'a Shop,
    /// What its nodes cannot know of: what is still on its way, in words.
    pub(in crate::drill) on_its_way: &'a dyn Fn() -> Result<Option<String>>,
    /// Messages that nobody can read, of which the ledger must have a note each.
    pub(in crate::drill) unreadable: u64,
}

impl Judge<'_> {
    /// Waits until nothing is on its way and the reconciliation of every node says that everything adds up. Gives what
    /// the last one says.
    pub(in crate::drill) fn settle(&self) -> Result<Value> {
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let last = match self.adds_up() {
                Ok(audit) => match (self.on_its_way)() {
                    Ok(None) => return Ok(audit),
                    Ok(Some(words)) => words,
                    Err(error) => format!("{error:#}"),
                },
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > until {
                let seconds = SETTLED_WITHIN.as_secs();
                bail!("{seconds} s after everything was mended the shop has not settled: {last}")
            }
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    fn adds_up(&self) -> Result<Value> {
        let mut audit = Value::Null;
        for mut client in self.shop.clients() {
            let answer = client.get("/v1/admin/reconciliation")?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            audit = answer.json();
            let is_drained = audit.pointer("/orders/accepted").and_then(Value::as_u64) == Some(0);
            ensure!(
                is_drained && audit.get("ok") == Some(&Value::Bool(true)),
                "the reconciliation says {audit}"
            );
        }
        Ok(audit)
    }

    /// Lets everybody buy the scarce product until it is sold out, and then nothing may be left anywhere. Gives the last
    /// reconciliation.
    pub(in crate::drill) fn sell_the_rest(&self, buyers: &mut [Buyer]) -> Result<Value> {
        let mut audit = Value::Null;
        for _ in 0..REST_TRIES {
            for quantity in REST_QUANTITIES {
                each(buyers, |buyer| buyer.buy_rest(quantity))?;
            }
            audit = self.settle()?;
            if figure(&audit, SCARCE, "available")? == 0 {
                return Ok(audit);
            }
            // Units came back meanwhile: whoever asks again gets them.
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Some(buyer) = buyers.first_mut() {
            buyer.findings.push(format!("units stick: nobody can buy what is left: {audit}"));
        }
        Ok(audit)
    }

    /// Every order of the ledger.
    pub(in crate::drill) fn list(&self) -> Result<Vec<Found>> {
        for (what, statement, expected) in [
            ("refused", "SELECT count(*) FROM refused WHERE state <> 'retried'", 0),
            ("could not read", "SELECT count(*) FROM unreadable", self.unreadable),
        ] {
            let count = self.shop.count(statement)?;
            ensure!(count == expected, "the ledger {what} {count} orders, and it must be {expected}");
        }
        let all = "SELECT o.id, p.id, o.customer, o.quantity, o.status, coalesce(o.reason, ''), o.revoked
                   FROM orders o JOIN products p ON p.number = o.product";
        self.shop.query(all)?.into_iter().map(found).collect()
    }
}

fn figure(audit: &Value, product: &str, name: &str) -> Result<u64> {
    let products = audit.get("products").and_then(Value::as_array).context("the audit lists no products")?;
    let found = products.iter().find(|found| found.get("id").and_then(Value::as_str) == Some(product));
    let found = found.with_context(|| format!("the audit does not know {product}"))?;
    found.get(name).and_then(Value::as_u64).with_context(|| format!("{product} has no figure {name}"))
}

fn found(row: Vec<Option<String>>) -> Result<Found> {
    let columns: Option<Vec<String>> = row.into_iter().collect();
    let columns: Result<[String; 7], _> = columns.unwrap_or_default().try_into();
    let Ok([id, product, customer, quantity, status, reason, revoked]) = columns else {
        bail!("the ledger's list of orders has other columns")
    };
    let quantity = quantity.parse().context("a quantity is no number")?;
    // What was rejected has no units from the start.
    let is_revoked = revoked == "t" && status != "rejected";
    Ok(Found { id: plain(&id), product, customer, quantity, status, reason, is_revoked })
}

/// An id however it is written.
fn plain(id: &str) -> String {
    id.replace('-', "").to_lowercase()
}

/// Orders that no buyer knows of: their buyers ask again, if a request of theirs was never answered.
pub(in crate::drill) fn adopt(
    listed: &[Found],
    buyers: &mut [Buyer],
    verdict: &mut Verdict,
) -> Result<Vec<String>> {
    let known: HashMap<String, ()> = promised(buyers).map(|(order, ..)| (order, ())).collect();
    let mut findings = Vec::new();
    for order in listed.iter().filter(|order| !known.contains_key(&order.id)) {
        let mut is_owned = false;
        for buyer in buyers.iter_mut() {
            for index in buyer.of_customer(&order.customer).to_vec() {
                let is_asked_for =
                    buyer.purchases.get(index).is_some_and(|purchase| is_of(order, &purchase.wish));
                // Its buyer was told no, and that is true.
                is_owned |= order.status == "rejected" && is_asked_for;
                let asks = |purchase: &Purchase| purchase.order.is_none() && purchase.was_unanswered;
                if buyer.purchases.get(index).is_some_and(asks) {
                    buyer.insist(index)?;
                    let told = buyer.purchases.get(index).and_then(|purchase| purchase.order.as_deref());
                    is_owned |= told.map(plain).as_deref() == Some(&order.id);
                }
            }
        }
        match is_owned {
            true if order.status == "rejected" => {}
            true => verdict.late += 1,
            false => findings.push(format!("nobody was ever told of order {order:?}")),
        }
    }
    Ok(findings)
}

/// Every order that a buyer was told of: its plain id, its buyer and its purchase.
fn promised(buyers: &[Buyer]) -> impl Iterator<Item = (String, usize, usize)> + '_ {
    buyers.iter().enumerate().flat_map(|(number, buyer)| {
        let purchases = buyer.purchases.iter().enumerate();
        purchases
            .filter_map(move |(index, purchase)| Some((plain(purchase.order.as_deref()?), number, index)))
    })
}

/// Both directions: nothing that was promised is missing, and nothing is otherwise than it was promised.
pub(in crate::drill) fn compare(
    listed: &[Found],
    buyers: &mut [Buyer],
    (loss, promise): (Loss, Promise),
    verdict: &mut Verdict,
) -> Vec<String> {
    let mut findings = Vec::new();
    let mut by_id: HashMap<&str, &Found> = HashMap::new();
    for order in listed {
        if by_id.insert(&order.id, order).is_some() {
            findings.push(format!("order {} is there twice", order.id));
        }
    }
    let mut owners: HashMap<String, String> = HashMap::new();
    for (order, number, index) in promised(buyers).collect::<Vec<_>>() {
        let Some(purchase) = buyers.get_mut(number).and_then(|buyer| buyer.purchases.get_mut(index)) else {
            continue;
        };
        let key = purchase.wish.key.clone();
        if let Some(other) = owners.insert(order.clone(), key.clone()) {
            findings.push(format!("order {order} was given to {other} and to {key}"));
        }
        match by_id.get(order.as_str()) {
            None if loss == Loss::RedisAndNodes && purchase.told == Told::Accepted => {
                verdict.vanished += 1;
                (purchase.order, purchase.told, purchase.is_open) = (None, Told::Nothing, false);
                purchase.was_unanswered = true;
            }
            None => findings.push(format!("{key}: order {order} is lost: {purchase:?}")),
            Some(found) => {
                if let Some(problem) = differs(found, purchase, loss, promise) {
                    findings.push(format!("{key}: order {order} {problem}: {found:?}, {purchase:?}"));
                }
                purchase.is_revoked = found.is_revoked;
                match found.status.as_str() {
                    "rejected" => purchase.told = Told::Rejected,
                    _ if !found.is_revoked => purchase.told = Told::Confirmed,
                    _ => {}
                }
            }
        }
    }
    findings.extend(above_limit(listed));
    verdict.orders = listed.len();
    let of_status = |status: &str| listed.iter().filter(|order| order.status == status).count();
    (verdict.cancelled, verdict.rejected) = (of_status("cancelled"), of_status("rejected"));
    verdict.revoked = listed.iter().filter(|order| order.is_revoked).count();
    findings
}

/// What an order has that its buyer was not told.
fn differs(order: &Found, purchase: &Purchase, loss: Loss, promise: Promise) -> Option<String> {
    if !is_of(order, &purchase.wish) {
        return Some("is not what was asked for".to_owned());
    }
    if order.status != "confirmed" && order.reason.is_empty() {
        return Some(format!("is {} without a reason", order.status));
    }
    let may_be_revoked = purchase.is_revoked || (loss != Loss::None && purchase.told != Told::Confirmed);
    let is_right = match (order.status.as_str(), purchase.cancel) {
        ("failed", _) => order.is_revoked && may_be_revoked,
        ("rejected", cancel) => {
            promise == Promise::Decision
                && purchase.told != Told::Confirmed
                && cancel != Cancel::Done
                && may_be_rejected(&order.product, &order.reason)
        }
        (_, _) if purchase.told == Told::Rejected => false,
        ("confirmed", cancel) => cancel != Cancel::Done,
        ("cancelled", cancel) => cancel != Cancel::Never,
        _ => false,
    };
    (!is_right).then(|| format!("is {} because of {:?}", order.status, order.reason))
}

/// Whether an order is what was wished for.
fn is_of(order: &Found, wish: &Wish) -> bool {
    (&order.customer, &order.product, order.quantity) == (&wish.customer, &wish.product, wish.quantity)
}

/// Which products can have too few units, or too many for one customer.
fn may_be_rejected(product: &str, reason: &str) -> bool {
    matches!((product, reason), (SCARCE, "sold-out") | (LIMITED, "limit-reached"))
}

/// Customers who have more of the limited product than they may. A node may offer again what was accepted before, so
/// the limit is not held against a loss.
fn above_limit(listed: &[Found]) -> Vec<String> {
    let mut units: BTreeMap<&str, u64> = BTreeMap::new();
    for order in listed.iter().filter(|order| order.product == LIMITED && order.status == "confirmed") {
        *units.entry(&order.customer).or_default() += order.quantity;
    }
    let above = units.into_iter().filter(|(_, units)| *units > LIMIT);
    above
        .map(|(customer, units)| format!("{customer} has {units} units of {LIMITED}, and may have {LIMIT}"))
        .collect()
}

/// Holds the figures of the audit against the orders, the stock at the beginning, and the changes of it.
pub(in crate::drill) fn count(
    audit: &Value,
    listed: &[Found],
    initial: &BTreeMap<&'static str, u64>,
    moved: &BTreeMap<&'static str, Moved>,
) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for (product, stock) in initial {
        let change = moved.get(product).copied().unwrap_or_default();
        let live = listed.iter().filter(|order| order.product == *product && order.status == "confirmed");
        let sold: u64 = live.map(|order| order.quantity).sum();
        let stocked = stock.saturating_add_signed(change.stocked);
        let withheld = u64::try_from(change.withheld).unwrap_or_default();
        if sold > stocked.saturating_sub(withheld) {
            findings.push(format!("{product} is oversold: {sold} units of {stocked} less {withheld}"));
        }
        for (name, expected) in [("stocked", stocked), ("withheld", withheld), ("sold", sold)] {
            let said = figure(audit, product, name)?;
            if said != expected {
                findings.push(format!("{product}: the audit says {name} {said}, and it must be {expected}"));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn order(status: &str) -> Found {
        Found {
            id: "o1".into(),
            product: LIMITED.into(),
            customer: "ann".into(),
            quantity: 1,
            status: status.into(),
            reason: if status == "confirmed" { String::new() } else { "why".into() },
            is_revoked: status == "failed",
        }
    }

    fn buyer(folder: &std::path::Path) -> Buyer {
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let mut buyer = Buyer::new(folder, 0, 1, (&[nowhere], Promise::Units), Duration::ZERO).unwrap();
        buyer.purchases.push(Purchase {
            wish: Wish { key: "k".into(), customer: "ann".into(), product: LIMITED.into(), quantity: 1 },
            order: Some("O-1".into()),
            told: Told::Accepted,
            is_open: false,
            was_unanswered: false,
            cancel: Cancel::Never,
            is_revoked: false,
            round: 1,
        });
        buyer
    }

    #[track_caller]
    fn judged(listed: &[Found], loss: Loss, change: impl FnOnce(&mut Purchase)) -> (Vec<String>, Verdict) {
        judged_as(Promise::Units, listed, loss, change)
    }

    fn judged_as(
        promise: Promise,
        listed: &[Found],
        loss: Loss,
        change: impl FnOnce(&mut Purchase),
    ) -> (Vec<String>, Verdict) {
        let folder = tempfile::tempdir().unwrap();
        let mut buyers = [buyer(folder.path())];
        change(&mut buyers[0].purchases[0]);
        let mut verdict = Verdict::default();
        (compare(listed, &mut buyers, (loss, promise), &mut verdict), verdict)
    }

    #[test]
    fn an_order_that_is_there_as_promised_is_no_finding() {
        assert_eq!(judged(&[order("confirmed")], Loss::None, |_| ()).0, Vec::<String>::new());
        assert_eq!(
            judged(&[order("cancelled")], Loss::None, |p| p.cancel = Cancel::Asked).0,
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_lost_order_is_a_finding_unless_redis_and_a_node_were_lost_together() {
        assert_eq!(judged(&[], Loss::None, |_| ()).0.len(), 1);
        assert_eq!(judged(&[], Loss::Redis, |_| ()).0.len(), 1);
        let (findings, verdict) = judged(&[], Loss::RedisAndNodes, |_| ());
        assert_eq!((findings.len(), verdict.vanished), (0, 1));
        assert_eq!(judged(&[], Loss::RedisAndNodes, |p| p.told = Told::Confirmed).0.len(), 1);
    }

    #[test]
    fn an_order_is_revoked_only_after_a_loss_and_never_once_it_was_confirmed() {
        assert_eq!(judged(&[order("failed")], Loss::None, |_| ()).0.len(), 1);
        assert_eq!(judged(&[order("failed")], Loss::Redis, |_| ()).0, Vec::<String>::new());
        assert_eq!(judged(&[order("failed")], Loss::Redis, |p| p.told = Told::Confirmed).0.len(), 1);
    }

    #[test]
    fn orders_that_are_double_cancelled_by_nobody_or_of_somebody_else_are_findings() {
        assert_eq!(judged(&[order("confirmed"), order("confirmed")], Loss::None, |_| ()).0.len(), 1);
        assert_eq!(judged(&[order("cancelled")], Loss::None, |_| ()).0.len(), 1);
        assert_eq!(judged(&[order("confirmed")], Loss::None, |p| p.cancel = Cancel::Done).0.len(), 1);
        assert_eq!(judged(&[order("confirmed")], Loss::None, |p| p.wish.customer = "bob".into()).0.len(), 1);
    }

    #[test]
    fn a_queued_order_is_rejected_only_with_a_right_reason_and_never_after_it_was_confirmed() {
        let rejected = |reason: &str| [Found { reason: reason.into(), ..order("rejected") }];
        let findings = |promise, reason: &str, told: Told| {
            judged_as(promise, &rejected(reason), Loss::None, |p| p.told = told).0.len()
        };
        assert_eq!(findings(Promise::Decision, "limit-reached", Told::Accepted), 0);
        assert_eq!(findings(Promise::Decision, "sold-out", Told::Accepted), 1);
        assert_eq!(findings(Promise::Decision, "limit-reached", Told::Confirmed), 1);
        assert_eq!(findings(Promise::Units, "limit-reached", Told::Accepted), 1);
        let told_no = |p: &mut Purchase| p.told = Told::Rejected;
        assert_eq!(judged_as(Promise::Decision, &[order("confirmed")], Loss::None, told_no).0.len(), 1);
    }

    #[test]
    fn figures_that_differ_and_units_sold_twice_are_findings() {
        let audit =
            |sold: u64| json!({"products": [{"id": LIMITED, "stocked": 2, "withheld": 1, "sold": sold}]});
        let (initial, moved) =
            (BTreeMap::from([(LIMITED, 2)]), [(LIMITED, Moved { stocked: 0, withheld: 1 })]);
        let findings = |listed: &[Found], sold| count(&audit(sold), listed, &initial, &moved.into()).unwrap();
        assert_eq!(findings(&[order("confirmed")], 1), Vec::<String>::new());
        assert_eq!(findings(&[order("confirmed")], 2).len(), 1);
        assert!(findings(&[order("confirmed"), order("confirmed")], 2)[0].contains("oversold"));
    }

    #[test]
    fn a_customer_above_the_limit_is_a_finding() {
        assert_eq!(above_limit(&[order("confirmed"), order("confirmed")]), Vec::<String>::new());
        assert_eq!(above_limit(&[order("confirmed"), order("confirmed"), order("confirmed")]).len(), 1);
    }
}
