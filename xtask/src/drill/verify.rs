//! After the killing: is what the buyers were told what the shop has?

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use yoink_testkit::{Client, YoinkProcess};

use super::buyer::{SCARCE, UNLUCKY, judged};
use super::record::{Book, Cancel, Purchase, read};

/// Buyers that are not in the records, from filling the log.
pub(crate) const FILLER_PREFIXES: [&str; 1] = ["storm"];
const CATCH_UP: Duration = Duration::from_secs(60);
const PAGE_ORDERS: usize = 1_000;

/// What was looked at.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    pub(crate) purchases: usize,
    pub(crate) orders: usize,
    pub(crate) cancelled: usize,
    pub(crate) failed: usize,
}

/// Compares the records in `folder` with a running server. Findings are what must not be.
pub(crate) fn verify(server: &YoinkProcess, folder: &Path, buyers: usize) -> Result<(Verified, Vec<String>)> {
    let books = (0..buyers).map(|number| read(&folder.join(format!("buyer-{number}.jsonl"))));
    let books: Vec<Book> = books.collect::<Result<_>>()?;
    let mut findings = Vec::new();
    wait_for_ledger(&mut server.client())?;
    for part in look_up_all(server, &books)? {
        findings.extend(part);
    }
    let listed = list_orders(&mut server.client())?;
    let verified = compare(&books, &listed, &mut findings);
    sell_the_rest(&mut server.client(), &mut findings)?;
    wait_for_ledger(&mut server.client())?;
    let audit = reconcile(&mut server.client())?;
    if audit.get("ok") != Some(&Value::Bool(true)) {
        findings.push(format!("the reconciliation is not ok: {audit}"));
    }
    Ok((verified, findings))
}

fn reconcile(client: &mut Client) -> Result<Value> {
    let answer = client.get("/v1/admin/reconciliation")?;
    ensure!(answer.status == 200, "the reconciliation answered {}: {}", answer.status, answer.text());
    Ok(answer.json())
}

/// Waits until no order waits for the ledger.
fn wait_for_ledger(client: &mut Client) -> Result<()> {
    let until = Instant::now() + CATCH_UP;
    loop {
        let audit = reconcile(client)?;
        if audit.pointer("/orders/accepted").and_then(Value::as_u64) == Some(0) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("orders still wait for the ledger after {} s: {audit}", CATCH_UP.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Looks every accepted order up and asks for every purchase again, one thread per record.
fn look_up_all(server: &YoinkProcess, books: &[Book]) -> Result<Vec<Vec<String>>> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = books
            .iter()
            .map(|book| {
                let mut client = server.client();
                scope.spawn(move || {
                    let mut findings = Vec::new();
                    for purchase in &book.purchases {
                        findings.extend(look_up(&mut client, purchase)?);
                    }
                    anyhow::Ok(findings)
                })
            })
            .collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<Vec<String>>>| {
            worker.join().unwrap_or_else(|_| bail!("a look-up panicked"))
        };
        workers.into_iter().map(join).collect()
    })
}

fn look_up(client: &mut Client, purchase: &Purchase) -> Result<Option<String>> {
    let key = &purchase.wish.key;
    let Some(order) = purchase.orders.first() else { return Ok(None) };
    if purchase.orders.len() > 1 {
        return Ok(Some(format!("{key} has several orders: {:?}", purchase.orders)));
    }
    let found = client.get(&format!("/v1/orders/{order}"))?;
    if found.status != 200 {
        return Ok(Some(format!("{key}: accepted order {order} is lost: {} {}", found.status, found.text())));
    }
    if let Some(problem) = differs(&found.json(), purchase) {
        return Ok(Some(format!("{key}: order {order} {problem}")));
    }
    let again = client.post_with_key("/v1/orders", key, &purchase.wish.body())?;
    let problem = judged(&again, purchase).or_else(|| (again.status == 503).then(|| "no replay".to_owned()));
    Ok(problem.map(|problem| format!("{key} {problem}: {} {}", again.status, again.text())))
}

