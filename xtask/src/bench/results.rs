//! The results as a page and as a document.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::engine::EngineFigures;
use super::pairs::{Row, Run};

const HEAD: &str = "# Results\n\nWritten by `cargo xtask bench`, a part by each engine, and `cargo xtask lab-proof`; do not edit.\n";

/// Puts a part into benchmarks/RESULTS.md, in place of the one that was there.
pub(crate) fn write(part: &str, markdown: &str) -> Result<()> {
    let path = crate::root()?.join("benchmarks").join("RESULTS.md");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, with_part(&before, part, markdown))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn with_part(page: &str, engine: &str, markdown: &str) -> String {
    let (begin, end) = (format!("<!-- {engine} -->\n"), format!("<!-- end of {engine} -->\n"));
    let part = format!("{begin}\n{}\n\n{end}", markdown.trim());
    // What stands before the first part is the head, of whatever age; a page without a part is none of ours.
    let parts =
        if page.contains("<!-- end of ") { page.find("<!-- ").and_then(|at| page.get(at..)) } else { None };
    let page = format!("{HEAD}\n{}", parts.unwrap_or_default());
    if let Some((before, rest)) = page.split_once(&begin)
        && let Some((_, after)) = rest.split_once(&end)
    {
        return format!("{before}{part}{after}");
    }
    format!("{}\n\n{part}", page.trim_end())
}

pub(super) struct Results {
    pub(super) rows: Vec<Row>,
    pub(super) engine: EngineFigures,
    pub(super) seconds: u32,
    pub(super) pairs: u32,
}

impl Results {
    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "## HTTP, embedded engine\n\n{} wrk runs of {} s per figure on {}.\n\n\
             The ratio is Yoink's requests per second over those of an axum handler that parses the same JSON and \
             answers 202\nwithout doing anything (`benchmarks/reference`), both driven by the same wrk on the same \
             cores, in turn, within the\nsame minute. Every accepted order is in the log with an fsync \
             before its 202.\n\n\
             | answer | connections | ratio (median) | min–max | goal | Yoink /s | reference /s | Yoink p50 | p99 | \
             reference p99 |\n|---|---|---|---|---|---|---|---|---|---|\n",
            self.pairs,
            self.seconds,
            machine()
        );
        for row in &self.rows {
            let ratios = row.ratios();
            let _ = writeln!(
                text,
                "| {} | {} | **{:.2}** | {:.2}–{:.2} | {:.2} | {:.0} | {:.0} | {:.2} ms | {:.2} ms | {:.2} ms |",
                row.answer.name(),
                row.connections,
                middle(&ratios),
                ratios.first().copied().unwrap_or(f64::NAN),
                ratios.last().copied().unwrap_or(f64::NAN),
                row.goal(),
                median(row.yoink.iter().map(|run| run.requests_per_s)),
                median(row.reference.iter().map(|run| run.requests_per_s)),
                median(row.yoink.iter().map(|run| run.p50_ms)),
                median(row.yoink.iter().map(|run| run.p99_ms)),
                median(row.reference.iter().map(|run| run.p99_ms)),
            );
        }
        text.push_str(&self.engine_markdown());
        text
    }

    fn engine_markdown(&self) -> String {
        let figure = |name| self.engine.figure(name);
        format!(
            "\n## The engine alone\n\n{:.0} orders, 1,000 in flight, without HTTP.\n\n\
             | figure | value | goal |\n|---|---|---|\n\
             | orders/s, decided and fsynced | {:.0} | – |\n\
             | answer p50 / p99 | {:.1} / {:.1} ms | – |\n\
             | commit p50 / p99 (bucket bounds) | {:.1} / {:.1} ms | – |\n\
             | orders/s into the ledger, while selling and after | {:.0} | – |\n\
             | resident memory afterwards | {:.0} MiB | ≤ 300 MiB |\n\
             | restart from a snapshot | {:.2} s | ≤ 1.5 s |\n\
             | restart by replaying the whole log | {:.2} s | – |\n",
            figure("orders"),
            figure("orders_per_s"),
            figure("answer_p50_us") / 1e3,
            figure("answer_p99_us") / 1e3,
            figure("commit_p50_us") / 1e3,
            figure("commit_p99_us") / 1e3,
            figure("ledger_orders_per_s"),
            figure("rss_mib_after"),
            figure("restart_snapshot_s"),
            figure("restart_replay_s"),
        )
    }

    pub(super) fn json(&self) -> String {
        let run = |run: &Run| json!({"requests_per_s": run.requests_per_s, "p50_ms": run.p50_ms, "p99_ms": run.p99_ms});
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "answer": row.answer.name(),
                    "connections": row.connections,
                    "ratio": middle(&row.ratios()),
                    "goal": row.goal(),
                    "reference": row.reference.iter().map(run).collect::<Vec<_>>(),
                    "yoink": row.yoink.iter().map(run).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({"http": rows, "engine": self.engine.0}).to_string()
    }
}

/// The median; of an even number of figures the lower of the two in the middle.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    middle(&figures)
}

/// The median of an ascending list; of an even number of figures the lower of the two in the middle.
fn middle(ascending: &[f64]) -> f64 {
    ascending.get(ascending.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} cores, shared by the server and the load generator")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_replaces_its_own_and_leaves_the_others() {
        let first = with_part("an older page", "embedded", "one");
        assert!(first.starts_with(HEAD) && !first.contains("older"));
        let both = with_part(&first, "redis", "two");
        let again = with_part(&both, "embedded", "three");
        assert_eq!(again, both.replace("one", "three"));
        let aged = both.replace(HEAD, "# Results\n\nAnother head.\n");
        assert!(aged.contains("Another"));
        assert_eq!(with_part(&aged, "embedded", "three"), again);
        assert!(with_part(&aged, "lab", "four").starts_with(both.trim_end()));
    }

    #[test]
    fn the_middle_of_three_is_the_second_and_of_none_is_no_number() {
        assert_eq!(middle(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(middle(&[1.0, 2.0]), 1.0);
        assert!(middle(&[]).is_nan());
    }
}
