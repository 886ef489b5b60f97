//! The decision tables of the core, held against the engines: writer, scripts, storefront and all. What the core says
//! and what a caller is told can not drift.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;
#[path = "../../core/tests/tables/language.rs"]
#[allow(dead_code, reason = "the core's own test uses the rest of it")]
mod language;
#[path = "../../core/tests/tables/translate.rs"]
mod translate;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use language::{Ask, CASE_START_US, Case, Outcome, Price, Step};
use translate::{change, money, new_product, refused};
use yoink_core::{CustomerId, Fact, IdempotencyKey, OrderId, Seq, StockAdjustment, Timestamp};
use yoink_engine::{CallError, Confirmed, Engine, Options, OrderFilter, OrderStatus, Replayed, TimeSource};

/// Both clocks of a machine, moved together.
#[derive(Clone)]
struct Hands(Arc<AtomicI64>);

impl TimeSource for Hands {
    fn wall_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst) - CASE_START_US
    }
}

struct Shop {
    engine: Engine,
    hands: Hands,
    orders: Vec<OrderId>,
    /// The last event that was seen.
    seen: Seq,
}

fn open_embedded(folder: &Path, hands: &Hands) -> Engine {
    Engine::open_with_time(Options::new(folder), Box::new(hands.clone())).unwrap()
}

async fn play(case: &Case, engine: Engine, hands: Hands) -> Result<(), String> {
    let mut shop = Shop { engine, hands, orders: Vec::new(), seen: 0 };
    for line in &case.lines {
        shop.step(&line.step)
            .await
            .map_err(|what| format!("{}: {what} (case: {})", line.place, case.title))?;
    }
    shop.settle().await;
    let reconciliation = shop.engine.reconcile().await.unwrap();
    let broken: Vec<_> = reconciliation.invariants.iter().filter(|invariant| !invariant.ok).collect();
    assert!(reconciliation.ok, "{}: {broken:?}", case.title);
    shop.engine.close_blocking(Duration::ZERO);
    Ok(())
}

