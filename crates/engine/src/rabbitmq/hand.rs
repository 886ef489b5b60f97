//! What a worker has in hand: messages that came over one channel and were not acknowledged. They are the broker's until
//! then, and it hands them out anew when the channel ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::BasicAckOptions;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Above this nothing is held any longer: the broker hands it out anew. It would do so by itself after half an hour, and
/// take the worker for dead.
const HOLD_MAX: Duration = Duration::from_secs(20 * 60);

/// What a worker had in hand that reports no more may be there for so long: the broker takes it back after a few missed
/// heartbeats, unless the worker lives and only cannot report.
pub(super) const MAY_HOLD_MAX: Duration = HOLD_MAX.saturating_add(Duration::from_secs(60));

/// The channel is over: what was in hand is handed out again, to whoever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

/// What came over one channel and is not acknowledged.
pub(crate) struct Hand {
    channel: Channel,
    /// By the number that the channel gave to a message: how many parts of it are not done. Without those messages that
    /// are being acknowledged.
    open: Mutex<BTreeMap<u64, usize>>,
    /// Who acknowledges holds this: what one of them acknowledges, no other may acknowledge again.
    acknowledging: tokio::sync::Mutex<()>,
    is_over: watch::Sender<bool>,
}

impl Hand {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            channel,
            open: Mutex::default(),
            acknowledging: tokio::sync::Mutex::default(),
            is_over: watch::Sender::new(false),
        }
    }

    /// A message was handed out under this number.
    pub(crate) fn take(&self, tag: u64) {
        self.open.lock().insert(tag, 1);
    }

    /// A message has so many parts, each of which is done for itself.
    pub(crate) fn divide(&self, tag: u64, parts: usize) {
        self.open.lock().insert(tag, parts.max(1));
    }

    /// How many parts of messages are in hand; none once the channel is over.
    pub(crate) fn count(&self) -> u64 {
        match *self.is_over.borrow() {
            true => 0,
            false => self.open.lock().values().map(|parts| *parts as u64).sum(),
        }
    }

    /// A part of each of these messages is done; a message may be named several times. Messages whose last part it was
    /// are acknowledged, and nothing else is.
    ///
    /// # Errors
    /// The channel is over. Perhaps some were acknowledged.
    pub(crate) async fn acknowledge(&self, parts: Vec<u64>) -> Result<(), Gone> {
        if *self.is_over.borrow() {
            return Err(Gone);
        }
        let acknowledging = self.acknowledging.lock().await;
        let (tags, first_open) = {
            let mut open = self.open.lock();
            let tags = finish(&mut open, parts);
            (tags, open.keys().next().copied().unwrap_or(u64::MAX))
        };
        // Everything before the first that is still in hand in one, the others one by one.
        let (before, others) = tags.split_at(tags.partition_point(|tag| *tag < first_open));
        let before = before.last().map(|tag| (*tag, true));
        let others = others.iter().map(|tag| (*tag, false));
        let sent = before
            .into_iter()
            .chain(others)
            .map(|(tag, multiple)| self.channel.basic_ack(tag, BasicAckOptions { multiple }));
        let sent = try_join_all(sent).await;
        drop(acknowledging);
        sent.map(drop).map_err(|error| {
            tracing::debug!(%error, "what was decided could not be acknowledged; it comes again and is known then");
            self.end();
            Gone
        })
    }

    /// The channel is over, or is to be.
    pub(crate) fn end(&self) {
        self.is_over.send_replace(true);
    }

    /// Waits until the channel is over.
    pub(crate) async fn wait_over(&self) {
        // The sender is here, so it is not dropped meanwhile.
        let _ = self.is_over.subscribe().wait_for(|is_over| *is_over).await;
    }

    /// Waits for so long with everything in hand.
    ///
    /// # Errors
    /// The channel is over; or a message has been in hand since `since`, which is for too long and ends it.
    pub(crate) async fn hold(&self, since: Instant, wait: Duration) -> Result<(), Gone> {
        if since.elapsed() > HOLD_MAX {
            tracing::warn!("what could not be decided for long is given back to the broker");
            self.end();
            return Err(Gone);
        }
        self.pause(wait).await
    }

    /// Waits for so long.
    ///
    /// # Errors
    /// The channel is over.
    pub(crate) async fn pause(&self, wait: Duration) -> Result<(), Gone> {
        match tokio::time::timeout(wait, self.wait_over()).await {
            Ok(()) => Err(Gone),
            Err(_) => Ok(()),
        }
    }
}

/// The hands of all workers of this node.
#[derive(Default)]
pub(crate) struct Hands {
    all: Mutex<Vec<Weak<Hand>>>,
}

impl Hands {
    /// One more. Those that nobody uses any more are forgotten.
    pub(crate) fn add(&self, hand: &Arc<Hand>) {
        let mut all = self.all.lock();
        all.retain(|hand| hand.strong_count() > 0);
        all.push(Arc::downgrade(hand));
    }

    /// How many requests are in them.
    pub(crate) fn count(&self) -> u64 {
        self.all.lock().iter().filter_map(Weak::upgrade).map(|hand| hand.count()).sum()
    }
}

/// Counts parts that are done; gives the messages that are done with them, ascending.
fn finish(open: &mut BTreeMap<u64, usize>, mut parts: Vec<u64>) -> Vec<u64> {
    parts.sort_unstable();
    let mut done = Vec::new();
    for tag in parts {
        match open.get_mut(&tag) {
            Some(left) if *left > 1 => *left -= 1,
            Some(_) => {
                open.remove(&tag);
                done.push(tag);
            }
            None => {}
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_done_with_its_last_part() {
        let mut open = BTreeMap::from([(1, 2), (2, 1), (3, 3), (4, 1)]);
        assert_eq!(finish(&mut open, vec![3, 2, 1]), [2]);
        assert_eq!(finish(&mut open, vec![3, 1, 4, 2]), [1, 4]);
        assert_eq!(open, BTreeMap::from([(3, 1)]));
        assert_eq!(finish(&mut open, vec![3]), [3]);
        assert!(open.is_empty());
    }
}
