//! The redis engine on real servers that are killed, stopped, emptied, edited and cut off. After each run everything is
//! healed and drained, every invariant holds, and what the buyers were promised is compared with the ledger.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;
#[path = "../../core/tests/properties/generator.rs"]
#[allow(dead_code, reason = "the core's own test uses the rest of it")]
mod core_generator;

#[path = "redis/backlog.rs"]
mod backlog;
#[path = "redis/broken_trigger.rs"]
mod broken_trigger;
#[path = "redis/certain.rs"]
mod certain;
#[path = "redis/counting.rs"]
mod counting;
#[path = "redis/crash.rs"]
mod crash;
#[path = "redis/cuts.rs"]
mod cuts;
#[path = "redis/disk.rs"]
mod disk;
#[path = "redis/ends.rs"]
mod ends;
#[path = "redis/hand_edits.rs"]
mod hand_edits;
#[path = "redis/losers.rs"]
mod losers;
#[path = "redis/loss.rs"]
mod loss;
#[path = "redis/meddling.rs"]
mod meddling;
#[path = "redis/mistakes.rs"]
mod mistakes;
#[path = "redis/other_edits.rs"]
mod other_edits;
#[path = "redis/overlap.rs"]
mod overlap;
#[path = "redis/rate_limit.rs"]
mod rate_limit;
#[path = "redis/restore.rs"]
mod restore;
#[path = "redis/settings.rs"]
mod settings;
#[path = "redis/shop.rs"]
mod shop;
#[path = "redis/slots.rs"]
mod slots;
#[path = "redis/two_ledgers.rs"]
mod two_ledgers;
#[path = "redis/versions.rs"]
mod versions;
