//! The language of the decision tables: lines that a support person can write become steps that know of no engine,
//! so that every engine can be held to the same tables. `README.md` beside this file explains it by example.

use std::fmt;

/// The day on which every table plays, 2026-01-05T00:00:00Z, in microseconds since 1970.
const DAY_START_US: i64 = 1_767_571_200_000_000;
/// When every case begins: 10:00:00 on that day.
pub const CASE_START_US: i64 = DAY_START_US + 10 * 3_600_000_000;

/// Steps on a fresh shop.
#[derive(Clone, Debug)]
pub struct Case {
    pub title: String,
    pub lines: Vec<Line>,
}

/// A step, and where it is written.
#[derive(Clone, Debug)]
pub struct Line {
    pub place: Place,
    pub step: Step,
}

/// `file:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub line: usize,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// It is now this many microseconds since 1970.
    At { now_us: i64 },
    /// Somebody asks for something and is told something.
    Ask { ask: Ask, expected: Outcome },
    /// The units of a product; figures that are left out may be anything.
    StockIs { product: String, figures: Vec<(String, u64)> },
    /// The state of an order (`live`, `cancelled`, `failed`) and, if given, its price.
    OrderIs { order: u32, state: String, price: Option<Price> },
    /// Units of live orders.
    CustomerHas { customer: String, units: u32, product: String },
}

#[derive(Clone, Debug)]
pub enum Ask {
    Buy {
        customer: String,
        product: String,
        quantity: u32,
        key: Option<String>,
    },
    /// Orders are numbered from 1 as they are accepted; a number that was not given yet is an unknown order.
    Cancel {
        order: u32,
    },
    Fail {
        order: u32,
    },
    /// `id: None` takes the next free number.
    Product {
        id: Option<String>,
        stock: u64,
        terms: Terms,
    },
    Change {
        product: String,
        terms: Terms,
    },
    Adjust {
        product: String,
        delta: i64,
        key: String,
    },
    Pause {
        product: String,
    },
    Resume {
        product: String,
    },
}

/// What is said about a product: `None` where the line does not say, `Some(None)` where it says `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub price: Option<Price>,
    pub starts_at_us: Option<Option<i64>>,
    pub ends_at_us: Option<Option<i64>>,
    pub limit: Option<Option<u32>>,
    pub max_per_order: Option<u32>,
}

/// In minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    pub amount: i64,
    pub currency: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Done,
    /// It had happened before; nothing changed.
    Replay,
    /// The n-th order was accepted.
    Order(u32),
    /// The n-th order was accepted for the same request before.
    ReplayOfOrder(u32),
    /// A product got this id.
    Product(String),
    /// No, with what is said beside it.
    Refused { name: &'static str, details: Vec<(&'static str, Detail)> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    Number(u64),
    TimeUs(i64),
    Orders(Vec<u32>),
}

/// What kind of value a detail has.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Number,
    Time,
    Orders,
}

/// Every refusal and its details, in the order in which the checks run.
pub const REFUSALS: [(&str, &[(&str, Kind)]); 15] = [
    ("product-not-found", &[]),
    ("order-not-found", &[]),
    ("product-exists", &[]),
    ("idempotency-key-reused", &[("original", Kind::Orders)]),
    ("quantity-above-max", &[("max", Kind::Number)]),
    ("conservation-broken", &[]),
    ("sale-not-started", &[("starts", Kind::Time)]),
    ("sale-ended", &[("ends", Kind::Time)]),
    ("sale-paused", &[]),
    ("limit-reached", &[("limit", Kind::Number), ("used", Kind::Number), ("existing", Kind::Orders)]),
    ("sold-out", &[("available", Kind::Number)]),
    ("order-failed", &[]),
    ("below-committed", &[("available", Kind::Number)]),
    ("stock-too-large", &[]),
    ("window-empty", &[]),
];

const FIGURES: [&str; 5] = ["stocked", "available", "held", "sold", "withheld"];
const STATES: [&str; 3] = ["live", "cancelled", "failed"];

