//! The strategies, one file each: what it does, the defect that it carries, and the scene that shows it.

mod engines;
mod naive;

use crate::catalogue::Entry;

/// All of them, in the order in which they are told.
pub(crate) const ALL: &[Entry] = &[naive::ENTRY, engines::EMBEDDED, engines::REDIS, engines::RABBITMQ];
