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

use std::str::FromStr;
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
    /// Only the Kth of N parts of the rounds: all parts together are the whole drill
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    pub(super) part: Part,
    /// Two faults at once, each time
    #[arg(long)]
    pub(super) overlap: bool,
    /// How long a buyer rests between purchases, on average
    #[arg(long, value_name = "MS", default_value_t = 15)]
    pub(super) pause_ms: u64,
}

/// Every `of`th round, from the `number`th on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    number: usize,
    of: usize,
}

impl Part {
    /// Whether the round at this place, from 0, is in it.
    fn has(self, place: usize) -> bool {
        place % self.of == self.number - 1
    }
}

impl FromStr for Part {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, of) = text
            .split_once('/')
            .and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)))
            .ok_or("a part is written K/N, as in 1/2")?;
        if !(1..=of).contains(&number) {
            return Err("the parts K/N are numbered from 1 to N");
        }
        Ok(Self { number, of })
    }
}

/// Waits for a time of chance.
pub(super) fn wait(random: &mut SmallRng, most_ms: u64) {
    std::thread::sleep(Duration::from_micros(random.random_range(0..=most_ms * 1_000)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_is_in_one_part() {
        let parts = ["1/3", "2/3", "3/3"].map(|text| text.parse::<Part>().unwrap());
        for place in 0..10 {
            assert_eq!(parts.iter().filter(|part| part.has(place)).count(), 1, "{place}");
        }
        for wrong in ["", "1", "0/2", "3/2", "1/0", "a/2", "-1/2"] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
    }
}