/// What an order has that its buyer did not ask for.
fn differs(order: &Value, purchase: &Purchase) -> Option<String> {
    let wish = &purchase.wish;
    let expected = [
        ("customer_id", json!(wish.customer)),
        ("product_id", json!(wish.product)),
        ("quantity", json!(wish.quantity)),
    ];
    for (field, value) in expected {
        if order.get(field) != Some(&value) {
            return Some(format!("has {field} {:?} and not {value}", order.get(field)));
        }
    }
    let status = order.get("status").and_then(Value::as_str).unwrap_or("no status");
    let is_unlucky = wish.customer.starts_with(UNLUCKY);
    let may_be: &[&str] = match (purchase.cancel, is_unlucky) {
        (Cancel::Done, _) => &["cancelled"],
        (Cancel::Asked, true) => &["cancelled", "failed"],
        (Cancel::Asked, false) => &["cancelled", "confirmed"],
        (Cancel::Never, true) => &["failed"],
        (Cancel::Never, false) => &["confirmed"],
    };
    (!may_be.contains(&status)).then(|| format!("is {status}, and must be {}", may_be.join(" or ")))
}

/// Every order of the shop that the records should know, by id.
fn list_orders(client: &mut Client) -> Result<Vec<Value>> {
    let (mut orders, mut after) = (Vec::new(), 0);
    loop {
        let answer = client.get(&format!("/v1/orders?after={after}&limit={PAGE_ORDERS}"))?;
        ensure!(answer.status == 200, "GET /v1/orders answered {}: {}", answer.status, answer.text());
        let page = answer.json();
        let found = page.get("orders").and_then(Value::as_array).context("the list has no orders")?;
        let Some(last) = found.last().and_then(|order| order.get("seq")).and_then(Value::as_u64) else {
            return Ok(orders);
        };
        after = last;
        let is_known = |order: &&Value| {
            let customer = order.get("customer_id").and_then(Value::as_str).unwrap_or_default();
            !FILLER_PREFIXES.iter().any(|prefix| customer.starts_with(prefix))
        };
        orders.extend(found.iter().filter(is_known).cloned());
    }
}

/// Both directions: nothing that was promised is missing, and nothing is there that nobody was promised.
fn compare(books: &[Book], listed: &[Value], findings: &mut Vec<String>) -> Verified {
    let mut promised = HashMap::new();
    let mut purchases = 0;
    for purchase in books.iter().flat_map(|book| &book.purchases) {
        purchases += 1;
        for order in &purchase.orders {
            if let Some(other) = promised.insert(order.as_str(), purchase.wish.key.as_str()) {
                findings.push(format!("order {order} was given to {other} and to {}", purchase.wish.key));
            }
        }
    }
    let mut seen = HashSet::new();
    let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
    for order in listed {
        let id = order.get("id").and_then(Value::as_str).unwrap_or_default();
        let status = order.get("status").and_then(Value::as_str).unwrap_or_default();
        *by_status.entry(status).or_default() += 1;
        if !seen.insert(id) {
            findings.push(format!("order {id} is listed twice"));
        }
        if !promised.contains_key(id) {
            findings.push(format!("nobody was ever told of order {order}"));
        }
    }
    for (order, key) in promised.iter().filter(|(order, _)| !seen.contains(*order)) {
        findings.push(format!("order {order} of {key} is not listed"));
    }
    Verified {
        purchases,
        orders: listed.len(),
        cancelled: by_status.get("cancelled").copied().unwrap_or_default(),
        failed: by_status.get("failed").copied().unwrap_or_default(),
    }
}

