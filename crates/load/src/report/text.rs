//! The report for people: a few aligned tables, and the verdict last.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Color, Row, Table, TableStyle, presets};

use super::{Percentiles, StormReport};

/// How much a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoration {
    /// Letters and spaces only: for files, pipes and CI.
    Plain,
    /// Lines around tables.
    Lines,
    /// Lines, and colours for the verdict.
    Colours,
}

impl Decoration {
    /// What standard output can take: plain if it is not a terminal, no colours if `NO_COLOR` is set.
    #[must_use]
    pub fn of_stdout() -> Decoration {
        if !io::stdout().is_terminal() {
            return Decoration::Plain;
        }
        match std::env::var_os("NO_COLOR") {
            Some(value) if !value.is_empty() => Decoration::Lines,
            _ => Decoration::Colours,
        }
    }
}

pub(super) fn write(report: &StormReport, out: &mut dyn Write, decoration: Decoration) -> io::Result<()> {
    head(report, out)?;
    print(out, "Answers", &answers(report, decoration))?;
    print(out, "Times", &times(report, decoration))?;
    if !report.checks.is_empty() {
        let name = report.preset.map_or("", |preset| preset.name());
        let rows = report.checks.iter().map(|check| (check.ok, check.name.clone(), check.detail.clone()));
        print(out, &format!("Expectations of {name}"), &verdicts(rows, decoration))?;
    }
    if !report.assertions.is_empty() {
        let rows = report
            .assertions
            .iter()
            .map(|result| (result.ok, result.assertion.clone(), format!("measured {}", result.measured)));
        print(out, "Thresholds", &verdicts(rows, decoration))?;
    }
    audit(report, out, decoration)?;
    verdict(report, out, decoration)
}

fn head(report: &StormReport, out: &mut dyn Write) -> io::Result<()> {
    let preset = report.preset.map_or_else(String::new, |preset| format!("{preset}: "));
    writeln!(out, "Storm on product {} at {}", report.product, report.target)?;
    writeln!(out, "{preset}{}, seed {}", report.description, report.seed)?;
    for note in &report.notes {
        writeln!(out, "Note: {note}.")?;
    }
    if report.rejected.contains_key("unauthorized") || report.rejected.contains_key("forbidden") {
        writeln!(out, "Note: the server wants a key for purchases; give one.")?;
    }
    Ok(())
}

fn answers(report: &StormReport, decoration: Decoration) -> Table {
    let mut rows: Vec<(String, String)> = vec![
        ("requests".to_owned(), report.requests.to_string()),
        ("accepted".to_owned(), report.accepted.saturating_sub(report.queued).to_string()),
    ];
    rows.extend(queued(report));
    if report.replayed > 0 {
        rows.push(("  of these replays".to_owned(), report.replayed.to_string()));
    }
    let refused: u64 = report.rejected.values().sum();
    rows.push(("refused".to_owned(), refused.to_string()));
    for (reason, count) in &report.rejected {
        rows.push((format!("  {}", printable(reason)), count.to_string()));
    }
    for (name, count) in [("status 429", report.too_many_requests), ("status 503", report.unavailable)] {
        if count > 0 {
            rows.push((name.to_owned(), count.to_string()));
        }
    }
    rows.push(("errors".to_owned(), report.errors().to_string()));
    for (kind, count) in &report.failures {
        rows.push((format!("  {kind}"), count.to_string()));
    }
    if let Some(resolution) = report.audit.as_ref().map(|audit| &audit.resolution).filter(|it| it.asked > 0) {
        rows.push(("  orders, when asked again".to_owned(), resolution.accepted.to_string()));
        rows.push(("  refused, when asked again".to_owned(), resolution.refused.to_string()));
    }
    if report.lateness.is_some() {
        rows.push(("skipped, no connection free".to_owned(), report.skipped.to_string()));
    }
    rows.push(("requests/s".to_owned(), format!("{:.1}", report.rps)));
    let was_decided = report.queued > 0 && report.audit.as_ref().is_some_and(|it| it.orders.rejected > 0);
    let never = if was_decided { "decided later" } else { "never" };
    rows.push(("sold out after".to_owned(), report.sold_out_after.map_or(never.to_owned(), seconds)));
    if let Some(after) = report.last_accepted_after {
        rows.push(("last acceptance after".to_owned(), seconds(after)));
    }
    let mut table = table(decoration);
    for (name, value) in rows {
        table.add_row([Cell::new(name), Cell::new(value).set_alignment(CellAlignment::Right)]);
    }
    table
}

/// Requests that were queued, and what the audit found that they have become.
fn queued(report: &StormReport) -> Vec<(String, String)> {
    if report.queued == 0 {
        return Vec::new();
    }
    let mut rows = vec![("queued".to_owned(), report.queued.to_string())];
    if let Some(orders) = report.audit.as_ref().map(|audit| &audit.orders) {
        let others = [("cancelled", orders.cancelled), ("failed", orders.failed)];
        rows.push(("  confirmed".to_owned(), orders.confirmed.to_string()));
        rows.push(("  rejected".to_owned(), orders.rejected.to_string()));
        rows.extend(
            others
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(what, count)| (format!("  {what}"), count.to_string())),
        );
    }
    rows
}

