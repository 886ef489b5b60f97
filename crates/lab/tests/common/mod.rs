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

/// What `command` says in JSON of strategies that sell 20 units to 200 buyers. Each has to go as the catalogue says.
pub fn small(command: &str, strategies: &[&str]) -> Value {
    let crowd = ["--buyers", "200", "--units", "20", "--json"];
    let output = lab(&[&[command], strategies, &crowd].concat(), 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A figure of a result.
pub fn figure(result: &Value, name: &str) -> u64 {
    result[name].as_u64().unwrap_or_else(|| panic!("no {name} in {result:#}"))
}
