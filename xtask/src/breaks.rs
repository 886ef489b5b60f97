//! `cargo xtask breaks`: breaks each promise by hand, in a copy, and demands that a test fails.
//!
//! A test that cannot fail proves nothing. Every row of the lists is a small, plausible mistake; where no test notices
//! it, or where its place can no longer be found, the command fails.

mod embedded;
mod rabbitmq;
mod redis;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::say::say;
use crate::steps::Counted;

/// Characters of what a failed test said.
const WORDS_MAX: usize = 160;

/// Where a mistake is made.
struct Edit {
    file: &'static str,
    /// Occurs once in the file.
    right: &'static str,
    wrong: &'static str,
}

/// A mistake.
struct Break {
    /// The promise (ARCHITECTURE.md, "What always holds") and how it is broken.
    promise: &'static str,
    edits: &'static [Edit],
    /// Which tests must notice, as arguments of `cargo test`.
    tests: &'static [&'static str],
    /// Of those, the ones with this in their name.
    filter: &'static str,
}

/// Every mistake.
fn all() -> impl Iterator<Item = &'static Break> {
    [embedded::BREAKS, redis::BREAKS, rabbitmq::BREAKS].into_iter().flatten()
}

/// What to break.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BreaksArgs {
    /// Only what has this in its line
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Breaks everything, or what is asked for, one thing at a time.
///
/// # Errors
/// No test notices something, or it could not be tried.
pub(crate) fn run(args: &BreaksArgs) -> Result<Counted> {
    let only = args.only.as_deref().unwrap_or_default().to_lowercase();
    let chosen: Vec<&Break> = all().filter(|one| one.promise.to_lowercase().contains(&only)).collect();
    if chosen.is_empty() {
        bail!("there is nothing to break with {only:?} in its line");
    }
    let copy = crate::target_folder()?.join("breaks");
    copy_tree(&crate::root()?, &copy)?;
    // What is not broken must pass, or a failing test would prove nothing.
    let mut needed: BTreeMap<&[&str], BTreeSet<&str>> = BTreeMap::new();
    for one in &chosen {
        needed.entry(one.tests).or_default().insert(one.filter);
    }
    for (tests, filters) in needed {
        let filters: Vec<&str> = filters.into_iter().collect();
        if let Some(complaint) = complaint_of(&copy, tests, &filters)? {
            bail!("the tests fail before anything is broken: cargo test {}: {complaint}", tests.join(" "));
        }
    }
    let mut unnoticed = Vec::new();
    for one in &chosen {
        let begun = Instant::now();
        let complaint = complaint_with(&copy, one).with_context(|| one.promise)?;
        let seconds = begun.elapsed().as_secs();
        match complaint {
            Some(complaint) => say(format!("noticed    {seconds:>4} s  {}\n    {complaint}", one.promise)),
            None => {
                say(format!("UNNOTICED  {seconds:>4} s  {}", one.promise));
                unnoticed.push(one.promise);
            }
        }
    }
    match unnoticed.as_slice() {
        [] => Ok(Counted::of(chosen.len() as u64, "broken promises, each noticed")),
        some => bail!("no test notices: {}", some.join("; ")),
    }
}

