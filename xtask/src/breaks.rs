//! `cargo xtask breaks`: breaks each promise by hand, in a copy, and demands that a test fails.
//!
//! A test that cannot fail proves nothing. Every row below is a small, plausible mistake; where no test notices it, or
//! where its place can no longer be found, the command fails.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::say::say;
use crate::steps::Counted;

/// A mistake.
struct Break {
    /// The promise (ARCHITECTURE.md, "What always holds") and how it is broken.
    promise: &'static str,
    file: &'static str,
    /// Occurs once in the file.
    right: &'static str,
    wrong: &'static str,
    /// Which tests must notice.
    tests: &'static [&'static str],
}

const DECIDE: &str = "crates/core/src/inventory/decide.rs";
const CORE: &[&str] = &["-p", "yoink-core", "--test", "properties"];
const STORAGE: &[&str] = &["-p", "yoink-engine", "--features", "faults", "--test", "storage"];
const RECOVERY: &[&str] = &["-p", "yoink-engine", "--features", "faults", "--test", "recovery"];
const CLOCK: &[&str] = &["-p", "yoink-engine", "--features", "faults", "--test", "clock"];

const BREAKS: &[Break] = &[
    Break {
        promise: "1 no oversell: one unit more than there is is given away",
        file: DECIDE,
        right: "if u64::from(purchase.quantity) > available {",
        wrong: "if u64::from(purchase.quantity) > available.saturating_add(1) {",
        tests: CORE,
    },
    Break {
        promise: "2 accepted is kept: answers are sent before the commit",
        file: "crates/engine/src/embedded/writer.rs",
        right: "        self.log.commit()?;",
        wrong: "        send(std::mem::take(&mut answers));\n        self.log.commit()?;",
        tests: STORAGE,
    },
    Break {
        promise: "2 accepted is kept: a refused start folds the log back",
        file: "crates/engine/src/embedded/log.rs",
        right: "set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)",
        wrong: "set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)",
        tests: RECOVERY,
    },
    Break {
        promise: "2 accepted is kept: the beacon is not held against the log",
        file: "crates/engine/src/embedded/recovery.rs",
        right: "    let incarnation = keep_promise(&log, promise, accept_loss)?;",
        wrong: "    let _ = keep_promise;\n    let incarnation = promise.incarnation;",
        tests: RECOVERY,
    },
    Break {
        promise: "3 conservation: the units of an ended order vanish",
        file: "crates/core/src/stock.rs",
        right: "        lower(&mut self.sold, units, \"sold\");\n        raise(&mut self.available, units, \"available\");\n        self.assert_law();",
        wrong: "        lower(&mut self.sold, units, \"sold\");",
        tests: CORE,
    },
    Break {
        promise: "4 one order per key: the key is not looked up",
        file: DECIDE,
        right: "            self.find_replay(customer, product_number, purchase)?;",
        wrong: "            let _ = Self::find_replay;",
        tests: CORE,
    },
    Break {
        promise: "4 one order per key: who asks again meanwhile is told no",
        file: "crates/engine/src/engine.rs",
        right: "            shared.storefront.publish_buyer(request.customer.as_str());",
        wrong: "            let _ = &shared.storefront;",
        tests: CLOCK,
    },
    Break {
        promise: "5 limit per customer: one unit more is let through",
        file: DECIDE,
        right: "if used.saturating_add(quantity) <= limit {",
        wrong: "if used.saturating_add(quantity) <= limit.saturating_add(1) {",
        tests: CORE,
    },
    Break {
        promise: "6 units back once: a cancelled order is cancelled again",
        file: DECIDE,
        right: "            OrderState::Cancelled => Err(No::Replay(Replay::Order(order))),\n",
        wrong: "            OrderState::Cancelled => Ok(Fact::OrderCancelled { order, reason: reason.into() }),\n",
        tests: CORE,
    },
    Break {
        promise: "7 nothing sticks: the last unit is never sold",
        file: DECIDE,
        right: "if u64::from(purchase.quantity) > available {",
        wrong: "if u64::from(purchase.quantity) >= available {",
        tests: CORE,
    },
];

/// Breaks everything, one thing at a time.
pub(crate) fn run() -> Result<Counted> {
    let copy = crate::target_folder()?.join("breaks");
    copy_tree(&crate::root()?, &copy)?;
    // What is not broken must pass, or a failing test would prove nothing.
    for tests in [CORE, STORAGE, RECOVERY, CLOCK] {
        if !passes(&copy, tests)? {
            bail!("the tests fail before anything is broken: cargo test {}", tests.join(" "));
        }
    }
    let mut unnoticed = Vec::new();
    for one in BREAKS {
        let path = copy.join(one.file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", one.file))?;
        if text.matches(one.right).count() != 1 {
            bail!("{}: what is to be broken is not there once any more: {:?}", one.file, one.right);
        }
        fs::write(&path, text.replace(one.right, one.wrong))?;
        let noticed = !passes(&copy, one.tests)?;
        fs::write(&path, &text)?;
        say(format!("{}  {}", if noticed { "noticed  " } else { "UNNOTICED" }, one.promise));
        if !noticed {
            unnoticed.push(one.promise);
        }
    }
    match unnoticed.as_slice() {
        [] => Ok(Counted::of(BREAKS.len() as u64, "broken promises, each noticed")),
        some => bail!("no test notices: {}", some.join("; ")),
    }
}

/// Whether the tests pass. A copy that does not compile has not been tested, and is an error.
fn passes(copy: &Path, tests: &[&str]) -> Result<bool> {
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
    Ok(cargo(&[])?.status.success())
}

/// Copies what git tracks, as it is in the working tree.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot empty {}", to.display()))?;
    }
    let listed =
        Command::new("git").args(["ls-files", "-z"]).current_dir(from).output().context("cannot run git")?;
    for name in String::from_utf8(listed.stdout)?.split('\0').filter(|name| !name.is_empty()) {
        let (source, target) = (from.join(name), to.join(name));
        if !source.is_file() {
            continue;
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(&source, &target).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}
