//! The rounds of a drill: each time a crowd buys at all nodes while faults of one kind happen, several in a row
//! (`--overlap`: two kinds at once); then everything is mended, and what every buyer was told is held against what the
//! shop has. The next round goes on with the same data.

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;

use super::buyer::Loss;
use super::crowd::Crowd;
use super::judge::Judge;
use super::processes::Shop;
use super::tally::Tallies;
use super::{Part, ShopArgs, wait};
use crate::drill::{DrillReport, complain};
use crate::say::say;

/// One kind of fault.
pub(in crate::drill) trait Fault: Copy + Debug + PartialEq + 'static {
    /// What it is called in the table. Those of cuts, and no others, begin with `cut`.
    fn name(self) -> &'static str;

    /// How long the shop may go on after it, at most, before the next one: sometimes until it sells again.
    fn rest_after_ms(self) -> u64;

    /// Faults that go well with it.
    fn seconds(self) -> &'static [Self];

    /// How many connections it cuts.
    fn cuts(self) -> usize;

    /// What the faults of a round may take away together.
    fn loss(all: &[Self]) -> Loss;
}

/// A shop with the servers of its engine.
pub(in crate::drill) trait Stage {
    type Fault: Fault;
    /// What is to be mended.
    type Broken;

    fn shop(&mut self) -> &mut Shop;

    /// Does it. What it does besides is counted by `tallies`.
    fn strike(
        &mut self,
        fault: Self::Fault,
        tallies: &mut Tallies,
        random: &mut SmallRng,
    ) -> Result<Option<Self::Broken>>;

    /// Whether processes cannot do without what is broken.
    fn is_server(broken: &Self::Broken) -> bool;

    /// Mends what a fault left broken.
    fn mend(&mut self, broken: Self::Broken) -> Result<()>;

    /// Does something with whoever judges the shop.
    fn with_judge<T>(&mut self, work: impl FnOnce(&Judge<'_>) -> Result<T>) -> Result<T>;

    /// What must hold besides, once a round was judged.
    fn judge_servers(&mut self) -> Result<()> {
        Ok(())
    }

    /// Writes down what its servers have, for whoever looks for the cause of a finding.
    fn keep_state(&self) -> Result<()>;
}

/// One crowd: what is done while it buys, one after the other, before everything is mended and judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::drill) struct Round<F> {
    pub(in crate::drill) faults: Vec<F>,
}

/// The rounds of a drill, in an order of chance, from how often each kind is done, and how often in one round.
pub(in crate::drill) fn plan<F: Fault>(
    kinds: Vec<(F, usize, usize)>,
    (only, part): (Option<&str>, Part),
    random: &mut SmallRng,
) -> Result<Vec<Round<F>>> {
    let mut rounds = Vec::new();
    for (fault, count, at_once) in kinds {
        if only.is_some_and(|only| !fault.name().starts_with(only)) {
            continue;
        }
        let mut left = count;
        while left > 0 {
            let some = left.min(at_once);
            rounds.push(Round { faults: vec![fault; some] });
            left -= some;
        }
    }
    // Before the order is one of chance: each round is in one part.
    let mut places = 0..;
    rounds.retain(|_| places.next().is_some_and(|place| part.has(place)));
    if rounds.is_empty() {
        bail!("nothing is to be done; the kinds are the names in the table of a whole drill");
    }
    rounds.shuffle(random);
    Ok(rounds)
}

/// A drill that is under way.
struct Drill<'a, S: Stage> {
    stage: S,
    crowd: Crowd,
    tallies: Tallies,
    random: SmallRng,
    args: &'a ShopArgs,
}