/// If enough people ask, everything is sold: no unit sticks anywhere.
fn sell_the_rest(client: &mut Client, findings: &mut Vec<String>) -> Result<()> {
    let figures = |client: &mut Client| -> Result<(u64, u64, u64)> {
        let audit = reconcile(client)?;
        let products =
            audit.get("products").and_then(Value::as_array).context("the audit lists no products")?;
        let scarce = products.iter().find(|product| product.get("id") == Some(&json!(SCARCE)));
        let scarce = scarce.context("the audit does not know the scarce product")?;
        let units = |name: &str| scarce.get(name).and_then(Value::as_u64).context("a figure is missing");
        Ok((units("stocked")?, units("available")?, units("sold")?))
    };
    let (_, available, _) = figures(client)?;
    for number in 0..available {
        let customer = format!("{}-rest-{number}", FILLER_PREFIXES[0]);
        let answer = client.post("/v1/orders", &json!({"customer_id": customer, "product_id": SCARCE}))?;
        if answer.status != 202 {
            findings
                .push(format!("a unit sticks: {available} available, number {number} is {}", answer.text()));
        }
    }
    let more = json!({"customer_id": format!("{}-one-more", FILLER_PREFIXES[0]), "product_id": SCARCE});
    let answer = client.post("/v1/orders", &more)?;
    if answer.status != 409 {
        findings.push(format!("sold out, and yet it sells: {} {}", answer.status, answer.text()));
    }
    let (stocked, available, sold) = figures(client)?;
    if (available, sold) != (0, stocked) {
        findings.push(format!(
            "of {stocked} units {sold} are sold and {available} available after everybody asked"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::record::{Line, Wish};

    fn wish(customer: &str) -> Wish {
        Wish { key: "k1".into(), customer: customer.into(), product: "1".into(), quantity: 2 }
    }

    fn book(lines: &[Line]) -> Book {
        let mut book = Book::default();
        lines.iter().for_each(|line| book.add(line));
        book
    }

    fn accepted(order: &str) -> Line {
        Line::Accepted { key: "k1".into(), order: order.into() }
    }

    fn order(id: &str, status: &str) -> Value {
        json!({"id": id, "status": status, "customer_id": "ann", "product_id": "1", "quantity": 2})
    }

    fn findings_of(lines: &[Line], listed: &[Value]) -> Vec<String> {
        let mut findings = Vec::new();
        compare(&[book(lines)], listed, &mut findings);
        findings
    }

    #[test]
    fn a_record_and_a_shop_that_agree_are_no_finding() {
        let lines = [Line::Buy(wish("ann")), accepted("o1")];
        assert_eq!(findings_of(&lines, &[order("o1", "confirmed")]), Vec::<String>::new());
        assert_eq!(differs(&order("o1", "confirmed"), &book(&lines).purchases[0]), None);
    }

    #[test]
    fn a_lost_order_a_double_order_and_an_order_of_nobody_are_findings() {
        let lines = [Line::Buy(wish("ann")), accepted("o1")];
        assert!(findings_of(&lines, &[])[0].contains("not listed"));
        let twice = [order("o1", "confirmed"), order("o1", "confirmed")];
        assert!(findings_of(&lines, &twice)[0].contains("listed twice"));
        let more = [order("o1", "confirmed"), order("o2", "confirmed")];
        assert!(findings_of(&lines, &more)[0].contains("nobody was ever told"));
    }

    #[test]
    fn an_order_that_is_not_what_was_asked_for_is_a_finding() {
        let purchase = |lines: &[Line]| book(lines).purchases[0].clone();
        let bought = [Line::Buy(wish("ann")), accepted("o1")];
        let other = json!({"id": "o1", "status": "confirmed", "customer_id": "bob", "product_id": "1", "quantity": 2});
        assert!(differs(&other, &purchase(&bought)).unwrap().contains("customer_id"));
        assert!(differs(&order("o1", "failed"), &purchase(&bought)).unwrap().contains("must be confirmed"));
        assert!(
            differs(&order("o1", "cancelled"), &purchase(&bought)).unwrap().contains("must be confirmed")
        );
        let cancelled = [&bought[..], &[Line::Cancelled { key: "k1".into() }]].concat();
        assert!(
            differs(&order("o1", "confirmed"), &purchase(&cancelled)).unwrap().contains("must be cancelled")
        );
        assert_eq!(differs(&order("o1", "cancelled"), &purchase(&cancelled)), None);
    }
}
