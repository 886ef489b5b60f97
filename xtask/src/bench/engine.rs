//! The engine alone, without HTTP: what the writer, recovery and delivery do.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::say::say;

/// What `measure` printed.
#[derive(Clone, Debug)]
pub(super) struct EngineFigures(pub(super) Value);

impl EngineFigures {
    pub(super) fn figure(&self, name: &str) -> f64 {
        self.0.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }
}

pub(super) fn measure(folder: &Path, orders: u64) -> Result<EngineFigures> {
    say(format!("the engine alone: {orders} orders ..."));
    let data = folder.join("engine");
    if data.exists() {
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot empty {}", data.display()))?;
    }
    let program = crate::target_folder()?.join("release").join("examples").join("measure");
    let output = Command::new(&program)
        .arg(&data)
        .arg(orders.to_string())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(EngineFigures(serde_json::from_slice(&output.stdout).context("measure printed no JSON")?))
}
