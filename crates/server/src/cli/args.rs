//! What can be typed. Every command explains itself with examples.

mod process;
mod servers;
mod storm;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use process::ProcessArgs;
pub use servers::{AuditArgs, MigrateArgs, WorkerArgs};
pub use storm::{ArrivalsName, PresetName, RouteName, StormArgs};

use crate::config::ConfigLayer;

/// Where the commands that talk to a server look for it.
pub const URL_DEFAULT: &str = "http://127.0.0.1:3000";

const MAIN_HELP: &str = "\
Without a command, yoink is the demo: it serves on this machine with product 1 (\"Flash Sale Item\", 100 units).

Examples:
  yoink                                  start the demo
  yoink storm                            in another terminal: 1,000 buyers, 100 units, and the audit
  yoink audit                            count everything again
  yoink serve --listen 0.0.0.0:3000      for real; needs a key in YOINK_ADMIN_KEY

Exit codes: 0 done; 1 failed, the reason is on standard error; 2 wrong usage; 65 damaged data; 73 data folder in use.";

const SERVE_HELP: &str = "\
Examples:
  yoink serve --dev
      try it on this machine: buying needs no key, an admin key is made and kept in the data folder
  YOINK_ADMIN_KEY=$(openssl rand -hex 32) yoink serve --listen 0.0.0.0:3000 --data /var/lib/yoink
      serve others; put TLS in front
  yoink serve --engine redis --redis redis://10.0.0.5:6379 --postgres postgres://yoink@10.0.0.6/yoink
      one of many nodes on one Redis and one PostgreSQL; put passwords into YOINK_REDIS_URL and YOINK_POSTGRES_URL
  yoink serve --engine rabbitmq --amqp amqp://yoink@10.0.0.4/yoink --redis … --postgres …
      one of many nodes that queue requests, for workers to decide; YOINK_AMQP_URL may hold a password
  yoink serve --config /etc/yoink.toml --log-format json
      every other setting is in a file; `yoink config --default` prints one with all of them

End it with Ctrl-C or SIGTERM: it stops accepting, finishes what waits, and exits with 0 within 10 s.";

const CONFIG_HELP: &str = "\
Examples:
  yoink config                                  what would be in force now, secrets hidden
  yoink config --default > yoink.toml           a commented file to start from
  yoink config --new-key shop --scopes buy      make an API key; shown once, the file keeps its hash";

const COMPLETIONS_HELP: &str = "\
Examples:
  yoink completions bash > ~/.local/share/bash-completion/completions/yoink
  yoink completions zsh  > ~/.zfunc/_yoink
  yoink completions fish > ~/.config/fish/completions/yoink.fish";

const SEED_HELP: &str = "\
Examples:
  yoink seed --name \"Poster\" --units 500 --price 2500
  yoink seed --id 7 --name \"Ticket\" --units 100 --price 19999 --currency EUR --limit 2
  yoink seed --preset flash-sale-system         the product that an older system began with";

const RESTOCK_HELP: &str = "\
Examples:
  yoink restock --product 1 --units 50 --reason \"second delivery\"
  yoink restock --product 1 --units -10 --reason \"damaged in transit\"
  yoink restock --product 1 --units 50 --reason retry --key delivery-42     safe to repeat: adds 50 once";

const ORDERS_HELP: &str = "\
Examples:
  yoink orders                        the first 100 orders
  yoink orders --customer ann         one customer's
  yoink orders --status failed --json";

const DEAD_LETTERS_HELP: &str = "\
A dead letter is an accepted order that the ledger refused for good. Unless configured otherwise, its units are back on
sale already.

Examples:
  yoink dead-letters list
  yoink dead-letters show 3
  yoink dead-letters retry 3                        after the cause is mended
  yoink dead-letters discard 3 --reason \"refunded\"";

/// Sells a limited number of units to a crowd: never one twice, none forgotten, none lost.
#[derive(Debug, Parser)]
#[command(name = "yoink", version, after_help = MAIN_HELP, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Cli {
    /// Flags of the demo.
    #[command(flatten)]
    pub demo: ServeArgs,
    /// What to do instead of the demo.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API and sell
    #[command(after_help = SERVE_HELP)]
    Serve(ServeArgs),
    /// Do the work behind nodes: carry orders to the ledger (redis), decide what is queued (rabbitmq)
    #[command(after_help = servers::WORKER_HELP)]
    Worker(WorkerArgs),
    /// Make the tables of the ledger in PostgreSQL, or bring them up to this version
    #[command(after_help = servers::MIGRATE_HELP)]
    Migrate(MigrateArgs),
    /// Put a product on sale
    #[command(after_help = SEED_HELP)]
    Seed(SeedArgs),
    /// Add units to a product, or withdraw some
    #[command(after_help = RESTOCK_HELP)]
    Restock(RestockArgs),
    /// List orders
    #[command(after_help = ORDERS_HELP)]
    Orders(OrdersArgs),
    /// Send a crowd of buyers and judge what became of every answer
    #[command(after_help = storm::HELP)]
    Storm(Box<StormArgs>),
    /// Count everything again and compare; fill Redis anew where it differs
    #[command(after_help = servers::AUDIT_HELP)]
    Audit(AuditArgs),
    /// Look after orders that the ledger refused for good
    #[command(after_help = DEAD_LETTERS_HELP)]
    DeadLetters(DeadLettersArgs),
    /// Print the OpenAPI document
    #[command(after_help = "Example:\n  yoink openapi > openapi.json")]
    Openapi,
    /// Print the configuration in force, or the commented default, or make an API key
    #[command(after_help = CONFIG_HELP)]
    Config(ConfigArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// How to serve. What is not given comes from the environment, the file, or the default.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// What every process with an engine is told.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Where buyers connect [env: YOINK_LISTEN] [default: 127.0.0.1:3000]
    #[arg(long, value_name = "ADDR:PORT", display_order = 1)]
    pub listen: Option<SocketAddr>,
    /// Where operators connect, if not there too [env: YOINK_ADMIN_LISTEN]
    #[arg(long, value_name = "ADDR:PORT", display_order = 2)]
    pub admin_listen: Option<SocketAddr>,
    /// The data folder [env: YOINK_DATA] [default: yoink-data]
    #[arg(long, value_name = "DIR", display_order = 3)]
    pub data: Option<PathBuf>,
    /// Everybody on this machine may buy, and an admin key is made [env: YOINK_DEV]
    #[arg(long, display_order = 5)]
    pub dev: bool,
    /// Threads that serve HTTP; 0 is one per core [env: YOINK_THREADS] [default: 0]
    #[arg(long, value_name = "N", display_order = 13)]
    pub threads: Option<usize>,
    /// Start although the log ends before what was promised [env: YOINK_ACCEPT_LOSS]
    #[arg(long, display_order = 14)]
    pub accept_loss: bool,
}

