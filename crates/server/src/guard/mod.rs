//! Before the decision, never the decision: who asks, from where, and how often.

pub(crate) mod address;
pub(crate) mod auth;
pub(crate) mod framing;
#[cfg(test)]
mod hostile;
pub(crate) mod rate_limit;
