//! Everybody who buys, and the person who adds and takes units meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::json;

use super::buyer::{Buyer, LIMIT, LIMITED, Loss, PLENTY, Promise, SCARCE, each};
use super::judge::{self, Judge, Verdict};
use super::processes::Shop;
use super::stock::Keeper;
use crate::drill::complain;

/// Every node knows of a new product within this time.
const LISTED_WITHIN: Duration = Duration::from_secs(10);
/// Purchases of a round that each buyer asks for again.
const REPLAYS: usize = 40;

/// The crowd of one drill.
pub(super) struct Crowd {
    pub(super) buyers: Vec<Buyer>,
    keeper: Keeper,
    initial: BTreeMap<&'static str, u64>,
    promise: Promise,
    pub(super) verdict: Verdict,
    round: u32,
}

impl Crowd {
    /// A crowd with its records in `folder`, of `buyers` who rest `pause` between purchases on average.
    pub(super) fn new(
        folder: &Path,
        seed: u64,
        shop: &Shop,
        buyers: usize,
        pause: Duration,
    ) -> Result<Crowd> {
        let (nodes, promise) = (shop.addresses(), shop.promise());
        let new_buyer = |number| Buyer::new(folder, number, seed, (&nodes, promise), pause);
        Ok(Crowd {
            buyers: (0..buyers).map(new_buyer).collect::<Result<_>>()?,
            keeper: Keeper::new(folder, seed, &nodes)?,
            initial: BTreeMap::from([(PLENTY, 500_000_000), (SCARCE, 300), (LIMITED, 100_000)]),
            promise,
            verdict: Verdict::default(),
            round: 0,
        })
    }

    /// Opens everything that is sold.
    pub(super) fn open_products(&self, judge: &Judge<'_>) -> Result<()> {
        let price = json!({"amount": 100, "currency": "EUR"});
        for (id, stock) in &self.initial {
            let limit = (*id == LIMITED).then_some(LIMIT);
            let product =
                json!({"id": id, "name": id, "price": price, "stock": stock, "limit_per_customer": limit});
            let answer = judge.shop.client(0)?.post("/v1/admin/products", &product)?;
            ensure!(answer.status == 201, "cannot open {id}: {} {}", answer.status, answer.text());
        }
        self.wait_listed(judge.shop)?;
        judge.settle().map(drop)
    }

    /// Waits until every node knows of every product.
    fn wait_listed(&self, shop: &Shop) -> Result<()> {
        let until = Instant::now() + LISTED_WITHIN;
        for mut client in shop.clients() {
            for id in self.initial.keys() {
                while client.get(&format!("/v1/products/{id}"))?.status != 200 {
                    ensure!(Instant::now() < until, "a node does not know of {id}");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        Ok(())
    }

    /// Lets everybody buy while `faults` happen: a new round.
    pub(super) fn buy_during(&mut self, loss: Loss, faults: impl FnOnce() -> Result<()>) -> Result<()> {
        self.round += 1;
        let over = AtomicBool::new(false);
        let is_over = &|| over.load(Ordering::Relaxed);
        let (keeper, buyers, round) = (&mut self.keeper, &mut self.buyers, self.round);
        std::thread::scope(|scope| {
            let mut people = vec![scope.spawn(move || keeper.run(is_over))];
            for buyer in buyers {
                (buyer.round, buyer.loss) = (round, loss);
                people.push(scope.spawn(move || buyer.run(is_over)));
            }
            let done = faults();
            over.store(true, Ordering::Relaxed);
            for person in people {
                person.join().unwrap_or_else(|_| bail!("a buyer panicked"))?;
            }
            done
        })
    }

    /// Holds what everybody was told against what the shop has. Everything is mended by now.
    pub(super) fn judge(&mut self, judge: &Judge<'_>, loss: Loss) -> Result<()> {
        each(&mut self.buyers, Buyer::resolve)?;
        self.keeper.resolve()?;
        self.complain()?;
        let mut audit = judge.sell_the_rest(&mut self.buyers)?;
        let mut listed = judge.list()?;
        complain(judge::adopt(&listed, &mut self.buyers, &mut self.verdict)?)?;
        let mut differences = judge::count(&audit, &listed, &self.initial, &self.keeper.moved)?;
        if !differences.is_empty() {
            // What was on its way while it was counted has arrived.
            audit = judge.settle()?;
            listed = judge.list()?;
            differences = judge::count(&audit, &listed, &self.initial, &self.keeper.moved)?;
        }
        complain(differences)?;
        complain(judge::compare(&listed, &mut self.buyers, (loss, self.promise), &mut self.verdict))?;
        self.verdict.audits += 1;
        self.replay(self.round..=self.round, REPLAYS)
    }

    /// Asks again for everything that was ever ordered.
    pub(super) fn replay_all(&mut self) -> Result<()> {
        self.replay(0..=u32::MAX, usize::MAX)
    }

    /// Asks again for purchases of `rounds`: each key has its order, and no node forgets it.
    fn replay(&mut self, rounds: std::ops::RangeInclusive<u32>, most: usize) -> Result<()> {
        each(&mut self.buyers, |buyer| {
            buyer.loss = Loss::None;
            buyer.replay(rounds.clone(), most)
        })?;
        self.complain()
    }

    fn complain(&mut self) -> Result<()> {
        let mut findings = std::mem::take(&mut self.keeper.findings);
        findings.extend(self.buyers.iter_mut().flat_map(|buyer| buyer.findings.drain(..)));
        complain(findings)
    }

    /// How many purchases there were.
    pub(super) fn purchases(&self) -> usize {
        self.buyers.iter().map(|buyer| buyer.purchases.len()).sum()
    }

    /// What everybody did, in one line.
    pub(super) fn summary(&self) -> String {
        let replays: u64 = self.buyers.iter().map(|buyer| buyer.replays).sum();
        let Verdict { audits, orders, cancelled, rejected, revoked, vanished, late } = &self.verdict;
        let ends = match self.promise {
            Promise::Units => {
                format!(
                    "{cancelled} cancelled, {revoked} revoked), {vanished} vanished with Redis and a node"
                )
            }
            Promise::Decision => format!("{cancelled} cancelled, {rejected} rejected)"),
        };
        let purchases = self.purchases();
        format!(
            "{purchases} purchases, {orders} orders ({ends}, {late} found late, {replays} replays, {audits} audits"
        )
    }
}
