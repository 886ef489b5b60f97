//! What a look at a sale shows, held against what this node knows of it.

use std::cmp::Ordering;

use super::filling::description;
use super::shown::{Shown, epoch_of};
use crate::postgres::ProductRow;

/// What a look reads of a sale.
pub(crate) const SALE_FIELDS: [&str; 19] = [
    "epoch",
    "server",
    "state",
    "available",
    "number",
    "done",
    "version",
    "credited",
    "granted",
    "limit",
    "max",
    "starts_at",
    "ends_at",
    "paused",
    "price",
    "delivered",
    "given",
    "product",
    "rescue",
];

/// What a look at Redis found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Selling,
    Offers,
    /// It takes offers for long, and the ledger does not know it: its loader died.
    Unopened,
    /// The catalogue is behind, or the ledger went back.
    NewerEpoch,
    /// Not there, not of this server, or not open.
    Missing,
    /// It contradicts itself or the ledger: somebody wrote, deleted or trimmed there.
    Wrong,
}

/// What a look found of a sale: the values of [`SALE_FIELDS`].
pub(crate) struct Sale(pub(crate) Vec<Option<String>>);

/// Figures of a sale, as far as a look needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SaleFigures {
    pub(crate) available: u64,
    pub(crate) credited: u64,
    pub(crate) granted: u64,
    /// Grants ever made in the epoch.
    pub(crate) number: u64,
    /// Of them, those that have left the stream.
    pub(crate) done: u64,
}

/// What Redis says about a product, and what the ledger said when this node read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Same,
    /// The ledger has been told more since.
    Older,
    /// This node's row is behind, or nobody ever said so.
    Newer,
    /// Another thing, or nothing that can be read.
    Wrong,
}

impl Sale {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let place = SALE_FIELDS.iter().position(|field| *field == name)?;
        self.0.get(place)?.as_deref()
    }

    fn figure(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// `None` if that can be none.
    pub(crate) fn epoch(&self) -> Option<i32> {
        self.text("epoch").and_then(epoch_of)
    }

    /// Whether it is that of this epoch.
    pub(crate) fn is_of(&self, epoch: i32) -> bool {
        self.epoch() == Some(epoch)
    }

    /// What it shows of the ledger; `None` if its epoch is none.
    pub(crate) fn shown(&self) -> Option<Shown> {
        Shown::of(|name| self.text(name))
    }

    /// A restored ledger may give a number a second time.
    pub(crate) fn is_of_another_product_than(&self, row: &ProductRow) -> bool {
        self.text("product").is_some_and(|id| id != row.id.as_str())
    }

    /// By how many units the figures differ from what they should be; one that is none counts as 0.
    pub(crate) fn difference(&self) -> i64 {
        let units = |name| self.text(name).and_then(|value| value.parse::<i64>().ok()).unwrap_or(0);
        units("available").saturating_sub(units("credited").saturating_sub(units("granted")))
    }

    /// Why nothing can be sold from it as this epoch on this server, whatever its figures are.
    pub(crate) fn obstacle(&self, epoch: i32, server: &str) -> Option<Seen> {
        let Some(found) = self.epoch() else { return Some(Seen::Missing) };
        match found.cmp(&epoch) {
            Ordering::Less => Some(Seen::Missing),
            Ordering::Greater => Some(Seen::NewerEpoch),
            Ordering::Equal => {
                let is_open = matches!(self.text("state"), Some("open" | "offers"));
                (!is_open || self.text("server") != Some(server)).then_some(Seen::Missing)
            }
        }
    }

    /// `None` if one of them is none, or one of those that are held against the ledger.
    pub(crate) fn figures(&self) -> Option<SaleFigures> {
        let _of_ledger = (self.figure("delivered")?, self.figure("given")?);
        Some(SaleFigures {
            available: self.figure("available")?,
            credited: self.figure("credited")?,
            granted: self.figure("granted")?,
            number: self.figure("number")?,
            done: self.figure("done")?,
        })
    }

    /// How what Redis says about the product compares with what the ledger says. Every change of that raises the
    /// version, and Redis is told both at once.
    pub(crate) fn told(&self, row: &ProductRow) -> Told {
        let Some(version) = self.figure("version") else { return Told::Wrong };
        match version.cmp(&row.version.unsigned_abs()) {
            Ordering::Less => Told::Older,
            Ordering::Greater => Told::Newer,
            Ordering::Equal if self.differences(row).is_empty() => Told::Same,
            Ordering::Equal => Told::Wrong,
        }
    }

    /// Where what Redis says about the product is not what the ledger says, in words.
    pub(crate) fn differences(&self, row: &ProductRow) -> Vec<String> {
        let mut expected = description(row);
        expected.push(("version", row.version.to_string()));
        let differing = expected.into_iter().filter(|(name, value)| self.text(name) != Some(value.as_str()));
        let in_words = |(name, value): (&str, String)| match self.text(name) {
            Some(found) => format!("{name} is {found:?} in Redis and {value:?} in the ledger"),
            None => format!("{name} is not in Redis and {value:?} in the ledger"),
        };
        differing.map(in_words).collect()
    }
}

impl SaleFigures {
    /// Whether the units are what was given, less what was granted.
    pub(crate) fn adds_up(&self) -> bool {
        self.credited.checked_sub(self.granted) == Some(self.available)
    }
}
