//! The decision tables of `tables/*.txt`, held against the core.

#![cfg(test)]

#[path = "tables/language.rs"]
mod language;
#[path = "tables/translate.rs"]
mod translate;

use std::collections::BTreeSet;

use language::{Ask, CASE_START_US, Case, Detail, Line, Outcome, Price, REFUSALS, Step};
use translate::{change, money, new_product, refused};
use yoink_core::audit::Audit;
use yoink_core::{
    Command, CustomerId, Decision, Event, Fact, IdempotencyKey, Inventory, OrderId, OrderState, ProductId,
    Purchase, Rejection, Replay, StockAdjustment, Timestamp,
};

/// A shop in which a case plays.
struct Shop {
    now: Timestamp,
    inventory: Inventory,
    /// Learns everything from the events.
    follower: Inventory,
    audit: Audit,
    /// In order of acceptance.
    orders: Vec<OrderId>,
    purchases: u64,
}

/// Plays a case; the first line that does not hold, with `file:line`, what was expected and what came.
fn check(case: &Case) -> Result<(), String> {
    let mut shop = Shop {
        now: Timestamp(CASE_START_US),
        inventory: Inventory::new(),
        follower: Inventory::new(),
        audit: Audit::new(),
        orders: Vec::new(),
        purchases: 0,
    };
    for Line { place, step } in &case.lines {
        shop.play(step).map_err(|what| format!("{place}: {what} (case: {})", case.title))?;
    }
    let findings = shop.audit.report().findings;
    assert_eq!(findings, [], "{}", case.title);
    Ok(())
}

impl Shop {
    fn play(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::At { now_us } => self.now = Timestamp(*now_us),
            Step::Ask { ask, expected } => {
                let actual = self.ask(ask);
                if !expected.agrees_with(&actual) {
                    return Err(format!("expected '{expected}', but the answer is '{actual}'"));
                }
            }
            Step::StockIs { product, figures } => return self.stock_is(product, figures),
            Step::OrderIs { order, state, price } => return self.order_is(*order, state, price.as_ref()),
            Step::CustomerHas { customer, units, product } => {
                let actual = self.inventory.live_units(customer, &product_id(product));
                if actual != *units {
                    return Err(format!("expected {units} units, but {customer} has {actual}"));
                }
            }
        }
        Ok(())
    }

    fn stock_is(&self, product: &str, expected: &[(String, u64)]) -> Result<(), String> {
        let id = product_id(product);
        let figures = match self.inventory.product(&id) {
            Some(product) => product.figures(),
            None => return Err(format!("there is no product {product}")),
        };
        for (name, units) in expected {
            let actual = match name.as_str() {
                "stocked" => figures.stocked,
                "available" => figures.available,
                "held" => figures.held,
                "sold" => figures.sold,
                "withheld" => figures.withheld,
                _ => panic!("{name} is not a figure"),
            };
            if actual != *units {
                return Err(format!("expected {name} {units}, but it is {actual}"));
            }
        }
        let report = self.audit.report();
        let counted = report.product(&id).expect("the audit knows the product");
        assert_eq!(
            [counted.stocked, counted.available, counted.sold, counted.withheld],
            [figures.stocked, figures.available, figures.sold, figures.withheld].map(i128::from),
        );
        Ok(())
    }

    fn order_is(&self, number: u32, state: &str, price: Option<&Price>) -> Result<(), String> {
        let Some(order) = self.inventory.order(self.order_id(number)) else {
            return Err(format!("there is no order {number}"));
        };
        let actual = match order.state {
            OrderState::Live => "live",
            OrderState::Cancelled => "cancelled",
            OrderState::Failed => "failed",
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

    fn ask(&mut self, ask: &Ask) -> Outcome {
        let command = self.command(ask);
        let decision = self.inventory.decide(self.now, &command);
        assert_eq!(decision, self.follower.decide(self.now, &command));
        match decision {
            Decision::Accept(event) => self.accept(ask, &event),
            Decision::Replay(Replay::Order(order)) => Outcome::ReplayOfOrder(self.number_of(order)),
            Decision::Replay(_) => Outcome::Replay,
            Decision::Refuse(rejection) => refused(&rejection, |order| self.number_of(order)),
        }
    }

    fn accept(&mut self, ask: &Ask, event: &Event) -> Outcome {
        self.follower.check(event).expect("an accepted event is consistent");
        self.follower.apply(event);
        self.inventory.apply(event);
        self.audit.observe(event);
        match (&event.fact, ask) {
            (Fact::OrderAccepted(accepted), _) => {
                self.orders.push(accepted.order);
                Outcome::Order(self.number_of(accepted.order))
            }
            (Fact::ProductCreated { id, .. }, Ask::Product { id: None, .. }) => {
                Outcome::Product(id.to_string())
            }
            _ => Outcome::Done,
        }
    }

    fn command(&mut self, ask: &Ask) -> Command {
        match ask {
            Ask::Buy { customer, product, quantity, key } => {
                self.purchases += 1;
                Command::Purchase(Purchase {
                    order: OrderId(u128::from(self.purchases).to_be_bytes()),
                    customer: CustomerId::parse(customer).expect("a customer id"),
                    product: product_id(product),
                    quantity: *quantity,
                    key: key.as_deref().map(key_of),
                })
            }
            Ask::Cancel { order } => {
                Command::Cancel { order: self.order_id(*order), reason: "asked for".into() }
            }
            Ask::Fail { order } => {
                Command::Fail { order: self.order_id(*order), reason: "the ledger cannot take it".into() }
            }
            Ask::Product { id, stock, terms } => {
                Command::CreateProduct(new_product(id.as_deref(), *stock, terms))
            }
            Ask::Change { product, terms } => {
                Command::ChangeProduct { product: product_id(product), change: change(terms) }
            }
            Ask::Adjust { product, delta, key } => Command::AdjustStock(StockAdjustment {
                product: product_id(product),
                delta: *delta,
                reason: "count".into(),
                key: key_of(key),
            }),
            Ask::Pause { product } => Command::Pause { product: product_id(product) },
            Ask::Resume { product } => Command::Resume { product: product_id(product) },
        }
    }

    /// The id of the n-th order; an id that nobody has for a number that was not given yet.
    fn order_id(&self, number: u32) -> OrderId {
        let index = (number as usize).checked_sub(1);
        index.and_then(|index| self.orders.get(index).copied()).unwrap_or(OrderId([0xff; 16]))
    }

    fn number_of(&self, order: OrderId) -> u32 {
        let index = self.orders.iter().position(|known| *known == order);
        index.map_or(0, |index| u32::try_from(index).expect("few orders") + 1)
    }
}

fn product_id(text: &str) -> ProductId {
    ProductId::parse(text).expect("a product id")
}

fn key_of(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).expect("a key")
}

