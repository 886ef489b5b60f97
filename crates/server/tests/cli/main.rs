//! The binary as people and scripts meet it: what it says, what it writes, with which code it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what fails in a test should panic, also in helpers"
)]

mod configuration;
mod end_to_end;
mod errors;
mod help;
mod life;
#[cfg(feature = "broker-tests")]
mod rabbit;
mod redis;
mod slow_crowd;
mod standstill;

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;
use yoink_testkit::{Yoink, YoinkProcess};

const BINARY: &str = env!("CARGO_BIN_EXE_yoink");

/// The binary in a folder of its own, without any setting of whoever runs the tests.
fn yoink(folder: &Path) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("YOINK_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).env("NO_COLOR", "1");
    command
}

/// A client command against a running server, with its admin key.
fn yoink_at(server: &YoinkProcess, arguments: &[&str]) -> Command {
    let mut command = yoink(server.data());
    command.args(arguments).args(["--url", &server.url()]).env("YOINK_ADMIN_KEY", server.admin_key());
    command
}

/// The demo, as bare `yoink` starts it.
fn demo() -> Yoink {
    Yoink::new(BINARY).args::<&str>([]).without_admin_key()
}

/// What a command wrote to standard output, which must be one JSON document and nothing else.
#[track_caller]
fn json_of(command: &mut Command) -> (i32, Value) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let document = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("not one JSON document: {error}\n{text}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    (output.status.code().unwrap(), document)
}

#[track_caller]
fn text_of(command: &mut Command) -> String {
    let output = command.assert().success().get_output().stdout.clone();
    String::from_utf8(output).unwrap()
}

#[track_caller]
fn refusal_of(command: &mut Command, code: i32) -> String {
    let assert = command.assert().code(code);
    let output = assert.get_output();
    assert!(output.stdout.is_empty(), "a failure wrote to standard output: {:?}", output.stdout);
    String::from_utf8(output.stderr.clone()).unwrap()
}
