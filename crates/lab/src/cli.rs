//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Ways of selling a limited number of units to a crowd, right and wrong: run them, and see which numbers add up.
#[derive(Debug, Parser)]
#[command(name = "yoink-lab", version)]
pub struct Cli {
    /// What to do; nothing said, the strategies are listed.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the strategies, one line each
    List(ListArgs),
    /// Run strategies under the same crowd, audit each, and print who oversold, lost or sold twice
    Run(RunArgs),
    /// Run one strategy and show, step by step, the interleaving that broke it
    Explain(ExplainArgs),
    /// Run strategies and write one HTML page about them, with charts, timelines, PNG and JSON
    Report(ReportArgs),
    /// Serve the four generations of the older system: POST /api/v1/buy to /api/v4/buy, /health, /metrics
    Serve(ServeArgs),
    /// Sell by one strategy until standard input ends (used by `run`)
    #[command(hide = true)]
    Shop(ShopArgs),
}

/// Options of `list`.
#[derive(Args, Debug, Default)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Names as `yoink-lab list` gives them, or `all`
    #[arg(required = true)]
    pub strategies: Vec<String>,
    /// Where the servers are, and how large the crowd is
    #[command(flatten)]
    pub setting: Setting,
    /// Print JSON: one document, an object per strategy; of one that gave no result, `strategy` and `error`
    #[arg(long)]
    pub json: bool,
}

/// Options of `explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// A name as `yoink-lab list` gives it
    pub strategy: String,
    /// Where the servers are, and how large the crowd is
    #[command(flatten)]
    pub setting: Setting,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Names as `yoink-lab list` gives them
    #[arg(default_value = "all")]
    pub strategies: Vec<String>,
    /// Where the servers are, and how large the crowd is
    #[command(flatten)]
    pub setting: Setting,
    /// The folder to write to [default: target/lab/report]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
}

/// Options of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3000")]
    pub listen: SocketAddr,
    /// Ids of the products
    #[arg(long, value_delimiter = ',', default_value = "1")]
    pub product: Vec<String>,
    /// Units of each product, in each generation
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub units: u64,
    /// A PostgreSQL to use instead of a private one; databases are created in it, and dropped at the end
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// A Redis to use instead of a private one: its databases 3 and 4
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
}

/// Servers and crowd.
#[derive(Args, Clone, Debug)]
pub struct Setting {
    /// Buyers, each of whom wants one unit
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub buyers: u64,
    /// Units of each product
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub units: u64,
    /// Products, each with so many units; the buyers are spread over them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=50))]
    pub products: u64,
    /// A PostgreSQL to use instead of a private one, except where it is shut down; each run creates a database in it, and
    /// drops it at its end
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// A Redis to use instead of a private one, except where it loses its power
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// A RabbitMQ to use instead of a private one
    #[arg(long, value_name = "URL")]
    pub amqp: Option<String>,
    /// Keep what each run wrote (traces, answers, data) in FOLDER/STRATEGY, in place of what was there
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// The `yoink` program that sells for the engines [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub yoink: Option<PathBuf>,
}

/// Options of `shop`.
#[derive(Args, Debug)]
pub struct ShopArgs {
    /// The strategy
    pub strategy: String,
    /// A name that no other run has
    #[arg(long)]
    pub run: String,
    /// Where to listen
    #[arg(long)]
    pub listen: SocketAddr,
    /// Where to write what happens
    #[arg(long)]
    pub trace: PathBuf,
    /// What happens at a named point of the code
    #[arg(long)]
    pub point: Option<String>,
    /// PostgreSQL
    #[arg(long)]
    pub postgres: Option<String>,
    /// Redis
    #[arg(long)]
    pub redis: Option<String>,
    /// RabbitMQ
    #[arg(long)]
    pub amqp: Option<String>,
}
