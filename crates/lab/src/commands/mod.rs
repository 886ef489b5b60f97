//! What the command line can do, one file each.

mod explain;
mod list;
mod report;
mod run;
mod serve;
mod shop;

use std::io::Write as _;

use anyhow::{Result, bail};

use crate::catalogue::{self, Entry};

pub use explain::explain;
pub use list::list;
pub use report::report;
pub use run::run;
pub use serve::serve;
pub use shop::shop;

/// Says on standard error what went wrong.
pub fn complain(text: &str) {
    // Where nobody reads, nothing is lost.
    writeln!(std::io::stderr().lock(), "yoink-lab: {text}").ok();
}

/// Writes a result on standard output.
fn show(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// The strategies of these names; `all` means all.
fn chosen(names: &[String]) -> Result<Vec<Entry>> {
    if names.iter().any(|name| name == "all") {
        return Ok(catalogue::all());
    }
    let find = |name: &String| match catalogue::find(name) {
        Some(entry) => Ok(entry),
        None => bail!("there is no strategy {name:?}; `yoink-lab list` names them"),
    };
    names.iter().map(find).collect()
}
