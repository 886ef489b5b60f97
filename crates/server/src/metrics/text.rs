//! The exposition: OpenMetrics for those who ask for it, else the older text format of Prometheus.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use super::collector::Everything;
use crate::edge::Core;

/// Which of the two text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// By the `Accept` header.
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics as they are now.
pub(crate) fn render(core: &Arc<Core>, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Everything::new(Arc::clone(core))));
    let mut text = String::with_capacity(64 * 1_024);
    // Writing to a string cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    match format {
        Format::OpenMetrics => text,
        Format::Prometheus => to_prometheus(&text),
    }
}

/// In the older format a counter's family is named like its samples, and there are no units, infos or end mark.
fn to_prometheus(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let of_type = |kind| -> Vec<&str> {
        openmetrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(kind)).collect()
    };
    let (counters, infos) = (of_type(" counter"), of_type(" info"));
    for line in openmetrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let comment =
            ["# TYPE ", "# HELP "].iter().find_map(|start| Some((*start, line.strip_prefix(start)?)));
        match comment.and_then(|(start, rest)| Some((start, rest.split_once(' ')?))) {
            Some((start, (name, rest))) => {
                let suffix = match () {
                    () if counters.contains(&name) => "_total",
                    () if infos.contains(&name) => "_info",
                    () => "",
                };
                let rest = match rest {
                    "unknown" => "untyped",
                    "info" => "gauge",
                    rest => rest,
                };
                text.push_str(&format!("{start}{name}{suffix} {rest}\n"));
            }
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_alike_in_the_older_format() {
        let openmetrics =
            "# HELP a Things.\n# TYPE a counter\n# UNIT b seconds\na_total 1\n# TYPE b gauge\nb 2\n# EOF\n";
        assert_eq!(
            to_prometheus(openmetrics),
            "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n# TYPE b gauge\nb 2\n"
        );
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        assert_eq!(
            Format::accepted(Some("application/openmetrics-text;version=1.0.0,*/*")),
            Format::OpenMetrics
        );
        assert_eq!(Format::accepted(Some("*/*")), Format::Prometheus);
        assert_eq!(Format::accepted(None), Format::Prometheus);
    }
}