/// Makes a mistake in the copy, asks the tests, and takes it back.
fn complaint_with(copy: &Path, one: &Break) -> Result<Option<String>> {
    let mut before = Vec::new();
    for edit in one.edits {
        let path = copy.join(edit.file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", edit.file))?;
        is_there_once(edit, &text)?;
        fs::write(&path, text.replace(edit.right, edit.wrong))?;
        before.push((path, text));
    }
    let complaint = complaint_of(copy, one.tests, &[one.filter])?;
    before.into_iter().try_for_each(|(path, text)| fs::write(path, text))?;
    Ok(complaint)
}

fn is_there_once(edit: &Edit, text: &str) -> Result<()> {
    match text.matches(edit.right).count() {
        1 => Ok(()),
        count => {
            bail!("{}: what is to be broken is there {count} times, not once: {:?}", edit.file, edit.right)
        }
    }
}

/// What the tests that have one of `filters` in their names say first if they fail. A copy that does not compile has
/// not been tested, and is an error.
fn complaint_of(copy: &Path, tests: &[&str], filters: &[&str]) -> Result<Option<String>> {
    let cargo = |extra: &[&str]| {
        Command::new(env!("CARGO"))
            .arg("test")
            .args(["--quiet", "--no-fail-fast"])
            .args(tests)
            .args(extra)
            .current_dir(copy)
            .env("CARGO_TARGET_DIR", copy.with_file_name("breaks-target"))
            .output()
            .context("cannot run cargo")
    };
    let built = cargo(&["--no-run"])?;
    if !built.status.success() {
        bail!("the copy does not compile: {}", String::from_utf8_lossy(&built.stderr));
    }
    let run = cargo(&[&["--"], filters].concat())?;
    // A name that no test has any more would never notice anything.
    let output = String::from_utf8_lossy(&run.stdout);
    if output.contains("running 0 tests") {
        bail!("there is no such test: cargo test {} -- {}", tests.join(" "), filters.join(" "));
    }
    Ok((!run.status.success()).then(|| first_complaint(&output)))
}

/// Where the first test failed, and the beginning of what it said.
fn first_complaint(output: &str) -> String {
    let mut lines = output.lines().skip_while(|line| !line.contains("panicked at "));
    let (place, words) = (lines.next().unwrap_or("it failed"), lines.next().unwrap_or_default());
    let place = place.split_once("panicked at ").map_or(place, |(_, place)| place);
    format!("{place} {}", words.chars().take(WORDS_MAX).collect::<String>())
}

/// Copies what git tracks, or is about to, as it is in the working tree. What is the same already stays untouched, so
/// that nothing is built again for it.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(from)
        .output()
        .context("cannot run git")?;
    let listed = String::from_utf8(listed.stdout)?;
    let names: BTreeSet<&str> =
        listed.split('\0').filter(|name| !name.is_empty() && from.join(name).is_file()).collect();
    fs::create_dir_all(to)?;
    remove_all_but(&names, to, to)?;
    for name in names {
        let (source, target) = (from.join(name), to.join(name));
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        let wanted = fs::read(&source).with_context(|| format!("cannot read {name}"))?;
        if fs::read(&target).ok().as_ref() != Some(&wanted) {
            fs::write(&target, wanted).with_context(|| format!("cannot copy {name}"))?;
        }
    }
    Ok(())
}

/// Removes the files below `folder` whose names, as seen from `root`, are not listed.
fn remove_all_but(names: &BTreeSet<&str>, root: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(root)?.to_str().unwrap_or_default();
        match path.is_dir() {
            true => remove_all_but(names, root, &path)?,
            false if names.contains(name) => {}
            false => fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_to_be_broken_is_there_once() {
        let root = crate::root().unwrap();
        for edit in all().flat_map(|one| one.edits) {
            let text = fs::read_to_string(root.join(edit.file)).unwrap();
            is_there_once(edit, &text).unwrap();
            assert_ne!(edit.right, edit.wrong);
        }
    }

    #[test]
    fn what_a_test_said_is_told() {
        let output = "thread 'a' (7) panicked at tests/a.rs:3:5:\nsold twice\nnote: run with\n";
        assert_eq!(first_complaint(output), "tests/a.rs:3:5: sold twice");
        assert_eq!(first_complaint(""), "it failed ");
    }

    #[test]
    fn a_copy_is_what_is_there_now() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let git = Command::new("git").args(["init", "-q"]).current_dir(from.path()).status().unwrap();
        assert!(git.success());
        fs::write(from.path().join("kept"), "new").unwrap();
        for (name, text) in [("kept", "old"), ("gone", "old")] {
            fs::write(to.path().join(name), text).unwrap();
        }
        copy_tree(from.path(), to.path()).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("kept")).unwrap(), "new");
        assert!(!to.path().join("gone").exists());
    }

    #[test]
    fn the_tests_that_must_notice_exist() {
        let root = crate::root().unwrap();
        let mut sources = String::new();
        let mut folders = vec![root.join("crates/core/tests"), root.join("crates/engine")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    sources.push_str(&fs::read_to_string(path).unwrap());
                }
            }
        }
        for one in all().filter(|one| !one.filter.is_empty()) {
            assert!(sources.contains(&format!("fn {}()", one.filter)), "no test is called {}", one.filter);
        }
    }
}
