//! What a storm found, and the forms in which it is shown.

mod chart;
mod hdr;
mod html;
mod json;
mod text;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::assertion::AssertionResult;
use crate::audit::AuditReport;
use crate::error::StormError;
use crate::options::StormOptions;
use crate::plan::{Pace, Plan};
use crate::preset::{Check, Preset};
use crate::tally::Tally;
use crate::timeline::Timeline;

pub use crate::timeline::{Interval, Timeline as ReportTimeline};
pub use text::Decoration;

/// Percentiles of a set of times, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// How many times there are; all others are 0 if this is.
    pub count: u64,
    /// Half were at most this.
    pub p50_us: u64,
    /// 90 % were at most this.
    pub p90_us: u64,
    /// 95 % were at most this.
    pub p95_us: u64,
    /// 99 % were at most this.
    pub p99_us: u64,
    /// 99.9 % were at most this.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Percentiles {
    /// Of a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u32>) -> Percentiles {
        if histogram.is_empty() {
            return Percentiles::default();
        }
        Percentiles {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }

    /// Name and value of each, in order.
    pub(crate) fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("p50", self.p50_us),
            ("p90", self.p90_us),
            ("p95", self.p95_us),
            ("p99", self.p99_us),
            ("p999", self.p999_us),
            ("max", self.max_us),
        ]
    }
}

/// Everything that a storm found.
#[derive(Clone, Debug)]
pub struct StormReport {
    /// Where it went.
    pub target: String,
    /// What everybody wanted.
    pub product: String,
    /// Units per purchase.
    pub quantity: u32,
    /// Repeats names, pauses and random arrivals.
    pub seed: u64,
    /// The kind of storm in one line.
    pub description: String,
    /// The preset, if one was chosen.
    pub preset: Option<Preset>,
    /// How many times each purchase was sent.
    pub same_key_times: u32,
    /// Purchases sent, repeats included.
    pub requests: u64,
    /// Answers that gave an order or queued a request for one, replays included.
    pub accepted: u64,
    /// Of these, answers that only said that the request is queued: the audit says what was decided.
    pub queued: u64,
    /// Answers that said that they repeat an earlier one.
    pub replayed: u64,
    /// Different orders among the accepted answers; `None` without the audit.
    pub distinct_orders: Option<u64>,
    /// Refusals by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Buyers who were told that it is sold out.
    pub sold_out_refusals: u64,
    /// Answers with status 429.
    pub too_many_requests: u64,
    /// Answers with status 503.
    pub unavailable: u64,
    /// Purchases with neither yes nor no, by what happened instead.
    pub failures: BTreeMap<&'static str, u64>,
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// Answers per second.
    pub rps: f64,
    /// From the intended start to the whole answer. Time-outs count, failures to connect do not.
    pub latency: Percentiles,
    /// How much later than intended this side sent. Open loop only.
    pub lateness: Option<Percentiles>,
    /// Arrivals for which no connection was free. Open loop only.
    pub skipped: u64,
    /// From the start to the first answer that it is sold out.
    pub sold_out_after: Option<Duration>,
    /// From the start to the last acceptance.
    pub last_accepted_after: Option<Duration>,
    /// The verdict; `None` if it was not asked for.
    pub audit: Option<AuditReport>,
    /// The preset's expectations.
    pub checks: Vec<Check>,
    /// The thresholds.
    pub assertions: Vec<AssertionResult>,
    /// What one should know when reading this.
    pub notes: Vec<String>,
    /// Latency and outcomes over time.
    pub timeline: Timeline,
}

/// The form of a printed report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables for people.
    Text(Decoration),
    /// One JSON document.
    Json,
}

