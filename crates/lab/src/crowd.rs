//! The crowd: storms of synthetic buyers, and what each buyer remembers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use yoink_load::{Audit, ProgressMode, Route, StormOptions, StormReport};

use crate::audit::Told;

/// Connections at once. A crowd that is larger takes turns, as behind any load balancer.
const CONNECTIONS_MAX: u64 = 250;
/// How long a buyer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The buyers of one run, and what they were told.
#[derive(Debug)]
pub struct Crowd {
    target: String,
    products: Vec<String>,
    folder: PathBuf,
    seed: u64,
    waves: u64,
}

/// What became of one wave: a storm for every product, and every click.
#[derive(Debug)]
pub struct Wave {
    storms: Vec<(StormReport, PathBuf)>,
}

/// Figures over all waves of a run.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Every purchase that was sent, and what its buyer was told.
    pub told: Vec<Told>,
    /// Each answer's time since its wave began, its latency, both in microseconds, and how it counts.
    pub points: Vec<Point>,
    /// Requests.
    pub requests: u64,
    /// Answers that were a yes.
    pub accepted: u64,
    /// Answers that were a no.
    pub refused: u64,
    /// Answers with a status from 500, but for those that say what became of the request.
    pub server_errors: u64,
    /// Requests without any answer.
    pub unanswered: u64,
    /// Seconds in which was bought.
    pub elapsed_s: f64,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When it came, in microseconds after the first wave began; waves follow each other without the pauses between.
    pub at_us: u64,
    /// How long it took, in microseconds.
    pub latency_us: u64,
    /// Whether it was a yes.
    pub is_accepted: bool,
}

/// A purchase that was sent.
struct Asked {
    /// When, in microseconds after its storm began.
    at_us: u64,
    /// What its buyer was told so far: nothing.
    told: Told,
}

impl Asked {
    /// Reads an intent of a storm's record.
    fn read(intent: &Value) -> Asked {
        let told = Told {
            key: text_of(intent, "key"),
            customer: text_of(intent, "customer"),
            product: text_of(intent, "product"),
            quantity: intent.get("quantity").and_then(Value::as_i64).unwrap_or(0),
            is_accepted: false,
            order: None,
        };
        Asked { at_us: number_of(intent, "at_us"), told }
    }
}

impl Crowd {
    /// A crowd that wants `products` at `target`. What it is told is kept in `folder`. Every `seed` gives other buyers.
    #[must_use]
    pub fn new(target: String, products: Vec<String>, folder: PathBuf, seed: u64) -> Crowd {
        Crowd { target, products, folder, seed, waves: 0 }
    }

    /// The next so many buyers, who have not bought before and want one product or another, buy once each; ends when
    /// everybody has an answer or none.
    pub fn wave(&mut self, buyers: u64) -> impl Future<Output = Result<Wave>> + Send + 'static {
        self.waves += 1;
        weather(self.storms(buyers, 1))
    }

    /// As [`Crowd::wave`], but every buyer clicks twice: the same requests with the same keys come two times at once.
    pub fn wave_of_double_clicks(
        &mut self,
        buyers: u64,
    ) -> impl Future<Output = Result<Wave>> + Send + 'static {
        self.waves += 1;
        weather(self.storms(buyers, 2))
    }

    fn storms(&self, buyers: u64, clicks: u64) -> Vec<StormOptions> {
        let crowds = u64::try_from(self.products.len()).unwrap_or(u64::MAX) * clicks;
        let each = buyers.div_ceil(crowds / clicks);
        let mut storms = Vec::new();
        for (number, product) in (1_u64..).zip(&self.products) {
            for click in 1..=clicks {
                let name = format!("crowd-{}-{number}-{click}.jsonl", self.waves);
                storms.push(StormOptions {
                    target: self.target.clone(),
                    product: product.clone(),
                    route: Some(Route::CompatBuy),
                    buyers: Some(each),
                    concurrency: usize::try_from(each.min(CONNECTIONS_MAX / crowds).max(1)).ok(),
                    timeout: PATIENCE,
                    // Another seed, other buyers and other keys. A second click has those of the first.
                    seed: Some(self.seed.wrapping_add(self.waves * 1_000 + number)),
                    audit: Audit::Skip,
                    progress: ProgressMode::Hidden,
                    record_path: Some(self.folder.join(name)),
                    ..StormOptions::default()
                });
            }
        }
        storms
    }
}

/// Runs storms at the same time.
async fn weather(storms: Vec<StormOptions>) -> Result<Wave> {
    let run = |options: StormOptions| async move {
        let record = options.record_path.clone().context("a storm of the lab's keeps a record")?;
        let report = yoink_load::run(options).await.context("the crowd could not buy")?;
        anyhow::Ok((report, record))
    };
    let storms = futures_util::future::try_join_all(storms.into_iter().map(run)).await?;
    Ok(Wave { storms })
}

