//! One run of one strategy: its scene, its books, its verdict.

mod redis_log;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, block_in_place};
use uuid::Uuid;

use self::redis_log::RedisLog;
use crate::audit::{Told, Verdict, judge};
use crate::books::Books;
use crate::catalogue::{Broken, Entry, Seller};
use crate::crowd::{Answers, Crowd, Wave};
use crate::house::{House, Opening};
use crate::scene::Act;
use crate::shop::{Addresses, Event, EventKind, Trace, read_trace};
use crate::stage::Servers;

/// How long the stock may take to be sold so far as an act waits for.
const SOLD_MAX: Duration = Duration::from_secs(10);
/// How many waves at most come until a shop is sold out.
const WAVES_MAX: u32 = 30;

/// How large a run is.
#[derive(Clone, Debug)]
pub struct Size {
    /// Buyers in all waves together.
    pub buyers: u64,
    /// Units on the shelf.
    pub units: u64,
    /// Products, each with a shelf and a crowd of its own, at the same time.
    pub products: u64,
}

impl Default for Size {
    fn default() -> Size {
        Size { buyers: 1_000, units: 100, products: 1 }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was run.
    pub entry: Entry,
    /// What the audit found.
    pub verdict: Verdict,
    /// What the crowd was told.
    pub answers: Answers,
    /// Everything that happened, in order.
    pub events: Vec<Event>,
    /// What the books hold.
    pub books: Books,
    /// Resident memory of the process that sold, when all was done, in MiB.
    pub memory_mib: Option<f64>,
    /// Seconds, with starting the servers.
    pub took_s: f64,
}

impl Outcome {
    /// How often the database could not be used; `None` if whoever sold does not say.
    #[must_use]
    pub fn database_errors(&self) -> Option<u64> {
        if matches!(self.entry.seller, Seller::Engine(_)) {
            return None;
        }
        let errors = self.events.iter().filter(|event| event.kind == EventKind::DatabaseError);
        u64::try_from(errors.count()).ok()
    }

    /// Orders that were written a second, from the first to the last; `None` if whoever sold does not say, or wrote fewer
    /// than two.
    #[must_use]
    pub fn written_per_s(&self) -> Option<f64> {
        let written: Vec<u64> = self
            .events
            .iter()
            .filter(|event| event.step.contains("writes the order"))
            .map(|event| event.at_us)
            .collect();
        let (first, last) = (written.first()?, written.last()?);
        let seconds = last.checked_sub(*first).filter(|us| *us > 0)? as f64 / 1e6;
        Some((written.len() - 1) as f64 / seconds)
    }

    /// Whether it went as the catalogue says: the defect shows and nothing else, or nothing at all does.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        let goes_so = match self.entry.defect {
            Some(defect) => self.verdict.count(defect.breaks) > 0,
            // Who sells nothing breaks nothing, and is no shop.
            None => self.verdict.sold == self.verdict.stocked || self.had_too_few_buyers(),
        };
        goes_so && self.unexpected().next().is_none()
    }

    /// What the audit found that the catalogue does not say of this strategy.
    pub fn unexpected(&self) -> impl Iterator<Item = Broken> {
        let found = self.verdict.findings.iter().map(|finding| finding.breaks);
        found.filter(|broken| !self.entry.may_break(*broken))
    }

    /// Whether fewer units were asked for than there were. Whoever clicks twice asks once.
    fn had_too_few_buyers(&self) -> bool {
        let asked: BTreeMap<&str, i64> =
            self.answers.told.iter().map(|told| (told.key.as_str(), told.quantity.max(0))).collect();
        u64::try_from(asked.values().sum::<i64>()).is_ok_and(|units| units < self.verdict.stocked)
    }
}

/// Told what a run is doing.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Runs a strategy once.
///
/// # Errors
/// There is no result: a server does not start, the shop does not open, the crowd cannot buy.
pub async fn run(
    entry: Entry,
    size: &Size,
    servers: &mut Servers,
    folder: PathBuf,
    say: Say<'_>,
) -> Result<Outcome> {
    let begun = Instant::now();
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    say("starts the servers");
    block_in_place(|| servers.start(entry.needs, entry.scene))?;
    let addresses = servers.addresses(entry.needs, entry.scene).await?;
    let outcome = play(entry, size, servers, addresses, folder, say).await;
    let cleared = servers.clear().await;
    let mut outcome = outcome?;
    cleared?;
    outcome.took_s = begun.elapsed().as_secs_f64();
    Ok(outcome)
}

async fn play(
    entry: Entry,
    size: &Size,
    servers: &mut Servers,
    addresses: Addresses,
    folder: PathBuf,
    say: Say<'_>,
) -> Result<Outcome> {
    let mut stage = Stage::open(entry, size, servers, addresses, folder).await?;
    stage.play(say).await?;
    stage.close(say).await
}

