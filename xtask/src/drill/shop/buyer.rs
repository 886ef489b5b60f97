//! One buyer of the crowd: buys, asks again, looks, cancels, and writes down every intent and every answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use yoink_testkit::{ADMIN_KEY, Client, Response};

use crate::drill::record::{Cancel, Line, Record, Wish};

/// Plenty of units.
pub(in crate::drill) const PLENTY: &str = "plenty";
/// Fewer units than buyers, so that units that come back are sold again.
pub(in crate::drill) const SCARCE: &str = "scarce";
/// [`LIMIT`] units per customer.
pub(in crate::drill) const LIMITED: &str = "limited";
/// Units of [`LIMITED`] that a customer may have.
pub(in crate::drill) const LIMIT: u64 = 2;
/// Customers of [`LIMITED`] per buyer.
const LIMITED_CUSTOMERS: u64 = 400;
/// Who is put off rests for so many pauses, at most: what is open then has to be asked for again later.
const PUT_OFF_PAUSES: f64 = 12.0;
/// Purchases in one go until nothing is left.
const REST_MAX: usize = 2_000;
/// No answer for this long is no answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A healthy shop gives a definite answer within this time.
const DEFINITE_WITHIN: Duration = Duration::from_secs(30);

/// What an engine promises with 202.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::drill) enum Promise {
    /// The units.
    Units,
    /// That it is decided: the answer may still be that there are none.
    Decision,
}

/// What its buyer was told of a purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::drill) enum Told {
    /// Nothing, or no.
    Nothing,
    /// It is accepted.
    Accepted,
    /// The ledger decided against it.
    Rejected,
    /// The ledger has it.
    Confirmed,
}

/// One purchase as its buyer knows it.
#[derive(Clone, Debug)]
pub(in crate::drill) struct Purchase {
    pub(in crate::drill) wish: Wish,
    pub(in crate::drill) order: Option<String>,
    pub(in crate::drill) told: Told,
    /// Some request of it has no definite answer yet.
    pub(in crate::drill) is_open: bool,
    /// Some request of it never got an answer, and may be on its way still.
    pub(in crate::drill) was_unanswered: bool,
    pub(in crate::drill) cancel: Cancel,
    /// Redis lost it, and the ledger says so.
    pub(in crate::drill) is_revoked: bool,
    /// The last round in which it was asked for.
    pub(in crate::drill) round: u32,
}

impl Purchase {
    /// Heeds the status under which its order was found, and says what is wrong with that.
    fn hear(&mut self, status: &str, promise: Promise) -> Option<String> {
        let told = self.told;
        let is_right = match status {
            "queued" => promise == Promise::Decision && told <= Told::Accepted,
            "rejected" => promise == Promise::Decision && told != Told::Confirmed,
            "confirmed" => told != Told::Rejected,
            _ => true,
        };
        match status {
            "rejected" => self.told = told.max(Told::Rejected),
            "confirmed" => self.told = Told::Confirmed,
            _ => {}
        }
        (!is_right).then(|| format!("was {told:?}, and is {status} now"))
    }
}

/// What the faults of a round may take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::drill) enum Loss {
    /// Nothing: what is accepted stays.
    None,
    /// What is accepted may be revoked: Redis lost data.
    Redis,
    /// Nodes end, too: what only they and Redis knew is gone.
    RedisAndNodes,
}

/// A buyer with its record.
pub(in crate::drill) struct Buyer {
    number: usize,
    pub(in crate::drill) purchases: Vec<Purchase>,
    by_customer: HashMap<String, Vec<usize>>,
    record: Record,
    random: SmallRng,
    clients: Vec<Client>,
    pause: Duration,
    /// The last answer was that it cannot be told now.
    is_put_off: bool,
    pub(in crate::drill) round: u32,
    pub(in crate::drill) loss: Loss,
    promise: Promise,
    pub(in crate::drill) replays: u64,
    /// What must not have happened.
    pub(in crate::drill) findings: Vec<String>,
}

