//! What the lab tells: timelines and reports, made from real runs.

#![cfg(test)]

mod common;

use std::path::Path;

use serde_json::Value;

use common::{figure, has_timeline, lab, small};

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn explained(arguments: &[&str]) -> Value {
    serde_json::from_slice(&small(&[&["explain", "--json"], arguments].concat()).stdout).unwrap()
}

fn field<'a>(line: &'a Value, name: &str) -> &'a str {
    line.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn an_explanation_shows_two_buyers_who_read_the_same_stock_before_either_writes_it() {
    let output = lab(&["explain", "row-lock", "--buyers", "100", "--units", "10"], 0);
    let words = String::from_utf8(output.stdout).unwrap();
    assert!(words.contains("every number adds up") && words.contains("Why:"), "{words}");

    let document = explained(&["naive"]);
    let lines = document.pointer("/timeline/lines").and_then(Value::as_array).unwrap();
    let times: Vec<u64> = lines.iter().map(|line| line.get("after_us").unwrap().as_u64().unwrap()).collect();
    assert!(times.is_sorted() && times[0] == 0, "{times:?}");
    let steps = |what: &str| -> Vec<(usize, &Value)> {
        lines.iter().enumerate().filter(|(_, line)| field(line, "what") == what).collect()
    };
    let (reads, writes) = (steps("reads the stock"), steps("writes the stock"));
    assert!(reads.len() > 1 && writes.len() > 1, "{document}");
    // The same number was read by different buyers, and the second read it before the first had written.
    assert_eq!(field(reads[0].1, "detail"), field(reads[1].1, "detail"), "{document}");
    assert_ne!(field(reads[0].1, "who"), field(reads[1].1, "who"), "{document}");
    assert!(reads[1].0 < writes[1].0, "{document}");

    let two = explained(&["naive", "--products", "2"]);
    let title = two.pointer("/timeline/title").and_then(Value::as_str).unwrap_or_default();
    assert!(has_timeline(&two) && title.contains("unit of "), "{two:#}");
}

#[test]
fn a_report_is_one_page_with_its_charts_beside_it_as_png_and_its_figures_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let crowd = ["--buyers", "200", "--units", "20", "--out", out.to_str().unwrap()];
    lab(&[&["report", "naive", "atomic-sql"], &crowd[..]].concat(), 0);
    let page = text(&out.join("report.html"));
    for word in ["<link", "src=", "@import", "url(", "<script"] {
        assert!(!page.contains(word), "the page needs {word}");
    }
    assert_eq!(page.matches("<section").count(), 2);
    assert!(page.contains("buyer A") && page.contains("reads the stock"), "the page has no timeline");
    assert_eq!(page.matches("<figure").count(), page.matches("<svg").count());
    for chart in ["naive-latency", "naive-stock", "naive-units", "atomic-sql-latency"] {
        assert!(page.contains(&format!("id=\"{chart}\"")), "the page has no {chart}");
        let png = std::fs::read(out.join(format!("{chart}.png"))).unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 2_000, "{chart}: {} bytes", png.len());
    }
    let figures: Value = serde_json::from_str(&text(&out.join("report.json"))).unwrap();
    let naive = &figures[0];
    assert!(figure(naive, "oversold") > 0 && naive["timeline"]["lines"].is_array(), "{figures}");
    assert_eq!((figure(&figures[1], "oversold"), figures[1].get("timeline")), (0, None));
}

#[test]
fn the_list_names_every_strategy_once_and_what_it_breaks() {
    assert_eq!(lab(&[], 0).stdout, lab(&["list"], 0).stdout, "nothing said, the list is given");
    let output = lab(&["list", "--json"], 0);
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let mut names: Vec<&str> = entries.iter().map(|entry| field(entry, "strategy")).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), entries.len()), (20, 20));
    let right: Vec<&str> = entries
        .iter()
        .filter(|entry| entry["breaks"].is_null())
        .map(|entry| field(entry, "strategy"))
        .collect();
    assert_eq!(right, ["atomic-sql", "row-lock", "embedded", "redis", "rabbitmq"]);
    let also = |entry: &&Value| entry["also"].as_array().is_some_and(|also| !also.is_empty());
    let with_more: Vec<&str> = entries.iter().filter(also).map(|entry| field(entry, "strategy")).collect();
    assert_eq!(with_more, ["commit-then-die", "lock-by-user", "everysec"]);
}

#[test]
fn what_cannot_be_run_is_said_before_anything_is_started() {
    for (arguments, word) in [
        (&["run", "nothing-like-it"][..], "there is no strategy"),
        (&["run", "naive", "--buyers", "0"], "--buyers"),
        (&["run", "naive", "--units=-1"], "--units"),
        (&["explain"], "STRATEGY"),
        (&["run"], "STRATEGIES"),
    ] {
        let told = String::from_utf8(lab(arguments, 2).stderr).unwrap();
        assert!(told.contains(word), "{arguments:?}: {told}");
    }
}
