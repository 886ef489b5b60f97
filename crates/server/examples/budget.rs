//! `budget FOLDER`: what each step of a purchase costs, as JSON. `cargo xtask bench --profile` runs it.

use std::io::Write as _;
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let Some(folder) = std::env::args().nth(1) else { anyhow::bail!("usage: budget FOLDER") };
    let steps = yoink_server::budget::measure(Path::new(&folder))?;
    writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(&steps)?)?;
    Ok(())
}