impl Buyer {
    /// A buyer of the shop at `nodes`, with a record in `folder`, resting `pause` between purchases on average.
    pub(in crate::drill) fn new(
        folder: &Path,
        number: usize,
        seed: u64,
        (nodes, promise): (&[SocketAddr], Promise),
        pause: Duration,
    ) -> Result<Buyer> {
        let client = |node: &SocketAddr| Client::new(*node).with_key(ADMIN_KEY).with_timeout(ANSWER_WITHIN);
        Ok(Buyer {
            number,
            purchases: Vec::new(),
            by_customer: HashMap::new(),
            record: Record::append_to(&folder.join(format!("buyer-{number}.jsonl")))?,
            random: SmallRng::seed_from_u64(seed.wrapping_add(number as u64)),
            clients: nodes.iter().map(client).collect(),
            pause,
            is_put_off: false,
            round: 0,
            loss: Loss::None,
            promise,
            replays: 0,
            findings: Vec::new(),
        })
    }

    /// Buys until `is_over` says so.
    pub(in crate::drill) fn run(&mut self, is_over: &dyn Fn() -> bool) -> Result<()> {
        while !is_over() {
            match self.random.random_range(0..100_u32) {
                0..62 => self.buy_new()?,
                62..76 => {
                    if let Some(index) = self.any() {
                        self.buy(index)?;
                    }
                }
                76..84 => self.look(),
                _ => self.cancel_some()?,
            }
            let patience = if std::mem::take(&mut self.is_put_off) { PUT_OFF_PAUSES } else { 2.0 };
            std::thread::sleep(self.pause.mul_f64(self.random.random_range(0.0..patience)));
        }
        Ok(())
    }

    fn buy_new(&mut self) -> Result<()> {
        let own = format!("{}-{}", self.number, self.purchases.len());
        let (product, customer) = match self.random.random_range(0..100_u32) {
            0..35 => (SCARCE, format!("s-{own}")),
            35..60 => {
                let customer = self.random.random_range(0..LIMITED_CUSTOMERS);
                (LIMITED, format!("l-{}-{customer}", self.number))
            }
            _ => (PLENTY, format!("p-{own}")),
        };
        let quantity = if product == PLENTY { self.random.random_range(1..=3) } else { 1 };
        let index = self.wish(product, customer, quantity);
        self.buy(index)
    }

    /// Makes up its mind to buy.
    pub(in crate::drill) fn wish(&mut self, product: &str, customer: String, quantity: u64) -> usize {
        let index = self.purchases.len();
        let key = format!("key-{}-{index}", self.number);
        self.by_customer.entry(customer.clone()).or_default().push(index);
        self.purchases.push(Purchase {
            wish: Wish { key, customer, product: product.to_owned(), quantity },
            order: None,
            told: Told::Nothing,
            is_open: false,
            was_unanswered: false,
            cancel: Cancel::Never,
            is_revoked: false,
            round: self.round,
        });
        index
    }

    /// Asks for a purchase, for the first time or again.
    pub(in crate::drill) fn buy(&mut self, index: usize) -> Result<()> {
        let Some(purchase) = self.purchases.get_mut(index) else { return Ok(()) };
        let is_first = !purchase.is_open && purchase.order.is_none();
        (purchase.is_open, purchase.round) = (true, self.round);
        let wish = purchase.wish.clone();
        self.record.write(&Line::Buy(wish.clone()))?;
        let mut headers = vec![("idempotency-key", wish.key.as_str())];
        if self.random.random_range(0..5_u32) == 0 {
            headers.push(("prefer", "wait=1"));
        }
        let body = wish.body();
        let answer = self.client().request("POST", "/v1/orders", &headers, Some(&body));
        let Ok(answer) = answer else {
            if let Some(purchase) = self.purchases.get_mut(index) {
                purchase.was_unanswered = true;
            }
            return Ok(());
        };
        self.heed(index, &answer, is_first)
    }