impl StormReport {
    pub(crate) fn new(
        plan: &Plan,
        tally: Tally,
        audit: Option<AuditReport>,
        notes: Vec<String>,
    ) -> StormReport {
        let unanswered: u64 = ["connect", "timeout", "closed", "protocol"]
            .iter()
            .filter_map(|name| tally.failures.get(name))
            .sum();
        let elapsed_s = tally.last_answer_at.as_secs_f64();
        let rps = if elapsed_s > 0.0 { (tally.requests - unanswered) as f64 / elapsed_s } else { 0.0 };
        let open = matches!(plan.pace, Pace::Open { .. });
        let distinct = audit.is_some().then(|| {
            let ids: HashSet<&str> = tally.kept.iter().filter_map(|kept| kept.order_id.as_deref()).collect();
            ids.len() as u64
        });
        let refused_later = audit.as_ref().map_or(0, |audit| audit.resolution.refused);
        StormReport {
            target: plan.target.url.clone(),
            product: plan.product.clone(),
            quantity: plan.quantity,
            seed: plan.seed,
            description: plan.describe(),
            preset: None,
            same_key_times: plan.same_key_times,
            requests: tally.requests,
            accepted: tally.accepted,
            queued: tally.queued,
            replayed: tally.replayed,
            distinct_orders: distinct,
            sold_out_refusals: tally.sold_out_customers.len() + refused_later,
            rejected: tally.rejected.into_iter().map(|(reason, count)| (reason.into(), count)).collect(),
            too_many_requests: tally.too_many_requests,
            unavailable: tally.unavailable,
            failures: tally.failures,
            elapsed: tally.last_answer_at,
            rps,
            latency: Percentiles::of(&tally.timeline.total()),
            lateness: open.then(|| Percentiles::of(&tally.lateness_us)),
            skipped: tally.skipped,
            sold_out_after: tally.sold_out_at,
            last_accepted_after: tally.last_accepted_at,
            audit,
            checks: Vec::new(),
            assertions: Vec::new(),
            notes,
            timeline: tally.timeline,
        }
    }

    /// Purchases with neither yes nor no at first. The audit says what became of them.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Orders that exist because of this storm: those accepted at once and those found by asking again, without those that
    /// were only queued and got nothing.
    #[must_use]
    pub fn orders_given(&self) -> u64 {
        match &self.audit {
            Some(audit) => (audit.looked_up + audit.without_id).saturating_sub(audit.orders.rejected),
            None => self.accepted - self.replayed,
        }
    }

