//! What the lab is proven and told by: twenty runs of everything, the case study, and a crowd that is not ours.

mod browser;
mod case_study;
mod crowd;
mod proof;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

pub(crate) use browser::run as browser;
pub(crate) use case_study::run as case_study;
pub(crate) use crowd::run as k6;
pub(crate) use proof::{ProofArgs, run as proof};

/// The lab, and the product that it tries.
pub(crate) struct Lab {
    program: PathBuf,
}

impl Lab {
    /// Builds both as they are delivered: one after the other, so that neither gets features that only the other asks for.
    pub(crate) fn build() -> Result<Lab> {
        for package in ["yoink-server", "yoink-lab"] {
            let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args(["build", "--quiet", "--release", "--package", package])
                .current_dir(crate::root()?)
                .stdin(Stdio::null())
                .status()
                .context("cannot run cargo")?;
            if !status.success() {
                bail!("{package} cannot be built");
            }
        }
        Ok(Lab { program: crate::target_folder()?.join("release").join("yoink-lab") })
    }

    /// Both as the tests have just built them.
    pub(crate) fn built_by_tests() -> Result<Lab> {
        let program = crate::target_folder()?.join("debug").join("yoink-lab");
        if !program.exists() {
            bail!("there is no {}: the tests build it", program.display());
        }
        Ok(Lab { program })
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// What it says in JSON, whatever it thinks of it.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let output = Command::new(&self.program)
            .args(arguments)
            .arg("--json")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run the lab")?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("yoink-lab {} gave no result", arguments.join(" ")))
    }
}

/// A figure of a run.
fn figure(run: &Value, name: &str) -> f64 {
    run.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// A text of a run.
fn text<'a>(run: &'a Value, name: &str) -> &'a str {
    run.get(name).and_then(Value::as_str).unwrap_or_default()
}
