//! `--help` teaches.

use crate::{text_of, yoink};

const COMMANDS: [&str; 9] =
    ["serve", "seed", "restock", "orders", "storm", "audit", "dead-letters", "openapi", "config"];

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let help = text_of(yoink(folder.path()).arg("--help"));
    for word in COMMANDS.into_iter().chain(["completions", "Exit codes", "yoink storm"]) {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
}

#[test]
fn the_help_of_each_command_has_examples_and_fits_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let help = text_of(yoink(folder.path()).args([command, "--help"]));
        assert!(help.contains("Example"), "{command} has no example:\n{help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 120, "{command}: {line}");
        }
    }
}

#[test]
fn the_flags_of_the_contract_are_there() {
    let folder = tempfile::tempdir().unwrap();
    for (command, flags) in [
        ("serve", "--engine --listen --data --dev --config --redis --postgres --workers --threads"),
        ("seed", "--url --id --name --units --price --currency --limit --preset"),
        ("restock", "--url --product --units --reason"),
        ("orders", "--url --customer --json"),
        ("storm", "--url --product --buyers --requests --duration --rate --preset --assert --json --report"),
        ("worker", "--listen --redis --postgres --workers"),
        ("migrate", "--postgres --json"),
        ("audit", "--url --data --redis --postgres --repair --reason --json"),
    ] {
        let help = text_of(yoink(folder.path()).args([command, "--help"]));
        for flag in flags.split(' ') {
            assert!(help.contains(flag), "{command} has no {flag}");
        }
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = text_of(yoink(folder.path()).args(["completions", shell]));
        assert!(script.contains("dead-letters"), "{shell}");
    }
}

#[test]
fn the_openapi_document_is_printed_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let (code, document) = crate::json_of(yoink(folder.path()).arg("openapi"));
    assert_eq!(code, 0);
    assert!(document["paths"]["/v1/orders"]["post"].is_object());
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("{} openapi | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}", crate::BINARY);
    let output =
        assert_cmd::Command::new("bash").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let code = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // 0 if the pipe took everything before its reader went away.
    assert!(["0", "141"].contains(&code.as_str()), "{code}");
}