/// A shop, its servers and its crowd.
struct Stage<'a> {
    entry: Entry,
    size: Size,
    servers: &'a mut Servers,
    products: Vec<String>,
    trace_path: PathBuf,
    trace: Trace,
    house: House,
    crowd: Crowd,
    begun: Option<JoinHandle<Result<Wave>>>,
    answers: Answers,
    redis_log: Option<RedisLog>,
}

impl<'a> Stage<'a> {
    async fn open(
        entry: Entry,
        size: &Size,
        servers: &'a mut Servers,
        addresses: Addresses,
        folder: PathBuf,
    ) -> Result<Stage<'a>> {
        let mut run = Uuid::new_v4().simple().to_string();
        run.truncate(8);
        let products: Vec<String> = (1..=size.products).map(|n| format!("sneaker-{n}-{run}")).collect();
        let trace_path = folder.join("trace.jsonl");
        let opening = Opening {
            entry,
            addresses,
            run,
            products: products.clone(),
            units: size.units,
            folder: folder.clone(),
            trace: trace_path.clone(),
        };
        let house = House::open(opening, servers).await?;
        let seed = Uuid::new_v4().as_u128() as u64 >> 16;
        Ok(Stage {
            crowd: Crowd::new(house.url(), products.clone(), folder, seed),
            trace: Trace::open(&trace_path)?,
            size: size.clone(),
            begun: None,
            answers: Answers::default(),
            redis_log: None,
            entry,
            servers,
            products,
            trace_path,
            house,
        })
    }

    async fn play(&mut self, say: Say<'_>) -> Result<()> {
        for act in self.entry.scene {
            if let Some(fault) = act.fault() {
                say(fault);
                self.trace.fault("", fault);
            }
            self.act(*act, say).await.with_context(|| format!("the act {act:?} failed"))?;
            block_in_place(|| self.house.keep_open())?;
        }
        self.join().await
    }

    async fn act(&mut self, act: Act, say: Say<'_>) -> Result<()> {
        match act {
            Act::Crowd(percent) => self.crowd(percent, say).await,
            Act::BuyOut(percent) => self.buy_out(percent, say).await,
            Act::DoubleClicks(percent) => {
                let buyers = self.share(percent);
                say(&format!("{buyers} buyers click twice"));
                let wave = self.crowd.wave_of_double_clicks(buyers).await?;
                self.answers.add(&wave)
            }
            Act::Begin(percent) => {
                let buyers = self.share(percent);
                say(&format!("{buyers} buyers want {} units", self.size.units));
                self.begun = Some(tokio::spawn(self.crowd.wave(buyers)));
                Ok(())
            }
            Act::Join => self.join().await,
            Act::Sold(percent) => self.wait_until_sold(percent).await,
            Act::Hostile(quantity) => block_in_place(|| self.hostile(quantity)),
            Act::Wait(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Act::Drain => block_in_place(|| self.house.drain(&self.answers)),
            Act::PostgresDown | Act::PostgresUp | Act::RedisMark | Act::RedisPowerCut | Act::ShopKilled => {
                block_in_place(|| self.fault(act))
            }
        }
    }

    async fn crowd(&mut self, percent: u64, say: Say<'_>) -> Result<()> {
        let buyers = self.share(percent);
        say(&format!("{buyers} buyers want {} units", self.size.units));
        let wave = tokio::spawn(self.crowd.wave(buyers));
        // A supervisor opens a shop that has died while its buyers are still at the door.
        while !wave.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            block_in_place(|| self.house.keep_open())?;
        }
        self.answers.add(&wave.await??)
    }

    /// Units that come back after their wave are left to the next; if they are still there at the end, the audit says
    /// so.
    async fn buy_out(&mut self, percent: u64, say: Say<'_>) -> Result<()> {
        for _ in 0..WAVES_MAX {
            block_in_place(|| self.house.drain(&self.answers))?;
            let books = self.house.books(&self.answers).await?;
            if books.counts.iter().all(|count| count.available <= 0) {
                return Ok(());
            }
            self.crowd(percent, say).await?;
        }
        Ok(())
    }

    fn share(&self, percent: u64) -> u64 {
        (self.size.buyers * percent).div_ceil(100).max(1)
    }

    async fn join(&mut self) -> Result<()> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let wave = begun.await.context("the crowd's task ended")??;
        self.answers.add(&wave)
    }

    /// Waits until so much of the stock was taken, by what the house says.
    async fn wait_until_sold(&mut self, percent: u64) -> Result<()> {
        let wanted = self.size.units * self.size.products * percent / 100;
        let begun = Instant::now();
        while begun.elapsed() < SOLD_MAX {
            // Whoever is too busy to say is asked again.
            if block_in_place(|| self.house.taken()).is_ok_and(|taken| taken >= wanted) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("not even {wanted} units were sold within {SOLD_MAX:?}")
    }

    /// What he is told counts for the audit, and not for the crowd's figures.
    fn hostile(&mut self, quantity: i64) -> Result<()> {
        let (customer, key) = (format!("hostile-{}", Uuid::new_v4()), Uuid::new_v4().to_string());
        let product = self.products.first().context("nothing is for sale")?.clone();
        let body = json!({"userId": customer, "productId": product, "quantity": quantity});
        let answer = self.house.client().post_with_key("/buy", &key, &body);
        let answer = answer.context("the hostile buyer got no answer")?;
        self.trace.fault(&key, &format!("somebody asks for {quantity} units, and is told {}", answer.status));
        let is_accepted = (200..300).contains(&answer.status);
        let order = answer.json().get("orderId").and_then(Value::as_str).map(str::to_owned);
        self.answers.told.push(Told { key, customer, product, quantity, is_accepted, order });
        Ok(())
    }

    fn fault(&mut self, act: Act) -> Result<()> {
        const OURS: &str = "the lab has not started this server itself";
        let servers = &mut *self.servers;
        match act {
            Act::PostgresDown => servers.postgres.as_mut().context(OURS)?.terminate()?,
            Act::PostgresUp => servers.postgres.as_mut().context(OURS)?.restart()?,
            Act::RedisMark => {
                self.redis_log = Some(RedisLog::watch(servers.redis.as_ref().context(OURS)?)?);
            }
            Act::RedisPowerCut => {
                let redis = servers.redis.as_mut().context(OURS)?;
                self.redis_log.take().context("nobody watches the log of Redis")?.cut_power(redis)?;
            }
            Act::ShopKilled => self.house.kill(),
            other => bail!("{other:?} is no fault"),
        }
        Ok(())
    }

    async fn close(mut self, say: Say<'_>) -> Result<Outcome> {
        say("waits until nothing is under way");
        block_in_place(|| self.house.drain(&self.answers))?;
        say("counts the books");
        let books = self.house.books(&self.answers).await?;
        let verdict = judge(&books, &self.answers.told);
        let events = read_trace(&self.trace_path)?;
        Ok(Outcome {
            entry: self.entry,
            verdict,
            answers: self.answers,
            events,
            books,
            memory_mib: self.house.memory_mib(),
            took_s: 0.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Finding;
    use crate::catalogue::find;

    /// What came of a run of a strategy that sold out, with these findings.
    fn outcome(strategy: &str, found: &[Broken]) -> Outcome {
        let finding =
            |breaks: &Broken| Finding { breaks: *breaks, count: 1, says: String::new(), keys: Vec::new() };
        Outcome {
            entry: find(strategy).unwrap(),
            verdict: Verdict { stocked: 5, sold: 5, findings: found.iter().map(finding).collect() },
            answers: Answers::default(),
            events: Vec::new(),
            books: Books::default(),
            memory_mib: None,
            took_s: 0.0,
        }
    }

    #[test]
    fn a_defect_that_the_catalogue_does_not_tell_of_is_not_as_expected() {
        for (strategy, found, unexpected) in [
            ("naive", &[Broken::Oversold][..], &[][..]),
            ("naive", &[Broken::Oversold, Broken::Duplicated], &[Broken::Duplicated]),
            ("naive", &[Broken::Stuck], &[Broken::Stuck]),
            ("everysec", &[Broken::Oversold, Broken::Lost], &[]),
            ("everysec", &[Broken::Lost, Broken::Stuck], &[Broken::Stuck]),
            ("embedded", &[], &[]),
            ("embedded", &[Broken::Lost], &[Broken::Lost]),
        ] {
            let outcome = outcome(strategy, found);
            assert_eq!(outcome.unexpected().collect::<Vec<_>>(), unexpected, "{strategy}: {found:?}");
            assert_eq!(outcome.is_as_expected(), unexpected.is_empty(), "{strategy}: {found:?}");
        }
    }

    #[test]
    fn a_defect_that_does_not_show_and_a_shop_that_does_not_sell_are_not_as_expected() {
        assert!(!outcome("naive", &[]).is_as_expected());
        assert!(!outcome("everysec", &[Broken::Oversold]).is_as_expected(), "it comes with what must show");
        let mut unsold = outcome("embedded", &[]);
        assert!(unsold.is_as_expected());
        unsold.verdict.sold = 0;
        assert!(unsold.is_as_expected(), "nobody asked");
        unsold.answers.told = vec![Told { key: "k".to_owned(), quantity: 5, ..Told::default() }];
        assert!(!unsold.is_as_expected());
    }
}
