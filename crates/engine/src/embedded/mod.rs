//! The engine that needs nothing else: one writer thread, one log, one data folder.

pub(crate) mod beacon;
mod bytes;
pub mod clock;
pub mod codec;
pub(crate) mod engine;
pub(crate) mod folder;
pub(crate) mod inbox;
pub mod log;
pub(crate) mod loss;
pub mod recovery;
pub(crate) mod snapshot;
pub(crate) mod tail;
pub(crate) mod ticket;
pub(crate) mod writer;