impl Outcome {
    /// Whether `actual` is what was expected. Details that a table leaves out may be anything.
    pub fn agrees_with(&self, actual: &Self) -> bool {
        match (self, actual) {
            (
                Self::Refused { name, details },
                Self::Refused { name: actual_name, details: actual_details },
            ) => name == actual_name && details.iter().all(|detail| actual_details.contains(detail)),
            _ => self == actual,
        }
    }
}

/// Why a table cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub place: Place,
    pub message: String,
}

/// Reads a table: cases, each on a fresh shop. Lines before the first `case` are a case named like the file.
pub fn parse(file: &str, text: &str) -> Result<Vec<Case>, Mistake> {
    let mut cases = vec![Case { title: file.to_owned(), lines: Vec::new() }];
    let mut now_us = CASE_START_US;
    for (index, line) in text.lines().enumerate() {
        let place = Place { file: file.to_owned(), line: index + 1 };
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if let Some(title) = line.strip_prefix("case ") {
            now_us = CASE_START_US;
            cases.push(Case { title: title.to_owned(), lines: Vec::new() });
            continue;
        }
        let step = match parse_step(line, now_us) {
            Ok(step) => step,
            Err(message) => return Err(Mistake { place, message }),
        };
        if let Step::At { now_us: then_us } = step {
            now_us = then_us;
        }
        if let Some(case) = cases.last_mut() {
            case.lines.push(Line { place, step });
        }
    }
    cases.retain(|case| !case.lines.is_empty());
    if cases.is_empty() {
        let place = Place { file: file.to_owned(), line: 1 };
        return Err(Mistake { place, message: "the table has no steps".to_owned() });
    }
    Ok(cases)
}

fn parse_step(line: &str, now_us: i64) -> Result<Step, String> {
    let (left, right) = match line.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (line, None),
    };
    let mut words = Words { rest: left.split_whitespace().collect::<Vec<_>>().into_iter() };
    let verb = words.word("a verb")?;
    let statement = match verb {
        "at" => Some(Step::At { now_us: later(words.word("a time")?, now_us)? }),
        "stock" => Some(parse_stock(&mut words)?),
        "order" => Some(parse_order(&mut words)?),
        "customer" => Some(parse_customer(&mut words)?),
        _ => None,
    };
    if let Some(step) = statement {
        words.end()?;
        return match right {
            None => Ok(step),
            Some(_) => Err(format!("'{verb}' asks for nothing, so nothing can follow '->'")),
        };
    }
    let ask = parse_ask(verb, &mut words)?;
    words.end()?;
    let expected = match (right, &ask) {
        (Some(right), _) => parse_outcome(right)?,
        (None, Ask::Buy { .. }) => return Err("a purchase needs '->' and what is answered".to_owned()),
        (None, _) => Outcome::Done,
    };
    Ok(Step::Ask { ask, expected })
}

fn parse_ask(verb: &str, words: &mut Words<'_>) -> Result<Ask, String> {
    match verb {
        "buy" => parse_buy(words),
        "cancel" => Ok(Ask::Cancel { order: words.labelled("order")? }),
        "fail" => Ok(Ask::Fail { order: words.labelled("order")? }),
        "product" => {
            let id = Some(words.text("a product")?).filter(|id| id != "new");
            let stock = words.labelled("stock")?;
            Ok(Ask::Product { id, stock, terms: parse_terms(words)? })
        }
        "change" => Ok(Ask::Change { product: words.text("a product")?, terms: parse_terms(words)? }),
        "restock" | "withdraw" => {
            let product = words.text("a product")?;
            let units: i64 = words.labelled("units")?;
            words.keyword("key")?;
            let delta = if verb == "restock" { units } else { -units };
            Ok(Ask::Adjust { product, delta, key: words.text("a key")? })
        }
        "pause" => Ok(Ask::Pause { product: words.text("a product")? }),
        "resume" => Ok(Ask::Resume { product: words.text("a product")? }),
        _ => Err(format!("'{verb}' is not a word that a line can begin with")),
    }
}

