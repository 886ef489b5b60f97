//! The HTTP contract, against a real server on a loopback port with a real engine in a folder of its own.

mod auth;
mod bad_input;
mod compat;
mod contract;
mod harness;
mod headers;
mod limits;
mod metrics;
mod operators;
mod orders;
mod products;
mod purchase;
mod shutdown;
mod slow_clients;
