//! A queue of orders in Redis, as job libraries build it: a worker moves a job from the list `jobs` to its own list
//! `working`, and removes it there when it is done. What a dead worker left in `working` is put back when the shop starts.
//! A job that is to be tried again later waits in the sorted set `delayed`, by the time at which it is due. Jobs that were
//! given up wait in `dead` until somebody has dealt with them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use redis::aio::ConnectionManager;
use redis::{AsyncCommands as _, Script};
use serde::{Deserialize, Serialize};

use super::{Attempt, decrement};

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

/// The queue, as one of its workers sees it.
#[derive(Clone)]
pub struct Jobs {
    redis: ConnectionManager,
    run: String,
    workers: usize,
    waiting: String,
    working: String,
    delayed: String,
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
    /// The queue of this run, with what its dead workers had in hand put back: there are so many of them. It is given as
    /// the first of them sees it.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn open(redis: ConnectionManager, run: &str, workers: usize) -> Result<Jobs> {
        let first = Jobs {
            redis,
            run: run.to_owned(),
            workers,
            waiting: format!("jobs:{run}"),
            working: working_key(run, 0),
            delayed: format!("delayed:{run}"),
            dead: format!("dead:{run}"),
        };
        for worker in 0..workers {
            first.of_worker(worker).put_back().await?;
        }
        Ok(first)
    }

    /// The same queue, as another worker sees it: what it takes is in its own hand.
    #[must_use]
    pub fn of_worker(&self, worker: usize) -> Jobs {
        Jobs { working: working_key(&self.run, worker), ..self.clone() }
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
        let text = serde_json::to_string(job)?;
        decrement(&mut self.redis, &job.product, job.quantity, Some((&self.waiting, &text))).await
    }

    /// Puts a job at the end.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn push(&mut self, job: &Job) -> Result<()> {
        let text = serde_json::to_string(job)?;
        self.redis.lpush(&self.waiting, text).await.context("cannot queue a job")
    }

    /// Takes the first job in hand, if there is one. Jobs whose time has come are before all others.
    ///
    /// # Errors
    /// Redis cannot be used, or what was queued is no job.
    pub async fn take(&mut self) -> Result<Option<Taken>> {
        let script = Script::new(
            r"local time = redis.call('TIME')
            local now = time[1] * 1000 + math.floor(time[2] / 1000)
            for _, job in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
                redis.call('ZREM', KEYS[1], job)
                redis.call('RPUSH', KEYS[2], job)
            end
            return redis.call('RPOPLPUSH', KEYS[2], KEYS[3])",
        );
        let mut call = script.key(&self.delayed);
        let taken = call.key(&self.waiting).key(&self.working).invoke_async(&mut self.redis).await;
        let text: Option<String> = taken.context("cannot take a job")?;
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

    /// A job has failed, and is tried again after `pause`: gives how often it was tried by now. Others go on meanwhile.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn again(&mut self, taken: &Taken, pause: Duration) -> Result<u32> {
        let job = Job { attempts: taken.job.attempts + 1, ..taken.job.clone() };
        let script = Script::new(
            r"local time = redis.call('TIME')
            local now = time[1] * 1000 + math.floor(time[2] / 1000)
            redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[2])
            return redis.call('LREM', KEYS[2], 1, ARGV[3])",
        );
        let mut call = script.key(&self.delayed);
        let call = call.key(&self.working).arg(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        let delayed: Result<i64, _> =
            call.arg(serde_json::to_string(&job)?).arg(&taken.text).invoke_async(&mut self.redis).await;
        delayed.context("cannot queue a job again")?;
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

    /// Jobs that wait, are in somebody's hand, or were given up and not dealt with.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn backlog(&self) -> Result<u64> {
        let mut redis = self.redis.clone();
        let mut backlog: u64 = redis.zcard(&self.delayed).await.context("cannot count jobs")?;
        let mut lists = vec![self.waiting.clone(), self.dead.clone()];
        lists.extend((0..self.workers).map(|worker| working_key(&self.run, worker)));
        for list in lists {
            let count: u64 = redis.llen(list).await.context("cannot count jobs")?;
            backlog += count;
        }
        Ok(backlog)
    }
}

fn working_key(run: &str, worker: usize) -> String {
    format!("working:{run}:{worker}")
}
