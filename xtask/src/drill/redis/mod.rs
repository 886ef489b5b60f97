//! `cargo xtask drill --engine redis`: real nodes, workers, Redis and PostgreSQL, and everything that can happen to them.
//!
//! Each round a crowd buys at all nodes while faults of one kind happen, several in a row (`--overlap`: two kinds at
//! once); then everything is mended, and what every buyer was told is held against what the shop has. The next round
//! goes on with the same data.

mod buyer;
mod fault;
mod judge;
mod plan;
mod stage;
mod stock;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use self::buyer::{Buyer, LIMIT, LIMITED, Loss, PLENTY, SCARCE};
use self::fault::{Broken, Fault, mend, strike};
use self::judge::Verdict;
pub(crate) use self::plan::RedisArgs;
use self::plan::{EDGES_OF_OUTAGE, Round, Tallies};
use self::stage::Stage;
use self::stock::Keeper;
use super::{DrillReport, complain};
use crate::say::say;

/// Everything answers again within this time.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Purchases of a round that each buyer asks for again.
const REPLAYS: usize = 40;

/// Drills and judges. Records and logs are in `folder`.
pub(super) fn run(
    binary: &Path,
    folder: &Path,
    seed: u64,
    buyers: usize,
    args: &RedisArgs,
) -> Result<DrillReport> {
    let mut random = SmallRng::seed_from_u64(seed);
    let rounds = plan::plan(args, &mut random)?;
    let begun = Instant::now();
    let mut drill = Drill::open(binary, folder, seed, buyers, args)?;
    say(format!("drill: {} rounds; started in {:.1} s", rounds.len(), begun.elapsed().as_secs_f64()));
    let result = drill.all(&rounds, &mut random, args);
    if result.is_err() {
        drill.stage.keep_outputs()?;
        // A server that is down has no state to tell.
        drill.stage.keep_state().ok();
    }
    let Drill { tallies, verdict, buyers, .. } = &drill;
    say(tallies.table());
    let purchases: usize = buyers.iter().map(|buyer| buyer.purchases.len()).sum();
    let replays: u64 = buyers.iter().map(|buyer| buyer.replays).sum();
    say(format!(
        "drill: {purchases} purchases, {} orders ({} cancelled, {} revoked), {} vanished with Redis and a node, \
         {} found late, {replays} replays, {} audits, {:.0} s, seed {seed}",
        verdict.orders,
        verdict.cancelled,
        verdict.revoked,
        verdict.vanished,
        verdict.late,
        verdict.audits,
        begun.elapsed().as_secs_f64()
    ));
    result?;
    complain(tallies.missing(&rounds, args))?;
    Ok(DrillReport { count: tallies.count(), what: "faults", purchases })
}

struct Drill {
    stage: Stage,
    buyers: Vec<Buyer>,
    keeper: Keeper,
    initial: BTreeMap<&'static str, u64>,
    tallies: Tallies,
    verdict: Verdict,
    round: u32,
}

impl Drill {
    fn open(binary: &Path, folder: &Path, seed: u64, buyers: usize, args: &RedisArgs) -> Result<Drill> {
        let mut stage = Stage::open(binary, folder)?;
        stage.wait_ready(READY_WITHIN)?;
        let nodes = stage.addresses();
        let pause = Duration::from_millis(args.pause_ms);
        let new_buyer = |number| Buyer::new(folder, number, seed, &nodes, pause);
        let drill = Drill {
            buyers: (0..buyers).map(new_buyer).collect::<Result<_>>()?,
            keeper: Keeper::new(folder, seed, &nodes)?,
            initial: BTreeMap::from([(PLENTY, 500_000_000), (SCARCE, 300), (LIMITED, 100_000)]),
            stage,
            tallies: Tallies::default(),
            verdict: Verdict::default(),
            round: 0,
        };
        drill.open_products()?;
        Ok(drill)
    }

