//! The answers of one batch, until its commit is on disk.

use std::sync::Arc;

use crate::embedded::ticket::{Answered, Returns};
use crate::failpoint;

/// The answers of one batch, by the way back that they take. Used again for the next batch, with its room: fresh
/// memory for each batch, freed by other threads, cost the writer a third of its time in the kernel.
#[derive(Debug, Default)]
pub(super) struct Answers {
    direct: Vec<Answered>,
    lanes: Vec<(Arc<Returns>, Vec<Answered>)>,
}

impl Answers {
    /// Keeps an answer; without a lane it goes straight to its caller.
    pub(super) fn push(&mut self, answered: Answered, lane: Option<Arc<Returns>>) {
        let Some(lane) = lane else {
            self.direct.push(answered);
            return;
        };
        match self.lanes.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &lane)) {
            Some((_, waiting)) => waiting.push(answered),
            None => self.lanes.push((lane, vec![answered])),
        }
    }

    /// Gives everybody their answer.
    pub(super) fn send(&mut self) {
        failpoint::hit("writer.before-reply");
        for (sender, reply) in self.direct.drain(..) {
            // A caller who is gone asks again, with the same key.
            let _ = sender.send(reply);
        }
        let half = self.lanes.len() / 2;
        for (index, (lane, waiting)) in self.lanes.iter_mut().enumerate() {
            if index == half {
                failpoint::hit("writer.half-replied");
            }
            if !waiting.is_empty() {
                lane.give(waiting);
            }
        }
        // A lane that nothing else knows any more has nobody left to ask.
        self.lanes.retain(|(lane, _)| Arc::strong_count(lane) > 1);
    }
}
