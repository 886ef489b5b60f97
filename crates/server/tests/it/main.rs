//! The HTTP contract, against a real server on a loopback port with a real engine of its own, of whatever kind
//! `YOINK_TEST_ENGINE` asks for.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where; the lint only knows about functions that are tests themselves"
)]

mod auth;
mod bad_input;
mod compat;
mod contract;
#[cfg(feature = "faults")]
mod dead_letters;
mod engines;
mod harness;
mod headers;
mod hostile;
#[cfg(feature = "faults")]
mod ledger_down;
mod limits;
mod logs;
mod metrics;
mod operators;
mod orders;
mod products;
mod purchase;
mod shutdown;
mod slow_clients;
mod standstill;
mod unsafe_settings;