impl Answers {
    /// Adds what one wave was told.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn add(&mut self, wave: &Wave) -> Result<()> {
        let begun_us = (self.elapsed_s * 1e6) as u64;
        for (report, record) in &wave.storms {
            self.requests += report.requests;
            self.refused += report.rejected.values().sum::<u64>();
            self.read(record, begun_us)?;
        }
        // They ran at the same time.
        let elapsed_s = wave.storms.iter().map(|(report, _)| report.elapsed.as_secs_f64());
        self.elapsed_s += elapsed_s.fold(0.0, f64::max);
        Ok(())
    }

    fn read(&mut self, record: &Path, begun_us: u64) -> Result<()> {
        let text =
            std::fs::read_to_string(record).with_context(|| format!("cannot read {}", record.display()))?;
        let mut asked: BTreeMap<String, Asked> = BTreeMap::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if let Some(intent) = line.get("intent") {
                let asks = Asked::read(intent);
                asked.insert(asks.told.key.clone(), asks);
            } else if let Some(answer) = line.get("answer")
                && let Some(asks) = asked.remove(&text_of(answer, "key"))
            {
                self.heed(answer, asks, begun_us);
            }
        }
        // Whoever was cut off was told nothing.
        self.unanswered += u64::try_from(asked.len()).unwrap_or(0);
        self.told.extend(asked.into_values().map(|asks| asks.told));
        Ok(())
    }

    fn heed(&mut self, answer: &Value, asked: Asked, begun_us: u64) {
        let at_us = number_of(answer, "at_us");
        let outcome = text_of(answer, "outcome");
        let is_accepted = outcome == "accepted";
        self.accepted += u64::from(is_accepted);
        if outcome == "failed" {
            // Whoever found nobody there was not answered fast, he was not answered.
            if text_of(answer, "reason") != "server-error" {
                self.unanswered += 1;
                self.told.push(asked.told);
                return;
            }
            self.server_errors += 1;
        }
        self.points.push(Point {
            at_us: begun_us + at_us,
            latency_us: at_us.saturating_sub(asked.at_us),
            is_accepted,
        });
        let order = answer.get("order").and_then(Value::as_str).map(str::to_owned);
        self.told.push(Told { is_accepted, order, ..asked.told });
    }

    /// The key of every customer: each buys once.
    #[must_use]
    pub fn keys(&self) -> BTreeMap<&str, &str> {
        self.told.iter().map(|told| (told.customer.as_str(), told.key.as_str())).collect()
    }

    /// The latency that so many percent of the answers did not exceed, in milliseconds; 0 if there was no answer.
    #[must_use]
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        percentile_ms(&self.points, percent).unwrap_or(0.0)
    }

    /// Answers a second.
    #[must_use]
    pub fn rps(&self) -> f64 {
        if self.elapsed_s > 0.0 { self.points.len() as f64 / self.elapsed_s } else { 0.0 }
    }
}

/// The latency that so many percent of `points` did not exceed, in milliseconds; `None` of no points.
#[must_use]
pub fn percentile_ms<'a>(points: impl IntoIterator<Item = &'a Point>, percent: usize) -> Option<f64> {
    let mut latencies: Vec<u64> = points.into_iter().map(|point| point.latency_us).collect();
    latencies.sort_unstable();
    let rank = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
    latencies.get(rank).map(|latency_us| *latency_us as f64 / 1_000.0)
}

fn text_of(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number_of(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_an_answer_that_was_given() {
        let point = |latency_us| Point { at_us: 0, latency_us, is_accepted: true };
        let answers =
            Answers { points: (1..=100).map(|ms| point(ms * 1_000)).collect(), ..Answers::default() };
        assert_eq!((answers.percentile_ms(95), answers.percentile_ms(100)), (95.0, 100.0));
        assert_eq!(Answers::default().percentile_ms(95), 0.0);
    }

    #[test]
    fn a_record_is_read_answer_by_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let lines = [
            r#"{"storm":{"target":"t","product":"1","quantity":1,"seed":1}}"#,
            r#"{"intent":{"at_us":10,"customer":"a","key":"ka","product":"1","quantity":1}}"#,
            r#"{"intent":{"at_us":10,"customer":"b","key":"kb","product":"1","quantity":2}}"#,
            r#"{"intent":{"at_us":10,"customer":"c","key":"kc","product":"1","quantity":1}}"#,
            r#"{"answer":{"at_us":110,"customer":"a","key":"ka","outcome":"accepted","order":"o","replayed":false}}"#,
            r#"{"answer":{"at_us":210,"customer":"b","key":"kb","outcome":"failed","reason":"server-error"}}"#,
            r#"{"answer":{"at_us"#,
        ];
        std::fs::write(&path, lines.join("\n")).unwrap();
        let mut answers = Answers::default();
        answers.read(&path, 1_000).unwrap();
        assert_eq!((answers.accepted, answers.server_errors, answers.unanswered), (1, 1, 1));
        assert_eq!(answers.points[0], Point { at_us: 1_110, latency_us: 100, is_accepted: true });
        let told: Vec<(&str, bool)> =
            answers.told.iter().map(|told| (told.key.as_str(), told.is_accepted)).collect();
        assert_eq!(told, [("ka", true), ("kb", false), ("kc", false)]);
        let asked: Vec<(&str, &str, i64)> = answers
            .told
            .iter()
            .map(|told| (told.customer.as_str(), told.product.as_str(), told.quantity))
            .collect();
        assert_eq!(asked, [("a", "1", 1), ("b", "1", 2), ("c", "1", 1)]);
        assert_eq!(answers.told[0].order.as_deref(), Some("o"));
        assert_eq!(answers.keys(), BTreeMap::from([("a", "ka"), ("b", "kb"), ("c", "kc")]));
    }
}