    fn heed(&mut self, index: usize, answer: &Response, is_first: bool) -> Result<()> {
        let (loss, promise) = (self.loss, self.promise);
        let gives_up = self.random.random_range(0..2_u32) == 0;
        let Some(purchase) = self.purchases.get_mut(index) else { return Ok(()) };
        let key = purchase.wish.key.clone();
        if let Some(problem) = judged(answer, purchase, loss, promise) {
            self.findings.push(format!("{key}: {problem}: {} {}", answer.status, answer.text()));
        }
        let id = answer.json().get("id").and_then(Value::as_str).map(str::to_owned);
        match (answer.status, id) {
            (status @ 200..300, Some(order)) => {
                let told = if status == 201 { Told::Confirmed } else { Told::Accepted };
                self.replays += u64::from(purchase.order.is_some());
                (purchase.is_open, purchase.told) = (false, purchase.told.max(told));
                purchase.order.get_or_insert(order.clone());
                self.record.write(&Line::Accepted { key, order })
            }
            // A first request that certainly did nothing is sometimes left at that: no order may come of it.
            (503, _) if is_first && gives_up && answer.header("order-outcome") == Some("none") => {
                purchase.is_open = false;
                self.record.write(&Line::Refused { key, status: 503 })
            }
            (503, _) => {
                self.is_put_off = true;
                purchase.was_unanswered |= answer.header("order-outcome") != Some("none");
                Ok(())
            }
            (status, _) => {
                purchase.is_open = false;
                self.record.write(&Line::Refused { key, status })
            }
        }
    }

    /// Looks one of its orders up.
    fn look(&mut self) {
        let Some((index, order)) = self.any_order() else { return };
        let Ok(answer) = self.client().get(&format!("/v1/orders/{order}")) else { return };
        let may_be_lost = self.loss != Loss::None;
        match answer.status {
            503 => {}
            404 if may_be_lost => {}
            200 => {
                let status = answer.json().get("status").and_then(Value::as_str).map(str::to_owned);
                let (promise, status) = (self.promise, status.unwrap_or_default());
                let problem =
                    self.purchases.get_mut(index).and_then(|purchase| purchase.hear(&status, promise));
                self.findings.extend(problem.map(|problem| format!("order {order} {problem}")));
            }
            status => self.findings.push(format!("order {order} cannot be seen: {status} {}", answer.text())),
        }
    }

    fn cancel_some(&mut self) -> Result<()> {
        let Some((index, order)) = self.any_order() else { return Ok(()) };
        let Some(purchase) = self.purchases.get_mut(index) else { return Ok(()) };
        if purchase.cancel == Cancel::Done {
            return Ok(());
        }
        (purchase.cancel, purchase.round) = (Cancel::Asked, self.round);
        let (key, may_be_lost) = (purchase.wish.key.clone(), purchase.is_revoked || self.loss != Loss::None);
        self.record.write(&Line::Cancel { key: key.clone() })?;
        let path = format!("/v1/orders/{order}/cancel");
        let Ok(answer) = self.client().post(&path, &json!({"reason": "drill"})) else { return Ok(()) };
        match answer.status {
            200 => {
                if let Some(purchase) = self.purchases.get_mut(index) {
                    purchase.cancel = Cancel::Done;
                }
                self.record.write(&Line::Cancelled { key })?;
            }
            503 => {}
            404 | 409 if may_be_lost => {}
            409 if self.promise == Promise::Decision => {
                let problem = self
                    .purchases
                    .get_mut(index)
                    .and_then(|purchase| purchase.hear("rejected", self.promise));
                self.findings.extend(problem.map(|problem| format!("order {order} {problem}")));
            }
            status => {
                self.findings.push(format!("{key}: cannot cancel order {order}: {status} {}", answer.text()));
            }
        }
        Ok(())
    }

