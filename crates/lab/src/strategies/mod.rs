//! The strategies, one file each: what it does, the defect that it carries, and the scene that shows it.

mod ack_on_error;
mod atomic_sql;
mod broker_lock;
mod check_then_store_key;
mod commit_then_die;
mod crash_before_enqueue;
mod double_compensation;
mod engines;
mod everysec;
mod lock_by_user;
mod lock_expires;
mod naive;
mod negative_quantity;
mod redis_queue;
mod redis_sync;
mod row_lock;
mod ttl_reseed;
mod unknown_commit;

use crate::catalogue::Entry;

/// All of them, in the order in which they are told.
pub(crate) const ALL: &[Entry] = &[
    naive::ENTRY,
    atomic_sql::ENTRY,
    row_lock::ENTRY,
    redis_sync::ENTRY,
    redis_queue::ENTRY,
    broker_lock::ENTRY,
    crash_before_enqueue::ENTRY,
    ttl_reseed::ENTRY,
    double_compensation::ENTRY,
    commit_then_die::ENTRY,
    unknown_commit::ENTRY,
    ack_on_error::ENTRY,
    check_then_store_key::ENTRY,
    lock_by_user::ENTRY,
    lock_expires::ENTRY,
    negative_quantity::ENTRY,
    everysec::ENTRY,
    engines::EMBEDDED,
    engines::REDIS,
    engines::RABBITMQ,
];
