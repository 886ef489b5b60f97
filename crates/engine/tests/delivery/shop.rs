//! A log in memory, in place of the engine's, and a ledger in a folder of its own.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use yoink_core::{
    Currency, CustomerId, Event, Fact, IdempotencyKey, Money, NewProduct, OrderAccepted, OrderId, ProductId,
    Seq, StockAdjustment, Timestamp, Window,
};
use yoink_engine::{
    DeadLetterFilter, OnDeadLetter, OpenError,
    delivery::{DeadLetter, Delivery, DeliveryOptions, Next, Source, SourceClosed},
    ledger::{LedgerFault, Times},
};

/// Longer than anything here takes on a slow machine; reaching it fails the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// The log and whoever appends to it. Clones share it.
#[derive(Clone, Default)]
pub struct Shop {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    /// How often the units of an order came back.
    given_back: HashMap<OrderId, u32>,
    /// How often delivery asked for the units of an order to come back.
    fail_calls: HashMap<OrderId, u32>,
    closed: bool,
    /// The log cannot be read so many times without waiting.
    unreadable: u32,
    /// The events after the first number and up to the second are lost, which was accepted.
    lost: Option<(Seq, Seq)>,
    /// The ledger's disk is full from the moment at which delivery asks for units to come back.
    full_at_fail: Option<LedgerFault>,
}

impl State {
    fn last_seq(&self) -> Seq {
        let last = self.events.last().map_or(0, |event| event.seq);
        last.max(self.lost.map_or(0, |(_, to)| to))
    }
}

impl Shop {
    pub fn append(&self, fact: Fact) -> Seq {
        let mut state = self.shared.0.lock();
        append(&mut state, fact, &self.shared.1)
    }

    /// Accepts an order for each customer and returns their ids and places.
    pub fn sell(&self, customers: impl IntoIterator<Item = String>) -> Vec<(OrderId, Seq)> {
        customers.into_iter().map(|customer| self.sell_one(&customer)).collect()
    }

    pub fn sell_one(&self, customer: &str) -> (OrderId, Seq) {
        let mut state = self.shared.0.lock();
        let seq = state.last_seq() + 1;
        let order = order_id(seq);
        let fact = Fact::OrderAccepted(OrderAccepted {
            order,
            customer: CustomerId::parse(customer).unwrap(),
            product: product(),
            quantity: 2,
            unit_price: Money { amount: 19_999, currency: Currency::parse("EUR").unwrap() },
            key: Some(IdempotencyKey::parse(&format!("key-{seq}")).unwrap()),
        });
        (order, append(&mut state, fact, &self.shared.1))
    }

    /// What a customer does.
    pub fn cancel(&self, order: OrderId) {
        let mut state = self.shared.0.lock();
        if give_back(&mut state, order) {
            let fact = Fact::OrderCancelled { order, reason: "changed my mind".into() };
            append(&mut state, fact, &self.shared.1);
        }
    }

    pub fn create_product(&self, stock: u64) {
        let price = Money { amount: 19_999, currency: Currency::parse("EUR").unwrap() };
        let (name, window) = ("Thing".into(), Window::default());
        let details =
            NewProduct { id: None, name, price, stock, window, limit_per_customer: None, max_per_order: 10 };
        self.append(Fact::ProductCreated { id: product(), product: details });
    }

    pub fn adjust(&self, delta: i64) {
        let key = IdempotencyKey::parse("delivery-17").unwrap();
        self.append(Fact::StockAdjusted(StockAdjustment {
            product: product(),
            delta,
            reason: "count".into(),
            key,
        }));
    }

    pub fn last_seq(&self) -> Seq {
        self.shared.0.lock().last_seq()
    }

    pub fn events(&self) -> Vec<Event> {
        self.shared.0.lock().events.clone()
    }

    /// How often the units of an order came back, and how often delivery asked for it.
    pub fn given_back(&self, order: OrderId) -> (u32, u32) {
        let state = self.shared.0.lock();
        let count = |counts: &HashMap<OrderId, u32>| counts.get(&order).copied().unwrap_or(0);
        (count(&state.given_back), count(&state.fail_calls))
    }

    /// Reads of the log fail, until `times` did not want to wait.
    pub fn make_unreadable(&self, times: u32) {
        self.shared.0.lock().unreadable = times;
    }

    /// An operator accepts that the events up to `to` are lost.
    pub fn accept_loss(&self, to: Seq) {
        let mut state = self.shared.0.lock();
        state.lost = Some((state.last_seq(), to));
        self.shared.1.notify_all();
    }

    /// The engine fails: nothing can be read or given back any more.
    pub fn close(&self) {
        self.shared.0.lock().closed = true;
        self.shared.1.notify_all();
    }

