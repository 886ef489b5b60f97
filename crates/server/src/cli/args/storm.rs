//! The flags of `yoink storm`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{TargetArgs, parse_duration};

pub(super) const HELP: &str = "\
Examples:
  yoink storm                                        1,000 buyers at once, each wants one unit of product 1
  yoink storm --buyers 200 --requests 20000          200 buyers, 20,000 purchases between them
  yoink storm --rate 50:10s,300:20s,1000:25s         buyers arrive at rising rates, whatever the server does
  yoink storm --rate 2000 --duration 30s --assert 'p95<50ms' --assert 'errors==0'
  yoink storm --preset stress                        200 buyers, 100 units of a product of its own: exactly 100 win
  yoink storm --report storm.html                    charts of the run

Afterwards every answer is looked up again. Exit code 0 only if nothing was oversold, lost or duplicated and every
assertion holds.";

/// `yoink storm`.
#[derive(Debug, Args)]
pub struct StormArgs {
    /// Which server.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The product that everybody wants
    #[arg(long, value_name = "ID", default_value = "1")]
    pub product: String,
    /// How many buyers there are [default: 1000]
    #[arg(long, value_name = "N")]
    pub buyers: Option<u64>,
    /// Purchases in total [default: as many as buyers]
    #[arg(long, value_name = "N", conflicts_with_all = ["duration", "rate"])]
    pub requests: Option<u64>,
    /// How long new purchases are begun, such as 30s; with --rate, how long a steady rate lasts [default there: 10s]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Arrivals a second: 500, or stages such as 50:10s,300:20s,1000:25s
    #[arg(long, value_name = "R")]
    pub rate: Option<String>,
    /// How arrivals are spaced with --rate
    #[arg(long, value_name = "HOW", default_value = "even", requires = "rate")]
    pub arrivals: ArrivalsName,
    /// A storm that an older system shipped, with its own expectations
    #[arg(long, value_name = "NAME")]
    pub preset: Option<PresetName>,
    /// A threshold such as p95<50ms, rps>1000 or errors==0; may be given several times
    #[arg(long = "assert", value_name = "COMPARISON")]
    pub asserts: Vec<String>,
    /// Units per purchase
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub quantity: u32,
    /// Which of the server's ways to buy is taken [default: native]
    #[arg(long, value_name = "NAME")]
    pub route: Option<RouteName>,
    /// Connections used at once [default: as many as buyers, up to 1000]
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// Mean pause of a buyer between two purchases, such as 200ms
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub think_time: Option<Duration>,
    /// How often each purchase is sent under the same idempotency key
    #[arg(long, value_name = "N")]
    pub same_key_times: Option<u32>,
    /// How long one request may take
    #[arg(long, value_name = "D", default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Makes names, pauses and random arrivals repeatable
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Key of the shop, for servers where buying needs one [default: the admin key]
    #[arg(long, value_name = "KEY", env = "YOINK_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Only measure: do not look answers up again
    #[arg(long)]
    pub no_audit: bool,
    /// Write a page with the charts of the run
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Write the HDR interval log
    #[arg(long, value_name = "FILE.hlog")]
    pub hdr: Option<PathBuf>,
    /// Write the charts as single files
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
    /// Append every intent before it is sent and every answer when it arrives, as JSON lines
    #[arg(long, value_name = "FILE.jsonl")]
    pub record: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// The storms with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PresetName {
    /// Arrivals rise from 50 over 300 to 1,000 a second within 55 seconds
    Spike,
    /// 200 buyers, 100 units: exactly 100 win
    Stress,
    /// One customer hammers /purchase: 429 after 5 a minute
    AntiBot,
    /// The same key twice: one order
    Idempotency,
    /// 20 at once
    Twenty,
}

/// The server's ways to buy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RouteName {
    /// POST /v1/orders
    Native,
    /// POST /orders
    Orders,
    /// POST /buy
    Buy,
    /// POST /purchase
    Purchase,
}

/// How arrivals are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArrivalsName {
    /// At equal distances
    Even,
    /// As independent people arrive
    Random,
}
