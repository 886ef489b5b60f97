//! The rabbitmq engine on real servers that are killed, stopped, emptied and cut off, and its workers in each other's way.
//! After each run everything is decided, every invariant holds, and what the buyers were told is compared with the ledger.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

#[path = "rabbit/crowds.rs"]
mod crowds;
#[path = "rabbit/guarantees.rs"]
mod guarantees;
#[path = "rabbit/locks.rs"]
mod locks;
#[path = "rabbit/loss.rs"]
mod loss;
#[path = "rabbit/outages.rs"]
mod outages;
#[path = "rabbit/poison.rs"]
mod poison;
#[path = "rabbit/publishing.rs"]
mod publishing;
#[path = "rabbit/shop.rs"]
mod shop;
