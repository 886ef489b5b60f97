//! Thresholds on a storm's figures: `p95<50ms`, `errors==0`, `rps>=1000`.

use std::fmt;
use std::str::FromStr;

use crate::report::StormReport;

/// A threshold that the report is held against.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    metric: Metric,
    operator: Operator,
    /// In the metric's base unit: milliseconds, seconds, a count, a share of 1, or a number per second.
    limit: f64,
    /// As it was written.
    text: String,
}

/// What an assertion came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct AssertionResult {
    /// As it was written.
    pub assertion: String,
    /// Whether it holds.
    pub ok: bool,
    /// The measured value with its unit, or that there is none.
    pub measured: String,
}

/// Why a text is not an assertion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssertionError {
    /// There is no comparison in it.
    #[error(
        "{text:?} compares nothing: write METRIC OPERATOR VALUE, for example p95<50ms; operators are < <= > >= =="
    )]
    NoOperator {
        /// What was written.
        text: String,
    },
    /// The metric does not exist.
    #[error("there is no metric {name:?}; there are {}", metric_names())]
    UnknownMetric {
        /// What was written.
        name: String,
    },
    /// The value is not a number with a fitting unit.
    #[error("{value:?} is not a value of {metric}: {expected}")]
    Value {
        /// What was written.
        value: String,
        /// Of which metric.
        metric: &'static str,
        /// What would be one.
        expected: &'static str,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    P50,
    P90,
    P95,
    P99,
    P999,
    Max,
    Rps,
    Accepted,
    Errors,
    ErrorRate,
    SoldOutAfter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Milliseconds,
    Seconds,
    PerSecond,
    Count,
    Share,
}

impl Metric {
    const ALL: [Metric; 11] = [
        Metric::P50,
        Metric::P90,
        Metric::P95,
        Metric::P99,
        Metric::P999,
        Metric::Max,
        Metric::Rps,
        Metric::Accepted,
        Metric::Errors,
        Metric::ErrorRate,
        Metric::SoldOutAfter,
    ];

    fn name(self) -> &'static str {
        match self {
            Metric::P50 => "p50",
            Metric::P90 => "p90",
            Metric::P95 => "p95",
            Metric::P99 => "p99",
            Metric::P999 => "p999",
            Metric::Max => "max",
            Metric::Rps => "rps",
            Metric::Accepted => "accepted",
            Metric::Errors => "errors",
            Metric::ErrorRate => "error_rate",
            Metric::SoldOutAfter => "sold_out_after",
        }
    }

    fn unit(self) -> Unit {
        match self {
            Metric::Rps => Unit::PerSecond,
            Metric::Accepted | Metric::Errors => Unit::Count,
            Metric::ErrorRate => Unit::Share,
            Metric::SoldOutAfter => Unit::Seconds,
            _ => Unit::Milliseconds,
        }
    }

    /// `None` if the storm has no such figure, for example because nothing was sold out.
    fn measure(self, report: &StormReport) -> Option<f64> {
        let latency = |value: u64| (report.latency.count > 0).then_some(value as f64 / 1_000.0);
        match self {
            Metric::P50 => latency(report.latency.p50_us),
            Metric::P90 => latency(report.latency.p90_us),
            Metric::P95 => latency(report.latency.p95_us),
            Metric::P99 => latency(report.latency.p99_us),
            Metric::P999 => latency(report.latency.p999_us),
            Metric::Max => latency(report.latency.max_us),
            Metric::Rps => Some(report.rps),
            Metric::Accepted => Some(report.accepted as f64),
            Metric::Errors => Some(report.errors() as f64),
            Metric::ErrorRate => Some(report.errors() as f64 / report.requests.max(1) as f64),
            Metric::SoldOutAfter => report.sold_out_after.map(|after| after.as_secs_f64()),
        }
    }
}

fn metric_names() -> String {
    Metric::ALL.map(Metric::name).join(", ")
}

impl FromStr for Assertion {
    type Err = AssertionError;

    fn from_str(text: &str) -> Result<Assertion, AssertionError> {
        let no_operator = || AssertionError::NoOperator { text: text.to_owned() };
        let start = text.find(['<', '>', '=']).ok_or_else(no_operator)?;
        let (name, rest) = text.split_at(start);
        // The longer operators first, else `<=` would be read as `<` and a value of `=50`.
        let operators = [
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("==", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let (operator, value) = operators
            .iter()
            .find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)))
            .ok_or_else(no_operator)?;
        let name = name.trim();
        let metric = Metric::ALL
            .into_iter()
            .find(|metric| metric.name() == name)
            .ok_or_else(|| AssertionError::UnknownMetric { name: name.to_owned() })?;
        Ok(Assertion { metric, operator, limit: parse_value(value.trim(), metric)?, text: text.to_owned() })
    }
}

