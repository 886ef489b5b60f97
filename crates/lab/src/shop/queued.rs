//! A shop that says yes as soon as the order is queued, and has a worker write it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::worker::{Work, Worker};
use super::{Answer, Attempt, Job, Jobs, Shop, Strategy};

/// A shop with a queue and workers. By itself it sells without a gap between the unit and the job.
pub struct Queued {
    /// The shop.
    pub shop: Arc<Shop>,
    jobs: Jobs,
    in_hand: Arc<AtomicU64>,
}

impl Queued {
    /// Opens the queue and starts the workers. Redis is filled by whoever wants that.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn open(shop: Arc<Shop>, work: impl Work) -> Result<Queued> {
        let jobs = Jobs::open(shop.stores.redis()?, &shop.run, work.workers()).await?;
        let in_hand = Worker::start(&shop, &jobs, Arc::new(work));
        Ok(Queued { shop, jobs, in_hand })
    }

    /// Takes the units and queues the job in one step of Redis.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn take_and_queue(&self, attempt: &Attempt) -> Result<Answer> {
        let job = Job::new(&Uuid::new_v4().to_string(), attempt);
        let stock = self.jobs.clone().take_units_and_push(&job).await?;
        self.shop.write_down_taking(attempt, stock);
        if stock.is_none() {
            return Ok(Answer::SoldOut);
        }
        self.shop.trace.step(&attempt.key, "the job is queued in the same step", "");
        Ok(Answer::Accepted { order: job.order })
    }

    /// Queues the job of an attempt whose units were taken before.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn queue(&self, attempt: &Attempt) -> Result<Answer> {
        let job = Job::new(&Uuid::new_v4().to_string(), attempt);
        self.jobs.clone().push(&job).await?;
        self.shop.trace.step(&attempt.key, "queues the job", "");
        Ok(Answer::Accepted { order: job.order })
    }

    /// Jobs that wait, are in hand, or were given up and not dealt with. What workers have in hand counts even if
    /// the queue has forgotten it.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn backlog(&self) -> Result<u64> {
        Ok(self.jobs.backlog().await?.max(self.in_hand.load(Ordering::Relaxed)))
    }
}

impl Strategy for Queued {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.take_and_queue(attempt))
    }

    fn backlog(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.backlog())
    }
}