/// Drills and judges: `open` makes the stage. Records and logs are in `folder`.
pub(in crate::drill) fn run<S: Stage>(
    open: impl FnOnce() -> Result<S>,
    kinds: Vec<(S::Fault, usize, usize)>,
    (folder, seed, buyers, args): (&Path, u64, usize, &ShopArgs),
) -> Result<DrillReport> {
    let mut random = SmallRng::seed_from_u64(seed);
    let rounds = plan(kinds, (args.only.as_deref(), args.part), &mut random)?;
    let begun = Instant::now();
    let mut stage = open()?;
    let pause = Duration::from_millis(args.pause_ms);
    let crowd = Crowd::new(folder, seed, stage.shop(), buyers, pause)?;
    stage.with_judge(|judge| crowd.open_products(judge))?;
    say(format!("drill: {} rounds; started in {:.1} s", rounds.len(), begun.elapsed().as_secs_f64()));
    let mut drill = Drill { stage, crowd, tallies: Tallies::default(), random, args };
    let result = drill.all(&rounds);
    if result.is_err() {
        drill.stage.shop().keep_outputs()?;
        // A server that is down has no state to tell.
        drill.stage.keep_state().ok();
    }
    let Drill { crowd, tallies, .. } = &drill;
    say(tallies.table());
    say(format!("drill: {}, {:.0} s, seed {seed}", crowd.summary(), begun.elapsed().as_secs_f64()));
    result?;
    let faults = || rounds.iter().flat_map(|round| &round.faults);
    let cuts: usize = faults().map(|fault| fault.cuts()).sum();
    complain(tallies.missing(faults().map(|fault| fault.name()), cuts as u64))?;
    Ok(DrillReport { count: tallies.count(), what: "faults", purchases: crowd.purchases() })
}

impl<S: Stage> Drill<'_, S> {
    fn all(&mut self, rounds: &[Round<S::Fault>]) -> Result<()> {
        for (index, round) in rounds.iter().enumerate() {
            let Some(first) = round.faults.first() else { continue };
            let words =
                format!("round {} of {}: {} {}", index + 1, rounds.len(), round.faults.len(), first.name());
            let (acted, judged) = self.round(&round.faults).with_context(|| words.clone())?;
            self.tallies.judged(first.name(), judged);
            say(format!(
                "drill: {words}, {:.1} s, mended and judged {:.1} s, {} orders",
                acted.as_secs_f64(),
                judged.as_secs_f64(),
                self.crowd.verdict.orders
            ));
        }
        self.crowd.replay_all().context("replaying every key at the end")?;
        self.stage.with_judge(|judge| judge.settle().map(drop))
    }

    /// Does one round, and tells how long the faults took, and how long judging.
    fn round(&mut self, faults: &[S::Fault]) -> Result<(Duration, Duration)> {
        let begun = Instant::now();
        let groups = groups_of(faults, self.args.overlap, &mut self.random);
        let loss = S::Fault::loss(&groups.concat());
        let (stage, tallies, random) = (&mut self.stage, &mut self.tallies, &mut self.random);
        self.crowd.buy_during(loss, || act(&groups, stage, tallies, random))?;
        let acted = begun.elapsed();
        self.stage.shop().check_processes()?;
        let crowd = &mut self.crowd;
        self.stage.with_judge(|judge| crowd.judge(judge, loss))?;
        self.stage.judge_servers()?;
        Ok((acted, begun.elapsed().saturating_sub(acted)))
    }
}

/// What happens at once: each fault by itself, or with another one that goes well with it.
fn groups_of<F: Fault>(faults: &[F], overlap: bool, random: &mut SmallRng) -> Vec<Vec<F>> {
    let group = |fault: &F| {
        let seconds = if overlap { fault.seconds() } else { &[] };
        let second = (!seconds.is_empty()).then(|| random.random_range(0..seconds.len()));
        let second = second.and_then(|index| seconds.get(index));
        [Some(fault), second].into_iter().flatten().copied().collect()
    };
    faults.iter().map(group).collect()
}

/// Does all faults of a round, one group after the other, and mends everything.
fn act<S: Stage>(
    groups: &[Vec<S::Fault>],
    stage: &mut S,
    tallies: &mut Tallies,
    random: &mut SmallRng,
) -> Result<()> {
    wait(random, 200);
    for group in groups {
        let mut broken = Vec::new();
        let begun = Instant::now();
        for (index, fault) in group.iter().enumerate() {
            if index > 0 {
                wait(random, 80);
            }
            broken.extend(stage.strike(*fault, tallies, random).with_context(|| fault.name())?);
        }
        if !broken.is_empty() {
            wait(random, 40);
        }
        // Processes need servers to start with.
        broken.sort_by_key(|broken| !S::is_server(broken));
        broken.into_iter().try_for_each(|broken| stage.mend(broken))?;
        group.iter().for_each(|fault| tallies.add(fault.name(), begun.elapsed()));
        wait(random, group.iter().map(|fault| fault.rest_after_ms()).max().unwrap_or_default());
    }
    wait(random, 100);
    Ok(())
}
