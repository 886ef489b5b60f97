//! A row of steps, each timed and counted, and the table of them at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::say::{begin_lines_with, say};

/// What a step says for itself: how many things it looked at, and in which words.
#[derive(Debug)]
pub(crate) struct Counted {
    /// How many.
    pub(crate) count: u64,
    /// Of what, and whatever else the table should say.
    pub(crate) words: String,
    /// What the step adds to the sum in the last line.
    passed: u64,
}

impl Counted {
    /// A step that is one check, whatever it looked at.
    pub(crate) fn of(count: u64, words: impl Into<String>) -> Counted {
        Counted { count, words: words.into(), passed: 1 }
    }

    /// A step that is as many checks as it ran tests.
    pub(crate) fn tests(count: u64) -> Counted {
        Counted { count, words: "tests".to_owned(), passed: count }
    }
}

/// Some tests did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TestsFailed {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl std::fmt::Display for TestsFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tests passed, {} failed", self.passed, self.failed)
    }
}

impl std::error::Error for TestsFailed {}

#[derive(Debug)]
struct Failure {
    message: String,
    tests: TestsFailed,
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
    outcome: Result<Counted, Failure>,
}

/// A step by its name.
pub(crate) type Step<'a> = (&'static str, Box<dyn FnOnce() -> Result<Counted> + Send + 'a>);

fn done(name: &'static str, step: impl FnOnce() -> Result<Counted>) -> Row {
    say(format!("\n=== {name}"));
    let begun = Instant::now();
    let outcome = step().map_err(|error| Failure {
        message: format!("{error:#}"),
        // A step that is not tests, or whose tests could not even be built, is one failure.
        tests: error.downcast_ref().copied().unwrap_or(TestsFailed { passed: 0, failed: 1 }),
    });
    if let Err(failure) = &outcome {
        say(format!("=== {name} FAILED: {}", failure.message));
    }
    Row { name, took: begun.elapsed(), outcome }
}

impl Steps {
    /// Does a step. A step that fails does not keep the others from being done: one run shows everything.
    pub(crate) fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<Counted>) {
        self.rows.push(done(name, step));
    }

    /// Does rows of steps beside each other, the steps of each row one after the other, because some mostly wait and
    /// some mostly compute. A row has a label, which begins what it says.
    pub(crate) fn run_beside(&mut self, rows: Vec<(&'static str, Vec<Step<'_>>)>) {
        let all = std::thread::scope(|scope| {
            let running: Vec<_> = rows
                .into_iter()
                .map(|(label, steps)| {
                    scope.spawn(move || {
                        begin_lines_with(label);
                        steps.into_iter().map(|(name, step)| done(name, step)).collect::<Vec<Row>>()
                    })
                })
                .collect();
            running.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        for row in all {
            match row {
                Ok(rows) => self.rows.extend(rows),
                Err(_) => self.run("steps beside each other", || bail!("a thread panicked")),
            }
        }
    }

    /// Whether every step held.
    pub(crate) fn is_ok(&self) -> bool {
        self.rows.iter().all(|row| row.outcome.is_ok())
    }

    /// The table, and as the last line how many checks passed and failed.
    pub(crate) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        let mut text = String::new();
        let (mut passed, mut failed) = (0_u64, 0_u64);
        for Row { name, took, outcome } in &self.rows {
            let (verdict, words, counts) = match outcome {
                Ok(counted) => ("ok", format!("{} {}", counted.count, counted.words), (counted.passed, 0)),
                Err(Failure { message, tests }) => {
                    let first = message.lines().next().unwrap_or_default().to_owned();
                    ("FAILED", first, (tests.passed, tests.failed.max(1)))
                }
            };
            (passed, failed) = (passed.saturating_add(counts.0), failed.saturating_add(counts.1));
            let seconds = took.as_secs_f64();
            text.push_str(&format!("{name:<width$}  {verdict:<6}  {seconds:>7.1} s  {words}\n"));
        }
        text.push_str(&format!("{passed} passed, {failed} failed"));
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
        steps.run("second step", || Ok(Counted::of(300, "things")));
        let table = steps.table();
        assert!(!steps.is_ok());
        assert!(table.contains("first        FAILED"), "{table}");
        assert!(table.ends_with("\n1 passed, 1 failed"), "{table}");
    }

    #[test]
    fn rows_beside_each_other_do_all_their_steps_at_the_same_time() {
        let mut steps = Steps::default();
        // Neither ends before the other has begun.
        let meeting = std::sync::Barrier::new(2);
        let meet = |fails: bool| -> Box<dyn FnOnce() -> Result<Counted> + Send + '_> {
            let meeting = &meeting;
            Box::new(move || {
                meeting.wait();
                if fails { bail!("it failed") } else { Ok(Counted::of(1, "meeting")) }
            })
        };
        let more: Step<'_> = ("later", Box::new(|| Ok(Counted::of(2, "things"))));
        steps.run_beside(vec![
            ("one", vec![("waits", meet(true)), more]),
            ("other", vec![("meets", meet(false))]),
        ]);
        let table = steps.table();
        let names: Vec<&str> = table.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, ["waits", "later", "meets", "2"], "{table}");
        assert!(!steps.is_ok() && table.ends_with("2 passed, 1 failed"), "{table}");
    }

    #[test]
    fn tests_are_counted_one_by_one() {
        let mut steps = Steps::default();
        steps.run("tests", || Ok(Counted::tests(40)));
        steps.run("more tests", || Err(TestsFailed { passed: 7, failed: 2 }.into()));
        steps.run("tests that do not even build", || Err(TestsFailed { passed: 0, failed: 0 }.into()));
        assert!(steps.table().ends_with("\n47 passed, 3 failed"), "{}", steps.table());
    }
}