impl ServeArgs {
    /// What the flags say, as the first layer of the configuration.
    pub fn layer(&self) -> ConfigLayer {
        let mut layer = self.process.layer();
        layer.listen = self.listen;
        layer.admin_listen = self.admin_listen;
        layer.data.clone_from(&self.data);
        layer.dev = self.dev.then_some(true);
        layer.threads = self.threads;
        layer.accept_loss = self.accept_loss.then_some(true);
        layer
    }
}

/// Which server to talk to, and as whom.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// The server
    #[arg(long, value_name = "URL", env = "YOINK_URL", default_value = URL_DEFAULT)]
    pub url: String,
    /// The admin key; on the server's own machine the one in its data folder is found without it
    #[arg(long, value_name = "KEY", env = "YOINK_ADMIN_KEY", hide_env_values = true)]
    pub admin_key: Option<String>,
}

/// `yoink seed`.
#[derive(Debug, Args)]
pub struct SeedArgs {
    /// Which server.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The product's id [default: the next free number]
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// What people call it [default: Flash Sale Item]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Units to begin with [default: 100]
    #[arg(long, value_name = "N")]
    pub units: Option<u64>,
    /// What one costs, in minor units: 19999 is 199.99 [default: 19999]
    #[arg(long, value_name = "MINOR")]
    pub price: Option<u64>,
    /// ISO 4217 code of the currency
    #[arg(long, value_name = "CODE", default_value = "EUR")]
    pub currency: String,
    /// Units that one customer may have [default: no limit]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Begin with the product of an older system; other flags change it
    #[arg(long, value_name = "NAME")]
    pub preset: Option<SeedPreset>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// What the older systems began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SeedPreset {
    /// Product 1, 100 units.
    FlashSaleEngine,
    /// Product 1, 500 units.
    Yoink,
    /// Product 1, 100 units, one per customer and order.
    FlashSaleSystem,
}

/// `yoink restock`.
#[derive(Debug, Args)]
pub struct RestockArgs {
    /// Which server.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Which product
    #[arg(long, value_name = "ID")]
    pub product: String,
    /// Units to add; below zero withdraws what is not sold
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub units: i64,
    /// Why, for the books
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Makes repeating the command safe [default: a new one each time]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `yoink orders`.
#[derive(Debug, Args)]
pub struct OrdersArgs {
    /// Which server.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Only this customer's
    #[arg(long, value_name = "ID")]
    pub customer: Option<String>,
    /// Only those that are accepted, confirmed, cancelled, failed or rejected
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
    /// Only those after this sequence number
    #[arg(long, value_name = "SEQ")]
    pub after: Option<u64>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `yoink dead-letters`.
#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: DeadLettersCommand,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List them
    List {
        /// Which server.
        #[command(flatten)]
        target: TargetArgs,
        /// Only this product's
        #[arg(long, value_name = "ID")]
        product: Option<String>,
        /// Only those whose error contains this
        #[arg(long, value_name = "TEXT")]
        error: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show one with everything that is known of it
    Show(DeadLetterArgs),
    /// Carry it to the ledger again
    Retry(DeadLetterArgs),
    /// Close it for good
    Discard {
        /// Which one.
        #[command(flatten)]
        letter: DeadLetterArgs,
        /// Why, for the books
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// One dead letter.
#[derive(Debug, Args)]
pub struct DeadLetterArgs {
    /// Which server.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Its number in `yoink dead-letters list`
    pub id: i64,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `yoink config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The flags of `yoink serve`, to see what they would do.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Print the commented default file
    #[arg(long, conflicts_with = "new_key")]
    pub default: bool,
    /// Make an API key with this name
    #[arg(long, value_name = "NAME")]
    pub new_key: Option<String>,
    /// What the new key opens: buy, orders:read, admin, metrics
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', requires = "new_key", default_value = "buy")]
    pub scopes: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Reads `500ms`, `10s`, `2m` or `1h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| "write a number and a unit, such as 500ms, 10s or 2m")?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return Err("the unit must be ms, s, m or h, such as 10s"),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| "that is too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                help.contains("yoink ") && help.contains("Example"),
                "{} has no examples",
                command.get_name()
            );
        }
    }

    #[test]
    fn flags_of_serve_name_their_variables() {
        let serve = Cli::command().find_subcommand("serve").cloned().unwrap();
        for flag in serve.get_arguments().filter(|flag| flag.get_long() != Some("help")) {
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("[env: YOINK_"), "--{} does not name its variable", flag.get_id());
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "5", "s", "-1s", "1 s", "1e9s"] {
            assert!(parse_duration(text).is_err(), "{text:?} was taken for a duration");
        }
    }
}
