//! `yoink-lab report`.

use std::process::ExitCode;

use anyhow::Result;

use super::run::run_all;
use super::{chosen, show};
use crate::cli::ReportArgs;
use crate::report;
use crate::stage::lab_folder;

/// Runs strategies and writes the page about them.
///
/// # Errors
/// A run gave no result, or a file cannot be written.
pub async fn report(args: ReportArgs) -> Result<ExitCode> {
    let entries = chosen(&args.strategies)?;
    let results = run_all(&entries, &args.setting).await;
    results.ensure_any()?;
    let folder = args.out.unwrap_or_else(|| lab_folder().join("report"));
    let setting = &args.setting;
    let each = if setting.products == 1 {
        String::new()
    } else {
        format!(" of each of {} products", setting.products)
    };
    let words = format!("{} units{each} and {} buyers", setting.units, setting.buyers);
    report::write(&results.outcomes, &words, &folder)?;
    show(&format!(
        "{}\nThe charts lie beside it as PNG, and the figures as report.json.",
        folder.join("report.html").display()
    ))?;
    Ok(results.exit())
}
