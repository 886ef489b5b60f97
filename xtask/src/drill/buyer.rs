//! One buyer: buys, asks again, cancels, and writes down every intent and every answer.

use std::path::Path;

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use yoink_testkit::{Client, Response};

use super::record::{Book, Cancel, Line, Purchase, Record, Wish, read};

/// Plenty of units.
pub(crate) const PLENTY: &str = "plenty";
/// Fewer units than buyers, so that units that come back are sold again.
pub(crate) const SCARCE: &str = "scarce";
/// Two units per customer.
pub(crate) const LIMITED: &str = "limited";
/// Customers of [`LIMITED`] per buyer.
const LIMITED_CUSTOMERS: u64 = 40;
/// The ledger refuses customers whose id begins like this.
pub(crate) const UNLUCKY: &str = "unlucky";
/// Purchases that a buyer asks for again when it meets a new process.
const REPLAYS_AT_START: usize = 4;

/// A buyer between two lives of the server.
pub(crate) struct Buyer {
    number: usize,
    book: Book,
    record: Record,
    random: SmallRng,
    /// What must not have happened.
    pub(crate) findings: Vec<String>,
}

/// Why a buyer stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// No answer: the server was killed.
    NoAnswer,
    /// It was asked to.
    Asked,
}

impl Buyer {
    /// A buyer with a record in `folder`, going on where an earlier one with this number ended.
    pub(crate) fn new(folder: &Path, number: usize, seed: u64) -> Result<Buyer> {
        let path = folder.join(format!("buyer-{number}.jsonl"));
        let book = if path.exists() { read(&path)? } else { Book::default() };
        let random = SmallRng::seed_from_u64(seed.wrapping_add(number as u64));
        Ok(Buyer { number, book, record: Record::append_to(&path)?, random, findings: Vec::new() })
    }

    /// Buys until there is no answer or `is_over` says so.
    pub(crate) fn run(&mut self, client: &mut Client, is_over: &dyn Fn() -> bool) -> Result<Stopped> {
        for index in self.newest(REPLAYS_AT_START) {
            if self.buy_again(client, index)? == Stopped::NoAnswer {
                return Ok(Stopped::NoAnswer);
            }
        }
        while !is_over() {
            let stopped = match self.random.random_range(0..100_u32) {
                0..65 => self.buy_new(client)?,
                65..80 => match self.any() {
                    Some(index) => self.buy_again(client, index)?,
                    None => Stopped::Asked,
                },
                _ => self.cancel_some(client)?,
            };
            if stopped == Stopped::NoAnswer {
                return Ok(Stopped::NoAnswer);
            }
        }
        Ok(Stopped::Asked)
    }

    /// Asks again for everything that has no answer.
    pub(crate) fn resolve(&mut self, client: &mut Client) -> Result<()> {
        let open = self.book.purchases.iter().enumerate().filter(|(_, purchase)| purchase.is_open);
        for index in open.map(|(index, _)| index).collect::<Vec<_>>() {
            if self.buy_again(client, index)? == Stopped::NoAnswer {
                self.findings.push("a healthy server gave no answer".to_owned());
            }
        }
        Ok(())
    }

    fn buy_new(&mut self, client: &mut Client) -> Result<Stopped> {
        let count = self.book.purchases.len() as u64;
        let own = format!("{}-{count}", self.number);
        let (product, customer) = match self.random.random_range(0..100_u32) {
            0..30 => (SCARCE, format!("s-{own}")),
            30..50 => {
                let customer = self.random.random_range(0..LIMITED_CUSTOMERS);
                (LIMITED, format!("l-{}-{customer}", self.number))
            }
            50..53 => (PLENTY, format!("{UNLUCKY}-{own}")),
            _ => (PLENTY, format!("p-{own}")),
        };
        let quantity = if product == PLENTY { self.random.random_range(1..=3) } else { 1 };
        let wish = Wish { key: format!("key-{own}"), customer, product: product.to_owned(), quantity };
        self.buy(client, wish)
    }

