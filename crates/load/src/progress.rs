//! What is shown on standard error while a storm runs.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::options::ProgressMode;
use crate::shard::Shared;

/// The display.
pub(crate) enum Progress {
    Bar(ProgressBar),
    Lines { expected: Option<u64>, last: u64 },
    Hidden,
}

impl Progress {
    /// A display for a storm of `expected` requests.
    pub(crate) fn new(mode: ProgressMode, expected: Option<u64>) -> Progress {
        let bar = match mode {
            ProgressMode::Hidden => return Progress::Hidden,
            ProgressMode::Auto => std::io::stderr().is_terminal(),
            ProgressMode::Bar => true,
            ProgressMode::Lines => false,
        };
        if !bar {
            return Progress::Lines { expected, last: 0 };
        }
        let bar = match expected {
            Some(expected) => ProgressBar::new(expected),
            None => ProgressBar::no_length(),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let template = if expected.is_some() {
            "{elapsed} {wide_bar} {pos}/{len} {msg}"
        } else {
            "{elapsed} {pos} {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Progress::Bar(bar)
    }

    /// How often [`Progress::show`] wants to be called.
    pub(crate) fn period(&self) -> Duration {
        match self {
            Progress::Bar(_) => Duration::from_millis(100),
            _ => Duration::from_secs(1),
        }
    }

    /// Shows where the storm is.
    pub(crate) fn show(&mut self, shared: &Shared, elapsed: Duration) {
        let counts = Counts::read(shared);
        match self {
            Progress::Bar(bar) => {
                bar.set_position(counts.requests());
                bar.set_message(counts.words());
            }
            Progress::Lines { expected, last } => {
                let requests = counts.requests();
                let of = expected.map_or_else(String::new, |expected| format!(" of {expected}"));
                let rate = requests - *last;
                *last = requests;
                say(&format!(
                    "{:4.0} s  {requests}{of} requests, {rate}/s, {}",
                    elapsed.as_secs_f64(),
                    counts.words()
                ));
            }
            Progress::Hidden => {}
        }
    }

    /// Announces what comes next.
    pub(crate) fn step(&self, words: &str) {
        match self {
            Progress::Bar(bar) => bar.set_message(words.to_owned()),
            Progress::Lines { .. } => say(words),
            Progress::Hidden => {}
        }
    }

    /// Takes the display away.
    pub(crate) fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

struct Counts {
    accepted: u64,
    refused: u64,
    errors: u64,
    skipped: u64,
}

impl Counts {
    fn read(shared: &Shared) -> Counts {
        let mut counts = Counts { accepted: 0, refused: 0, errors: 0, skipped: 0 };
        for live in &shared.live {
            counts.accepted += live.accepted.load(Ordering::Relaxed);
            counts.refused += live.refused.load(Ordering::Relaxed);
            counts.errors += live.errors.load(Ordering::Relaxed);
            counts.skipped += live.skipped.load(Ordering::Relaxed);
        }
        counts
    }

    fn requests(&self) -> u64 {
        self.accepted + self.refused + self.errors
    }

    fn words(&self) -> String {
        let skipped = if self.skipped == 0 { String::new() } else { format!(", {} skipped", self.skipped) };
        format!("{} accepted, {} refused, {} errors{skipped}", self.accepted, self.refused, self.errors)
    }
}

/// A closed standard error is no reason to stop a storm.
fn say(words: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{words}");
}
