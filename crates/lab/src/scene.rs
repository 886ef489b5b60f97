//! What happens in a run, act by act.

use std::time::Duration;

/// One step of a scene. Acts follow each other; a crowd that was begun buys on meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// This part of all buyers comes, in percent, and at least one; goes on when everybody has an answer.
    Crowd(u64),
    /// This part of all buyers comes and clicks twice: each purchase is sent two times at once under one key.
    DoubleClicks(u64),
    /// This part of all buyers begins to buy; the next acts happen meanwhile.
    Begin(u64),
    /// Waits until the crowd that was begun has its answers.
    Join,
    /// Waits until the shop has sold so many units in percent of the stock.
    Sold(u64),
    /// This part of all buyers comes at a time, again and again, until nothing is for sale when everything has settled.
    BuyOut(u64),
    /// One buyer asks for this many units.
    Hostile(i64),
    /// Nothing for a while.
    Wait(Duration),
    /// Waits until nothing is queued any more.
    Drain,
    /// PostgreSQL is shut down.
    PostgresDown,
    /// PostgreSQL is started again.
    PostgresUp,
    /// From here on it is noted how much of Redis' log is written when.
    RedisMark,
    /// Redis loses its power: it is killed, what it wrote within the last 900 ms and since the mark is lost, and it is
    /// started again. A Redis that has everything on the disk before it answers refuses this.
    RedisPowerCut,
    /// The shop is killed, and started again.
    ShopKilled,
}

impl Act {
    /// What it is called in a timeline; `None` for what is no fault.
    #[must_use]
    pub fn fault(self) -> Option<&'static str> {
        Some(match self {
            Act::PostgresDown => "PostgreSQL is shut down",
            Act::PostgresUp => "PostgreSQL is there again",
            Act::RedisPowerCut => "the power of Redis' machine fails: its last writes are gone",
            Act::ShopKilled => "the shop's process is killed and started again",
            Act::Crowd(_)
            | Act::DoubleClicks(_)
            | Act::Begin(_)
            | Act::Join
            | Act::Sold(_)
            | Act::BuyOut(_)
            | Act::Hostile(_)
            | Act::Wait(_)
            | Act::Drain
            | Act::RedisMark => return None,
        })
    }

    /// What happens in it, in one short phrase.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            Act::Crowd(0) => "one of the buyers comes".to_owned(),
            Act::Crowd(percent) => format!("{} come", part(percent)),
            Act::DoubleClicks(percent) => format!("{} click twice", part(percent)),
            Act::Begin(percent) => format!("{} begin to buy", part(percent)),
            Act::Join => "until everybody has an answer".to_owned(),
            Act::Sold(percent) => format!("until {percent} % of the units are sold"),
            Act::BuyOut(percent) => {
                format!("{} come at a time, until nothing is for sale", part(percent))
            }
            Act::Hostile(quantity) => format!("somebody asks for {quantity} units"),
            Act::Wait(pause) => format!("{} s pass", pause.as_secs_f64()),
            Act::Drain => "until nothing is queued".to_owned(),
            Act::RedisMark => "from here on Redis' log is watched".to_owned(),
            Act::PostgresDown | Act::PostgresUp | Act::RedisPowerCut | Act::ShopKilled => {
                self.fault().unwrap_or_default().to_owned()
            }
        }
    }
}

fn part(percent: u64) -> String {
    if percent == 100 { "all buyers".to_owned() } else { format!("{percent} % of the buyers") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_is_one_short_phrase() {
        for (act, phrase) in [
            (Act::Crowd(100), "all buyers come"),
            (Act::Crowd(40), "40 % of the buyers come"),
            (Act::Crowd(0), "one of the buyers comes"),
            (Act::DoubleClicks(30), "30 % of the buyers click twice"),
            (Act::Begin(60), "60 % of the buyers begin to buy"),
            (Act::Join, "until everybody has an answer"),
            (Act::Sold(10), "until 10 % of the units are sold"),
            (Act::BuyOut(10), "10 % of the buyers come at a time, until nothing is for sale"),
            (Act::Hostile(-5), "somebody asks for -5 units"),
            (Act::Wait(Duration::from_millis(1_500)), "1.5 s pass"),
            (Act::Drain, "until nothing is queued"),
            (Act::PostgresDown, "PostgreSQL is shut down"),
            (Act::PostgresUp, "PostgreSQL is there again"),
            (Act::RedisMark, "from here on Redis' log is watched"),
            (Act::RedisPowerCut, "the power of Redis' machine fails: its last writes are gone"),
            (Act::ShopKilled, "the shop's process is killed and started again"),
        ] {
            assert_eq!(act.in_words(), phrase);
        }
    }
}
