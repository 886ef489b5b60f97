//! `yoink-lab run`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::{chosen, complain, show};
use crate::catalogue::Entry;
use crate::cli::{RunArgs, Setting};
use crate::run::{Outcome, Size, run as run_one};
use crate::stage::{Given, Servers, runs_folder};
use crate::table;

/// Runs strategies one after the other. Ends well if each went as the catalogue says: the wrong ones showed their
/// defect, the right ones none.
///
/// # Errors
/// A run gave no result.
pub async fn run(args: RunArgs) -> Result<ExitCode> {
    let entries = chosen(&args.strategies)?;
    let outcomes = run_all(&entries, &args.setting).await?;
    if args.json {
        show(&serde_json::to_string_pretty(&table::json(&outcomes))?)?;
    } else {
        show(&table::text(&outcomes))?;
    }
    Ok(expected(&outcomes))
}

/// How the program ends: well if every strategy did as the catalogue says.
pub(super) fn expected(outcomes: &[Outcome]) -> ExitCode {
    let surprises: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| !outcome.is_as_expected())
        .map(|outcome| outcome.entry.name)
        .collect();
    if surprises.is_empty() {
        return ExitCode::SUCCESS;
    }
    complain(&format!("not as expected: {}", surprises.join(", ")));
    ExitCode::FAILURE
}

pub(super) async fn run_all(entries: &[Entry], setting: &Setting) -> Result<Vec<Outcome>> {
    let given = Given {
        postgres: setting.postgres.clone(),
        redis: setting.redis.clone(),
        amqp: setting.amqp.clone(),
        yoink: setting.yoink.clone(),
    };
    let mut servers = Servers::new(given);
    let size = Size { buyers: setting.buyers, units: setting.units, products: setting.products };
    let mut outcomes = Vec::new();
    for entry in entries {
        let line = Line::new(entry.name);
        let folder = runs_folder().join(entry.name);
        let outcome = run_one(*entry, &size, &mut servers, folder, &|text| line.say(text)).await;
        let outcome = outcome.inspect_err(|_| line.end("gave no result"))?;
        line.end(&table::line(&outcome));
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// The live line of one strategy.
struct Line {
    bar: ProgressBar,
    name: &'static str,
}

impl Line {
    fn new(name: &'static str) -> Line {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:22} {elapsed:>4} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(name);
        bar.enable_steady_tick(Duration::from_millis(100));
        Line { bar, name }
    }

    fn say(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    fn end(&self, text: &str) {
        let was_seen = !self.bar.is_hidden();
        self.bar.finish_with_message(text.to_owned());
        if !was_seen {
            complain(&format!("{}: {text}", self.name));
        }
    }
}
