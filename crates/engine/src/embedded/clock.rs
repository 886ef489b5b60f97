//! The engine's time: follows the machine's clock, but never runs back and never jumps.
//!
//! Between looks it runs on the monotonic clock. Where the wall clock turns out to be ahead by at most [`STEP_MAX_US`]
//! it is followed at once; where it jumped (NTP step, an operator's `date -s`), the engine's time runs at twice or half
//! its pace until they meet, so a sale neither opens an hour early nor stands still for an hour, and the step is
//! counted.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};
use std::time::Instant;

use yoink_core::Timestamp;

/// A difference between wall clock and engine time that is no longer drift, in microseconds.
pub const STEP_MAX_US: i64 = 2_000_000;

/// Where time comes from.
pub trait TimeSource: Send + Sync {
    /// Microseconds since 1970, as the machine believes.
    fn wall_us(&self) -> i64;
    /// Microseconds since some fixed instant; never runs back.
    fn monotonic_us(&self) -> i64;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemTime {
    origin: Instant,
}

impl Default for SystemTime {
    fn default() -> Self {
        Self { origin: Instant::now() }
    }
}

impl TimeSource for SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine what time it is")]
    fn wall_us(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn monotonic_us(&self) -> i64 {
        i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

/// The engine's time. The writer calls [`Clock::tick`]; everybody else reads.
#[derive(Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

struct Shared {
    source: Box<dyn TimeSource>,
    /// Engine time minus monotonic time.
    offset_us: AtomicI64,
    /// Monotonic time of the last tick.
    ticked_us: AtomicI64,
    /// The latest time that was given out by a tick.
    last_us: AtomicI64,
    steps: AtomicU64,
    is_catching_up: AtomicBool,
}

impl Clock {
    /// A clock that begins at the wall clock's time, or at `not_before` if that is later.
    pub fn new(source: Box<dyn TimeSource>, not_before: Timestamp) -> Self {
        let begin = source.wall_us().max(not_before.0);
        let monotonic = source.monotonic_us();
        Self {
            shared: Arc::new(Shared {
                source,
                offset_us: AtomicI64::new(begin.saturating_sub(monotonic)),
                ticked_us: AtomicI64::new(monotonic),
                last_us: AtomicI64::new(begin),
                steps: AtomicU64::new(0),
                is_catching_up: AtomicBool::new(false),
            }),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.at(self.monotonic_us())
    }

    /// The time at `monotonic_us`, which [`Clock::monotonic_us`] gave just now.
    pub(crate) fn at(&self, monotonic_us: i64) -> Timestamp {
        let shared = &self.shared;
        let running = monotonic_us.saturating_add(shared.offset_us.load(Ordering::Acquire));
        Timestamp(running.max(shared.last_us.load(Ordering::Acquire)))
    }

    /// Microseconds on the monotonic clock, for measuring how long something took.
    pub fn monotonic_us(&self) -> i64 {
        self.shared.source.monotonic_us()
    }

    /// How often the wall clock was found to have jumped.
    pub fn steps(&self) -> u64 {
        self.shared.steps.load(Ordering::Relaxed)
    }

    /// The time now, after a look at the wall clock. Never before the result of the tick before.
    pub fn tick(&self) -> Timestamp {
        let shared = &self.shared;
        let monotonic = shared.source.monotonic_us();
        let offset = shared.offset_us.load(Ordering::Acquire);
        let elapsed = monotonic.saturating_sub(shared.ticked_us.swap(monotonic, Ordering::AcqRel)).max(0);
        let running = monotonic.saturating_add(offset);
        let drift = shared.source.wall_us().saturating_sub(running);
        if drift.abs() <= STEP_MAX_US {
            shared.is_catching_up.store(false, Ordering::Release);
        } else if !shared.is_catching_up.swap(true, Ordering::AcqRel) {
            shared.steps.fetch_add(1, Ordering::Relaxed);
        }
        // A little ahead: there at once. Otherwise twice or half the pace, until they meet.
        let correction = match drift {
            0..=STEP_MAX_US => drift,
            _ => drift.clamp(-(elapsed / 2), elapsed),
        };
        shared.offset_us.store(offset.saturating_add(correction), Ordering::Release);
        let last = shared.last_us.load(Ordering::Acquire);
        let now = running.saturating_add(correction).max(last);
        shared.last_us.store(now, Ordering::Release);
        Timestamp(now)
    }
}
