//! `ack-on-error`: a queue with confirmed messages, and a worker that sells in one correct transaction.
//!
//! The defect: the worker acknowledges whatever happens ("or it would be delivered for ever"). While PostgreSQL is away,
//! every order that comes out of the queue is thrown away, although its buyer was told yes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{
    Answer, Attempt, Confirms, Job, Messages, NewOrder, Queue, Shop, Strategy, insert_order, take_units,
};

pub(super) const ENTRY: Entry = Entry {
    name: "ack-on-error",
    kind: Kind::Museum,
    line: "a worker that acknowledges every message, also those that it could not write",
    defect: Some(Defect {
        breaks: Broken::Lost,
        also: &[],
        how: "while PostgreSQL is away the worker acknowledges what it cannot write: accepted orders are gone",
    }),
    repair: "acknowledge after the commit, and only then; what failed comes again, and in the end to the dead letters",
    needs: Needs { postgres: true, redis: None, rabbit: true },
    schema: "",
    scene: &[
        Act::Begin(60),
        Act::Sold(10),
        Act::PostgresDown,
        Act::Wait(Duration::from_millis(500)),
        Act::PostgresUp,
        Act::Join,
        Act::Crowd(40),
    ],
    point: None,
    seller: Seller::strategy(open, Shelf::Postgres),
};

/// Messages that the worker may have been sent; it handles them one after the other.
const PREFETCH: u16 = 5;

struct AckOnError {
    shop: Arc<Shop>,
    queue: Arc<Queue>,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        let queue = Queue::open(&shop, Confirms::Wanted).await?;
        let messages = queue.messages(PREFETCH).await?;
        let strategy = Arc::new(AckOnError { shop, queue });
        tokio::spawn(Arc::clone(&strategy).work(messages));
        Ok(strategy as Arc<dyn Strategy>)
    })
}

impl Strategy for AckOnError {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async {
            let order = Uuid::new_v4().to_string();
            self.queue.push(&Job::new(&order, attempt)).await?;
            self.shop.trace.step(&attempt.key, "publishes the order; the broker keeps it", "");
            Ok(Answer::Accepted { order })
        })
    }

    fn backlog(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.queue.backlog())
    }
}

impl AckOnError {
    async fn work(self: Arc<Self>, mut messages: Messages) -> Result<()> {
        while let Some(message) = messages.next().await {
            let message = message?;
            let key = &message.job.key;
            if let Err(error) = self.sell(&message.job).await {
                self.shop.trace.database_error(key, &format!("{error:#}"));
            }
            // The defect: it does not matter whether the order is written.
            message.acknowledge().await?;
            self.shop.trace.step(key, "the worker acknowledges the message", "");
        }
        Ok(())
    }

    /// Takes the units and writes the order, both or none.
    async fn sell(&self, job: &Job) -> Result<()> {
        let (trace, attempt) = (&self.shop.trace, job.attempt());
        let mut client = self.shop.stores.postgres().await?;
        let transaction = client.transaction().await.context("no transaction")?;
        let stock = take_units(&transaction, &attempt).await?;
        let status = if stock.is_some() { "CONFIRMED" } else { "FAILED" };
        insert_order(&transaction, NewOrder { id: &job.order, attempt: &attempt, status })
            .await
            .context("cannot write the order")?;
        transaction.commit().await.context("cannot commit")?;
        match stock {
            Some(stock) => trace.takes(&job.key, "the worker commits unit and order", "", stock),
            None => trace.step(&job.key, "the worker writes the order as failed: sold out", ""),
        }
        Ok(())
    }
}
