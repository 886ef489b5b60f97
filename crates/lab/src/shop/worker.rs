//! The workers of a queue: each takes a job, tries it, and gives it up after three tries, as those of the older systems.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use tokio_postgres::error::SqlState;

use super::{Job, Jobs, NewOrder, Shop, Taken, give_back, insert_order, insert_order_and_lower_stock};

/// How often a job is tried.
const TRIES: u32 = 3;
/// How long a worker waits if there is nothing to do, and a job after a try that failed, unless the strategy wants
/// another pause.
const MOMENT: Duration = Duration::from_millis(5);
/// How long it waits if the queue itself does not answer.
const WITHOUT_QUEUE: Duration = Duration::from_millis(100);

/// What a worker does with its jobs: the steps in which strategies differ.
pub trait Work: Send + Sync + 'static {
    /// How many workers there are, each with one job in hand.
    fn workers(&self) -> usize {
        1
    }

    /// How long a job waits that has failed so often, once at least. Others are worked on meanwhile.
    fn pause_after(&self, _tries: u32) -> Duration {
        MOMENT
    }

    /// One try at a job. If it fails, the job is tried again, three times in all.
    fn write<'a>(&'a self, shop: &'a Shop, job: &'a Job) -> BoxFuture<'a, Result<()>> {
        Box::pin(write_order(shop, job))
    }

    /// Deals with a job that was given up. It is a dead letter until this has gone well.
    fn compensate<'a>(&'a self, shop: &'a Shop, job: &'a Job) -> BoxFuture<'a, Result<()>> {
        Box::pin(give_unit_back(shop, job))
    }
}

/// Writes the order; gives the unit back of what was given up.
#[derive(Clone, Copy, Debug)]
pub struct PlainWork;

impl Work for PlainWork {}

/// Writes the job's order. One that is there already, by a try whose end nobody saw, is as good.
///
/// # Errors
/// PostgreSQL cannot be used, or refuses the order.
pub async fn write_order(shop: &Shop, job: &Job) -> Result<()> {
    let client = shop.stores.postgres().await?;
    let attempt = &job.attempt();
    match insert_order(&client, NewOrder { id: &job.order, attempt, status: "CONFIRMED" }).await {
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {}
        written => written.context("cannot write the order")?,
    }
    shop.trace.step(&job.key, "the worker writes the order", "");
    Ok(())
}

/// Writes the job's order and takes its units from PostgreSQL's count, in one transaction. An order that is there already,
/// by a try whose end nobody saw, is as good.
///
/// # Errors
/// PostgreSQL cannot be used, or refuses the order.
pub async fn write_order_and_stock(shop: &Shop, job: &Job) -> Result<()> {
    let mut client = shop.stores.postgres().await?;
    let transaction = client.transaction().await.context("cannot begin")?;
    let order = NewOrder { id: &job.order, attempt: &job.attempt(), status: "CONFIRMED" };
    match insert_order_and_lower_stock(&transaction, order).await {
        // What this transaction has taken is undone with it.
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => return Ok(()),
        written => written.context("cannot write the order")?,
    }
    transaction.commit().await.context("cannot commit")?;
    shop.trace.step(&job.key, "the worker writes the order, and the stock in PostgreSQL", "");
    Ok(())
}

/// Gives the unit of a job back that was given up.
///
/// # Errors
/// Redis cannot be used.
pub async fn give_unit_back(shop: &Shop, job: &Job) -> Result<()> {
    let stock = give_back(&mut shop.stores.redis()?, &job.product, job.quantity).await?;
    let detail = format!("stock {} -> {stock}", stock.saturating_sub(job.quantity));
    shop.trace.gives_back(&job.key, "the dead letter's unit is given back in Redis", &detail);
    Ok(())
}

/// A worker, which takes one job at a time.
pub(super) struct Worker {
    /// The first of several deals with dead letters: two would give each unit back twice.
    is_first: bool,
    shop: Arc<Shop>,
    jobs: Jobs,
    work: Arc<dyn Work>,
    in_hand: Arc<AtomicU64>,
}

impl Worker {
    /// Starts those that the work wants, until the process ends. Gives how many jobs they have in hand.
    pub(super) fn start(shop: &Arc<Shop>, jobs: &Jobs, work: Arc<dyn Work>) -> Arc<AtomicU64> {
        let in_hand = Arc::new(AtomicU64::new(0));
        for number in 0..work.workers() {
            let worker = Worker {
                is_first: number == 0,
                shop: Arc::clone(shop),
                jobs: jobs.of_worker(number),
                work: Arc::clone(&work),
                in_hand: Arc::clone(&in_hand),
            };
            tokio::spawn(worker.run());
        }
        in_hand
    }

    async fn run(mut self) {
        loop {
            let pause = match self.turn().await {
                Ok(pause) => pause,
                Err(error) => {
                    self.shop.trace.step("", "the worker cannot use the queue", &format!("{error:#}"));
                    tokio::time::sleep(WITHOUT_QUEUE).await;
                    // Nobody knows whether the queue gave a job before it failed. If not, the next turn fails as well.
                    self.jobs.put_back().await.ok();
                    MOMENT
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Deals with dead letters if that is its task, then with one job. Gives how long to wait after it.
    async fn turn(&mut self) -> Result<Duration> {
        while self.is_first
            && let Some(dead) = self.jobs.dead_letter().await?
        {
            self.work.compensate(&self.shop, &dead.job).await?;
            self.jobs.forget(&dead).await?;
        }
        let Some(taken) = self.jobs.take().await? else {
            // Together they ask as often as one would.
            return Ok(MOMENT.saturating_mul(u32::try_from(self.work.workers()).unwrap_or(1)));
        };
        self.in_hand.fetch_add(1, Ordering::Relaxed);
        let tried = self.try_job(&taken).await;
        self.in_hand.fetch_sub(1, Ordering::Relaxed);
        tried?;
        Ok(Duration::ZERO)
    }

    async fn try_job(&mut self, taken: &Taken) -> Result<()> {
        let job = &taken.job;
        self.shop.trace.step(&job.key, "the worker takes the job", &format!("try {}", job.attempts + 1));
        let Err(error) = self.work.write(&self.shop, job).await else {
            return self.jobs.done(taken).await;
        };
        if is_refusal(&error) {
            self.shop.trace.step(&job.key, "the database refuses the order", &format!("{error:#}"));
        } else {
            self.shop.trace.database_error(&job.key, &format!("{error:#}"));
        }
        let tries = job.attempts + 1;
        if tries < TRIES {
            self.jobs.again(taken, self.work.pause_after(tries)).await?;
        } else {
            self.jobs.bury(taken).await?;
            let detail = format!("it failed {TRIES} times");
            self.shop.trace.step(&job.key, "the job becomes a dead letter", &detail);
        }
        Ok(())
    }
}

/// Whether a rule of the database says no: the classes of SQLSTATE that begin with 23.
fn is_refusal(error: &anyhow::Error) -> bool {
    let error = error.chain().find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>());
    error.and_then(tokio_postgres::Error::code).is_some_and(|code| code.code().starts_with("23"))
}
