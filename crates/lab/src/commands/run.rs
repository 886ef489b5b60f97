//! `yoink-lab run`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{chosen, complain, show};
use crate::catalogue::{Entry, Seller};
use crate::cli::{RunArgs, Setting};
use crate::run::{Outcome, Size, run as run_one};
use crate::stage::{Given, Servers};
use crate::table;
use crate::yoink::{described, find_program};

/// Runs strategies one after the other. Ends well if each went as the catalogue says: the wrong ones showed their
/// defect, the right ones none.
///
/// # Errors
/// No run gave a result. In JSON, what kept each from it is said all the same.
pub async fn run(args: RunArgs) -> Result<ExitCode> {
    let entries = chosen(&args.strategies)?;
    let results = run_all(&entries, &args.setting).await;
    if args.json {
        show(&serde_json::to_string_pretty(&results.json())?)?;
        results.ensure_any()?;
    } else {
        results.ensure_any()?;
        show(&table::text(&results.outcomes))?;
    }
    Ok(results.exit())
}

impl Results {
    /// Whether there is anything to show.
    ///
    /// # Errors
    /// There is no result.
    pub(super) fn ensure_any(&self) -> Result<()> {
        if self.outcomes.is_empty() {
            let names: Vec<&str> = self.failed.iter().map(|(name, _)| *name).collect();
            bail!("no result: {}", names.join(", "));
        }
        Ok(())
    }

    /// One document: an object per strategy; after those with a result, `strategy` and `error` of those without.
    fn json(&self) -> Value {
        let failed = self.failed.iter().map(|(name, error)| json!({"strategy": name, "error": error}));
        Value::Array(self.outcomes.iter().map(table::object).chain(failed).collect())
    }

    /// How the program ends: well if every strategy did as the catalogue says.
    pub(super) fn exit(&self) -> ExitCode {
        let surprises = self.outcomes.iter().filter(|outcome| !outcome.is_as_expected());
        let mut names: Vec<&str> = surprises.map(|outcome| outcome.entry.name).collect();
        names.extend(self.failed.iter().map(|(name, _)| *name));
        if names.is_empty() {
            return ExitCode::SUCCESS;
        }
        complain(&format!("not as expected: {}", names.join(", ")));
        ExitCode::FAILURE
    }
}

/// What came of several runs.
pub(super) struct Results {
    pub(super) outcomes: Vec<Outcome>,
    /// Names of those that gave no result, and what kept each from it.
    failed: Vec<(&'static str, String)>,
}

/// Runs strategies one after the other. Says before which `yoink` sells for the engines, if one is among them.
pub(super) async fn run_all(entries: &[Entry], setting: &Setting) -> Results {
    let mut given = Given {
        postgres: setting.postgres.clone(),
        redis: setting.redis.clone(),
        amqp: setting.amqp.clone(),
        yoink: setting.yoink.clone(),
    };
    if entries.iter().any(|entry| matches!(entry.seller, Seller::Engine(_))) {
        // Where there is none, each engine's run says so.
        given.yoink = given.yoink.or_else(|| block_in_place(find_program).ok());
        if let Some(program) = &given.yoink {
            complain(&format!("the engines are {}", described(program)));
        }
    }
    let mut servers = Servers::new(given);
    let size = Size { buyers: setting.buyers, units: setting.units, products: setting.products };
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    for entry in entries {
        match run_and_keep(*entry, &size, &mut servers, setting).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => {
                complain(&format!("{}: {error:#}", entry.name));
                failed.push((entry.name, format!("{error:#}")));
            }
        }
    }
    // What the others came to is worth showing all the same.
    Results { outcomes, failed }
}

/// Runs one. What it wrote is kept if that was asked for, or if it did not go as the catalogue says.
async fn run_and_keep(
    entry: Entry,
    size: &Size,
    servers: &mut Servers,
    setting: &Setting,
) -> Result<Outcome> {
    let line = Line::new(entry.name);
    // A folder of its own, because the same strategy may be run twice at a time.
    let own = tempfile::Builder::new().prefix("yoink-lab-").tempdir().context("no temporary folder")?;
    let folder = match &setting.keep {
        Some(kept) => kept.join(entry.name),
        None => own.path().to_owned(),
    };
    let outcome = run_one(entry, size, servers, folder, &|text| line.say(text)).await;
    let is_as_expected = outcome.as_ref().is_ok_and(Outcome::is_as_expected);
    line.end(&outcome.as_ref().map_or_else(|_| "gave no result".to_owned(), table::line));
    let has_written = std::fs::read_dir(own.path()).is_ok_and(|mut files| files.next().is_some());
    if !is_as_expected && has_written && setting.keep.is_none() {
        complain(&format!("{}: what it wrote is in {}", entry.name, own.keep().display()));
    }
    outcome
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
