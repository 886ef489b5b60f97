//! The report: one page that shows, for every strategy, what went wrong, and how.

mod charts;

use std::path::Path;

use anyhow::{Context as _, Result};
use askama::Template;
use charts_rs::svg_to_png;
use serde_json::json;

use crate::catalogue::{Entry, Kind};
use crate::run::Outcome;
use crate::table;
use crate::timeline::{Timeline, timeline};

pub use charts::{Chart, charts};

/// What the page is made of.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    setting: &'a str,
    sections: Vec<Section>,
}

struct Section {
    entry: Entry,
    kind: &'static str,
    is_ok: bool,
    row: Vec<String>,
    findings: Vec<String>,
    charts: Vec<Chart>,
    timeline: Option<Timeline>,
}

impl Section {
    fn new(outcome: &Outcome) -> Result<Section> {
        Ok(Section {
            entry: outcome.entry,
            kind: match outcome.entry.kind {
                Kind::Generation => "a generation of the older systems",
                Kind::Museum => "a bug that people ship",
                Kind::Engine => "an engine of Yoink",
            },
            is_ok: outcome.verdict.is_ok(),
            row: table::row(outcome),
            findings: outcome.verdict.findings.iter().map(|finding| finding.says.clone()).collect(),
            charts: charts(outcome)?,
            timeline: timeline(outcome),
        })
    }
}

/// The page as HTML that needs nothing from elsewhere. `setting` says how large the crowd was.
///
/// # Errors
/// A chart cannot be drawn.
pub fn html(outcomes: &[Outcome], setting: &str) -> Result<String> {
    let sections = outcomes.iter().map(Section::new).collect::<Result<_>>()?;
    Page { setting, sections }.render().context("the page cannot be written")
}

/// Writes `report.html`, `report.json` and every chart as PNG into `folder`.
///
/// # Errors
/// A file cannot be written, or a chart cannot be drawn.
pub fn write(outcomes: &[Outcome], setting: &str, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let save = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    save("report.html", html(outcomes, setting)?.as_bytes())?;
    let document: Vec<_> = outcomes.iter().map(with_timeline).collect();
    save("report.json", serde_json::to_string_pretty(&document)?.as_bytes())?;
    for outcome in outcomes {
        for chart in charts(outcome)? {
            let png = svg_to_png(&chart.svg).with_context(|| format!("cannot draw {}", chart.name))?;
            save(&format!("{}-{}.png", outcome.entry.name, chart.name), &png)?;
        }
    }
    Ok(())
}

fn with_timeline(outcome: &Outcome) -> serde_json::Value {
    let mut object = table::object(outcome);
    if let (Some(fields), Some(timeline)) = (object.as_object_mut(), timeline(outcome)) {
        fields.insert("timeline".to_owned(), timeline.json());
    }
    if let Some(fields) = object.as_object_mut() {
        fields.insert("does".to_owned(), json!(outcome.entry.line));
        fields.insert("repair".to_owned(), json!(outcome.entry.repair));
    }
    object
}