fn parse_buy(words: &mut Words<'_>) -> Result<Ask, String> {
    let (customer, product) = (words.text("a customer")?, words.text("a product")?);
    let (mut quantity, mut key) = (1, None);
    while let Some(word) = words.rest.next() {
        match word {
            "quantity" => quantity = words.number("a quantity")?,
            "key" => key = Some(words.text("a key")?),
            _ => return Err(format!("'{word}' is not part of a purchase")),
        }
    }
    Ok(Ask::Buy { customer, product, quantity, key })
}

fn parse_terms(words: &mut Words<'_>) -> Result<Terms, String> {
    let mut terms = Terms::default();
    while let Some(word) = words.rest.next() {
        match word {
            "price" => terms.price = Some(words.price()?),
            "from" => terms.starts_at_us = Some(words.unless_none(clock_time)?),
            "until" => terms.ends_at_us = Some(words.unless_none(clock_time)?),
            "limit" => terms.limit = Some(words.unless_none(whole_number)?),
            "max" => terms.max_per_order = Some(words.number("the most per order")?),
            _ => return Err(format!("'{word}' is nothing that a product has")),
        }
    }
    Ok(terms)
}

fn parse_stock(words: &mut Words<'_>) -> Result<Step, String> {
    let product = words.text("a product")?;
    let mut figures = Vec::new();
    while let Some(word) = words.rest.next() {
        if !FIGURES.contains(&word) {
            return Err(format!("'{word}' is not a figure of a stock"));
        }
        figures.push((word.to_owned(), words.number(word)?));
    }
    match figures.is_empty() {
        true => Err("which figures has the stock?".to_owned()),
        false => Ok(Step::StockIs { product, figures }),
    }
}

fn parse_order(words: &mut Words<'_>) -> Result<Step, String> {
    let order = words.number("an order")?;
    words.keyword("is")?;
    let state = words.text("a state")?;
    if !STATES.contains(&state.as_str()) {
        return Err(format!("'{state}' is not a state of an order"));
    }
    let price = match words.rest.next() {
        None => None,
        Some("price") => Some(words.price()?),
        Some(word) => return Err(format!("'{word}' is not expected here")),
    };
    Ok(Step::OrderIs { order, state, price })
}

fn parse_customer(words: &mut Words<'_>) -> Result<Step, String> {
    let customer = words.text("a customer")?;
    let units = words.labelled("has")?;
    words.keyword("of")?;
    Ok(Step::CustomerHas { customer, units, product: words.text("a product")? })
}

fn parse_outcome(text: &str) -> Result<Outcome, String> {
    let mut words = Words { rest: text.split_whitespace().collect::<Vec<_>>().into_iter() };
    let outcome = match words.word("an answer")? {
        "ok" => Outcome::Done,
        "order" => Outcome::Order(words.number("an order")?),
        "product" => Outcome::Product(words.text("a product")?),
        "replay" => match words.rest.next() {
            None => Outcome::Replay,
            Some("order") => Outcome::ReplayOfOrder(words.number("an order")?),
            Some(word) => return Err(format!("'{word}' is nothing that can be replayed")),
        },
        name => parse_refusal(name, &mut words)?,
    };
    words.end()?;
    Ok(outcome)
}

fn parse_refusal(name: &str, words: &mut Words<'_>) -> Result<Outcome, String> {
    let Some((name, kinds)) = REFUSALS.iter().find(|(known, _)| *known == name) else {
        return Err(format!("'{name}' is not an answer"));
    };
    let mut details = Vec::new();
    while let Some(word) = words.rest.next() {
        let Some((label, kind)) = kinds.iter().find(|(label, _)| *label == word) else {
            return Err(format!("'{name}' says nothing about '{word}'"));
        };
        let value = words.word("a value")?;
        let detail = match kind {
            Kind::Number => Detail::Number(whole_number(value)?),
            Kind::Time => Detail::TimeUs(clock_time(value)?),
            Kind::Orders if value == "none" => Detail::Orders(Vec::new()),
            Kind::Orders => Detail::Orders(value.split(',').map(whole_number).collect::<Result<_, _>>()?),
        };
        details.push((*label, detail));
    }
    Ok(Outcome::Refused { name, details })
}

