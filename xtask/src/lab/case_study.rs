//! `cargo xtask case-study`: the story of the generations, with the numbers of runs made for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Lab, figure, text};
use crate::say::say;
use crate::steps::Counted;

const TEMPLATE: &str = include_str!("case-study.template.md");

/// The strategies that the page tells of, in its order.
const TOLD: [&str; 9] = [
    "naive",
    "atomic-sql",
    "row-lock",
    "redis-sync",
    "redis-queue",
    "broker-lock",
    "embedded",
    "redis",
    "rabbitmq",
];
/// How many of the last of them are engines.
const ENGINES: usize = 3;

/// Runs them, and writes docs/case-study.md.
///
/// # Errors
/// A run gave no result, or the page asks for a figure that there is not.
pub(crate) fn run() -> Result<Counted> {
    let lab = Lab::build()?;
    let runs = lab.json(&[&["run"], &TOLD[..]].concat())?;
    let unexpected: Vec<&str> = runs
        .iter()
        .filter(|run| run.get("as_expected") != Some(&Value::Bool(true)))
        .map(|run| text(run, "strategy"))
        .collect();
    ensure!(
        runs.len() == TOLD.len() && unexpected.is_empty(),
        "not as the page tells it: {}",
        unexpected.join(", ")
    );
    for run in &runs {
        let others = figure(run, "mismatched") + figure(run, "phantom");
        ensure!(others == 0.0, "{}: {others} orders are not as the page tells it", text(run, "strategy"));
    }
    let page = page(TEMPLATE, &runs)?;
    let path = crate::root()?.join("docs").join("case-study.md");
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    say(format!("case study: {}", path.display()));
    Ok(Counted::of(u64::try_from(runs.len())?, "strategies told of"))
}

/// Fills in every `{{strategy.figure}}` of the template, and its tables.
fn page(template: &str, runs: &[Value]) -> Result<String> {
    let by_name: BTreeMap<&str, &Value> = runs.iter().map(|run| (text(run, "strategy"), run)).collect();
    let engines = runs.get(runs.len().saturating_sub(ENGINES)..).unwrap_or_default();
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").context("a figure of the template has no end")?;
        page.push_str(before);
        match name {
            "table" => page.push_str(table(runs, row).trim_end()),
            "engines" => page.push_str(table(engines, engine_row).trim_end()),
            "cores" => {
                let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                page.push_str(&cores.to_string());
            }
            name => page.push_str(&filled(name, &by_name)?),
        }
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}

fn filled(name: &str, runs: &BTreeMap<&str, &Value>) -> Result<String> {
    let (strategy, field) = name.split_once('.').with_context(|| format!("{name} is no figure"))?;
    let run = runs.get(strategy).with_context(|| format!("{strategy} was not run"))?;
    let figure = run.get(field).and_then(Value::as_f64);
    let figure = figure.with_context(|| format!("a run of {strategy} has no {field}"))?;
    Ok(if field.ends_with("_ms") { format!("{figure:.1}") } else { format!("{figure:.0}") })
}

fn table(runs: &[Value], row: fn(&Value) -> String) -> String {
    runs.iter().fold(String::new(), |mut table, run| {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{}", row(run));
        table
    })
}

fn row(run: &Value) -> String {
    let count = |name| format!("{:.0}", figure(run, name));
    format!(
        "| {} | {} of {} | {} | {} | {} | {} | {:.1} ms | {} | {:.1} % |",
        text(run, "strategy"),
        count("sold"),
        count("stocked"),
        count("oversold"),
        count("lost"),
        count("duplicated"),
        count("stuck"),
        figure(run, "p95_ms"),
        count("rps"),
        figure(run, "error_5xx_rate") * 100.0,
    )
}

fn engine_row(run: &Value) -> String {
    let count = |name| format!("{:.0}", figure(run, name));
    format!(
        "| {} | {} | {} | {} | {} | {} of {} | {:.1} ms | {} | {:.0} MiB |",
        text(run, "strategy"),
        count("oversold"),
        count("lost"),
        count("duplicated"),
        count("stuck"),
        count("sold"),
        count("stocked"),
        figure(run, "p95_ms"),
        count("rps"),
        figure(run, "memory_mib"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn runs() -> Vec<Value> {
        let run = |name: &&str| {
            json!({
                "strategy": name, "stocked": 100, "sold": 100, "requests": 1_000, "available": 0, "oversold": 7,
                "lost": 0, "duplicated": 0, "stuck": 0, "p95_ms": 12.34, "rps": 900.6, "error_5xx_rate": 0.25,
                "server_errors": 3, "database_errors": 4, "memory_mib": 20.2, "connections": 10,
                "written_per_s": 700.4, "tries": 120,
            })
        };
        TOLD.iter().map(run).collect()
    }

    #[test]
    fn every_figure_that_the_page_asks_for_is_filled_in() {
        let page = page(TEMPLATE, &runs()).unwrap();
        assert!(!page.contains("{{") && !page.contains("}}") && !page.contains("NaN"), "{page}");
        assert!(page.contains("| naive | 100 of 100 | 7 | 0 | 0 | 0 | 12.3 ms | 901 | 25.0 % |"), "{page}");
        assert!(
            page.contains("| rabbitmq | 7 | 0 | 0 | 0 | 100 of 100 | 12.3 ms | 901 | 20 MiB |"),
            "{page}"
        );
    }

    #[test]
    fn a_figure_that_there_is_not_is_an_error() {
        assert!(page("{{naive.beauty}}", &runs()).is_err());
        assert!(page("{{nobody.sold}}", &runs()).is_err());
        assert!(page("{{naive.sold", &runs()).is_err());
    }
}
