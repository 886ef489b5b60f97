//! What each step of a purchase costs, against its budget.

use std::io::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::say::say;

/// Measures, prints, and says which steps are over their budget. Over is no failure: machines differ.
pub(super) fn run(json: bool) -> Result<()> {
    say("building (release) ...");
    let folder = crate::target_folder()?.join("bench").join("budget");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "-p", "yoink-server", "--example", "budget"])
        .status()
        .context("cannot run cargo")?;
    if !built.success() {
        bail!("the build failed");
    }
    super::rest()?;
    let program = crate::target_folder()?.join("release").join("examples").join("budget");
    let output = Command::new(&program)
        .arg(&folder)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("the measuring program failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout).context("the measuring program printed no text")?;
    let mut to = std::io::stdout().lock();
    if json {
        return write!(to, "{text}").context("cannot print the profile");
    }
    let steps: Vec<Value> = serde_json::from_str(&text).context("the measuring program printed no JSON")?;
    writeln!(to, "{:<58} {:>10} {:>10}", "step of a purchase", "ns", "budget")?;
    for step in &steps {
        let figure = |name: &str| step.get(name).and_then(Value::as_u64).unwrap_or(0);
        let (measured, budget) = (figure("measured_ns"), figure("budget_ns"));
        let name = step.get("name").and_then(Value::as_str).unwrap_or_default();
        let over = if measured > budget { "  over" } else { "" };
        writeln!(to, "{name:<58} {measured:>10} {budget:>10}{over}")?;
    }
    Ok(())
}
