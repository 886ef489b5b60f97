//! Labelled steps at which a crash drill may kill the process. Nothing in a build without the feature `faults`.

/// Every label of the embedded engine, so that a drill can prove it reached each.
pub const LABELS: [&str; 19] = [
    "writer.batch-taken",
    "writer.decided",
    "writer.applied",
    "log.staged",
    "log.before-commit",
    "log.after-commit",
    "writer.before-publish",
    "writer.before-reply",
    "writer.half-replied",
    "beacon.before-write",
    "beacon.after-write",
    "snapshot.before-rename",
    "snapshot.after-rename",
    "checkpoint.before",
    "checkpoint.after",
    "delivery.before-commit",
    "delivery.after-commit",
    "delivery.dead-letter-recorded",
    "delivery.compensated",
];

/// The steps of the redis engine's workers and loaders.
pub const REDIS_LABELS: [&str; 6] =
    ["worker.read", "worker.committed", "loader.closed", "loader.drained", "loader.sealed", "loader.opened"];

/// The steps of the rabbitmq engine's nodes and workers.
pub const RABBIT_LABELS: [&str; 7] = [
    "publisher.before-publish",
    "publisher.confirmed",
    "consumer.decoded",
    "lot.locked",
    "lot.before-decide",
    "lot.committed",
    "lot.acknowledged",
];

/// Passes the step `label`. With `YOINK_FAILPOINT=label:count` in the environment the process kills itself, as by
/// `kill -9`, when it passes that step for the `count`-th time.
#[cfg(feature = "faults")]
pub(crate) fn hit(label: &'static str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };
    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static HITS: AtomicU64 = AtomicU64::new(0);
    debug_assert!(
        LABELS.iter().chain(&REDIS_LABELS).chain(&RABBIT_LABELS).any(|known| *known == label),
        "failpoint {label} is not in the list"
    );
    let armed = ARMED.get_or_init(|| {
        let setting = std::env::var("YOINK_FAILPOINT").ok()?;
        let (label, count) = setting.rsplit_once(':')?;
        Some((label.to_owned(), count.parse().ok()?))
    });
    if let Some((armed, count)) = armed
        && armed == label
        && HITS.fetch_add(1, Ordering::SeqCst).saturating_add(1) == *count
    {
        // A real SIGKILL: no destructor, no flush, no unwinding.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

/// Passes the step `label`.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn hit(_label: &'static str) {}
