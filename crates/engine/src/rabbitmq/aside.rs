//! Puts aside what cannot be read: from the queue of requests into the one of dead letters.

use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use lapin::{Channel, Confirmation};
use tokio::sync::mpsc;

use super::broker::{self, Link, within};
use super::hand::{Gone, Hand};
use super::shared::Shared;
use super::status::Gauges;
use super::{making, topology};
use crate::node::Patience;

/// The longest wait between two attempts to put something aside.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Puts aside what cannot be read, one message after the other.
pub(super) struct Aside {
    shared: Arc<Shared>,
    hand: Arc<Hand>,
    link: Arc<Link>,
    /// What the next message goes over. Nothing that was sent on it is unanswered: the broker's answer to one message is
    /// never taken for the answer to another.
    channel: Option<Channel>,
}

impl Aside {
    pub(super) fn new(shared: Arc<Shared>, hand: Arc<Hand>, link: Arc<Link>) -> Self {
        Self { shared, hand, link, channel: None }
    }

    /// Puts messages aside until no more come, or the channel that they came over ends.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Delivery>) {
        loop {
            let message = tokio::select! {
                () = self.hand.wait_over() => return,
                message = messages.recv() => message,
            };
            let Some(message) = message else { return };
            if self.put(&message).await.is_err() {
                return;
            }
        }
    }

    /// Puts a message into the other queue, however long that takes, and then acknowledges it here.
    async fn put(&mut self, message: &Delivery) -> Result<(), Gone> {
        let mut patience = Patience::up_to(WAIT_MAX);
        let hand = Arc::clone(&self.hand);
        loop {
            let is_put = tokio::select! {
                () = hand.wait_over() => return Err(Gone),
                is_put = self.try_to_put(&message.data) => is_put,
            };
            if is_put {
                break;
            }
            hand.pause(patience.next()).await?;
        }
        Gauges::add(&self.shared.gauges.unreadable, 1);
        hand.acknowledge(vec![message.delivery_tag]).await
    }

    /// True: the broker has confirmed that the bytes are in the queue.
    async fn try_to_put(&mut self, bytes: &[u8]) -> bool {
        let leads_nowhere = match within(self.publish(bytes)).await {
            Ok(Confirmation::Ack(None)) => return true,
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => true,
            // It is full.
            Ok(Confirmation::Nack(None) | Confirmation::NotRequested) => false,
            // There is no exchange; or else the broker takes nothing now, or is gone.
            Err(error) => topology::is_missing(&error),
        };
        if leads_nowhere
            && let Err(error) = within(making::dead_letters(&self.shared, &self.link.connection)).await
        {
            tracing::warn!(%error, "the queue of dead letters cannot be made; what cannot be read is held");
        }
        false
    }

    async fn publish(&mut self, bytes: &[u8]) -> lapin::Result<Confirmation> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => broker::confirming_channel(&self.link.connection).await?,
        };
        let names = &self.shared.names;
        let (exchange, key) = (names.dead_exchange.clone(), names.dead.clone());
        let answer = broker::publish(&channel, exchange, key, bytes).await?.await?;
        self.channel = Some(channel);
        Ok(answer)
    }
}