/// All cases of all tables.
fn all_cases() -> Vec<Case> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tables");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the tables' folder") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let file = path.file_name().expect("a name").to_string_lossy();
            let text = std::fs::read_to_string(&path).expect("a text file");
            cases.extend(language::parse(&file, &text).unwrap_or_else(|mistake| panic!("{mistake}")));
        }
    }
    cases
}

#[test]
fn every_line_of_every_table_holds() {
    let cases = all_cases();
    assert!(cases.len() >= 60, "only {} cases were found", cases.len());
    let failures: Vec<_> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn the_language_knows_every_rejection_in_the_order_of_its_checks() {
    assert_eq!(REFUSALS.map(|(name, _)| name), Rejection::NAMES);
}

#[test]
fn the_tables_show_every_rejection_with_every_detail() {
    let mut shown = BTreeSet::new();
    for line in all_cases().iter().flat_map(|case| &case.lines) {
        if let Step::Ask { expected: Outcome::Refused { name, details }, .. } = &line.step {
            shown.insert((*name, ""));
            shown.extend(details.iter().map(|(label, _)| (*name, *label)));
        }
    }
    for (name, details) in REFUSALS {
        // No command can break the law of conservation, so no table can show what happens then.
        let can_happen = name != "conservation-broken";
        assert_eq!(shown.contains(&(name, "")), can_happen, "{name}");
        for (label, _) in details {
            assert!(shown.contains(&(name, *label)), "no table shows {name} {label}");
        }
    }
}

/// Something else than `outcome`.
fn another(outcome: &Outcome) -> Outcome {
    let mut details = match outcome {
        Outcome::Refused { details, .. } => details.clone(),
        _ => Vec::new(),
    };
    match outcome {
        Outcome::Order(order) => Outcome::Order(order + 1),
        Outcome::ReplayOfOrder(order) => Outcome::Order(*order),
        Outcome::Done => Outcome::Replay,
        Outcome::Replay => Outcome::Done,
        Outcome::Product(id) => Outcome::Product(format!("{id}0")),
        Outcome::Refused { name, .. } => match details.first_mut() {
            Some((_, detail)) => {
                *detail = Detail::Orders(vec![77]);
                Outcome::Refused { name, details }
            }
            None => Outcome::Refused { name: "conservation-broken", details },
        },
    }
}

#[test]
fn every_expectation_of_every_table_can_fail() {
    for case in all_cases() {
        for index in 0..case.lines.len() {
            let mut wrong = case.clone();
            let line = &mut wrong.lines[index];
            match &mut line.step {
                Step::At { .. } => continue,
                Step::Ask { expected, .. } => *expected = another(expected),
                Step::StockIs { figures, .. } => figures[0].1 += 1,
                Step::OrderIs { state, .. } if state == "live" => *state = "failed".to_owned(),
                Step::OrderIs { state, .. } => *state = "live".to_owned(),
                Step::CustomerHas { units, .. } => *units += 1,
            }
            let place = line.place.to_string();
            let failure = check(&wrong).expect_err("a wrong expectation fails");
            assert!(failure.starts_with(&format!("{place}: ")), "{failure}");
        }
    }
}

#[test]
fn a_line_that_makes_no_sense_is_named_with_its_file_and_number() {
    let mistakes = [
        ("sell ann 1", "'sell' is not a word that a line can begin with"),
        ("buy ann 1", "a purchase needs '->' and what is answered"),
        ("buy ann", "a product is missing at the end of the line"),
        ("buy ann 1 colour red -> order 1", "'colour' is not part of a purchase"),
        ("buy ann 1 quantity two -> order 1", "'two' is not a number that fits here"),
        ("buy ann 1 quantity -1 -> order 1", "'-1' is not a number that fits here"),
        ("buy ann 1 -> sold-uot", "'sold-uot' is not an answer"),
        ("buy ann 1 -> sold-out left 1", "'sold-out' says nothing about 'left'"),
        ("buy ann 1 -> order 1 twice", "'twice' is not expected here"),
        ("buy ann 1 -> replay it", "'it' is nothing that can be replayed"),
        ("buy ann 1 ->", "an answer is missing at the end of the line"),
        ("cancel 1", "'order' was due, but '1' came"),
        ("product 1 stock 5 colour red", "'colour' is nothing that a product has"),
        ("product 1 stock 5 from noon", "'noon' is not a time like 10:00:00"),
        ("product 1 stock 5 from 24:00:00", "'24:00:00' is not a time like 10:00:00"),
        ("stock 1", "which figures has the stock?"),
        ("stock 1 lost 0", "'lost' is not a figure of a stock"),
        ("stock 1 sold 0 -> ok", "'stock' asks for nothing, so nothing can follow '->'"),
        ("order 1 is gone", "'gone' is not a state of an order"),
        ("at 09:59:59", "'09:59:59' is before the time of the line above"),
        ("at +5h", "'+5h' is not a step like +5s"),
        ("pause 1 now", "'now' is not expected here"),
    ];
    for (line, message) in mistakes {
        let text = format!("# a comment\n\nproduct 1 stock 5   # another\n{line}\n");
        let mistake = language::parse("bad.txt", &text).expect_err(line);
        assert_eq!(mistake.to_string(), format!("bad.txt:4: {message}"));
    }
    let empty = language::parse("empty.txt", "# nothing\n").expect_err("a table without steps");
    assert_eq!(empty.to_string(), "empty.txt:1: the table has no steps");
}

#[test]
fn times_are_read_to_the_microsecond() {
    let text = "at 10:00:00.5\nat +1us\nat +2ms\nat +3s\nat +4m\n";
    let cases = language::parse("times.txt", text).expect("a table");
    let times: Vec<_> = cases[0]
        .lines
        .iter()
        .map(|line| match line.step {
            Step::At { now_us } => now_us - CASE_START_US,
            _ => panic!("not a time"),
        })
        .collect();
    assert_eq!(times, [500_000, 500_001, 502_001, 3_502_001, 243_502_001]);
}
