//! A row of steps, each timed and counted, and the table of them at the end.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::say::say;

/// What a step says for itself: how many things it checked, and in which words.
#[derive(Debug)]
pub(crate) struct Counted {
    /// How many.
    pub(crate) count: u64,
    /// Of what, and whatever else the table should say.
    pub(crate) words: String,
}

/// All steps so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    took: Duration,
    outcome: Result<Counted, String>,
}

impl Steps {
    /// Does a step. A step that fails does not keep the others from being done: one run shows everything.
    pub(crate) fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<Counted>) {
        say(format!("\n=== {name}"));
        let begun = Instant::now();
        let outcome = step().map_err(|error| format!("{error:#}"));
        if let Err(error) = &outcome {
            say(format!("=== {name} FAILED: {error}"));
        }
        self.rows.push(Row { name, took: begun.elapsed(), outcome });
    }

    /// Whether every step held.
    pub(crate) fn is_ok(&self) -> bool {
        self.failed() == 0
    }

    fn failed(&self) -> usize {
        self.rows.iter().filter(|row| row.outcome.is_err()).count()
    }

    /// The table, and as the last line how many steps passed and failed.
    pub(crate) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        let mut text = String::new();
        for Row { name, took, outcome } in &self.rows {
            let (verdict, words) = match outcome {
                Ok(counted) => ("ok", format!("{} {}", counted.count, counted.words)),
                Err(error) => ("FAILED", error.lines().next().unwrap_or_default().to_owned()),
            };
            let seconds = took.as_secs_f64();
            text.push_str(&format!("{name:<width$}  {verdict:<6}  {seconds:>7.1} s  {words}\n"));
        }
        let failed = self.failed();
        text.push_str(&format!("{} passed, {failed} failed", self.rows.len().saturating_sub(failed)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_counted_and_the_next_one_is_still_done() {
        let mut steps = Steps::default();
        steps.run("first", || anyhow::bail!("no luck\nat all"));
        steps.run("second step", || Ok(Counted { count: 3, words: "things".to_owned() }));
        let table = steps.table();
        assert!(!steps.is_ok());
        assert!(table.contains("first        FAILED"), "{table}");
        assert!(table.ends_with("1 passed, 1 failed"), "{table}");
    }
}
