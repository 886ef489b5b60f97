//! The real program, as tests run it.

#![cfg(test)]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs the lab, which has to end with this exit code.
pub fn lab(arguments: &[&str], code: i32) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_yoink-lab"));
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "yoink-lab {}: {}\n{}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs the lab with 20 units and 200 buyers. Each strategy has to go as the catalogue says.
pub fn small(arguments: &[&str]) -> Output {
    lab(&[arguments, &["--buyers", "200", "--units", "20"]].concat(), 0)
}

/// A figure of a result.
pub fn figure(result: &Value, name: &str) -> u64 {
    result[name].as_u64().unwrap_or_else(|| panic!("no {name} in {result:#}"))
}

/// Whether a timeline is told of a run, and something in it.
pub fn has_timeline(told: &Value) -> bool {
    told.pointer("/timeline/lines").and_then(Value::as_array).is_some_and(|lines| lines.len() > 1)
}