    fn open_products(&self) -> Result<()> {
        let price = json!({"amount": 100, "currency": "EUR"});
        for (id, stock) in &self.initial {
            let limit = (*id == LIMITED).then_some(LIMIT);
            let product =
                json!({"id": id, "name": id, "price": price, "stock": stock, "limit_per_customer": limit});
            let answer = self.stage.client(0)?.post("/v1/admin/products", &product)?;
            ensure!(answer.status == 201, "cannot open {id}: {} {}", answer.status, answer.text());
        }
        judge::settle(&self.stage).map(drop)
    }

    fn all(&mut self, rounds: &[Round], random: &mut SmallRng, args: &RedisArgs) -> Result<()> {
        for (index, round) in rounds.iter().enumerate() {
            let Some(first) = round.faults.first() else { continue };
            let begun = Instant::now();
            self.round += 1;
            let faults = if args.overlap { paired(&round.faults, random) } else { alone(&round.faults) };
            let loss = loss_of(&faults);
            let words =
                format!("round {} of {}: {} {}", index + 1, rounds.len(), round.faults.len(), first.name());
            self.buy_during(loss, |stage, tallies| act(&faults, stage, tallies, random, args))
                .with_context(|| words.clone())?;
            let acted = begun.elapsed();
            self.judge(loss).with_context(|| words.clone())?;
            let judged = begun.elapsed().saturating_sub(acted);
            self.tallies.judged(*first, judged);
            let (acted, judged) = (acted.as_secs_f64(), judged.as_secs_f64());
            say(format!(
                "drill: {words}, {acted:.1} s, mended and judged {judged:.1} s, {} orders",
                self.verdict.orders
            ));
        }
        self.replay(0..=u32::MAX, usize::MAX).context("replaying every key at the end")?;
        judge::settle(&self.stage).map(drop)
    }

    /// Lets everybody buy while `faults` happen.
    fn buy_during(
        &mut self,
        loss: Loss,
        faults: impl FnOnce(&mut Stage, &mut Tallies) -> Result<()>,
    ) -> Result<()> {
        let over = AtomicBool::new(false);
        let is_over = &|| over.load(Ordering::Relaxed);
        let (stage, tallies, keeper, buyers) =
            (&mut self.stage, &mut self.tallies, &mut self.keeper, &mut self.buyers);
        let round = self.round;
        std::thread::scope(|scope| {
            let mut crowd = vec![scope.spawn(move || keeper.run(is_over))];
            for buyer in buyers {
                (buyer.round, buyer.loss) = (round, loss);
                crowd.push(scope.spawn(move || buyer.run(is_over)));
            }
            let done = faults(stage, tallies);
            over.store(true, Ordering::Relaxed);
            for person in crowd {
                person.join().unwrap_or_else(|_| bail!("a buyer panicked"))?;
            }
            done
        })
    }

