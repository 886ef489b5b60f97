//! The strategies, one file each: what it does, the defect that it carries, and the scene that shows it.

mod ack_on_error;
mod broker_lock;
mod engines;
mod lock_by_user;
mod lock_expires;
mod naive;

use crate::catalogue::Entry;

/// All of them, in the order in which they are told.
pub(crate) const ALL: &[Entry] = &[
    naive::ENTRY,
    broker_lock::ENTRY,
    lock_by_user::ENTRY,
    lock_expires::ENTRY,
    ack_on_error::ENTRY,
    engines::EMBEDDED,
    engines::REDIS,
    engines::RABBITMQ,
];