    /// Whether the audit, every expectation and every threshold hold, and anybody got an answer at all.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems().is_empty()
    }

    /// Why the storm is not ok, one sentence each; empty if it is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.requests == 0 {
            problems.push("nothing was sent".to_owned());
        } else if self.errors() == self.requests {
            problems.push("not one request got a yes or a no".to_owned());
        }
        if let Some(audit) = &self.audit {
            let broken = audit.invariants.iter().filter(|invariant| !invariant.ok);
            problems.extend(broken.map(|invariant| format!("{}: {}", invariant.id, invariant.detail)));
        }
        let failed = self.checks.iter().filter(|check| !check.ok);
        problems.extend(failed.map(|check| format!("{}: {}", check.name, check.detail)));
        let failed = self.assertions.iter().filter(|assertion| !assertion.ok);
        problems.extend(failed.map(|result| format!("{}: measured {}", result.assertion, result.measured)));
        problems
    }

    /// Prints the report.
    ///
    /// # Errors
    /// Those of `out`; a closed pipe is one of them.
    pub fn write(&self, out: &mut dyn Write, format: Format) -> io::Result<()> {
        match format {
            Format::Text(decoration) => text::write(self, out, decoration),
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, &self.to_json())?;
                writeln!(out)
            }
        }
    }

    /// The JSON document. `requests`, `accepted`, `rejected`, `errors`, `rps`, `latency_ms`, `sold_out_after_s` and
    /// `audit` are the contract; there is more.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        json::document(self)
    }

    /// The self-contained HTML page.
    ///
    /// # Errors
    /// [`StormError::Chart`] if a chart cannot be drawn.
    pub fn to_html(&self) -> Result<String, StormError> {
        html::page(self)
    }

    /// The charts as (name, SVG).
    ///
    /// # Errors
    /// [`StormError::Chart`] if one cannot be drawn.
    pub fn to_svgs(&self) -> Result<Vec<(&'static str, String)>, StormError> {
        chart::all(self)
    }

    /// The HDR interval log, in milliseconds per unit of its maximum column as its readers expect.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_hdr(&self, out: &mut dyn Write) -> io::Result<()> {
        hdr::write(self, out)
    }

    /// Writes the files that `options` asks for.
    pub(crate) fn write_files(&self, options: &StormOptions) -> Result<(), StormError> {
        if let Some(path) = &options.html_path {
            save(path, "write the report to", self.to_html()?.as_bytes())?;
        }
        if let Some(path) = &options.hdr_path {
            let mut log = Vec::new();
            self.write_hdr(&mut log).map_err(file_error(path, "write the histogram log to"))?;
            save(path, "write the histogram log to", &log)?;
        }
        if let Some(directory) = &options.svg_dir {
            std::fs::create_dir_all(directory).map_err(file_error(directory, "create"))?;
            for (name, svg) in self.to_svgs()? {
                save(&directory.join(format!("{name}.svg")), "write the chart to", svg.as_bytes())?;
            }
        }
        Ok(())
    }

    /// A report of a storm in which nothing happened.
    #[cfg(test)]
    pub(crate) fn empty_for_tests() -> StormReport {
        StormReport {
            target: "http://127.0.0.1:3000".to_owned(),
            product: "1".to_owned(),
            quantity: 1,
            seed: 7,
            description: "closed loop".to_owned(),
            preset: None,
            same_key_times: 1,
            requests: 0,
            accepted: 0,
            queued: 0,
            replayed: 0,
            distinct_orders: None,
            rejected: BTreeMap::new(),
            sold_out_refusals: 0,
            too_many_requests: 0,
            unavailable: 0,
            failures: BTreeMap::new(),
            elapsed: Duration::ZERO,
            rps: 0.0,
            latency: Percentiles::default(),
            lateness: None,
            skipped: 0,
            sold_out_after: None,
            last_accepted_after: None,
            audit: None,
            checks: Vec::new(),
            assertions: Vec::new(),
            notes: Vec::new(),
            timeline: Timeline::new(),
        }
    }
}

fn save(path: &Path, action: &'static str, content: &[u8]) -> Result<(), StormError> {
    std::fs::write(path, content).map_err(file_error(path, action))
}

fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StormError + use<> {
    let path: PathBuf = path.to_owned();
    move |source| StormError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{histogram, record};

    #[test]
    fn percentiles_of_a_known_distribution_are_right_to_three_digits() {
        let mut times = histogram();
        for value in 1..=100_000_u64 {
            record(&mut times, value);
        }
        let percentiles = Percentiles::of(&times);
        for (measured, exact) in [
            (percentiles.p50_us, 50_000.0),
            (percentiles.p90_us, 90_000.0),
            (percentiles.p95_us, 95_000.0),
            (percentiles.p99_us, 99_000.0),
            (percentiles.p999_us, 99_900.0),
            (percentiles.max_us, 100_000.0),
        ] {
            let error = (measured as f64 - exact).abs() / exact;
            assert!(error < 0.001, "{measured} instead of {exact}");
        }
        assert_eq!(Percentiles::of(&histogram()), Percentiles::default());
    }

    #[test]
    fn a_storm_in_which_nothing_was_answered_is_not_ok() {
        let mut report = StormReport::empty_for_tests();
        assert!(!report.is_ok());
        report.requests = 3;
        report.failures.insert("timeout", 3);
        assert_eq!(report.problems(), ["not one request got a yes or a no"]);
        report.failures.insert("timeout", 2);
        assert!(report.is_ok());
    }
}
