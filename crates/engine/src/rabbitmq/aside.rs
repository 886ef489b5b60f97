//! Puts aside what cannot be read: from the queue of requests into the one of dead letters.
//!
//! Over a connection for that alone. While the broker is short of memory or disk it reads nothing more from a connection
//! that something was published on; what else goes over it would not be acknowledged either.

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
    /// Made when it is first needed.
    link: Option<Link>,
    /// What the next message goes over. Nothing that was sent on it is unanswered: the broker's answer to one message is
    /// never taken for the answer to another.
    channel: Option<Channel>,
}

impl Aside {
    pub(super) fn new(shared: Arc<Shared>, hand: Arc<Hand>) -> Self {
        Self { shared, hand, link: None, channel: None }
    }

    /// Puts messages aside until no more come, or the channel that they came over ends.
    pub(super) async fn run(mut self, messages: mpsc::Receiver<Delivery>) {
        self.put_all(messages).await;
        if let Some(link) = self.link {
            link.close().await;
        }
    }

    async fn put_all(&mut self, mut messages: mpsc::Receiver<Delivery>) {
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
        if self.is_blocked() {
            return false;
        }
        let leads_nowhere = match within(self.publish(bytes)).await {
            Ok(Confirmation::Ack(None)) => return true,
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => true,
            // It is full.
            Ok(Confirmation::Nack(None) | Confirmation::NotRequested) => false,
            // There is no exchange; or else the broker takes nothing now, or is gone.
            Err(error) => topology::is_missing(&error),
        };
        match &self.link {
            Some(link) if leads_nowhere => {
                if let Err(error) = within(making::dead_letters(&self.shared, &link.connection)).await {
                    tracing::warn!(%error, "the queue of dead letters cannot be made; what cannot be read is held");
                }
            }
            // Nothing was answered: the next attempt has another connection.
            Some(_) if self.channel.is_none() && !self.is_blocked() => self.link = None,
            _ => {}
        }
        false
    }

    /// Whether the broker has said that it takes nothing, for want of memory or disk. Another connection would only be one
    /// more that it does not read.
    fn is_blocked(&self) -> bool {
        self.link.as_ref().is_some_and(|link| {
            let status = link.connection.status();
            status.blocked() && status.connected()
        })
    }

    async fn publish(&mut self, bytes: &[u8]) -> lapin::Result<Confirmation> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.open_channel().await?,
        };
        let names = &self.shared.names;
        let (exchange, key) = (names.dead_exchange.clone(), names.dead.clone());
        let answer = broker::publish(&channel, exchange, key, bytes).await?.await?;
        self.channel = Some(channel);
        Ok(answer)
    }

    async fn open_channel(&mut self) -> lapin::Result<Channel> {
        let link = match self.link.take() {
            Some(link) => link,
            None => {
                let uri = broker::parse(&self.shared.options.amqp).map_err(std::io::Error::other)?;
                Link::connect(&uri, "yoink worker, dead letters").await?
            }
        };
        let link = self.link.insert(link);
        broker::confirming_channel(&link.connection).await
    }
}