fn times(report: &StormReport, decoration: Decoration) -> Table {
    let mut table = table(decoration);
    table.set_header(["", "p50", "p90", "p95", "p99", "p99.9", "max"].map(right));
    table.add_row(times_row("latency", &report.latency));
    if let Some(lateness) = &report.lateness {
        table.add_row(times_row("our own lateness", lateness));
    }
    table
}

fn times_row(name: &str, percentiles: &Percentiles) -> Row {
    let value = |us: u64| {
        if percentiles.count == 0 { "none".to_owned() } else { time(us) }
    };
    let mut row = Row::new();
    row.add_cell(Cell::new(name));
    for (_, us) in percentiles.named() {
        row.add_cell(right(value(us)));
    }
    row
}

fn audit(report: &StormReport, out: &mut dyn Write, decoration: Decoration) -> io::Result<()> {
    let Some(audit) = &report.audit else {
        return writeln!(out, "\nAudit: not asked for");
    };
    let rows = audit.invariants.iter().map(|line| (line.ok, line.id.to_owned(), line.detail.clone()));
    print(out, "Audit", &verdicts(rows, decoration))?;
    let orders = &audit.orders;
    writeln!(
        out,
        "oversold {}, lost {}, duplicated {}, stuck {}; orders: {} accepted, {} confirmed, {} cancelled, {} failed, \
         {} rejected",
        audit.oversold,
        audit.lost,
        audit.duplicated,
        audit.stuck,
        orders.accepted,
        orders.confirmed,
        orders.cancelled,
        orders.failed,
        orders.rejected
    )?;
    if audit.without_id > 0 {
        writeln!(out, "{} acceptances name no order, so they were looked up by customer", audit.without_id)?;
    }
    for finding in &audit.findings {
        writeln!(out, "{}: {}", finding.kind, printable(&finding.detail))?;
    }
    Ok(())
}

fn verdict(report: &StormReport, out: &mut dyn Write, decoration: Decoration) -> io::Result<()> {
    let problems = report.problems();
    let (word, colour) = if problems.is_empty() { ("ok", "32") } else { ("FAILED", "31") };
    if decoration == Decoration::Colours {
        writeln!(out, "\nVerdict: \u{1b}[1;{colour}m{word}\u{1b}[0m")?;
    } else {
        writeln!(out, "\nVerdict: {word}")?;
    }
    for problem in problems {
        writeln!(out, "  {}", printable(&problem))?;
    }
    Ok(())
}

fn verdicts(rows: impl Iterator<Item = (bool, String, String)>, decoration: Decoration) -> Table {
    let mut table = table(decoration);
    for (ok, name, detail) in rows {
        let word = Cell::new(if ok { "ok" } else { "FAILED" });
        let word = match (decoration, ok) {
            (Decoration::Colours, true) => word.fg(Color::Green),
            (Decoration::Colours, false) => word.fg(Color::Red),
            _ => word,
        };
        table.add_row([word, Cell::new(name), Cell::new(printable(&detail))]);
    }
    table
}

fn table(decoration: Decoration) -> Table {
    let mut table = Table::new();
    let style: TableStyle = match decoration {
        Decoration::Plain => presets::NOTHING,
        Decoration::Lines | Decoration::Colours => presets::UTF8_FULL_CONDENSED,
    };
    table.load_style(style);
    match decoration {
        Decoration::Colours => table.enforce_styling(),
        _ => table.force_no_tty(),
    };
    table
}

fn print(out: &mut dyn Write, title: &str, table: &Table) -> io::Result<()> {
    writeln!(out, "\n{title}")?;
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

/// A time with the unit that suits it.
fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// Text of a server's may hold anything; a terminal must not obey it.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditReport, OrderCounts};

    #[test]
    fn the_plain_report_has_no_boxes_no_escapes_and_no_trailing_blanks() {
        let mut report = StormReport::empty_for_tests();
        report.requests = 2;
        report.accepted = 1;
        report.rejected.insert("sold-out\u{1b}[31m".to_owned(), 1);
        let mut out = Vec::new();
        write(&report, &mut out, Decoration::Plain).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains('│') && !text.contains('|'), "{text}");
        assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
        assert!(text.contains("Verdict: ok"), "{text}");
    }

    #[test]
    fn what_was_only_queued_is_told_apart_with_what_became_of_it() {
        let mut report = StormReport::empty_for_tests();
        (report.requests, report.accepted, report.queued) = (5_000, 5_000, 5_000);
        let orders = OrderCounts { confirmed: 100, rejected: 4_900, ..OrderCounts::default() };
        report.audit = Some(AuditReport { orders, ..AuditReport::default() });
        let mut out = Vec::new();
        write(&report, &mut out, Decoration::Plain).unwrap();
        let text = String::from_utf8(out).unwrap();
        let row = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name));
            line.and_then(|line| line.split_whitespace().next_back()).map(str::to_owned)
        };
        let counted = ["accepted", "queued", "confirmed", "rejected"].map(|name| row(name).unwrap());
        assert_eq!(counted, ["0", "5000", "100", "4900"], "{text}");
        assert!(text.contains("decided later") && !text.contains("never"), "{text}");
    }

    #[test]
    fn a_problem_is_named_after_the_verdict() {
        let mut out = Vec::new();
        write(&StormReport::empty_for_tests(), &mut out, Decoration::Colours).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("FAILED") && text.contains("nothing was sent"), "{text}");
    }
}
