//! What a buyer did and saw, line by line, in a file of its own outside the process that is killed.
//!
//! An intent is written before the request leaves, an answer when it has arrived. A buyer without an answer leaves an
//! intent without one, which is the honest description of what it knows.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// What happened between a buyer and the shop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A purchase is about to be asked for, for the first time or again.
    Buy(Wish),
    /// The purchase was accepted.
    Accepted { key: String, order: String },
    /// The purchase was refused, so nothing happened.
    Refused { key: String, status: u16 },
    /// A cancellation is about to be asked for.
    Cancel { key: String },
    /// The cancellation was carried out.
    Cancelled { key: String },
    /// Units are about to be added, or taken if below 0.
    Adjust { key: String, product: String, delta: i64 },
    /// That was answered.
    Adjusted { key: String, status: u16 },
}

/// What a buyer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) key: String,
    pub(crate) customer: String,
    pub(crate) product: String,
    pub(crate) quantity: u64,
}

impl Wish {
    /// The body of the request.
    pub(crate) fn body(&self) -> Value {
        json!({"customer_id": self.customer, "product_id": self.product, "quantity": self.quantity})
    }
}

impl Line {
    fn to_json(&self) -> Value {
        match self {
            Line::Buy(wish) => json!({"buy": wish.key, "customer": wish.customer, "product": wish.product,
                "quantity": wish.quantity}),
            Line::Accepted { key, order } => json!({"accepted": key, "order": order}),
            Line::Refused { key, status } => json!({"refused": key, "status": status}),
            Line::Cancel { key } => json!({"cancel": key}),
            Line::Cancelled { key } => json!({"cancelled": key}),
            Line::Adjust { key, product, delta } => {
                json!({"adjust": key, "product": product, "delta": delta})
            }
            Line::Adjusted { key, status } => json!({"adjusted": key, "status": status}),
        }
    }

    fn parse(text: &str) -> Option<Line> {
        let value: Value = serde_json::from_str(text).ok()?;
        let field = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| value.get(name).and_then(Value::as_u64);
        if let Some(key) = field("buy") {
            let wish = Wish {
                key,
                customer: field("customer")?,
                product: field("product")?,
                quantity: number("quantity")?,
            };
            return Some(Line::Buy(wish));
        }
        if let Some(key) = field("accepted") {
            return Some(Line::Accepted { key, order: field("order")? });
        }
        if let Some(key) = field("refused") {
            return Some(Line::Refused { key, status: u16::try_from(number("status")?).ok()? });
        }
        let status = || u16::try_from(number("status")?).ok();
        if let Some(key) = field("adjust") {
            let delta = value.get("delta").and_then(Value::as_i64)?;
            return Some(Line::Adjust { key, product: field("product")?, delta });
        }
        if let Some(key) = field("adjusted") {
            return Some(Line::Adjusted { key, status: status()? });
        }
        field("cancel")
            .map(|key| Line::Cancel { key })
            .or_else(|| field("cancelled").map(|key| Line::Cancelled { key }))
    }
}

/// One purchase as its buyer knows it.
#[derive(Clone, Debug)]
pub(crate) struct Purchase {
    pub(crate) wish: Wish,
    /// Every order id that was ever seen for it. More than one is a finding.
    pub(crate) orders: BTreeSet<String>,
    /// Whether its last request has no answer.
    pub(crate) is_open: bool,
    pub(crate) cancel: Cancel,
}

/// How far a cancellation got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cancel {
    Never,
    Asked,
    Done,
}

/// All that a buyer knows.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) purchases: Vec<Purchase>,
    by_key: HashMap<String, usize>,
}

impl Book {
    /// Takes a line in.
    pub(crate) fn add(&mut self, line: &Line) {
        match line {
            Line::Buy(wish) => match self.get_mut(&wish.key) {
                Some(purchase) => purchase.is_open = true,
                None => {
                    self.by_key.insert(wish.key.clone(), self.purchases.len());
                    let wish = wish.clone();
                    let orders = BTreeSet::new();
                    self.purchases.push(Purchase { wish, orders, is_open: true, cancel: Cancel::Never });
                }
            },
            Line::Accepted { key, order } => {
                if let Some(purchase) = self.get_mut(key) {
                    purchase.is_open = false;
                    purchase.orders.insert(order.clone());
                }
            }
            Line::Refused { key, .. } => {
                if let Some(purchase) = self.get_mut(key) {
                    purchase.is_open = false;
                }
            }
            Line::Cancel { key } => self.cancel(key, Cancel::Asked),
            Line::Cancelled { key } => self.cancel(key, Cancel::Done),
            // Stock is no purchase's.
            Line::Adjust { .. } | Line::Adjusted { .. } => {}
        }
    }

    fn cancel(&mut self, key: &str, cancel: Cancel) {
        if let Some(purchase) = self.get_mut(key) {
            purchase.cancel = purchase.cancel.max(cancel);
        }
    }

    fn get_mut(&mut self, key: &str) -> Option<&mut Purchase> {
        let index = self.by_key.get(key)?;
        self.purchases.get_mut(*index)
    }
}

/// The file of one buyer.
#[derive(Debug)]
pub(crate) struct Record {
    file: File,
}

impl Record {
    /// Opens the file, or makes it.
    pub(crate) fn append_to(path: &Path) -> Result<Record> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Record { file: file.with_context(|| format!("cannot write the record {}", path.display()))? })
    }

    /// Writes a line; it has left this process when this returns.
    pub(crate) fn write(&mut self, line: &Line) -> Result<()> {
        let text = format!("{}\n", line.to_json());
        self.file.write_all(text.as_bytes()).context("cannot write to the record")
    }
}

/// Reads a whole record. A last line that was cut short is left out.
pub(crate) fn read(path: &Path) -> Result<Book> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut book = Book::default();
    let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
    for (number, line) in whole.lines().enumerate() {
        let line = Line::parse(line).with_context(|| {
            format!("line {} of {} is not a line of a record", number + 1, path.display())
        })?;
        book.add(&line);
    }
    Ok(book)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish { key: "k1".into(), customer: "ann".into(), product: "1".into(), quantity: 2 }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("buyer.jsonl");
        let mut record = Record::append_to(&path).unwrap();
        let key = || "k1".to_owned();
        let lines = [
            Line::Buy(wish()),
            Line::Refused { key: key(), status: 409 },
            Line::Buy(wish()),
            Line::Accepted { key: key(), order: "o1".into() },
            Line::Cancel { key: key() },
            Line::Cancelled { key: key() },
            Line::Adjust { key: key(), product: "1".into(), delta: -3 },
            Line::Adjusted { key: key(), status: 200 },
        ];
        for line in &lines {
            record.write(line).unwrap();
        }
        let book = read(&path).unwrap();
        let purchase = &book.purchases[0];
        assert_eq!((book.purchases.len(), purchase.is_open, purchase.cancel), (1, false, Cancel::Done));
        assert_eq!(purchase.orders.iter().collect::<Vec<_>>(), ["o1"]);
    }

    #[test]
    fn an_intent_without_an_answer_stays_open() {
        let mut book = Book::default();
        book.add(&Line::Buy(wish()));
        assert!(book.purchases[0].is_open);
    }

    #[test]
    fn a_line_in_the_middle_that_is_damaged_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("buyer.jsonl");
        std::fs::write(&path, "{\"buy\":\n{\"cancel\":\"k\"}\n{\"can").unwrap();
        assert!(read(&path).is_err());
        std::fs::write(&path, "{\"cancel\":\"k\"}\n{\"can").unwrap();
        assert!(read(&path).is_ok());
    }
}
