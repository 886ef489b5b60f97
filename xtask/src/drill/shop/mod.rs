//! What the drills of engines on servers share: a shop of nodes and workers, the crowd that buys there, the rounds of
//! faults, and the judgement behind each.

pub(super) mod buyer;
mod crowd;
pub(super) mod judge;
pub(super) mod processes;
pub(super) mod rounds;
mod stock;
pub(super) mod strikes;
pub(super) mod tally;

use std::time::Duration;

use clap::Args;
use rand::RngExt as _;
use rand::rngs::SmallRng;

/// How drills of engines on servers go.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "With --engine redis or rabbitmq")]
pub(crate) struct ShopArgs {
    /// Only this kind: its name as in the table, or the beginning of it
    #[arg(long, value_name = "KIND")]
    pub(super) only: Option<String>,
    /// Two faults at once, each time
    #[arg(long)]
    pub(super) overlap: bool,
    /// How long a buyer rests between purchases, on average
    #[arg(long, value_name = "MS", default_value_t = 15)]
    pub(super) pause_ms: u64,
}

/// Waits for a time of chance.
pub(super) fn wait(random: &mut SmallRng, most_ms: u64) {
    std::thread::sleep(Duration::from_micros(random.random_range(0..=most_ms * 1_000)));
}