    pub fn fill_disk_at_fail(&self, fault: &LedgerFault) {
        self.shared.0.lock().full_at_fail = Some(fault.clone());
    }

    pub fn reopen(&self) {
        self.shared.0.lock().closed = false;
    }
}

fn append(state: &mut State, fact: Fact, appended: &Condvar) -> Seq {
    let seq = state.last_seq() + 1;
    state.events.push(Event { seq, at: Timestamp(1_000_000 * i64::try_from(seq).unwrap()), fact });
    appended.notify_all();
    seq
}

/// Gives back once, as the inventory does.
fn give_back(state: &mut State, order: OrderId) -> bool {
    let count = state.given_back.entry(order).or_insert(0);
    let is_live = *count == 0;
    *count = 1;
    is_live
}

impl Source for Shop {
    fn events(&self, after: Seq, limit: usize, wait: Duration) -> Result<Next, SourceClosed> {
        let (state, appended) = &*self.shared;
        let mut state = state.lock();
        if state.last_seq() <= after && !state.closed {
            appended.wait_for(&mut state, wait);
        }
        if state.closed {
            return Err(SourceClosed);
        }
        if state.unreadable > 0 {
            // Who drains does not wait, so all but the first of these reads are a drain's.
            state.unreadable -= u32::from(wait.is_zero());
            return Ok(Next::Unread);
        }
        let end = match state.lost {
            Some((before, to)) if (before..to).contains(&after) => return Ok(Next::Lost(to)),
            Some((before, _)) if after < before => before,
            _ => Seq::MAX,
        };
        let next = state.events.iter().filter(|event| event.seq > after && event.seq <= end);
        let events: Vec<_> = next.take(limit).cloned().collect();
        Ok(if events.is_empty() { Next::Nothing } else { Next::Events(events) })
    }

    fn fail(&self, order: OrderId, reason: Box<str>) -> Result<(), SourceClosed> {
        let mut state = self.shared.0.lock();
        if state.closed {
            return Err(SourceClosed);
        }
        if let Some(fault) = state.full_at_fail.take() {
            fault.refuse_all(Times::Always);
        }
        *state.fail_calls.entry(order).or_insert(0) += 1;
        if give_back(&mut state, order) {
            append(&mut state, Fact::OrderFailed { order, reason }, &self.shared.1);
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let elapsed = BEGUN.get_or_init(Instant::now).elapsed();
        Timestamp(1_767_607_200_000_000 + i64::try_from(elapsed.as_micros()).unwrap())
    }
}

/// Ids in the order of the log, as UUIDs of version 7 are.
pub fn order_id(seq: Seq) -> OrderId {
    OrderId((0x0190_0000_0000_7000_8000_0000_0000_0000_u128 + u128::from(seq)).to_be_bytes())
}

pub fn product() -> ProductId {
    ProductId::parse("1").unwrap()
}

pub fn customers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("customer-{number}"))
}

/// Short waits, everything else as usual.
pub fn options(fault: &LedgerFault, on_dead_letter: OnDeadLetter) -> DeliveryOptions {
    DeliveryOptions {
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(10),
        on_dead_letter,
        fault: fault.clone(),
        ..DeliveryOptions::default()
    }
}

pub fn start(folder: &Path, shop: &Shop, options: DeliveryOptions) -> Result<Delivery, OpenError> {
    Delivery::start(folder, options, Box::new(shop.clone()), shop.last_seq())
}

/// Waits until the ledger has everything that the log has and nothing waits to be tried again.
pub async fn all_delivered(delivery: &Delivery, shop: &Shop) {
    until(delivery, "everything is delivered", || {
        let status = delivery.status();
        status.position == shop.last_seq() && status.retrying == 0
    })
    .await;
}

/// Waits until something holds that a change of the ledger brings about.
pub async fn until(delivery: &Delivery, what: &str, holds: impl Fn() -> bool) {
    let mut watch = delivery.watch();
    let waited = tokio::time::timeout(PATIENCE, watch.wait_for(|_| holds())).await;
    assert!(waited.is_ok(), "waited in vain until {what}: {delivery:?}");
}

/// Waits until the thread is gone, by whatever ended it.
pub async fn ended(delivery: &Delivery) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while delivery.status().running {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "delivery did not end: {delivery:?}");
    // Returns when the file is closed.
    delivery.stop(yoink_engine::delivery::Stop::Now);
}

pub async fn dead_letters(delivery: &Delivery) -> Vec<DeadLetter> {
    delivery.dead_letters(DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() }).await.unwrap()
}

/// One number out of a closed ledger.
pub fn look(folder: &Path, sql: &str) -> i64 {
    let ledger = rusqlite::Connection::open(folder.join("ledger.db")).unwrap();
    ledger.query_row(sql, [], |row| row.get(0)).unwrap()
}
