//! The strategies, one file each: what it does, the defect that it carries, and the scene that shows it.

mod atomic_sql;
mod check_then_store_key;
mod commit_then_die;
mod crash_before_enqueue;
mod double_compensation;
mod everysec;
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
    crash_before_enqueue::ENTRY,
    ttl_reseed::ENTRY,
    double_compensation::ENTRY,
    commit_then_die::ENTRY,
    unknown_commit::ENTRY,
    check_then_store_key::ENTRY,
    negative_quantity::ENTRY,
    everysec::ENTRY,
];