    /// Everything is mended by now.
    fn judge(&mut self, loss: Loss) -> Result<()> {
        complain(self.stage.ended_by_themselves()?)?;
        self.stage.wait_ready(READY_WITHIN)?;
        each(&mut self.buyers, Buyer::resolve)?;
        self.keeper.resolve()?;
        self.complain()?;
        let rest = self.buyers.first_mut().context("a drill needs buyers")?;
        let mut audit = judge::sell_the_rest(&self.stage, rest)?;
        let mut listed = judge::list(&self.stage)?;
        complain(judge::adopt(&listed, &mut self.buyers, &mut self.verdict)?)?;
        let mut differences = judge::count(&audit, &listed, &self.initial, &self.keeper.moved)?;
        if !differences.is_empty() {
            // What was on its way while it was counted has arrived.
            audit = judge::settle(&self.stage)?;
            listed = judge::list(&self.stage)?;
            differences = judge::count(&audit, &listed, &self.initial, &self.keeper.moved)?;
        }
        complain(differences)?;
        complain(judge::compare(&listed, &mut self.buyers, loss, &mut self.verdict))?;
        self.verdict.audits += 1;
        self.replay(self.round..=self.round, REPLAYS)
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
}

/// Does something with every buyer at once.
fn each(buyers: &mut [Buyer], work: impl Fn(&mut Buyer) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    std::thread::scope(|scope| {
        let workers: Vec<_> = buyers.iter_mut().map(|buyer| scope.spawn(move || work(buyer))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a buyer panicked")))
    })
}

/// Each fault by itself.
fn alone(faults: &[Fault]) -> Vec<Vec<Fault>> {
    faults.iter().map(|fault| vec![*fault]).collect()
}

/// Each fault with another one.
fn paired(faults: &[Fault], random: &mut SmallRng) -> Vec<Vec<Fault>> {
    let pair = |fault: &Fault| match fault {
        Fault::Outage(_) => vec![*fault],
        _ => vec![*fault, plan::second(random)],
    };
    faults.iter().map(pair).collect()
}

/// What the faults of a round may take away.
fn loss_of(groups: &[Vec<Fault>]) -> Loss {
    let all = || groups.iter().flatten();
    let takes_from_redis = all().any(|fault| fault.loss() != Loss::None);
    match (takes_from_redis, all().any(|fault| *fault == Fault::NodeKill)) {
        (false, _) => Loss::None,
        (true, false) => Loss::Redis,
        (true, true) => Loss::RedisAndNodes,
    }
}

/// Does all faults of a round, one group after the other, and mends everything.
fn act(
    groups: &[Vec<Fault>],
    stage: &mut Stage,
    tallies: &mut Tallies,
    random: &mut SmallRng,
    args: &RedisArgs,
) -> Result<()> {
    wait(random, 200);
    for group in groups {
        let mut broken = Vec::new();
        let begun = Instant::now();
        for fault in group {
            if !broken.is_empty() {
                wait(random, 80);
            }
            broken.push(strike(*fault, stage, random).with_context(|| fault.name())?);
            if let Fault::Outage(lasting) = fault {
                cut_during(*lasting, args.cuts / 8, stage, tallies, random)?;
            }
        }
        if broken.iter().any(|broken| *broken != Broken::Nothing) {
            wait(random, 40);
        }
        // Processes need servers to start with.
        broken.sort_by_key(|broken| !matches!(broken, Broken::Redis | Broken::Postgres));
        broken.into_iter().try_for_each(|broken| mend(broken, stage))?;
        group.iter().for_each(|fault| tallies.add(*fault, begun.elapsed()));
        wait(random, group.iter().map(|fault| rest_after_ms(*fault)).max().unwrap_or_default());
    }
    wait(random, 100);
    Ok(())
}

/// Cuts `count` connections on each edge that is in use while PostgreSQL is away, spread over the whole time.
fn cut_during(
    lasting: Duration,
    count: usize,
    stage: &mut Stage,
    tallies: &mut Tallies,
    random: &mut SmallRng,
) -> Result<()> {
    let begun = Instant::now();
    for number in 0..count {
        for edge in EDGES_OF_OUTAGE {
            strike(Fault::Cut(edge), stage, random)?;
            tallies.add(Fault::Cut(edge), Duration::ZERO);
        }
        let until = lasting.mul_f64((number + 1) as f64 / count as f64);
        std::thread::sleep(until.saturating_sub(begun.elapsed()));
    }
    std::thread::sleep(lasting.saturating_sub(begun.elapsed()));
    Ok(())
}

/// How long the shop may go on after a fault, at most, before the next one: sometimes until it sells again.
fn rest_after_ms(fault: Fault) -> u64 {
    match fault {
        Fault::RedisKill | Fault::Flush | Fault::Truncation | Fault::Failover => 1_000,
        Fault::PostgresKill => 300,
        Fault::WorkerKill | Fault::NodeKill | Fault::WorkerPause | Fault::Step(_) | Fault::Outage(_) => 80,
        Fault::Cut(_) => 10,
    }
}

fn wait(random: &mut SmallRng, most_ms: u64) {
    std::thread::sleep(Duration::from_micros(random.random_range(0..=most_ms * 1_000)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_may_vanish_only_where_redis_and_nodes_are_lost() {
        assert_eq!(loss_of(&alone(&[Fault::RedisKill, Fault::NodeKill])), Loss::None);
        assert_eq!(loss_of(&alone(&[Fault::Flush])), Loss::Redis);
        assert_eq!(loss_of(&[vec![Fault::Truncation, Fault::NodeKill]]), Loss::RedisAndNodes);
    }
}