    /// Asks again for everything without a definite answer; a healthy shop gives one.
    pub(in crate::drill) fn resolve(&mut self) -> Result<()> {
        let open = self.purchases.iter().enumerate().filter(|(_, purchase)| purchase.is_open);
        for index in open.map(|(index, _)| index).collect::<Vec<_>>() {
            self.insist(index)?;
        }
        Ok(())
    }

    /// Asks until there is a definite answer.
    pub(in crate::drill) fn insist(&mut self, index: usize) -> Result<()> {
        let until = Instant::now() + DEFINITE_WITHIN;
        loop {
            self.buy(index)?;
            let Some(purchase) = self.purchases.get(index) else { return Ok(()) };
            if !purchase.is_open {
                return Ok(());
            }
            if Instant::now() >= until {
                let seconds = DEFINITE_WITHIN.as_secs();
                self.findings.push(format!(
                    "{}: no definite answer of a healthy shop in {seconds} s",
                    purchase.wish.key
                ));
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Buys the scarce product, `quantity` units each time, until it is sold out.
    pub(in crate::drill) fn buy_rest(&mut self, quantity: u64) -> Result<()> {
        for _ in 0..REST_MAX {
            let customer = format!("rest-{}-{}", self.number, self.purchases.len());
            let index = self.wish(SCARCE, customer, quantity);
            self.insist(index)?;
            if self.purchases.get(index).is_none_or(|purchase| purchase.order.is_none()) {
                break;
            }
        }
        Ok(())
    }

    /// Replays at most `most` purchases that were asked for in `rounds`.
    pub(in crate::drill) fn replay(
        &mut self,
        rounds: std::ops::RangeInclusive<u32>,
        most: usize,
    ) -> Result<()> {
        let wanted = |purchase: &Purchase| purchase.order.is_some() && rounds.contains(&purchase.round);
        let found = self.purchases.iter().enumerate().rev().filter(|(_, purchase)| wanted(purchase));
        for index in found.map(|(index, _)| index).take(most).collect::<Vec<_>>() {
            let known = self.purchases.get(index).map(|purchase| purchase.round);
            self.insist(index)?;
            // A replay is no news of it.
            if let (Some(purchase), Some(round)) = (self.purchases.get_mut(index), known) {
                purchase.round = round;
            }
        }
        Ok(())
    }

    /// Purchases of a customer.
    pub(in crate::drill) fn of_customer(&self, customer: &str) -> &[usize] {
        self.by_customer.get(customer).map_or(&[], Vec::as_slice)
    }

    /// Any node.
    fn client(&mut self) -> &mut Client {
        let index = self.random.random_range(0..self.clients.len());
        // The index is in range.
        self.clients.get_mut(index).unwrap_or_else(|| unreachable!("a buyer without nodes"))
    }

    fn any(&mut self) -> Option<usize> {
        let count = self.purchases.len();
        // Mostly what is new, sometimes what is old.
        let from = if self.random.random_range(0..4_u32) > 0 { count.saturating_sub(60) } else { 0 };
        (count > 0).then(|| self.random.random_range(from..count))
    }

    fn any_order(&mut self) -> Option<(usize, String)> {
        let index = self.any()?;
        Some((index, self.purchases.get(index)?.order.clone()?))
    }
}

/// Does something with every buyer at once.
pub(in crate::drill) fn each(
    buyers: &mut [Buyer],
    work: impl Fn(&mut Buyer) -> Result<()> + Sync,
) -> Result<()> {
    let work = &work;
    std::thread::scope(|scope| {
        let workers: Vec<_> = buyers.iter_mut().map(|buyer| scope.spawn(move || work(buyer))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a buyer panicked")))
    })
}

/// What is wrong with an answer to a purchase; `None` if nothing is.
fn judged(answer: &Response, before: &Purchase, loss: Loss, promise: Promise) -> Option<String> {
    let id = answer.json().get("id").and_then(|id| id.as_str().map(str::to_owned));
    let has_plenty = promise == Promise::Decision && before.wish.product == PLENTY;
    match (answer.status, id, &before.order) {
        (503, ..) => None,
        (201, ..) if before.told == Told::Rejected => Some("was rejected and is confirmed now".to_owned()),
        (409, ..) if has_plenty => Some("is refused, and there is plenty".to_owned()),
        (409, _, Some(_)) if promise == Promise::Decision && before.told != Told::Confirmed => None,
        (200..300, Some(id), Some(known)) if id != *known => {
            Some(format!("was order {known} and is another order now"))
        }
        (200..300, Some(_), _) => None,
        (200..300, None, _) => Some("was accepted without an id".to_owned()),
        (409, _, Some(known)) if loss == Loss::None || before.told == Told::Confirmed => {
            Some(format!("was accepted as {known} and is refused now"))
        }
        (409, ..) => None,
        _ => Some("refused a sound purchase".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Response {
        Response { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    fn purchase(order: Option<&str>) -> Purchase {
        Purchase {
            wish: Wish { key: "k".into(), customer: "ann".into(), product: PLENTY.into(), quantity: 1 },
            order: order.map(str::to_owned),
            told: Told::Accepted,
            is_open: true,
            was_unanswered: false,
            cancel: Cancel::Never,
            is_revoked: false,
            round: 1,
        }
    }

    fn unit(answer: &Response, before: &Purchase, loss: Loss) -> Option<String> {
        judged(answer, before, loss, Promise::Units)
    }

    #[test]
    fn another_order_for_a_key_is_a_finding_and_the_same_is_none() {
        let known = purchase(Some("o1"));
        assert!(unit(&answer(202, r#"{"id":"o2"}"#), &known, Loss::RedisAndNodes).is_some());
        assert_eq!(unit(&answer(202, r#"{"id":"o1"}"#), &known, Loss::None), None);
    }

    #[test]
    fn an_accepted_order_is_refused_only_after_a_loss_and_never_a_confirmed_one() {
        let mut known = purchase(Some("o1"));
        assert!(unit(&answer(409, "{}"), &known, Loss::None).is_some());
        assert_eq!(unit(&answer(409, "{}"), &known, Loss::Redis), None);
        known.told = Told::Confirmed;
        assert!(unit(&answer(409, "{}"), &known, Loss::Redis).is_some());
        assert_eq!(unit(&answer(409, "{}"), &purchase(None), Loss::None), None);
    }

    #[test]
    fn a_sound_purchase_may_wait_but_is_not_refused_as_unsound() {
        assert_eq!(unit(&answer(503, ""), &purchase(None), Loss::None), None);
        assert!(unit(&answer(404, ""), &purchase(None), Loss::None).is_some());
        assert!(unit(&answer(500, ""), &purchase(None), Loss::None).is_some());
    }

    #[test]
    fn a_decision_may_be_no_but_never_of_what_there_is_plenty_and_never_another_than_before() {
        let decided =
            |answer: &Response, before: &Purchase| judged(answer, before, Loss::None, Promise::Decision);
        let mut known = purchase(Some("o1"));
        assert!(decided(&answer(409, "{}"), &known).is_some());
        known.wish.product = SCARCE.into();
        assert_eq!(decided(&answer(409, "{}"), &known), None);
        assert_eq!(known.hear("queued", Promise::Decision), None);
        assert_eq!(known.hear("rejected", Promise::Decision), None);
        assert_eq!(known.told, Told::Rejected);
        assert!(decided(&answer(201, r#"{"id":"o1"}"#), &known).is_some());
        assert!(known.clone().hear("queued", Promise::Decision).is_some());
        assert!(known.hear("confirmed", Promise::Decision).is_some());
        assert!(decided(&answer(409, "{}"), &known).is_some());
        assert!(known.hear("rejected", Promise::Decision).is_some());
        assert!(purchase(Some("o1")).hear("rejected", Promise::Units).is_some());
    }
}
