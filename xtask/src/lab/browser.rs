//! The report in a real browser, as whoever opens it sees it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::Lab;
use crate::say::say;
use crate::steps::Counted;

const BROWSER: &str = "chromium";
/// A blank page of this size is far smaller.
const PICTURE_BYTES_MIN: u64 = 50_000;
/// Strategies of which one breaks, one holds, and one is an engine.
const SHOWN: [&str; 3] = ["naive", "atomic-sql", "embedded"];

/// Opens a report in a headless Chromium, and looks at what it made of it and at a picture.
///
/// # Errors
/// Chromium is not installed, or shows something else.
pub(crate) fn run(lab: &Lab) -> Result<Counted> {
    let folder = crate::target_folder()?.join("lab").join("browser");
    let out = folder.join("report");
    let report = Command::new(lab.program())
        .args(["report", "--buyers", "200", "--units", "20"])
        .args(SHOWN)
        .arg("--out")
        .arg(&out)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot run the lab")?;
    ensure!(report.success(), "the lab wrote no report");
    let page = format!("file://{}", out.join("report.html").display());
    let shown = browse(&folder, &["--dump-dom"], &page)?;
    for name in SHOWN {
        ensure!(shown.contains(&format!("id=\"{name}\"")), "the browser shows no {name}");
        ensure!(shown.contains(&format!("id=\"{name}-latency\"")), "the browser shows no latency of {name}");
    }
    ensure!(shown.contains("buyer B"), "the browser shows no timeline");
    let picture = folder.join("report.png");
    let option = format!("--screenshot={}", picture.display());
    browse(&folder, &["--window-size=1100,4000", "--hide-scrollbars", &option], &page)?;
    let bytes = std::fs::metadata(&picture).context("the browser made no picture")?.len();
    ensure!(bytes > PICTURE_BYTES_MIN, "the picture of the page is empty: {bytes} bytes");
    say(format!("report: a picture of it is {}", picture.display()));
    Ok(Counted::of(u64::try_from(SHOWN.len())?, "strategies seen in a browser"))
}

/// Gives what the browser writes.
fn browse(folder: &Path, options: &[&str], page: &str) -> Result<String> {
    let output = Command::new(BROWSER)
        // As root it has no sandbox. It opens one page of ours, and nothing from elsewhere.
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        ])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .args(options)
        .arg(page)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {BROWSER}; `cargo xtask setup --long` installs it"))?;
    ensure!(output.status.success(), "{BROWSER} ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
