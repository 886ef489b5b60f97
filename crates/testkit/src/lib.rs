//! Real processes for tests and drills: starts the real `yoink` privately, talks HTTP to it, ends it.
//!
//! This crate knows the binary, its command line and its URLs, and depends on no other crate of the project, so what
//! it observes cannot be explained by a shared mistake.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = yoink_testkit::Yoink::new("target/debug/yoink").start()?;
//! let answer = server.client().get("/v1/products")?;
//! assert_eq!(answer.status, 200);
//! # Ok(())
//! # }
//! ```

mod client;
mod message;
mod port;
mod process;
mod watchdog;

pub use client::{Client, ClientError};
pub use message::Response;
pub use port::free_port;
pub use process::{StartError, Yoink, YoinkProcess, ended_by};

/// The admin key that [`Yoink`] gives the processes it starts, unless told otherwise.
pub const ADMIN_KEY: &str = "testkit-admin-key-0123456789abcdefghijklmnopqrstuvwxyz";
