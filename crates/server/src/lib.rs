//! The edge of Yoink: HTTP, pages, process life.
//!
//! [`serve()`] answers HTTP on an open [`yoink_engine::Engine`]. A purchase takes the short way: `serve.rs` reads the
//! head, `api/purchase.rs` reads the body, asks the engine and renders the answer. Everything else goes through
//! `router.rs`, where all URLs are on one page.

pub mod cli;
pub mod config;
mod settings;

pub use settings::{
    ApiKey, IdempotencyKeyRule, JwtSecret, JwtSettings, KeyHash, Mode, Policy, RateLimits, RequestLog, Scope,
    Scopes, Settings,
};
