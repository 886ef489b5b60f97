//! `cargo xtask lab-proof`: every strategy twenty times. The wrong ones must show their defect nearly always and never
//! another, the right ones never anything.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use super::{Lab, figure, text};
use crate::bench::{self, median};
use crate::say::say;
use crate::steps::Counted;

/// A defect may hide once in so many runs.
const RUNS_PER_HIDDEN_MIN: usize = 20;
/// One run may take so long, servers included.
const TOOK_S_MAX: f64 = 30.0;

/// How much is proven.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProofArgs {
    /// Runs of each strategy
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: usize,
    /// Only this strategy; may be given several times
    #[arg(long, value_name = "STRATEGY")]
    only: Vec<String>,
    /// Buyers of each run
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    buyers: u64,
    /// Units of each run
    #[arg(long, value_name = "N", default_value_t = 100)]
    units: u64,
    /// Leave benchmarks/RESULTS.md as it is; it is also left if fewer than twenty runs were made, or not of everything
    #[arg(long)]
    dry_run: bool,
}

/// What came of the runs of one strategy.
struct Proof {
    name: String,
    /// What each run must show.
    breaks: Option<String>,
    /// What a run may show besides.
    also: Vec<String>,
    runs: Vec<Value>,
}

impl Proof {
    /// Runs that went as the catalogue says.
    fn as_expected(&self) -> usize {
        self.runs.iter().filter(|run| run.get("as_expected") == Some(&Value::Bool(true))).count()
    }

    /// Runs that showed the defect; of what has none, runs that showed any.
    fn shown(&self) -> usize {
        let Some(breaks) = &self.breaks else { return self.runs.len() - self.as_expected() };
        self.runs.iter().filter(|run| figure(run, breaks) > 0.0).count()
    }

    /// What was found that the catalogue does not tell of, each once.
    fn unexpected(&self) -> BTreeSet<&str> {
        let found = self.runs.iter().filter_map(|run| run.get("unexpected").and_then(Value::as_array));
        found.flatten().filter_map(Value::as_str).collect()
    }

    fn holds(&self) -> bool {
        match self.breaks {
            Some(_) => {
                let hidden = self.runs.len() - self.shown();
                hidden * RUNS_PER_HIDDEN_MIN <= self.runs.len() && self.unexpected().is_empty()
            }
            None => self.as_expected() == self.runs.len(),
        }
    }

    /// Its name, with what it has shown and must not.
    fn in_words(&self) -> String {
        let unexpected: Vec<&str> = self.unexpected().into_iter().collect();
        let surprise = if unexpected.is_empty() {
            String::new()
        } else {
            format!(" (unexpectedly {})", unexpected.join(", "))
        };
        format!("{}{surprise}", self.name)
    }
}

/// Runs everything, and writes the table.
///
/// # Errors
/// A strategy did not go as it must.
pub(crate) fn run(args: &ProofArgs) -> Result<Counted> {
    let lab = Lab::build()?;
    let mut proofs = Vec::new();
    let entries = lab.json(&["list"])?;
    for name in &args.only {
        ensure!(entries.iter().any(|entry| text(entry, "strategy") == name), "there is no strategy {name}");
    }
    for entry in entries {
        let name = text(&entry, "strategy").to_owned();
        if !args.only.is_empty() && !args.only.contains(&name) {
            continue;
        }
        let breaks = entry.get("breaks").and_then(Value::as_str).map(str::to_owned);
        let also = entry.get("also").and_then(Value::as_array).into_iter().flatten();
        let also = also.filter_map(Value::as_str).map(str::to_owned).collect();
        let (buyers, units) = (args.buyers.to_string(), args.units.to_string());
        let mut arguments = vec!["run", "--buyers", &buyers, "--units", &units];
        arguments.extend(std::iter::repeat_n(name.as_str(), args.runs));
        let mut runs = lab.json(&arguments)?;
        runs.retain(|run| run.get("error").is_none());
        let proof = Proof { name: name.clone(), breaks, also, runs };
        let slowest = proof.runs.iter().map(|run| figure(run, "took_s")).fold(0.0, f64::max);
        let (expected, runs) = (proof.as_expected(), proof.runs.len());
        say(format!("lab: {name}: as expected in {expected} of {runs}, the slowest in {slowest:.0} s"));
        ensure!(runs == args.runs, "only {runs} of {} runs of {name} gave a result", args.runs);
        ensure!(
            slowest <= TOOK_S_MAX,
            "a run of {name} took {slowest:.0} s, and {TOOK_S_MAX:.0} are the most"
        );
        proofs.push(proof);
    }
    let failed: Vec<String> = proofs.iter().filter(|proof| !proof.holds()).map(Proof::in_words).collect();
    if !failed.is_empty() {
        bail!("not reliably as the catalogue says: {}", failed.join(", "));
    }
    if args.runs >= RUNS_PER_HIDDEN_MIN && args.only.is_empty() && !args.dry_run {
        bench::write_part("lab", &markdown(&proofs, args))?;
    }
    Ok(Counted::of(u64::try_from(proofs.len())?, "strategies as the catalogue says"))
}

