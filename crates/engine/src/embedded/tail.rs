//! The newest committed events in memory, so that delivery and the event feed need not read the log back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use yoink_core::{Event, Seq};

/// Committed events, whole commits at a time. Oldest ones are dropped; the log keeps them all.
#[derive(Debug)]
pub(crate) struct Tail {
    state: Mutex<State>,
    grown: Condvar,
    events_max: usize,
}

#[derive(Debug, Default)]
struct State {
    commits: VecDeque<Arc<Vec<Event>>>,
    events: usize,
    last_seq: Seq,
    is_closed: bool,
}

/// What the tail has after some event.
#[derive(Debug)]
pub(crate) enum Found {
    /// These come next; none if nothing came in the time given.
    Events(Vec<Event>),
    /// What comes next was dropped already: ask the log.
    Dropped,
    /// Nothing will come any more, and nothing is left.
    Closed,
}

impl Tail {
    pub(crate) fn new(last_seq: Seq, events_max: usize) -> Self {
        let state = State { last_seq, ..State::default() };
        Self { state: Mutex::new(state), grown: Condvar::new(), events_max }
    }

    /// The last committed event.
    pub(crate) fn last_seq(&self) -> Seq {
        self.state.lock().last_seq
    }

    /// Adds the events of one commit.
    pub(crate) fn push(&self, commit: Vec<Event>) {
        let Some(last) = commit.last().map(|event| event.seq) else {
            return;
        };
        let mut state = self.state.lock();
        state.last_seq = last;
        state.events = state.events.saturating_add(commit.len());
        state.commits.push_back(Arc::new(commit));
        while state.events > self.events_max && state.commits.len() > 1 {
            let dropped = state.commits.pop_front().map_or(0, |commit| commit.len());
            state.events = state.events.saturating_sub(dropped);
        }
        drop(state);
        self.grown.notify_all();
    }

    /// No more events will come; readers that wait are told.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.grown.notify_all();
    }

    /// Waits for `rest`, or until no commit has come for `quiet`, or until nothing will come any more.
    pub(crate) fn rest(&self, rest: Duration, quiet: Duration) {
        let rested = Instant::now() + rest;
        let mut state = self.state.lock();
        while !state.is_closed && Instant::now() < rested {
            if self.grown.wait_for(&mut state, quiet).timed_out() {
                return;
            }
        }
    }

    /// At most `limit` events after `after`. Waits up to `wait` for the first, and then up to `linger` for `limit` to
    /// come together, so that a reader who pays per read gets large ones.
    pub(crate) fn wait_after(&self, after: Seq, limit: usize, wait: Duration, linger: Duration) -> Found {
        let begun = Instant::now();
        let mut state = self.state.lock();
        while state.last_seq <= after && !state.is_closed {
            if self.grown.wait_until(&mut state, begun + wait).timed_out() {
                return Found::Events(Vec::new());
            }
        }
        let enough = after.saturating_add(limit as u64);
        let lingered = Instant::now() + linger;
        while state.last_seq < enough && !state.is_closed {
            if self.grown.wait_until(&mut state, lingered).timed_out() {
                break;
            }
        }
        if state.last_seq <= after {
            return Found::Closed;
        }
        let commits = state.covering(after);
        drop(state);
        match commits {
            None => Found::Dropped,
            Some(commits) => {
                let events = commits.iter().flat_map(|commit| commit.iter());
                Found::Events(events.filter(|event| event.seq > after).take(limit).cloned().collect())
            }
        }
    }
}

impl State {
    /// The commits from the one that holds the event after `after`; `None` if that was dropped.
    fn covering(&self, after: Seq) -> Option<Vec<Arc<Vec<Event>>>> {
        let last_of = |commit: &Arc<Vec<Event>>| commit.last().map_or(0, |event| event.seq);
        let start = self.commits.partition_point(|commit| last_of(commit) <= after);
        let first = self.commits.get(start)?.first()?.seq;
        (first <= after.saturating_add(1)).then(|| self.commits.range(start..).cloned().collect())
    }
}
