//! Progress, on standard error; standard output belongs to results.

use std::io::Write as _;

/// Writes one line. Where nobody reads it, nothing is lost.
pub(crate) fn say(text: impl AsRef<str>) {
    writeln!(std::io::stderr().lock(), "{}", text.as_ref()).ok();
}
