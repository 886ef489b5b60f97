//! The edge of Yoink: HTTP, pages, process life.
//!
//! [`serve()`] answers HTTP on an open [`yoink_engine::Engine`]. A purchase takes the short way: `edge.rs` sees the
//! head, `api/purchase.rs` reads the body, asks the engine and renders the answer. Everything else goes through
//! `router.rs`, where all URLs are on one page.

mod api;
mod body;
#[doc(hidden)]
pub mod budget;
pub mod cli;
mod compat;
pub mod config;
mod connection;
mod edge;
mod guard;
mod json;
mod metrics;
mod openapi;
mod problem;
mod request;
mod router;
mod serve;
mod settings;
pub mod wire;

pub use openapi::openapi_json;
pub use serve::{ServeError, ShutdownSignal, serve};
pub use settings::{
    ApiKey, IdempotencyKeyRule, JwtSecret, JwtSettings, KeyHash, Mode, Policy, RateLimits, RequestLog, Role,
    Scope, Scopes, Settings,
};
