//! The charts of one run: latency, stock against truth, and who got the same unit.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result};
use charts_rs::{BarChart, LineChart, Series};

use crate::crowd::{Point, percentile_ms};
use crate::run::Outcome;
use crate::timeline::shared_units;

const WIDTH: f32 = 860.0;
const HEIGHT: f32 = 300.0;
/// The charts name no font that would have to be fetched; PNGs are drawn with the one that the library carries.
const FONT_FAMILY: &str = "Roboto, system-ui, sans-serif";
/// Points on a time axis.
const STEPS: u64 = 40;
/// Units in the chart of shared units: the last ones.
const UNITS_SHOWN: usize = 25;

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Its name in a file name.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// SVG.
    pub svg: String,
}

/// The charts of a run. Those for which a run gave nothing are left out: an engine does not say what it thinks is left.
///
/// # Errors
/// One cannot be drawn.
pub fn charts(outcome: &Outcome) -> Result<Vec<Chart>> {
    let drawn = [latency(outcome)?, stock(outcome)?, units(outcome)?];
    Ok(drawn.into_iter().flatten().collect())
}

fn latency(outcome: &Outcome) -> Result<Option<Chart>> {
    const TITLE: &str = "Latency over time (ms)";
    let points = &outcome.answers.points;
    let Some(end) = points.iter().map(|point| point.at_us).max() else { return Ok(None) };
    let step = (end / STEPS).max(1);
    let quantile = |percent: usize| -> Vec<Option<f32>> {
        (0..=STEPS).map(|n| latency_ms(points, n * step..(n + 1) * step, percent)).collect()
    };
    let series = [("p50", quantile(50)), ("p95", quantile(95))];
    Ok(Some(Chart { name: "latency", title: TITLE, svg: line_chart(TITLE, &series, step)? }))
}

/// The latency that so many percent of the answers of a while did not exceed; `None` if there was no answer.
fn latency_ms(points: &[Point], during: Range<u64>, percent: usize) -> Option<f32> {
    let within = points.iter().filter(|point| during.contains(&point.at_us));
    percentile_ms(within, percent).map(|ms| ms as f32)
}

/// What the shop believed to have left after each sale, against what was left in truth.
fn stock(outcome: &Outcome) -> Result<Option<Chart>> {
    const TITLE: &str = "Units left: what the shop believed, and what its books say in the end";
    let live: BTreeMap<&str, i64> = outcome
        .books
        .orders
        .iter()
        .filter(|order| order.is_live && order.quantity > 0)
        .map(|order| (order.key.as_str(), order.quantity))
        .collect();
    // What a take came to in the books: nothing, if no order came of it.
    let takes: Vec<(u64, i64, i64)> = outcome
        .events
        .iter()
        .filter_map(|event| Some((event.at_us, event.unit?, *live.get(event.key.as_str()).unwrap_or(&0))))
        .collect();
    // Several products have several counts; one line cannot show them.
    let (Some((first, _, _)), Some((last, _, _)), [count]) =
        (takes.first(), takes.last(), &*outcome.books.counts)
    else {
        return Ok(None);
    };
    let step = ((last - first) / STEPS).max(1);
    let stocked = i64::try_from(count.stocked).unwrap_or(i64::MAX);
    let (mut believed, mut truth, mut left, mut sold) = (Vec::new(), Vec::new(), stocked, 0);
    let mut next = takes.iter().peekable();
    for n in 0..=STEPS {
        while let Some((_, unit, booked)) = next.next_if(|(at_us, _, _)| *at_us <= first + n * step) {
            left = unit - 1;
            sold += booked;
        }
        believed.push(Some(left as f32));
        truth.push(Some((stocked - sold) as f32));
    }
    let series =
        [("what the shop believed", believed), ("by the books: below zero, units that do not exist", truth)];
    Ok(Some(Chart { name: "stock", title: TITLE, svg: line_chart(TITLE, &series, step)? }))
}

/// How many buyers got each of the last units.
fn units(outcome: &Outcome) -> Result<Option<Chart>> {
    const TITLE: &str = "How many buyers got the same unit (the last one is 1)";
    let units = shared_units(outcome);
    // Several products have several last units; one row of bars cannot show them.
    if units.is_empty() || outcome.books.counts.len() > 1 {
        return Ok(None);
    }
    let (names, buyers): (Vec<String>, Vec<f32>) = units
        .into_iter()
        .take(UNITS_SHOWN)
        .map(|((unit, _), keys)| (unit.to_string(), keys.len() as f32))
        .unzip();
    let mut chart = BarChart::new(vec![("buyers", buyers).into()], names);
    chart.width = WIDTH;
    chart.height = HEIGHT;
    chart.font_family = FONT_FAMILY.to_owned();
    chart.title.text = TITLE.to_owned();
    let svg = chart.svg().context("the chart of units cannot be drawn")?;
    Ok(Some(Chart { name: "units", title: TITLE, svg }))
}

fn line_chart(title: &str, series: &[(&str, Vec<Option<f32>>)], step_us: u64) -> Result<String> {
    let lines: Vec<Series> = series
        .iter()
        .map(|(name, values)| {
            let mut line: Series = (*name, Vec::<f32>::new()).into();
            line.data.clone_from(values);
            line
        })
        .collect();
    let times = (0..=STEPS).map(|n| format!("{:.2} s", (n * step_us) as f64 / 1e6)).collect();
    let mut chart = LineChart::new(lines, times);
    chart.width = WIDTH;
    chart.height = HEIGHT;
    chart.font_family = FONT_FAMILY.to_owned();
    chart.title.text = title.to_owned();
    chart.svg().with_context(|| format!("the chart {title:?} cannot be drawn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_while_without_answers_has_no_latency() {
        let point = |at_us, latency_us| Point { at_us, latency_us, is_accepted: true };
        let points = [point(5, 1_000), point(6, 3_000), point(50, 9_000)];
        assert_eq!(latency_ms(&points, 0..10, 50), Some(1.0));
        assert_eq!(latency_ms(&points, 0..10, 95), Some(3.0));
        assert_eq!(latency_ms(&points, 10..20, 50), None);
    }
}
