//! The charts: percentiles, latency over time, outcomes over time.

use charts_rs::{AxisScale, BarChart, LineChart, Series};

use super::StormReport;
use crate::error::StormError;
use crate::timeline::Interval;

const WIDTH: f32 = 860.0;
const HEIGHT: f32 = 360.0;
/// The charts name no font that would have to be fetched.
const FONT_FAMILY: &str = "system-ui, sans-serif";
const PERCENTILES: &str = "latency-percentiles";
const LATENCY: &str = "latency-over-time";
const OUTCOMES: &str = "requests-over-time";

pub(super) fn all(report: &StormReport) -> Result<Vec<(&'static str, String)>, StormError> {
    Ok(vec![
        (PERCENTILES, percentiles(report)?),
        (LATENCY, latency_over_time(report)?),
        (OUTCOMES, outcomes_over_time(report)?),
    ])
}

fn percentiles(report: &StormReport) -> Result<String, StormError> {
    let (names, values): (Vec<String>, Vec<f32>) =
        report.latency.named().into_iter().map(|(name, us)| (name.to_owned(), milliseconds(us))).unzip();
    let mut series: Vec<Series> = vec![("latency", values).into()];
    if let Some(lateness) = &report.lateness {
        let late: Vec<f32> = lateness.named().into_iter().map(|(_, us)| milliseconds(us)).collect();
        series.push(("our own lateness", late).into());
    }
    let decades = decades(&series);
    let mut chart = BarChart::new(series, names);
    chart.width = WIDTH;
    chart.height = HEIGHT;
    chart.font_family = FONT_FAMILY.to_owned();
    chart.title.text = "Latency percentiles (ms, logarithmic)".to_owned();
    for axis in &mut chart.y_axis_configs {
        axis.scale = AxisScale::Log(10.0);
        // One line per decade; another number would leave lines beside their labels.
        axis.split_number = decades;
    }
    chart.svg().map_err(|error| StormError::Chart { name: PERCENTILES, reason: error.to_string() })
}

fn latency_over_time(report: &StormReport) -> Result<String, StormError> {
    let quantile = |quantile: f64| -> Vec<f32> {
        let value = |interval: &Interval| milliseconds(interval.latency_us.value_at_quantile(quantile));
        report.timeline.intervals().iter().map(value).collect()
    };
    let series = vec![("p50", quantile(0.5)).into(), ("p99", quantile(0.99)).into()];
    line_chart(report, LATENCY, "Latency over time (ms)", series)
}

fn outcomes_over_time(report: &StormReport) -> Result<String, StormError> {
    let length = report.timeline.interval_s() as f32;
    let rate = |count: fn(&Interval) -> u64| -> Vec<f32> {
        report.timeline.intervals().iter().map(|interval| count(interval) as f32 / length).collect()
    };
    let series = vec![
        ("accepted", rate(|interval| interval.accepted)).into(),
        ("refused", rate(|interval| interval.refused)).into(),
        ("errors", rate(|interval| interval.errors)).into(),
    ];
    line_chart(report, OUTCOMES, "Requests per second by outcome", series)
}

fn line_chart(
    report: &StormReport,
    name: &'static str,
    title: &str,
    mut series: Vec<Series>,
) -> Result<String, StormError> {
    let length = report.timeline.interval_s();
    let mut seconds: Vec<String> =
        (1_u64..).take(report.timeline.intervals().len()).map(|end| format!("{} s", end * length)).collect();
    if seconds.is_empty() {
        // A chart of nothing still has to be a chart.
        seconds.push("1 s".to_owned());
        for line in &mut series {
            line.data.push(Some(0.0));
        }
    }
    let mut chart = LineChart::new(series, seconds);
    chart.width = WIDTH;
    chart.height = HEIGHT;
    chart.font_family = FONT_FAMILY.to_owned();
    chart.title.text = title.to_owned();
    chart.svg().map_err(|error| StormError::Chart { name, reason: error.to_string() })
}

fn milliseconds(us: u64) -> f32 {
    us as f32 / 1_000.0
}

/// Powers of ten between the smallest and the largest value.
fn decades(series: &[Series]) -> usize {
    let values =
        || series.iter().flat_map(|line| line.data.iter().flatten().copied()).filter(|value| *value > 0.0);
    let low = values().fold(f32::INFINITY, f32::min).log10().floor();
    let high = values().fold(0.0, f32::max).log10().ceil();
    if low.is_finite() && high > low { (high - low) as usize } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chart_is_an_svg_even_of_nothing() {
        let charts = all(&StormReport::empty_for_tests()).unwrap();
        assert_eq!(charts.len(), 3);
        for (name, svg) in charts {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}: {svg}");
        }
    }

    #[test]
    fn decades_span_the_values() {
        assert_eq!(decades(&[("a", vec![0.5, 30.0]).into()]), 3);
        assert_eq!(decades(&[("a", vec![0.0]).into()]), 1);
    }
}
