//! What can be run: every strategy, with the defect that it carries.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::scene::Act;
use crate::shop::{CONNECTIONS, Shop, Strategy};
use crate::strategies;

/// What an audit can find. Also the name of the figure that counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// More units were sold than there were.
    Oversold,
    /// A buyer was told yes, and the books know nothing of it.
    Lost,
    /// One request became two orders.
    Duplicated,
    /// A buyer was told yes, and his order stands otherwise in the books: under another id, as another request's or
    /// customer's, or for another product or quantity.
    Mismatched,
    /// The books have an order of a request that nobody sent.
    Phantom,
    /// Units are neither sold nor for sale.
    Stuck,
}

impl Broken {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Broken::Oversold => "oversold",
            Broken::Lost => "lost",
            Broken::Duplicated => "duplicated",
            Broken::Mismatched => "mismatched",
            Broken::Phantom => "phantom",
            Broken::Stuck => "stuck",
        }
    }
}

/// Where a strategy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A generation of the older systems.
    Generation,
    /// A bug that people ship believing that they have fixed it.
    Museum,
    /// One of Yoink's engines: the real binary.
    Engine,
}

/// What a strategy breaks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defect {
    /// What the audit finds in every run.
    pub breaks: Broken,
    /// What it may find besides, because it comes of the same defect.
    pub also: &'static [Broken],
    /// How it comes about, in one sentence.
    pub how: &'static str,
}

impl Defect {
    /// Its name; then, in brackets, what comes with it.
    #[must_use]
    pub fn name(&self) -> String {
        let also: Vec<&str> = self.also.iter().map(|broken| broken.name()).collect();
        match also.is_empty() {
            true => self.breaks.name().to_owned(),
            false => format!("{} (also {})", self.breaks.name(), also.join(", ")),
        }
    }
}

/// The servers that a strategy needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// PostgreSQL.
    pub postgres: bool,
    /// Redis, with these lines of configuration besides the safe ones.
    pub redis: Option<&'static [&'static str]>,
    /// RabbitMQ.
    pub rabbit: bool,
}

/// Where the number stands from which a shop sells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// `products.stock` in PostgreSQL.
    Postgres,
    /// The key `stock:ID` in Redis.
    Redis,
}

/// Who sells.
#[derive(Clone, Copy, Debug)]
pub enum Seller {
    /// A shop of the lab's.
    Strategy {
        /// How it begins.
        open: Open,
        /// The number that it sells from.
        shelf: Shelf,
        /// Connections to PostgreSQL that its buyers and workers share.
        connections: usize,
    },
    /// `yoink serve --engine NAME`.
    Engine(&'static str),
}

impl Seller {
    /// A shop of the lab's with the shop's own pool of connections to PostgreSQL.
    #[must_use]
    pub const fn strategy(open: Open, shelf: Shelf) -> Seller {
        Seller::Strategy { open, shelf, connections: CONNECTIONS }
    }
}

/// Opens a strategy in a shop.
pub type Open = fn(Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>>;

/// One way of selling.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name on the command line.
    pub name: &'static str,
    /// Where it comes from.
    pub kind: Kind,
    /// What it does, in one line.
    pub line: &'static str,
    /// What it breaks; `None` for the correct ones.
    pub defect: Option<Defect>,
    /// What is different in a design without the defect, or why this one has none.
    pub repair: &'static str,
    /// The servers that it needs.
    pub needs: Needs,
    /// Statements for tables and rules of its own, beside `products` and `orders`.
    pub schema: &'static str,
    /// What happens in a run.
    pub scene: &'static [Act],
    /// What happens at a named point of the shop's code, as [`crate::shop::Points::parse`] reads it.
    pub point: Option<&'static str>,
    /// Who sells.
    pub seller: Seller,
}

impl Entry {
    /// Connections to PostgreSQL that its buyers and workers share in the shop; `None` if an engine sells, which has pools
    /// of its own.
    #[must_use]
    pub fn connections(&self) -> Option<usize> {
        match self.seller {
            Seller::Strategy { connections, .. } => Some(connections),
            Seller::Engine(_) => None,
        }
    }

    /// Whether its defect may show in this way.
    #[must_use]
    pub fn may_break(&self, broken: Broken) -> bool {
        self.defect.is_some_and(|defect| defect.breaks == broken || defect.also.contains(&broken))
    }

    /// What is done to it in a run, in one sentence.
    #[must_use]
    pub fn scene_in_words(&self) -> String {
        let acts = self.scene.iter().map(|act| act.in_words());
        let acts: Vec<String> = acts.chain(self.point.map(point_in_words)).collect();
        acts.join("; ")
    }
}

fn point_in_words(point: &str) -> String {
    let parts: Vec<&str> = point.split(':').collect();
    match parts.as_slice() {
        [place, nth, "die"] => format!("at \"{place}\" the process dies under request {nth}"),
        [place, nth, "cut"] => format!("at \"{place}\" the answer to request {nth} is lost"),
        [place, nth, "pause", ms] => format!("at \"{place}\" request {nth} waits for {ms} ms"),
        _ => format!("at a named point: {point}"),
    }
}

/// All of them, in the order in which they are told: generations, bugs, engines.
#[must_use]
pub fn all() -> Vec<Entry> {
    strategies::ALL.to_vec()
}

/// The strategy called `name`.
#[must_use]
pub fn find(name: &str) -> Option<Entry> {
    strategies::ALL.iter().find(|entry| entry.name == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_told_of_every_strategy() {
        for entry in all() {
            let words = entry.scene_in_words();
            assert!(words.contains("buyers") && !words.contains("named point"), "{}: {words}", entry.name);
        }
        assert_eq!(point_in_words("a:3:die"), "at \"a\" the process dies under request 3");
        assert_eq!(point_in_words("a:1:pause:20"), "at \"a\" request 1 waits for 20 ms");
    }
}
