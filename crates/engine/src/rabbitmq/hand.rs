//! What a worker has in hand: messages that came over one channel and were not acknowledged. They are the broker's until
//! then, and it hands them out anew when the channel ends.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::BasicAckOptions;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The channel is over: what was in hand is handed out again, to whoever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

/// What came over one channel and is not acknowledged.
pub(crate) struct Hand {
    channel: Channel,
    /// Numbers that the channel gave to what is in hand, without those that are being acknowledged.
    open: Mutex<BTreeSet<u64>>,
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

    /// Something was handed out under this number.
    pub(crate) fn take(&self, tag: u64) {
        self.open.lock().insert(tag);
    }

    /// These are done. Nothing else is acknowledged.
    ///
    /// # Errors
    /// The channel is over. Perhaps some were acknowledged.
    pub(crate) async fn acknowledge(&self, mut tags: Vec<u64>) -> Result<(), Gone> {
        if *self.is_over.borrow() {
            return Err(Gone);
        }
        tags.sort_unstable();
        let acknowledging = self.acknowledging.lock().await;
        let first_open = {
            let mut open = self.open.lock();
            open.retain(|tag| tags.binary_search(tag).is_err());
            open.first().copied().unwrap_or(u64::MAX)
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