fn parse_value(text: &str, metric: Metric) -> Result<f64, AssertionError> {
    let unit = metric.unit();
    let expected = match unit {
        Unit::Milliseconds => "write a time such as 800us, 50ms or 1.5s",
        Unit::Seconds => "write a time such as 500ms or 2s",
        Unit::PerSecond => "write a number per second such as 1000",
        Unit::Count => "write a whole number such as 100",
        Unit::Share => "write a share such as 0.01 or 1%",
    };
    let fail = || AssertionError::Value { value: text.to_owned(), metric: metric.name(), expected };
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| fail())?;
    match (unit, suffix.trim()) {
        (Unit::Milliseconds, "us" | "µs") => Ok(number / 1_000.0),
        (Unit::Milliseconds, "ms") | (Unit::Seconds, "s") => Ok(number),
        (Unit::Milliseconds, "s") => Ok(number * 1_000.0),
        (Unit::Seconds, "ms") => Ok(number / 1_000.0),
        (Unit::Seconds, "us" | "µs") => Ok(number / 1e6),
        (Unit::PerSecond, "" | "/s") | (Unit::Share, "") => Ok(number),
        (Unit::Count, "") if number.fract() == 0.0 => Ok(number),
        (Unit::Share, "%") => Ok(number / 100.0),
        _ => Err(fail()),
    }
}

impl Assertion {
    /// Holds the report against the threshold. A figure that the storm does not have fails every threshold.
    #[must_use]
    pub fn check(&self, report: &StormReport) -> AssertionResult {
        let measured = self.metric.measure(report);
        let ok = measured.is_some_and(|value| match self.operator {
            Operator::Less => value < self.limit,
            Operator::LessOrEqual => value <= self.limit,
            Operator::Greater => value > self.limit,
            Operator::GreaterOrEqual => value >= self.limit,
            Operator::Equal => (value - self.limit).abs() < 1e-9,
        });
        let measured = measured.map_or_else(
            || "no such figure in this storm".to_owned(),
            |value| match self.metric.unit() {
                Unit::Milliseconds => format!("{value:.3} ms"),
                Unit::Seconds => format!("{value:.3} s"),
                Unit::PerSecond => format!("{value:.1}/s"),
                Unit::Count => format!("{value}"),
                Unit::Share => format!("{:.3} %", value * 100.0),
            },
        );
        AssertionResult { assertion: self.text.clone(), ok, measured }
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> (Operator, f64) {
        let assertion: Assertion = text.parse().unwrap();
        (assertion.operator, assertion.limit)
    }

    #[test]
    fn values_are_read_in_their_units() {
        assert_eq!(limit("p95<50ms"), (Operator::Less, 50.0));
        assert_eq!(limit("p999 <= 1.5s"), (Operator::LessOrEqual, 1_500.0));
        assert_eq!(limit("max>800us"), (Operator::Greater, 0.8));
        assert_eq!(limit("rps>=1000/s"), (Operator::GreaterOrEqual, 1_000.0));
        assert_eq!(limit("accepted==100"), (Operator::Equal, 100.0));
        assert_eq!(limit("error_rate<1%"), (Operator::Less, 0.01));
        assert_eq!(limit("sold_out_after<=500ms"), (Operator::LessOrEqual, 0.5));
    }

    #[test]
    fn what_is_no_assertion_is_refused_with_what_would_be_one() {
        for (text, hint) in [
            ("p95", "p95<50ms"),
            ("", "operators are < <= > >= =="),
            ("p95=50ms", "p95<50ms"),
            ("p42<5ms", "p50, p90, p95, p99, p999, max, rps, accepted, errors, error_rate, sold_out_after"),
            ("p95<50", "800us, 50ms or 1.5s"),
            ("p95<fast", "800us, 50ms or 1.5s"),
            ("p95<-5ms", "800us, 50ms or 1.5s"),
            ("accepted==1.5", "whole number"),
            ("accepted==5ms", "whole number"),
            ("rps>1%", "per second"),
            ("error_rate<1ms", "0.01 or 1%"),
        ] {
            let error = text.parse::<Assertion>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_threshold_is_held_against_the_measured_figure() {
        let mut report = StormReport::empty_for_tests();
        report.latency.count = 10;
        report.latency.p95_us = 49_999;
        report.accepted = 100;
        let check = |text: &str| text.parse::<Assertion>().unwrap().check(&report);
        assert!(check("p95<50ms").ok);
        assert!(!check("p95<49.9ms").ok);
        assert!(check("accepted==100").ok);
        assert!(!check("accepted>100").ok);
        assert_eq!(check("p95<50ms").measured, "49.999 ms");
    }

    #[test]
    fn a_figure_that_does_not_exist_fails() {
        let report = StormReport::empty_for_tests();
        for text in ["p95<50ms", "sold_out_after<9s", "sold_out_after>0s"] {
            assert!(!text.parse::<Assertion>().unwrap().check(&report).ok, "{text}");
        }
    }
}
