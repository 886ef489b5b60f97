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
    /// Redis is killed, and started again.
    RedisRestarts,
    /// Redis is shut down.
    RedisDown,
    /// Redis is started again.
    RedisUp,
    /// Remembers how much of Redis' log is written.
    RedisMark,
    /// Redis loses its power: it is killed, what it wrote since the mark is lost, and it is started again.
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
            Act::RedisRestarts => "Redis is killed and started again",
            Act::RedisDown => "Redis is shut down",
            Act::RedisUp => "Redis is there again",
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
}
