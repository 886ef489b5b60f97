//! Results as a table, as JSON, and in one line.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::audit::Finding;
use crate::catalogue::{Broken, Entry};
use crate::run::Outcome;

/// The columns of the table.
pub const COLUMNS: [&str; 12] = [
    "strategy",
    "oversold",
    "lost",
    "duplicated",
    "stuck",
    "p95",
    "requests/s",
    "database errors",
    "5xx",
    "no answer",
    "sold",
    "verdict",
];

/// The table of all runs.
#[must_use]
pub fn text(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(COLUMNS);
    for outcome in outcomes {
        table.add_row(row(outcome));
    }
    for (index, _) in COLUMNS.iter().enumerate().filter(|(index, _)| (1..=10).contains(index)) {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// One run as a row of [`COLUMNS`].
#[must_use]
pub fn row(outcome: &Outcome) -> Vec<String> {
    let (verdict, answers) = (&outcome.verdict, &outcome.answers);
    let count = |broken| verdict.count(broken).to_string();
    vec![
        outcome.entry.name.to_owned(),
        count(Broken::Oversold),
        count(Broken::Lost),
        count(Broken::Duplicated),
        count(Broken::Stuck),
        format!("{:.1} ms", answers.percentile_ms(95)),
        format!("{:.0}", answers.rps()),
        outcome.database_errors().map_or_else(|| "–".to_owned(), |count| count.to_string()),
        format!("{:.1} %", server_error_rate(outcome) * 100.0),
        answers.unanswered.to_string(),
        format!("{} of {}", verdict.sold, verdict.stocked),
        in_words(outcome),
    ]
}

fn server_error_rate(outcome: &Outcome) -> f64 {
    let answers = &outcome.answers;
    if answers.requests == 0 { 0.0 } else { answers.server_errors as f64 / answers.requests as f64 }
}

fn in_words(outcome: &Outcome) -> String {
    let broken = outcome.verdict.findings.iter().map(|finding| broken_in_words(&outcome.entry, finding));
    let broken: Vec<String> = broken.collect();
    match (broken.is_empty(), outcome.is_as_expected()) {
        (true, true) => "every number adds up".to_owned(),
        (true, false) => "NOT AS EXPECTED: it broke nothing".to_owned(),
        (false, true) => broken.join(", "),
        (false, false) => format!("NOT AS EXPECTED: {}", broken.join(", ")),
    }
}

/// What is broken; with its count, if that has no column of its own. Of a strategy with a defect it is told if that is
/// another.
fn broken_in_words(entry: &Entry, finding: &Finding) -> String {
    let name = finding.breaks.name();
    let words = if COLUMNS.contains(&name) { name.to_owned() } else { format!("{} {name}", finding.count) };
    let is_another = entry.defect.is_some() && !entry.may_break(finding.breaks);
    if is_another { format!("unexpectedly {words}") } else { words }
}

/// One run in one line.
#[must_use]
pub fn line(outcome: &Outcome) -> String {
    let verdict = &outcome.verdict;
    format!("sold {} of {}: {}", verdict.sold, verdict.stocked, in_words(outcome))
}

/// One run as a JSON object.
#[must_use]
pub fn object(outcome: &Outcome) -> Value {
    let (verdict, answers) = (&outcome.verdict, &outcome.answers);
    json!({
        "strategy": outcome.entry.name,
        "oversold": verdict.count(Broken::Oversold),
        "lost": verdict.count(Broken::Lost),
        "duplicated": verdict.count(Broken::Duplicated),
        "mismatched": verdict.count(Broken::Mismatched),
        "phantom": verdict.count(Broken::Phantom),
        "stuck": verdict.count(Broken::Stuck),
        "ok": verdict.is_ok(),
        "as_expected": outcome.is_as_expected(),
        "unexpected": outcome.unexpected().map(Broken::name).collect::<Vec<_>>(),
        "findings": verdict.findings.iter().map(|finding| finding.says.clone()).collect::<Vec<_>>(),
        "stocked": verdict.stocked,
        "sold": verdict.sold,
        "available": outcome.books.counts.iter().map(|count| count.available).sum::<i64>(),
        "requests": answers.requests,
        "accepted": answers.accepted,
        "refused": answers.refused,
        "unanswered": answers.unanswered,
        "server_errors": answers.server_errors,
        "error_5xx_rate": server_error_rate(outcome),
        "database_errors": outcome.database_errors(),
        "rps": answers.rps(),
        "p50_ms": answers.percentile_ms(50),
        "p95_ms": answers.percentile_ms(95),
        "p99_ms": answers.percentile_ms(99),
        "memory_mib": outcome.memory_mib,
        "connections": outcome.entry.connections(),
        "written_per_s": outcome.written_per_s(),
        "took_s": outcome.took_s,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::find;

    #[test]
    fn what_has_no_column_is_told_with_its_count() {
        let finding = |breaks| Finding { breaks, count: 7, says: String::new(), keys: Vec::new() };
        let words = |strategy, breaks| broken_in_words(&find(strategy).unwrap(), &finding(breaks));
        assert_eq!(words("everysec", Broken::Lost), "lost");
        assert_eq!(words("everysec", Broken::Oversold), "oversold");
        assert_eq!(words("everysec", Broken::Stuck), "unexpectedly stuck");
        assert_eq!(words("commit-then-die", Broken::Mismatched), "7 mismatched");
        assert_eq!(words("naive", Broken::Phantom), "unexpectedly 7 phantom");
        assert_eq!(words("redis", Broken::Lost), "lost", "of what has no defect, everything is unexpected");
    }
}