fn markdown(proofs: &[Proof], args: &ProofArgs) -> String {
    let mut page = format!(
        "## The lab\n\n`cargo xtask lab-proof`: each strategy {} times with {} buyers for {} units. The figures are \
         medians.\n\n\
         | strategy | breaks | shown in | oversold | lost | duplicated | stuck | p95 | requests/s |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        args.runs, args.buyers, args.units,
    );
    for proof in proofs {
        let middle = |name: &str| median(proof.runs.iter().map(|run| figure(run, name)));
        let mut breaks = proof.breaks.clone().unwrap_or_else(|| "nothing".to_owned());
        if !proof.also.is_empty() {
            breaks += &format!(" (also {})", proof.also.join(", "));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| {} | {breaks} | {} of {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} ms | {:.0} |",
            proof.name,
            proof.shown(),
            proof.runs.len(),
            middle("oversold"),
            middle("lost"),
            middle("duplicated"),
            middle("stuck"),
            middle("p95_ms"),
            middle("rps"),
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn proof(breaks: Option<&str>, expected: usize, runs: usize) -> Proof {
        let run = |n| {
            let is_as_expected = n < expected;
            let oversold = u8::from(is_as_expected == breaks.is_some());
            json!({"as_expected": is_as_expected, "unexpected": [], "oversold": oversold, "p95_ms": 2.5})
        };
        let runs = (0..runs).map(run).collect();
        Proof { name: "s".to_owned(), breaks: breaks.map(str::to_owned), also: Vec::new(), runs }
    }

    #[test]
    fn a_defect_may_hide_once_in_twenty_and_a_right_one_never_fails() {
        assert!(proof(Some("oversold"), 19, 20).holds());
        assert!(!proof(Some("oversold"), 18, 20).holds());
        assert!(!proof(Some("oversold"), 0, 1).holds());
        assert!(proof(None, 20, 20).holds());
        assert!(!proof(None, 19, 20).holds());
    }

    #[test]
    fn another_defect_may_not_even_show_once() {
        let mut proof = proof(Some("oversold"), 20, 20);
        assert_eq!((proof.in_words().as_str(), proof.holds()), ("s", true));
        proof.runs[7]["unexpected"] = json!(["lost", "stuck"]);
        proof.runs[9]["unexpected"] = json!(["lost"]);
        assert_eq!((proof.in_words().as_str(), proof.holds()), ("s (unexpectedly lost, stuck)", false));
        assert_eq!(proof.shown(), 20);
    }

    #[test]
    fn the_table_tells_how_often_a_defect_was_shown() {
        let args = ProofArgs { runs: 20, only: Vec::new(), buyers: 10, units: 5, dry_run: true };
        let page = markdown(&[proof(Some("oversold"), 19, 20), proof(None, 20, 20)], &args);
        assert!(page.contains("| s | oversold | 19 of 20 | 1 |"), "{page}");
        assert!(page.contains("| s | nothing | 0 of 20 | 0 |"), "{page}");
        let with_more =
            Proof { also: vec!["lost".to_owned(), "stuck".to_owned()], ..proof(Some("oversold"), 20, 20) };
        let page = markdown(&[with_more], &args);
        assert!(page.contains("| s | oversold (also lost, stuck) | 20 of 20 | 1 |"), "{page}");
    }
}