    fn buy_again(&mut self, client: &mut Client, index: usize) -> Result<Stopped> {
        match self.book.purchases.get(index).map(|purchase| purchase.wish.clone()) {
            Some(wish) => self.buy(client, wish),
            None => Ok(Stopped::Asked),
        }
    }

    fn buy(&mut self, client: &mut Client, wish: Wish) -> Result<Stopped> {
        let key = wish.key.clone();
        let body = wish.body();
        self.note(Line::Buy(wish))?;
        let Ok(answer) = client.post_with_key("/v1/orders", &key, &body) else {
            return Ok(Stopped::NoAnswer);
        };
        self.judge(&key, &answer);
        match (answer.status, answer.json().get("id").and_then(|id| id.as_str())) {
            (200..300, Some(order)) => self.note(Line::Accepted { key, order: order.to_owned() })?,
            // It says itself that it does not know: the purchase stays open.
            (503, _) if answer.header("order-outcome") == Some("unknown") => {}
            (status, _) => self.note(Line::Refused { key, status })?,
        }
        Ok(Stopped::Asked)
    }

    /// Compares an answer with what was known of the purchase before.
    fn judge(&mut self, key: &str, answer: &Response) {
        let Some(before) = self.book.purchases.iter().rev().find(|purchase| purchase.wish.key == key) else {
            return;
        };
        let problem = match (judged(answer, before), answer.status) {
            (Some(problem), _) => problem,
            (None, 500 | 400..=404 | 422) => "refused a sound purchase".to_owned(),
            (None, _) => return,
        };
        self.findings.push(format!("{key}: {problem}: {} {}", answer.status, answer.text()));
    }

    fn cancel_some(&mut self, client: &mut Client) -> Result<Stopped> {
        let wanted = |purchase: &Purchase| !purchase.orders.is_empty() && purchase.cancel != Cancel::Done;
        let Some(purchase) =
            self.any().and_then(|index| self.book.purchases.get(index)).filter(|p| wanted(p))
        else {
            return Ok(Stopped::Asked);
        };
        let (key, product) = (purchase.wish.key.clone(), purchase.wish.product.clone());
        let Some(order) = purchase.orders.first().cloned() else { return Ok(Stopped::Asked) };
        self.note(Line::Cancel { key: key.clone() })?;
        let path = format!("/v1/orders/{order}/cancel");
        let Ok(answer) = client.post(&path, &json!({"reason": "drill"})) else {
            return Ok(Stopped::NoAnswer);
        };
        match answer.status {
            200 => self.note(Line::Cancelled { key })?,
            // An unlucky order may have failed before.
            409 | 503 => {}
            status => {
                let text = answer.text();
                self.findings.push(format!("{key}: cannot cancel an order of {product}: {status} {text}"));
            }
        }
        Ok(Stopped::Asked)
    }

    fn note(&mut self, line: Line) -> Result<()> {
        self.record.write(&line)?;
        self.book.add(&line);
        Ok(())
    }

    fn any(&mut self) -> Option<usize> {
        let count = self.book.purchases.len();
        (count > 0).then(|| self.random.random_range(0..count))
    }

    fn newest(&self, count: usize) -> Vec<usize> {
        let end = self.book.purchases.len();
        (end.saturating_sub(count)..end).collect()
    }
}

/// What is wrong with an answer to a purchase of which something is known; `None` if nothing is.
pub(crate) fn judged(answer: &Response, before: &Purchase) -> Option<String> {
    let known = before.orders.first()?;
    let id = answer.json().get("id").and_then(|id| id.as_str().map(str::to_owned));
    match (answer.status, id) {
        (503, _) => None,
        (200..300, Some(id)) if &id != known => Some(format!("was order {known} and is another order now")),
        (200..300, Some(_)) if answer.header("idempotent-replayed") != Some("true") => {
            Some("was accepted before, but the answer does not say that it is a replay".to_owned())
        }
        (200..300, Some(_)) => None,
        _ => Some(format!("was accepted as {known} and is refused now")),
    }
}
