//! The rules.

use super::Breach;
use super::source::{code_of, functions};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;
const TEST_FILE_LINES_MAX: usize = 800;

/// What a file breaks on its own.
pub(super) fn check(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = no_control_characters(path, text);
    if path.ends_with(".rs") {
        breaches.extend(rust(path, text));
    }
    if path == "crates/core/Cargo.toml" {
        breaches.extend(core_has_one_dependency(path, text));
    }
    if path.starts_with("docs/decisions/") && path.ends_with(".md") && !path.ends_with("README.md") {
        breaches.extend(decision_has_status(path, text));
    }
    breaches
}

fn breach(path: &str, line: usize, rule: &'static str, what: impl Into<String>) -> Breach {
    Breach { path: path.to_owned(), line, rule, what: what.into(), size: 1 }
}

fn rust(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/");
    let lines = lines_without_tests(text);
    let (lines, lines_max) =
        if is_test { (text.lines().count(), TEST_FILE_LINES_MAX) } else { (lines, FILE_LINES_MAX) };
    if lines > lines_max {
        let what = format!("{lines} lines, and {lines_max} is the most: split it along a noun");
        breaches.push(Breach { size: lines, ..breach(path, 0, "file-length", what) });
    }
    let code = code_of(text);
    for function in functions(&code) {
        if function.lines > FUNCTION_LINES_MAX {
            let what = format!(
                "{} has {} lines, and {FUNCTION_LINES_MAX} is the most",
                function.name, function.lines
            );
            let size = function.lines;
            breaches.push(Breach { size, ..breach(path, function.line, "function-length", what) });
        }
    }
    breaches.extend(nothing_unfinished(path, text, &code));
    breaches
}

/// Lines before the tests at a file's end: tests beside their subject must not make it look long.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    lines.iter().position(|line| *line == "#[cfg(test)]").unwrap_or(lines.len())
}

fn nothing_unfinished(path: &str, text: &str, code: &str) -> Vec<Breach> {
    let in_code = [("todo!(", "todo"), ("unimplemented!(", "todo"), ("dbg!(", "dbg"), ("#[ignore", "ignore")];
    let mut breaches = Vec::new();
    for (number, (line, source)) in code.lines().zip(text.lines()).enumerate() {
        for (word, rule) in in_code.into_iter().filter(|(word, _)| line.contains(word)) {
            breaches.push(breach(
                path,
                number + 1,
                rule,
                format!("`{word}` stays in nobody's code: finish it"),
            ));
        }
        // Written in two parts, so that this line is not one itself.
        if source.contains(concat!("FIX", "ME")) && line.trim() != source.trim() {
            breaches.push(breach(path, number + 1, "fixme", "mend it, or write an issue"));
        }
    }
    breaches
}

/// Characters that steer terminals or turn text around, which a reviewer would not see.
fn no_control_characters(path: &str, text: &str) -> Vec<Breach> {
    let is_hidden = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let lines = text.lines().enumerate();
    let found = lines.filter_map(|(number, line)| Some((number + 1, line.chars().find(|c| is_hidden(*c))?)));
    found
        .map(|(line, c)| breach(path, line, "hidden-character", format!("holds {}", c.escape_unicode())))
        .collect()
}

/// The core is pure: a hash map is all that it may depend on.
fn core_has_one_dependency(path: &str, text: &str) -> Vec<Breach> {
    let mut section = "";
    let mut breaches = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line;
            if line.starts_with("[dependencies.")
                || line.starts_with("[target.")
                || line == "[build-dependencies]"
            {
                breaches.push(breach(
                    path,
                    number + 1,
                    "core-dependencies",
                    "the core depends on hashbrown alone",
                ));
            }
        } else if section == "[dependencies]" && !line.is_empty() && !line.starts_with(['#', '"']) {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if name != "hashbrown" {
                let what = format!("the core depends on hashbrown alone, not on {name}");
                breaches.push(breach(path, number + 1, "core-dependencies", what));
            }
        }
    }
    breaches
}

fn decision_has_status(path: &str, text: &str) -> Vec<Breach> {
    if text.lines().any(|line| line.trim_start_matches(['-', '*', ' ']).starts_with("Status:")) {
        return Vec::new();
    }
    vec![breach(path, 0, "decision-status", "a decision says in a line `Status: …` whether it holds")]
}

