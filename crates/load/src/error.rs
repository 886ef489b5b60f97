//! What can stop a storm before it has a result.

use std::io;
use std::path::PathBuf;

/// Why there is no report. Failures of single requests are not errors: they are counted in the report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StormError {
    /// The target is not an address that the storm can use.
    #[error("{url:?} is not a usable target: {reason}. Give something like http://127.0.0.1:3000")]
    Target {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Options that contradict each other or ask for nothing.
    #[error("{0}")]
    Options(OptionsProblem),
    /// Nobody answers at the target.
    #[error("cannot reach {url}: {reason}. Is yoink running? Start it with `yoink` in another terminal.")]
    Unreachable {
        /// The target.
        url: String,
        /// The operating system's word, in plain English.
        reason: String,
    },
    /// The product does not exist.
    #[error(
        "there is no product {product:?} at {url}. Create it with `yoink seed --id {product} --units 100`, or name \
         another with --product."
    )]
    NoProduct {
        /// The target.
        url: String,
        /// The id asked for.
        product: String,
    },
    /// The server refused a request that the storm needs before it can start or judge.
    #[error("the server answered {status} to {what}: {detail}")]
    Refused {
        /// Method and path.
        what: String,
        /// HTTP status code.
        status: u16,
        /// The beginning of the answer's body.
        detail: String,
    },
    /// A request that the storm needs before it can start or judge got no usable answer.
    #[error("no usable answer to {what}: {reason}")]
    NoAnswer {
        /// Method and path.
        what: String,
        /// What happened instead.
        reason: String,
    },
    /// The process may not open as many connections as were asked for.
    #[error(
        "{connections} connections need about {needed} open files, but this process may only open {limit}. Raise the \
         limit with `ulimit -n {needed}` or use fewer connections with --concurrency."
    )]
    TooFewFiles {
        /// Connections asked for.
        connections: usize,
        /// Open files that this needs.
        needed: u64,
        /// What the process may open.
        limit: u64,
    },
    /// A file of the storm's could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// "write the report to", "read the record" and the like.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A line of a record file is not one that the storm wrote.
    #[error("line {line} of the record {} is damaged; only the last line of a record may be cut short", path.display())]
    DamagedRecord {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A chart could not be drawn.
    #[error("cannot draw the chart {name:?}: {reason}")]
    Chart {
        /// Which one.
        name: &'static str,
        /// What the chart library said.
        reason: String,
    },
    /// A thread of the storm could not be started or ended by panicking.
    #[error("a thread of the storm {0}")]
    Thread(&'static str),
}

/// What is wrong with a [`StormOptions`](crate::StormOptions).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsProblem {
    /// Zero where at least one is needed.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// Both ways of ending a storm at once.
    #[error("give either a number of requests or a duration, not both")]
    TwoEndings,
    /// Stages say how long an open loop runs and how many arrive.
    #[error("a rate with stages says itself how long the storm lasts: leave out requests and duration")]
    StagesAndEnding,
    /// Too many connections.
    #[error(
        "{asked} connections at once are more than the {limit} allowed; raise connections_max to go further"
    )]
    TooManyConnections {
        /// What was asked for.
        asked: usize,
        /// The bound.
        limit: usize,
    },
    /// The key can't be a header value.
    #[error("the API key holds characters that cannot be sent in a header")]
    Key,
}

/// The reason of an I/O error in words that say what to do, without the error's number.
pub(crate) fn plain_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}
