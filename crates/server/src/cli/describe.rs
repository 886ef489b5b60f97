//! `yoink openapi`, `yoink config` and `yoink completions`: what the program says of itself.

use std::process::ExitCode;

use anyhow::bail;
use clap::CommandFactory as _;
use serde_json::{Value, json};

use super::admin_key::new_key;
use super::args::{Cli, ConfigArgs};
use super::output::Output;
use crate::config::{Config, DEFAULT_FILE};
use crate::settings::{KeyHash, Scope};

/// Prints the OpenAPI document.
pub(super) fn openapi(output: &mut Output) -> anyhow::Result<ExitCode> {
    output.line(crate::openapi_json())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a completion script.
pub(super) fn completions(shell: clap_complete::Shell, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "yoink", &mut script);
    output.raw(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the configuration in force, the default file, or a new key.
pub(super) fn config(args: &ConfigArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    if args.default {
        output.raw(DEFAULT_FILE)?;
    } else if let Some(name) = &args.new_key {
        make_key(name, args, output)?;
    } else {
        let config = Config::load(args.serve.layer(), args.serve.process.config.as_deref())?;
        let values = serde_json::to_value(&config)?;
        if args.json { output.json(&values)? } else { output.raw(&toml(&values))? }
    }
    Ok(ExitCode::SUCCESS)
}

fn make_key(name: &str, args: &ConfigArgs, output: &mut Output) -> anyhow::Result<()> {
    if let Some(unknown) = args.scopes.iter().find(|scope| Scope::parse(scope).is_none()) {
        bail!("{unknown:?} is not a scope; there are {}", Scope::ALL.map(Scope::name).join(", "));
    }
    let key = new_key()?;
    let entry = json!({"name": name, "scopes": args.scopes, "sha256": KeyHash::of(key.expose()).to_hex()});
    if args.json {
        return Ok(output.json(&json!({"key": key.expose(), "entry": entry}))?);
    }
    output.line(format!(
        "The key, shown only now:\n\n  {}\n\nIts entry for the configuration:\n",
        key.expose()
    ))?;
    Ok(output.line(format!("keys = [{}]", toml_value(&entry)))?)
}

/// Settings as a TOML document: plain ones first, then the sections.
fn toml(values: &Value) -> String {
    let (mut plain, mut sections) = (String::new(), String::new());
    for (name, value) in values.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => sections.push_str(&format!("\n[{name}]\n{}", toml(value))),
            Value::Null => plain.push_str(&format!("# {name} is not set\n")),
            _ => plain.push_str(&format!("{name} = {}\n", toml_value(value))),
        }
    }
    plain + &sections
}

fn toml_value(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name} = {}", toml_value(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        // JSON's texts, numbers and truth values are TOML's, too.
        plain => plain.to_string(),
    }
}