/// The words of a line that are still to be read.
struct Words<'a> {
    rest: std::vec::IntoIter<&'a str>,
}

impl<'a> Words<'a> {
    fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.rest.next().ok_or_else(|| format!("{what} is missing at the end of the line"))
    }

    fn text(&mut self, what: &str) -> Result<String, String> {
        self.word(what).map(str::to_owned)
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), String> {
        match self.word(&format!("'{keyword}'"))? {
            word if word == keyword => Ok(()),
            word => Err(format!("'{keyword}' was due, but '{word}' came")),
        }
    }

    fn number<N: std::str::FromStr>(&mut self, what: &str) -> Result<N, String> {
        self.word(what).and_then(whole_number)
    }

    fn labelled<N: std::str::FromStr>(&mut self, label: &str) -> Result<N, String> {
        self.keyword(label)?;
        self.number("a number")
    }

    fn unless_none<T>(&mut self, read: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        match self.word("a value")? {
            "none" => Ok(None),
            word => read(word).map(Some),
        }
    }

    fn price(&mut self) -> Result<Price, String> {
        Ok(Price { amount: self.number("a price")?, currency: self.text("a currency")? })
    }

    fn end(&mut self) -> Result<(), String> {
        match self.rest.next() {
            None => Ok(()),
            Some(word) => Err(format!("'{word}' is not expected here")),
        }
    }
}

fn whole_number<N: std::str::FromStr>(word: &str) -> Result<N, String> {
    word.parse().map_err(|_| format!("'{word}' is not a number that fits here"))
}

/// `10:00:00`, or `10:00:00.000001`.
fn clock_time(word: &str) -> Result<i64, String> {
    let not_a_time = || format!("'{word}' is not a time like 10:00:00");
    let (clock, fraction) = word.split_once('.').unwrap_or((word, "0"));
    let parts: Vec<i64> = clock.split(':').map(|part| part.parse().unwrap_or(-1)).collect();
    let [hours @ 0..24, minutes @ 0..60, seconds @ 0..60] = parts.as_slice() else {
        return Err(not_a_time());
    };
    let is_fraction = fraction.len() <= 6 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let micros: i64 =
        format!("{fraction:0<6}").parse().ok().filter(|_| is_fraction).ok_or_else(not_a_time)?;
    Ok(DAY_START_US + ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// A clock time, or a step like `+5s` (`us`, `ms`, `s`, `m`); never back.
fn later(word: &str, now_us: i64) -> Result<i64, String> {
    let Some(step) = word.strip_prefix('+') else {
        let then_us = clock_time(word)?;
        return match then_us < now_us {
            true => Err(format!("'{word}' is before the time of the line above")),
            false => Ok(then_us),
        };
    };
    let digits = step.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let unit_us = match step.strip_prefix(digits) {
        Some("us") => 1,
        Some("ms") => 1_000,
        Some("s") => 1_000_000,
        Some("m") => 60_000_000,
        _ => return Err(format!("'{word}' is not a step like +5s")),
    };
    Ok(now_us + whole_number::<u32>(digits).map(i64::from)? * unit_us)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("ok"),
            Self::Replay => f.write_str("replay"),
            Self::Order(order) => write!(f, "order {order}"),
            Self::ReplayOfOrder(order) => write!(f, "replay order {order}"),
            Self::Product(id) => write!(f, "product {id}"),
            Self::Refused { name, details } => {
                f.write_str(name)?;
                details.iter().try_for_each(|(label, detail)| write!(f, " {label} {detail}"))
            }
        }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::TimeUs(time_us) => {
                let (seconds, micros) = ((time_us - DAY_START_US) / 1_000_000, time_us % 1_000_000);
                let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
                write!(f, "{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
            }
            Self::Orders(orders) if orders.is_empty() => f.write_str("none"),
            Self::Orders(orders) => {
                let orders: Vec<_> = orders.iter().map(u32::to_string).collect();
                f.write_str(&orders.join(","))
            }
        }
    }
}
