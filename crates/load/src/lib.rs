//! The crowd: a black-box storm of synthetic buyers.
//!
//! This crate knows URLs and JSON and nothing else of the system it attacks: none of its types, none of its code. It
//! sends purchases over real connections, keeps every answer, and afterwards looks every answer up again: an accepted
//! order that cannot be found, an order given to two customers, or a unit sold that did not exist is a finding, and
//! the verdict names it.
//!
//! ```no_run
//! # async fn example() -> Result<(), yoink_load::StormError> {
//! use yoink_load::{StormOptions, run};
//!
//! let report = run(StormOptions { buyers: Some(1_000), ..StormOptions::default() }).await?;
//! assert!(report.is_ok());
//! # Ok(())
//! # }
//! ```
//!
//! One attempt, in reading order: [`run`] in `storm.rs` → `closed_loop.rs` or `open_loop.rs` → `attempt.rs` →
//! `client.rs`; then `resolve.rs` and `audit.rs` judge, and `report/` shows.

mod api;
mod assertion;
mod attempt;
mod audit;
mod client;
mod closed_loop;
mod error;
mod open_loop;
mod options;
mod plan;
mod preset;
mod progress;
mod record;
pub mod report;
mod resolve;
mod scan;
mod schedule;
mod shard;
mod storm;
mod tally;
mod target;
mod timeline;

pub use assertion::{Assertion, AssertionError, AssertionResult};
pub use audit::{AuditReport, Finding, Invariant, OrderCounts, StockCounts};
pub use error::{OptionsProblem, StormError};
pub use options::{Arrivals, Audit, Customers, ProgressMode, Route, StormOptions};
pub use preset::{Check, Preset, UnknownPreset};
pub use record::{RecordedAnswer, RecordedAttempt, read_record};
pub use report::StormReport;
pub use resolve::Resolution;
pub use schedule::{Schedule, Stage, StageError, parse_stages};
pub use storm::{audit_record, run};
