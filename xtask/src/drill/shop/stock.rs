//! The person who adds and takes units while everybody buys, each time with a key, and knows what there must be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use yoink_testkit::{ADMIN_KEY, Client};

use super::buyer::{LIMITED, PLENTY, SCARCE};
use crate::drill::record::{Line, Record};

/// Changes without an answer, at most.
const OPEN_MAX: usize = 60;
const PAUSE: Duration = Duration::from_millis(60);
const DEFINITE_WITHIN: Duration = Duration::from_secs(30);

/// Units that were given to a product, and taken from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::drill) struct Moved {
    pub(in crate::drill) stocked: i64,
    pub(in crate::drill) withheld: i64,
}

/// One change of stock.
#[derive(Clone, Debug)]
struct Change {
    key: String,
    product: &'static str,
    delta: i64,
    is_done: bool,
}

/// Who changes stock.
pub(in crate::drill) struct Keeper {
    clients: Vec<Client>,
    random: SmallRng,
    record: Record,
    open: Vec<Change>,
    changes: usize,
    /// By product.
    pub(in crate::drill) moved: BTreeMap<&'static str, Moved>,
    /// What must not have happened.
    pub(in crate::drill) findings: Vec<String>,
}

impl Keeper {
    /// A person with a record in `folder`.
    pub(in crate::drill) fn new(folder: &Path, seed: u64, nodes: &[SocketAddr]) -> Result<Keeper> {
        Ok(Keeper {
            clients: nodes.iter().map(|node| Client::new(*node).with_key(ADMIN_KEY)).collect(),
            random: SmallRng::seed_from_u64(seed ^ 0x5eed),
            record: Record::append_to(&folder.join("stock.jsonl"))?,
            open: Vec::new(),
            changes: 0,
            moved: BTreeMap::new(),
            findings: Vec::new(),
        })
    }

    /// Changes stock now and then, until `is_over` says so.
    pub(in crate::drill) fn run(&mut self, is_over: &dyn Fn() -> bool) -> Result<()> {
        while !is_over() {
            if self.open.len() >= OPEN_MAX {
                std::thread::sleep(PAUSE);
                continue;
            }
            let (product, delta) = match self.random.random_range(0..10_u32) {
                0..6 => (SCARCE, self.random.random_range(1..=12)),
                6..8 => (LIMITED, self.random.random_range(1..=5)),
                8 => (PLENTY, -self.random.random_range(1..=4)),
                _ => (SCARCE, -self.random.random_range(1..=2)),
            };
            self.changes += 1;
            let key = format!("stock-{}", self.changes);
            let change = self.ask(Change { key, product, delta, is_done: false })?;
            // A restock that is done is sometimes asked for again: nothing may come of it.
            if !change.is_done || (delta > 0 && self.random.random_range(0..4_u32) == 0) {
                self.open.push(change);
            }
            std::thread::sleep(PAUSE.mul_f64(self.random.random_range(0.2..1.8)));
        }
        Ok(())
    }

    /// Asks again for every change that has no definite answer.
    pub(in crate::drill) fn resolve(&mut self) -> Result<()> {
        for mut change in std::mem::take(&mut self.open) {
            let until = Instant::now() + DEFINITE_WITHIN;
            change = self.ask(change)?;
            while !change.is_done && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(50));
                change = self.ask(change)?;
            }
            if !change.is_done {
                let Change { key, product, delta, .. } = change;
                self.findings
                    .push(format!("{key}: a healthy shop does not say whether {product} has {delta} more"));
            }
        }
        Ok(())
    }

    /// Asks once. Counted when it is answered for the first time.
    fn ask(&mut self, mut change: Change) -> Result<Change> {
        let Change { key, product, delta, .. } = change.clone();
        self.record.write(&Line::Adjust { key: key.clone(), product: product.to_owned(), delta })?;
        let index = self.random.random_range(0..self.clients.len());
        let Some(client) = self.clients.get_mut(index) else { return Ok(change) };
        let path = format!("/v1/admin/products/{product}/stock");
        let body = json!({"delta": delta, "reason": "drill"});
        let Ok(answer) = client.post_with_key(&path, &key, &body) else { return Ok(change) };
        self.record.write(&Line::Adjusted { key: key.clone(), status: answer.status })?;
        match answer.status {
            200 => {
                if !change.is_done {
                    let moved = self.moved.entry(product).or_default();
                    moved.stocked += delta.max(0);
                    moved.withheld += (-delta).max(0);
                }
                change.is_done = true;
            }
            503 => {}
            409 if delta < 0 && !change.is_done => change.is_done = true,
            status => {
                let text = answer.text();
                self.findings.push(format!("{key}: {product} cannot have {delta} more: {status} {text}"));
                change.is_done = true;
            }
        }
        Ok(change)
    }
}
