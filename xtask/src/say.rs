//! Progress, on standard error; standard output belongs to results.

use std::cell::Cell;
use std::io::Write as _;

thread_local! {
    /// What lines of this thread begin with.
    static LABEL: Cell<&'static str> = const { Cell::new("") };
}

/// Writes one line, or several. Where nobody reads them, nothing is lost.
pub(crate) fn say(text: impl AsRef<str>) {
    let text = labelled(LABEL.get(), text.as_ref());
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// From now on every line that this thread says begins with `label`: somebody else speaks at the same time.
pub(crate) fn begin_lines_with(label: &'static str) {
    LABEL.set(label);
}

fn labelled(label: &str, text: &str) -> String {
    if label.is_empty() {
        return text.to_owned();
    }
    let lines: Vec<String> = text.lines().map(|line| format!("{label} | {line}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_says_who_speaks() {
        assert_eq!(labelled("redis", "one\ntwo"), "redis | one\nredis | two");
        assert_eq!(labelled("", "one\ntwo\n"), "one\ntwo\n");
    }
}
