//! House rules that no other tool checks. Each is a function from a file's text to what it breaks, and each has a test
//! that breaks it.

mod dependencies;
mod exceptions;
mod rules;
mod source;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::say::say;
use exceptions::Exceptions;

/// Something that breaks a house rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// Relative to the root.
    pub(crate) path: String,
    /// Counted from 1; 0 for the whole file.
    pub(crate) line: usize,
    /// The rule's name.
    pub(crate) rule: &'static str,
    /// What is wrong and what to do.
    pub(crate) what: String,
    /// What an exception would be measured in: lines of a function or file.
    pub(crate) size: usize,
}

/// Checks every file that git knows or would add. Says how many there were.
///
/// # Errors
/// The breaches, one per line.
pub(crate) fn run() -> Result<String> {
    let root = crate::root()?;
    let files = files(&root)?;
    let mut breaches = Vec::new();
    for path in &files {
        let Ok(text) = std::fs::read_to_string(root.join(path)) else { continue };
        breaches.extend(rules::check(path, &text));
    }
    breaches.extend(rules::one_caller_of_commit(&sources_of_log(&root, &files)));
    breaches.extend(dependencies::breaches(&root)?);
    let exceptions = Exceptions::read(&root.join("xtask/tidy-exceptions.txt"))?;
    let breaches = exceptions.apply(breaches);
    for breach in &breaches {
        let line = if breach.line == 0 { String::new() } else { format!(":{}", breach.line) };
        say(format!("{}{line}: {}: {}", breach.path, breach.rule, breach.what));
    }
    if !breaches.is_empty() {
        bail!("{} breaches of the house rules", breaches.len());
    }
    Ok(format!("{} files follow the house rules, {} exceptions", files.len(), exceptions.len()))
}

fn files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    ensure!(output.status.success(), "git cannot list the files of {}", root.display());
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

fn sources_of_log(root: &Path, files: &[String]) -> Vec<(String, String)> {
    let engine = files.iter().filter(|path| path.starts_with("crates/engine/src/") && path.ends_with(".rs"));
    engine.filter_map(|path| Some((path.clone(), std::fs::read_to_string(root.join(path)).ok()?))).collect()
}
