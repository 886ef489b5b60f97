//! Every limit has a name, a reason, and a relation to the others that the compiler checks.

use std::time::Duration;

/// Calls that may wait for the writer. At 70,000 a second this is a quarter of a second of work: more would only
/// make people wait for an answer that comes too late.
pub const INBOX_TICKETS_MAX: usize = 16_384;

/// Calls that one commit serves. The larger, the fewer fsyncs; the smaller, the sooner the first is answered.
pub const BATCH_TICKETS_MAX: usize = 2_048;

/// How long a call may wait undecided. Past it the caller has given up, so deciding would only surprise.
pub const TICKET_WAIT_MAX: Duration = Duration::from_secs(10);

/// Committed events kept in memory for delivery, so that the ordinary path never reads the log back.
pub const TAIL_EVENTS_MAX: usize = 65_536;

/// Events that one read of the log returns. The writer serves reads between commits; this bounds how long one takes.
pub const READ_EVENTS_MAX: usize = 4_096;

/// Orders that one listing returns.
pub const LIST_ORDERS_MAX: usize = 1_000;

/// How often the ledger is counted and held against memory, while nobody is buying.
pub const WATCH_EVERY: Duration = Duration::from_secs(30);

/// Orders that one listing looks at. The writer serves listings between commits; this bounds how long one takes.
pub const LIST_EXAMINED_MAX: usize = 5_000;

/// The log's write-ahead file is folded back at this size, or when nobody is waiting. The larger, the rarer; the
/// smaller, the shorter the pause, and the sooner commits overwrite the file instead of making it longer, which costs
/// the file system less.
pub const WAL_BYTES_MAX: u64 = 16 << 20;

/// Below this much free space selling stops, while there is still room to write down what was sold.
pub const FREE_BYTES_MIN: u64 = 64 << 20;

/// How often free space is looked at.
pub const FREE_SPACE_CHECK_EVERY: Duration = Duration::from_secs(1);

/// How old the beacon may be behind the log.
pub const BEACON_EVERY: Duration = Duration::from_millis(50);

/// Where a loss is accepted, the next event's number is this much above all that was promised. More than can be
/// committed, and read by somebody, between two beacons.
pub const LOSS_MARGIN_EVENTS: u64 = 1_000_000;

/// A snapshot is worth its time after this many events, when the engine closes.
pub const SNAPSHOT_EVENTS_MIN: u64 = 100_000;

/// While the engine is open a snapshot is made after this many events, and only when nobody is waiting.
pub const SNAPSHOT_EVENTS_IDLE: u64 = 1_000_000;

const _: () = assert!(
    INBOX_TICKETS_MAX >= 2 * BATCH_TICKETS_MAX,
    "a full batch must be able to gather behind a commit"
);
const _: () = assert!(TAIL_EVENTS_MAX >= 2 * READ_EVENTS_MAX, "delivery must be able to keep up from memory");
