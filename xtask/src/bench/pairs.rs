//! Requests per second, Yoink against the reference, in turn.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::server::Server;
use crate::say::say;

/// What buyers are told in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    SoldOut,
}

impl Answer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::SoldOut => "sold out",
        }
    }

    fn product(self) -> &'static str {
        match self {
            Self::Accepted => "plenty",
            Self::SoldOut => "gone",
        }
    }
}

/// One run of wrk.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) requests: f64,
    pub(super) requests_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// All pairs of one answer at one number of connections.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) answer: Answer,
    pub(super) connections: u32,
    pub(super) reference: Vec<Run>,
    pub(super) yoink: Vec<Run>,
}

impl Row {
    /// Yoink's rate as a part of the reference's, pair by pair, ascending.
    pub(super) fn ratios(&self) -> Vec<f64> {
        let pairs = self.reference.iter().zip(&self.yoink);
        let mut ratios: Vec<f64> =
            pairs.map(|(reference, yoink)| yoink.requests_per_s / reference.requests_per_s).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    /// The goal for the median ratio.
    pub(super) fn goal(&self) -> f64 {
        match (self.answer, self.connections) {
            (Answer::Accepted, 64) => 0.6,
            (Answer::Accepted, _) => 0.85,
            (Answer::SoldOut, _) => 0.95,
        }
    }
}

pub(super) fn measure(folder: &Path, seconds: u32, pairs: u32) -> Result<Vec<Row>> {
    let binaries = crate::target_folder()?.join("release");
    let mut rows = Vec::new();
    for answer in [Answer::Accepted, Answer::SoldOut] {
        for connections in [64, 1_000] {
            let mut row = Row { answer, connections, reference: Vec::new(), yoink: Vec::new() };
            for pair in 1..=pairs {
                let reference = Server::reference(&binaries)?;
                row.reference.push(wrk(&reference, Answer::Accepted, connections, seconds)?);
                drop(reference);
                let yoink = Server::yoink(&binaries, &folder.join("data"))?;
                let run = wrk(&yoink, answer, connections, seconds)?;
                say(format!(
                    "{:<8} {connections:>5} connections, pair {pair} of {pairs}: {:>7.0}/s of {:>7.0}/s, {} MiB",
                    answer.name(),
                    run.requests_per_s,
                    row.reference.last().map_or(0.0, |reference| reference.requests_per_s),
                    yoink.rss_mib().unwrap_or(0),
                ));
                row.yoink.push(run);
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

pub(super) fn wrk(server: &Server, answer: Answer, connections: u32, seconds: u32) -> Result<Run> {
    let script = crate::root()?.join("benchmarks").join("wrk").join("purchase.lua");
    let output = Command::new("wrk")
        .args([
            "--threads",
            "2",
            "--connections",
            &connections.to_string(),
            "--duration",
            &format!("{seconds}s"),
        ])
        .args(["--timeout", "10s", "--script"])
        .arg(script)
        .arg(format!("http://{}", server.address))
        .args(["--", answer.product(), "run"])
        .output()
        .context("cannot run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let Some(line) = line else {
        bail!("wrk gave no result: {text}{}", String::from_utf8_lossy(&output.stderr))
    };
    let result: Value = serde_json::from_str(line)?;
    let figure =
        |name: &str| result.get(name).and_then(Value::as_f64).with_context(|| format!("wrk gave no {name}"));
    // A fast wrong answer is worth nothing: every one must be the expected one.
    let (requests, refused) = (figure("requests")?, figure("refused")?);
    let expected_refusals = match answer {
        Answer::Accepted => 0.0,
        Answer::SoldOut => requests,
    };
    if refused != expected_refusals || figure("broken")? != 0.0 {
        bail!("{} of {requests} answers were refusals, {} connections broke", refused, figure("broken")?);
    }
    Ok(Run {
        requests,
        requests_per_s: requests / figure("seconds")?,
        p50_ms: figure("p50_ms")?,
        p99_ms: figure("p99_ms")?,
    })
}
