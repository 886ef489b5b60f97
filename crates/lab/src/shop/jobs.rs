//! A queue of orders on two Redis lists, as job libraries build it: a worker moves a job from `jobs` to `working`, and
//! removes it there when it is done. What a dead worker left in `working` is put back when the shop starts.

use anyhow::{Context as _, Result};
use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;
use serde::{Deserialize, Serialize};

use super::Attempt;

/// An order on its way to the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub order: String,
    /// Who bought.
    pub user: String,
    /// What was bought.
    pub product: String,
    /// Units.
    pub quantity: i64,
    /// The request's idempotency key.
    pub key: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// A job that a worker has in hand.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The job.
    pub job: Job,
    text: String,
}

/// The queue.
#[derive(Clone)]
pub struct Jobs {
    redis: ConnectionManager,
    waiting: String,
    working: String,
}

impl Job {
    /// The job for an attempt.
    #[must_use]
    pub fn new(order: &str, attempt: &Attempt) -> Job {
        Job {
            order: order.to_owned(),
            user: attempt.user.clone(),
            product: attempt.product.clone(),
            quantity: attempt.quantity,
            key: attempt.key.clone(),
            attempts: 0,
        }
    }

    /// What was asked for.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        Attempt {
            user: self.user.clone(),
            product: self.product.clone(),
            quantity: self.quantity,
            key: self.key.clone(),
        }
    }
}

impl Jobs {
    /// The queue of this run, with what a dead worker had in hand put back.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn open(redis: ConnectionManager, run: &str) -> Result<Jobs> {
        let mut jobs = Jobs { redis, waiting: format!("jobs:{run}"), working: format!("working:{run}") };
        loop {
            let back: Option<String> =
                jobs.redis.rpoplpush(&jobs.working, &jobs.waiting).await.context("cannot put jobs back")?;
            if back.is_none() {
                return Ok(jobs);
            }
        }
    }

    /// Puts a job at the end.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn push(&mut self, job: &Job) -> Result<()> {
        let text = serde_json::to_string(job)?;
        self.redis.lpush(&self.waiting, text).await.context("cannot queue a job")
    }

    /// Takes the first job in hand, if there is one.
    ///
    /// # Errors
    /// Redis cannot be used, or what was queued is no job.
    pub async fn take(&mut self) -> Result<Option<Taken>> {
        let text: Option<String> =
            self.redis.rpoplpush(&self.waiting, &self.working).await.context("cannot take a job")?;
        let Some(text) = text else { return Ok(None) };
        let job = serde_json::from_str(&text).context("what was queued is no job")?;
        Ok(Some(Taken { job, text }))
    }

    /// A job is done.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn done(&mut self, taken: &Taken) -> Result<()> {
        self.redis.lrem(&self.working, 1, &taken.text).await.context("cannot finish a job")
    }

    /// A job has failed and is tried again: gives how often it was tried by now.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn again(&mut self, taken: &Taken) -> Result<u32> {
        let job = Job { attempts: taken.job.attempts + 1, ..taken.job.clone() };
        self.push(&job).await?;
        self.done(taken).await?;
        Ok(job.attempts)
    }

    /// Jobs that wait or are in hand.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn backlog(&self) -> Result<u64> {
        let mut redis = self.redis.clone();
        let waiting: u64 = redis.llen(&self.waiting).await.context("cannot count jobs")?;
        let working: u64 = redis.llen(&self.working).await.context("cannot count jobs")?;
        Ok(waiting + working)
    }
}
