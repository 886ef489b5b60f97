//! A queue of orders on two Redis lists, as job libraries build it: a worker moves a job from `jobs` to `working`, and
//! removes it there when it is done. What a dead worker left in `working` is put back when the shop starts. Jobs that
//! were given up wait in `dead` until somebody has dealt with them.

use anyhow::{Context as _, Result};
use redis::aio::ConnectionManager;
use redis::{AsyncCommands as _, Script};
use serde::{Deserialize, Serialize};

use super::{Attempt, stock_key};

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
    dead: String,
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
        let mut jobs = Jobs {
            redis,
            waiting: format!("jobs:{run}"),
            working: format!("working:{run}"),
            dead: format!("dead:{run}"),
        };
        jobs.put_back().await?;
        Ok(jobs)
    }

    /// Puts back what a worker had in hand. Only for a worker that has nothing in hand any more.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn put_back(&mut self) -> Result<()> {
        loop {
            let back: Option<String> =
                self.redis.rpoplpush(&self.working, &self.waiting).await.context("cannot put jobs back")?;
            if back.is_none() {
                return Ok(());
            }
        }
    }

    /// Takes the job's units if there are enough, and puts the job at the end, both in one atomic step: gives the count
    /// before, or `None` if there are too few or there is no count.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn take_units_and_push(&mut self, job: &Job) -> Result<Option<i64>> {
        let script = Script::new(
            r"local stock = tonumber(redis.call('GET', KEYS[1]))
            if not stock or stock < tonumber(ARGV[1]) then return false end
            redis.call('DECRBY', KEYS[1], ARGV[1])
            redis.call('LPUSH', KEYS[2], ARGV[2])
            return stock",
        );
        let text = serde_json::to_string(job)?;
        let mut call = script.key(stock_key(&job.product));
        let taken = call.key(&self.waiting).arg(job.quantity).arg(text).invoke_async(&mut self.redis).await;
        taken.context("Redis cannot take a unit and queue its job")
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

    /// A job has failed and is tried again, before the others: gives how often it was tried by now.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn again(&mut self, taken: &Taken) -> Result<u32> {
        let job = Job { attempts: taken.job.attempts + 1, ..taken.job.clone() };
        let text = serde_json::to_string(&job)?;
        let pushed: Result<(), _> = self.redis.rpush(&self.waiting, text).await;
        pushed.context("cannot queue a job again")?;
        self.done(taken).await?;
        Ok(job.attempts)
    }

    /// A job is given up: it becomes a dead letter.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn bury(&mut self, taken: &Taken) -> Result<()> {
        let buried: Result<(), _> = self.redis.lpush(&self.dead, &taken.text).await;
        buried.context("cannot keep a dead letter")?;
        self.done(taken).await
    }

    /// The oldest dead letter, if there is one. It stays where it is.
    ///
    /// # Errors
    /// Redis cannot be used, or it is no job.
    pub async fn dead_letter(&mut self) -> Result<Option<Taken>> {
        let text: Option<String> =
            self.redis.lindex(&self.dead, -1).await.context("cannot read a dead letter")?;
        let Some(text) = text else { return Ok(None) };
        let job = serde_json::from_str(&text).context("the dead letter is no job")?;
        Ok(Some(Taken { job, text }))
    }

    /// Removes a dead letter.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn forget(&mut self, dead: &Taken) -> Result<()> {
        self.redis.lrem(&self.dead, 1, &dead.text).await.context("cannot remove a dead letter")
    }

    /// Jobs that wait, are in hand, or were given up and not dealt with.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn backlog(&self) -> Result<u64> {
        let mut redis = self.redis.clone();
        let mut backlog = 0;
        for list in [&self.waiting, &self.working, &self.dead] {
            let count: u64 = redis.llen(list).await.context("cannot count jobs")?;
            backlog += count;
        }
        Ok(backlog)
    }
}