/// Exactly one place commits the log: a second one could answer before, or without, its facts being durable.
pub(super) fn one_caller_of_commit(sources: &[(String, String)]) -> Vec<Breach> {
    let mut callers = Vec::new();
    for (path, text) in sources {
        let code =
            code_of(text.lines().take(lines_without_tests(text)).collect::<Vec<_>>().join("\n").as_str());
        for (number, line) in code.lines().enumerate() {
            if line.contains("log.commit(") {
                callers.push((path, number + 1));
            }
        }
    }
    let what = format!("{} places call the log's commit, and one must", callers.len());
    match callers.as_slice() {
        [_] => Vec::new(),
        [] => vec![breach("crates/engine/src", 0, "one-commit", what)],
        several => {
            several.iter().map(|(path, line)| breach(path, *line, "one-commit", what.clone())).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn broken(path: &str, text: &str, rule: &str) {
        let rules: Vec<_> = check(path, text).into_iter().map(|breach| breach.rule).collect();
        assert_eq!(rules, [rule]);
    }

    fn sound(path: &str, text: &str) {
        assert_eq!(check(path, text), []);
    }

    #[test]
    fn a_long_function_is_seen() {
        let function = |lines: usize| format!("fn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2));
        sound("a.rs", &function(FUNCTION_LINES_MAX));
        broken("a.rs", &function(FUNCTION_LINES_MAX + 1), "function-length");
    }

    #[test]
    fn a_long_file_is_seen_and_its_tests_do_not_count() {
        let lines = |count: usize| "// A line.\n".repeat(count);
        sound("src/a.rs", &lines(FILE_LINES_MAX));
        broken("src/a.rs", &lines(FILE_LINES_MAX + 1), "file-length");
        sound("src/a.rs", &format!("{}#[cfg(test)]\n{}", lines(FILE_LINES_MAX), lines(100)));
        sound("crates/x/tests/a.rs", &lines(TEST_FILE_LINES_MAX));
        broken("crates/x/tests/a.rs", &lines(TEST_FILE_LINES_MAX + 1), "file-length");
    }

    #[test]
    fn what_is_unfinished_is_seen() {
        broken("a.rs", "fn a() { todo!() }", "todo");
        broken("a.rs", "fn a() { dbg!(1); }", "dbg");
        broken("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}", "ignore");
        broken("a.rs", concat!("// FIX", "ME: later"), "fixme");
        sound("a.rs", "fn a() { say(\"todo!() and dbg!()\") } // no todo!() here");
    }

    #[test]
    fn characters_that_nobody_sees_are_seen() {
        broken("README.md", "a\u{202e}b", "hidden-character");
        broken("README.md", "a\u{1b}[31m", "hidden-character");
        sound("README.md", "naïve – 日本語 →\t\n");
    }

    #[test]
    fn a_dependency_of_the_core_is_seen() {
        let manifest = |dependency: &str| {
            format!(
                "[dependencies]\nhashbrown.workspace = true\n{dependency}\n[dev-dependencies]\nproptest.workspace = true\n"
            )
        };
        sound("crates/core/Cargo.toml", &manifest(""));
        broken("crates/core/Cargo.toml", &manifest("serde.workspace = true"), "core-dependencies");
        broken("crates/core/Cargo.toml", &manifest("[build-dependencies]"), "core-dependencies");
    }

    #[test]
    fn a_decision_without_a_status_is_seen() {
        broken("docs/decisions/0001-a.md", "# A\n\nBecause.", "decision-status");
        sound("docs/decisions/0001-a.md", "# A\n\nStatus: accepted\n");
    }

    #[test]
    fn a_second_commit_is_seen() {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let writer = file("writer.rs", "fn a() { self.log.commit()?; }");
        assert_eq!(one_caller_of_commit(std::slice::from_ref(&writer)), []);
        assert_eq!(one_caller_of_commit(&[]).len(), 1);
        let other = file("other.rs", "fn b() { log.commit(); }");
        assert_eq!(one_caller_of_commit(&[writer.clone(), other]).len(), 2);
        let tests = file("other.rs", "#[cfg(test)]\nfn b() { log.commit(); }");
        assert_eq!(one_caller_of_commit(&[writer, tests]), []);
    }
}