impl Shop {
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::At { now_us } => {
                // The writer looks at the clock while it is idle, so a leap of both clocks is no drift.
                self.hands.0.store(*now_us, Ordering::SeqCst);
                self.engine.set_now(Timestamp(*now_us));
                Ok(())
            }
            Step::Ask { ask, expected } => {
                let actual = self.ask(ask).await;
                match expected.agrees_with(&actual) {
                    true => Ok(()),
                    false => Err(format!("expected '{expected}', but the answer is '{actual}'")),
                }
            }
            Step::StockIs { product, figures } => {
                self.settle().await;
                self.stock_is(product, figures)
            }
            Step::OrderIs { order, state, price } => self.order_is(*order, state, price.as_ref()).await,
            Step::CustomerHas { customer, units, product } => {
                self.settle().await;
                let filter = OrderFilter {
                    customer: Some(CustomerId::parse(customer).unwrap()),
                    product: Some(common::id(product)),
                    limit: 1_000,
                    ..OrderFilter::default()
                };
                let orders = self.engine.orders(filter).await.unwrap().orders;
                let live = orders
                    .iter()
                    .filter(|order| matches!(order.status, OrderStatus::Accepted | OrderStatus::Confirmed));
                let actual: u32 = live.map(|order| order.quantity).sum();
                match actual == *units {
                    true => Ok(()),
                    false => Err(format!("expected {units} units, but {customer} has {actual}")),
                }
            }
        }
    }

    /// What other nodes see, and the ledger, come a moment later with engines of several processes.
    async fn settle(&self) {
        if self.engine.name() != "embedded" {
            assert_eq!(self.engine.wait_delivered(0, Duration::from_secs(20)).await, Confirmed::Yes);
        }
    }

    /// Whether anything but a purchase has happened since the last call.
    async fn something_happened(&mut self) -> bool {
        let mut happened = false;
        loop {
            let events = self.engine.events(self.seen, 1_000).await.unwrap();
            let Some(last) = events.last() else { return happened };
            self.seen = last.seq;
            happened |= events.iter().any(|event| !matches!(event.fact, Fact::OrderAccepted(_)));
        }
    }

    fn stock_is(&self, product: &str, expected: &[(String, u64)]) -> Result<(), String> {
        let Some(view) = self.engine.storefront().product(&common::id(product)) else {
            return Err(format!("there is no product {product}"));
        };
        for (name, units) in expected {
            let actual = match name.as_str() {
                "stocked" => view.figures.stocked,
                "available" => view.figures.available,
                "held" => view.figures.held,
                "sold" => view.figures.sold,
                "withheld" => view.figures.withheld,
                _ => panic!("{name} is not a figure"),
            };
            if actual != *units {
                return Err(format!("expected {name} {units}, but it is {actual}"));
            }
        }
        Ok(())
    }

    async fn order_is(&self, number: u32, state: &str, price: Option<&Price>) -> Result<(), String> {
        let Some(order) = self.engine.order(self.order_id(number)).await.unwrap() else {
            return Err(format!("there is no order {number}"));
        };
        let actual = match order.status {
            OrderStatus::Accepted | OrderStatus::Confirmed => "live",
            OrderStatus::Cancelled => "cancelled",
            OrderStatus::Failed => "failed",
            OrderStatus::Queued | OrderStatus::Rejected => order.status.name(),
        };
        if actual != state {
            return Err(format!("expected order {number} to be {state}, but it is {actual}"));
        }
        match price.map(money) {
            Some(price) if price != order.unit_price => {
                Err(format!("order {number} costs {:?}", order.unit_price))
            }
            _ => Ok(()),
        }
    }

    async fn ask(&mut self, ask: &Ask) -> Outcome {
        self.something_happened().await;
        let result = match ask {
            Ask::Buy { customer, product, quantity, key } => {
                return self.buy(common::buy(customer, product, *quantity, key.as_deref())).await;
            }
            Ask::Cancel { order } => {
                self.engine.cancel(self.order_id(*order), "asked for".into()).await.map(|_| ())
            }
            Ask::Fail { order } => {
                self.engine.fail(self.order_id(*order), "cannot be kept".into()).await.map(|_| ())
            }
            Ask::Product { id, stock, terms } => {
                match self.engine.create_product(new_product(id.as_deref(), *stock, terms)).await {
                    Ok(view) if id.is_none() => return Outcome::Product(view.id.to_string()),
                    other => other.map(|_| ()),
                }
            }
            Ask::Change { product, terms } => {
                self.engine.change_product(common::id(product), change(terms)).await.map(|_| ())
            }
            Ask::Adjust { product, delta, key } => {
                let adjustment = StockAdjustment {
                    product: common::id(product),
                    delta: *delta,
                    reason: "count".into(),
                    key: IdempotencyKey::parse(key).unwrap(),
                };
                self.engine.adjust_stock(adjustment).await.map(|_| ())
            }
            Ask::Pause { product } => self.engine.pause(common::id(product)).await.map(|_| ()),
            Ask::Resume { product } => self.engine.resume(common::id(product)).await.map(|_| ()),
        };
        let happened = self.something_happened().await;
        match (result, ask) {
            (Err(CallError::Refused(rejection)), _) => refused(&rejection, |order| self.number_of(order)),
            (Err(error), _) => panic!("{error:?}"),
            (Ok(()), _) if happened => Outcome::Done,
            (Ok(()), Ask::Cancel { order } | Ask::Fail { order }) => Outcome::ReplayOfOrder(*order),
            (Ok(()), _) => Outcome::Replay,
        }
    }

    async fn buy(&mut self, request: yoink_engine::PurchaseRequest) -> Outcome {
        match self.engine.purchase(request).await {
            Ok(purchased) if purchased.replayed == Replayed::Yes => {
                Outcome::ReplayOfOrder(self.number_of(purchased.order))
            }
            Ok(purchased) => {
                self.orders.push(purchased.order);
                Outcome::Order(self.number_of(purchased.order))
            }
            Err(CallError::Refused(rejection)) => refused(&rejection, |order| self.number_of(order)),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn order_id(&self, number: u32) -> OrderId {
        let index = (number as usize).checked_sub(1);
        index.and_then(|index| self.orders.get(index).copied()).unwrap_or(OrderId([0xff; 16]))
    }

    fn number_of(&self, order: OrderId) -> u32 {
        let index = self.orders.iter().position(|known| *known == order);
        index.map_or(0, |index| u32::try_from(index).unwrap() + 1)
    }
}

fn cases() -> Vec<Case> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/tests/tables");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let (file, text) =
                (path.file_name().unwrap().to_string_lossy(), std::fs::read_to_string(&path).unwrap());
            cases.extend(language::parse(&file, &text).unwrap_or_else(|mistake| panic!("{mistake}")));
        }
    }
    assert!(cases.len() >= 60, "only {} cases were found", cases.len());
    cases
}

fn hands() -> Hands {
    Hands(Arc::new(AtomicI64::new(CASE_START_US)))
}

#[test]
fn every_line_of_every_table_holds_for_the_embedded_engine() {
    let runtime = common::runtime();
    let play_one = |case: &Case| {
        let (folder, hands) = (tempfile::tempdir().unwrap(), hands());
        let engine = open_embedded(folder.path(), &hands);
        runtime.block_on(play(case, engine, hands)).err()
    };
    let failures: Vec<_> = cases().iter().filter_map(play_one).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// In Redis every product is a place of its own (so that a cluster can spread them), and keys are scoped to it.
const OF_ONE_PLACE_ONLY: &str = "the key of a request for another product";

#[test]
fn every_line_of_every_table_holds_for_the_redis_engine() {
    let servers = common::servers::Servers::start();
    let runtime = common::runtime();
    let play_one = |case: &Case| {
        let engine = servers.open_engine(|_| ());
        engine.set_now(Timestamp(CASE_START_US));
        runtime.block_on(play(case, engine, hands())).err()
    };
    let cases: Vec<_> = cases();
    let mut played = cases.iter().filter(|case| case.title != OF_ONE_PLACE_ONLY);
    assert_eq!(played.clone().count(), cases.len() - 1);
    let failures: Vec<_> = played.by_ref().filter_map(play_one).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
