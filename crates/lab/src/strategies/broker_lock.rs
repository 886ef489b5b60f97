//! `broker-lock`: the generation with a broker and a lock. The shop queues every request in RabbitMQ and says "queued";
//! a worker takes a lock per product in Redis, reads the stock, checks it and takes the units in one transaction.
//!
//! The defect: whatever goes wrong in the worker is logged, and the message acknowledged. While PostgreSQL is away, the
//! worker gets no connection: it drains the queue and throws away every order in it, all of them accepted. (And nobody
//! asks the broker whether it keeps what is published.)
//!
//! As in that generation: `processed:KEY` is asked for first and set after the commit; the lock's value is the user's id
//! and its life 10 s; BEGIN, SELECT of the stock, a check, a relative UPDATE, INSERT, COMMIT; the lock is opened at the
//! end whatever happened, if the value in it is still the worker's own. Different: a message whose product is locked goes
//! back to the queue after 5 ms and not after 500 ms, or a run would take minutes; comparing and deleting the lock is one
//! script; and who finds too few units is written down as a failed order, so that the audit can tell a no from a loss.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use redis::AsyncCommands as _;
use uuid::Uuid;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{
    Answer, Attempt, Confirms, Job, Lock, Message, Messages, NewOrder, Queue, Shop, Strategy, insert_order,
    insert_order_and_lower_stock,
};

pub(super) const ENTRY: Entry = Entry {
    name: "broker-lock",
    kind: Kind::Generation,
    line: "RabbitMQ and a lock in Redis: answer \"queued\", let a worker sell under the lock",
    defect: Some(Defect {
        breaks: Broken::Lost,
        also: &[],
        how: "while PostgreSQL is away the worker logs an error for each message and acknowledges it: accepted orders are \
              gone",
    }),
    repair: "acknowledge only what is in the books; give everything else back, or let it fail in a place where it is seen",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: true },
    schema: "",
    scene: &[
        Act::Begin(80),
        Act::Sold(10),
        Act::PostgresDown,
        Act::Wait(Duration::from_secs(2)),
        Act::PostgresUp,
        Act::Join,
        Act::Crowd(20),
    ],
    point: None,
    seller: Seller::strategy(open, Shelf::Postgres),
};

/// Messages that the worker has in hand at once.
const PREFETCH: u16 = 10;
const LOCK_LIFE: Duration = Duration::from_secs(10);
/// Pause before a message whose product is locked goes back to the queue. The older system's is 500 ms.
const LOCKED_PAUSE: Duration = Duration::from_millis(5);
/// How long a request is known as processed, in seconds.
const PROCESSED_S: u64 = 3_600;

struct BrokerLock {
    shop: Arc<Shop>,
    queue: Arc<Queue>,
}

/// What became of a message.
enum Done {
    /// It is in the books.
    Settled,
    /// Another has the lock.
    Locked,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async {
        let queue = Queue::open(&shop, Confirms::Ignored).await?;
        let messages = queue.messages(PREFETCH).await?;
        let strategy = Arc::new(BrokerLock { shop, queue });
        tokio::spawn(Arc::clone(&strategy).work(messages));
        Ok(strategy as Arc<dyn Strategy>)
    })
}

impl Strategy for BrokerLock {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async {
            let order = Uuid::new_v4().to_string();
            self.queue.push(&Job::new(&order, attempt)).await?;
            self.shop.trace.step(&attempt.key, "publishes the order, and waits for no confirmation", "");
            Ok(Answer::Accepted { order })
        })
    }

    fn backlog(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.queue.backlog())
    }
}

impl BrokerLock {
    async fn work(self: Arc<Self>, mut messages: Messages) {
        while let Some(Ok(message)) = messages.next().await {
            let worker = Arc::clone(&self);
            tokio::spawn(async move { worker.handle(&message).await });
        }
    }

    async fn handle(&self, message: &Message) -> Result<()> {
        let (trace, key) = (&self.shop.trace, &message.job.key);
        match self.process(&message.job).await {
            Ok(Done::Settled) => message.acknowledge().await,
            Ok(Done::Locked) => {
                tokio::time::sleep(LOCKED_PAUSE).await;
                message.give_back().await
            }
            Err(error) => {
                // The defect: an error of the moment is treated as the end of the matter.
                trace.step(key, "the worker logs an error and acknowledges", &format!("{error:#}"));
                message.acknowledge().await
            }
        }
    }

    async fn process(&self, job: &Job) -> Result<Done> {
        let (trace, mut redis) = (&self.shop.trace, self.shop.stores.redis()?);
        let processed = format!("processed:{}", job.key);
        let is_processed: bool =
            redis.exists(&processed).await.context("cannot ask Redis whether it was processed")?;
        if is_processed {
            return Ok(Done::Settled);
        }
        let mut lock = Lock::of(&self.shop, &job.product, LOCK_LIFE)?;
        if !lock.take(&job.user).await? {
            return Ok(Done::Locked);
        }
        trace.step(&job.key, "the worker takes the lock", "");
        let sold = self.sell(job).await.inspect_err(|error| {
            trace.database_error(&job.key, &format!("{error:#}"));
        });
        // Also after an error, as in a `finally`.
        lock.release(&job.user).await?;
        trace.step(&job.key, "the worker opens the lock", "");
        sold?;
        let _: () = redis.set_ex(&processed, 1, PROCESSED_S).await.context("cannot note it as processed")?;
        Ok(Done::Settled)
    }

    async fn sell(&self, job: &Job) -> Result<()> {
        let (trace, attempt) = (&self.shop.trace, &job.attempt());
        let mut client = self.shop.stores.postgres().await?;
        let transaction = client.transaction().await.context("cannot begin")?;
        let read = transaction.query_one("SELECT stock FROM products WHERE id = $1", &[&job.product]).await;
        let stock: i32 = read.context("cannot read the stock")?.get(0);
        trace.step(&job.key, "the worker reads the stock", &format!("stock = {stock}"));
        if i64::from(stock) < job.quantity {
            let order = NewOrder { id: &job.order, attempt, status: "FAILED" };
            insert_order(&transaction, order).await.context("cannot write the failed order")?;
            transaction.commit().await.context("cannot commit")?;
            trace.step(&job.key, "the worker writes down that it is sold out", "");
            return Ok(());
        }
        let order = NewOrder { id: &job.order, attempt, status: "CONFIRMED" };
        insert_order_and_lower_stock(&transaction, order).await.context("cannot write the order")?;
        transaction.commit().await.context("cannot commit")?;
        let detail = format!("stock {stock} -> {}", i64::from(stock) - job.quantity);
        trace.takes(&job.key, "the worker writes the order, and the stock", &detail, i64::from(stock));
        Ok(())
    }
}
