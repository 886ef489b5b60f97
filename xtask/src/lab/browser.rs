//! The report in a real browser, as whoever opens it sees it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::Lab;
use crate::say::say;
use crate::steps::Counted;

const BROWSER: &str = "chromium";
/// What a chart adds to the picture of the page, at the least.
const CHART_BYTES_MIN: u64 = 5_000;
/// Hides what is drawn in charts, and leaves their places.
const HIDDEN: &str = "<style>svg > * { display: none }</style></head>";
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
    let charts = u64::try_from(shown.matches("<figure").count())?;
    let bare = out.join("without-charts.html");
    let html = std::fs::read_to_string(out.join("report.html")).context("the lab wrote no page")?;
    ensure!(html.contains("</head>"), "the page has no head in which charts can be hidden");
    std::fs::write(&bare, html.replacen("</head>", HIDDEN, 1))
        .context("cannot write a page without charts")?;
    let without = picture(&folder, "without-charts.png", &format!("file://{}", bare.display()))?;
    let with = picture(&folder, "report.png", &page)?;
    ensure!(
        with >= without + charts * CHART_BYTES_MIN,
        "{charts} charts are not drawn: the picture has {with} bytes, and {without} without them"
    );
    say(format!("report: a picture of it is {}", folder.join("report.png").display()));
    Ok(Counted::of(u64::try_from(SHOWN.len())?, "strategies seen in a browser"))
}

/// Makes a picture of a page in place of the one that was there, and gives its size in bytes.
fn picture(folder: &Path, name: &str, page: &str) -> Result<u64> {
    let picture = folder.join(name);
    if picture.exists() {
        std::fs::remove_file(&picture).with_context(|| format!("cannot remove {}", picture.display()))?;
    }
    let option = format!("--screenshot={}", picture.display());
    browse(folder, &["--window-size=1100,4000", "--hide-scrollbars", &option], page)?;
    Ok(std::fs::metadata(&picture).context("the browser made no picture")?.len())
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
