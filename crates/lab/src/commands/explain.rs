//! `yoink-lab explain`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::run::run_all;
use super::{chosen, show};
use crate::catalogue::Seller;
use crate::cli::ExplainArgs;
use crate::design::diff;
use crate::run::Outcome;
use crate::table;
use crate::timeline::{Timeline, timeline};

/// Runs a strategy and shows the interleaving that broke it.
///
/// # Errors
/// The run gave no result.
pub async fn explain(args: ExplainArgs) -> Result<ExitCode> {
    let entries = chosen(std::slice::from_ref(&args.strategy))?;
    let results = run_all(&entries, &args.setting).await;
    results.ensure_any()?;
    let outcome = results.outcomes.first().context("nothing was run")?;
    let timeline = timeline(outcome);
    if args.json {
        let told = timeline.as_ref().map(Timeline::json);
        let document = json!({"result": table::object(outcome), "timeline": told});
        show(&serde_json::to_string_pretty(&document)?)?;
    } else {
        show(&in_words(outcome, timeline.as_ref()))?;
    }
    Ok(results.exit())
}

fn in_words(outcome: &Outcome, timeline: Option<&Timeline>) -> String {
    let entry = &outcome.entry;
    let mut text = format!("{}: {}\n\n", entry.name, entry.line);
    if let Some(defect) = entry.defect {
        text += &format!("What breaks:  {}, because {}.\n", defect.name(), defect.how);
    }
    text += &format!("What is done: {}.\n", entry.scene_in_words());
    text += &format!("This run:     {}\n", table::line(outcome));
    for finding in &outcome.verdict.findings {
        text += &format!("              {}\n", finding.says);
    }
    match (timeline, outcome.verdict.is_ok()) {
        (Some(timeline), _) => text += &format!("\n{}", timeline.text()),
        (None, true) if entry.defect.is_none() => {
            text += "\nThere is nothing to show: every number adds up.\n"
        }
        (None, true) => text += "\nThis time nothing was broken. Run it again, or with more buyers.\n",
        (None, false) if matches!(entry.seller, Seller::Engine(_)) => {
            text += "\nWho sold it did not write down its steps, so there is no timeline.\n";
        }
        (None, false) => text += "\nNothing that the shop wrote down shows it, so there is no timeline.\n",
    }
    let word = if entry.defect.is_some() { "The repair:  " } else { "Why:         " };
    text += &format!("\n{word} {}\n", entry.repair);
    for line in diff(entry.name) {
        text += &format!("              {line}\n");
    }
    text
}
