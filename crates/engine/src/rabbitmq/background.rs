//! What every node does again and again: it follows the ledger, reports what the broker confirmed, and puts into the
//! queue again what was lost from it. All of it may run on any number of nodes at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use yoink_core::Timestamp;

use super::shared::Shared;
use super::{consumer, dead, stock};
use crate::node::check_postgres;
use crate::postgres::PostgresError;

/// How often the ledger is read.
const LEDGER_EVERY: Duration = Duration::from_millis(100);
/// How often it is reported what the broker confirmed.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How often the settings of PostgreSQL are looked at.
const SETTINGS_EVERY: Duration = Duration::from_secs(10);
/// Messages that are queued again in one turn.
const AGAIN_MAX: usize = 2_000;
/// Whoever began a withdrawal and did not end it in this time has died.
const WITHDRAWN_WITHIN_US: i64 = 2_000_000;
/// As the node keeps what waits by product: here all products share one queue.
const QUEUE: i32 = 0;

impl Shared {
    /// Takes over the ledger's products, and how many units of each are left: the hint by which requests are refused
    /// early. To be called on the background's runtime.
    ///
    /// # Errors
    /// The ledger cannot be asked.
    pub(crate) async fn follow_products(&self) -> Result<(), PostgresError> {
        self.node.follow_products(&self.desk.postgres).await?;
        for listed in self.node.catalogue.all() {
            listed.set_available(listed.row.units.saturating_sub(listed.row.sold));
            listed.set_selling(true);
        }
        self.node.publish_storefront();
        Ok(())
    }

    /// Follows the ledger, for ever.
    pub(crate) async fn watch_ledger(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LEDGER_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let followed = self.follow_ledger().await;
            self.node.note_ledger(followed.as_ref().err());
        }
    }

    async fn follow_ledger(&self) -> Result<(), PostgresError> {
        let (node, postgres) = (&self.node, &self.desk.postgres);
        self.follow_products().await?;
        let backlog = node.follow_backlog(postgres).await?;
        let now = node.now();
        if backlog.withdrawals_waiting > 0 {
            let begun_before = Timestamp(now.0.saturating_sub(WITHDRAWN_WITHIN_US));
            for waiting in postgres.withdrawals_waiting(begun_before).await? {
                stock::finish(postgres, waiting.adjustment, waiting.epoch, now).await?;
            }
        }
        node.retry_refused(postgres, now).await
    }

    /// Reports what the broker confirmed, for ever, and queues again what was lost.
    pub(crate) async fn watch_queue(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Only the audit looks at it; the next one tells.
            let _ = self.report_in_hand().await;
            let retained = &self.publisher.retained;
            if self.report().await.is_err() || self.node.delivery_is_paused() {
                retained.note_standstill();
                continue;
            }
            let lost = retained.overdue(Instant::now(), AGAIN_MAX);
            if !lost.is_empty() {
                tracing::warn!(
                    messages = lost.len(),
                    "no worker has seen messages that were confirmed: lost, or held by a worker; they are queued again"
                );
                self.publisher.publish_again(lost);
            }
        }
    }

    /// Reports what the broker confirmed, and forgets what workers have seen.
    ///
    /// # Errors
    /// The ledger cannot be asked.
    pub(crate) async fn report(&self) -> Result<(), PostgresError> {
        let (publisher, postgres) = (&self.publisher, &self.desk.postgres);
        let confirmed = publisher.retained.confirmed();
        let seen = postgres.report_confirmed(publisher.id, &confirmed, self.node.now()).await?;
        publisher.retained.note_seen(seen, Instant::now());
        let counts = publisher.retained.counts();
        self.node.note_backlog(QUEUE, counts.confirmed, counts.seen, counts.oldest_at);
        Ok(())
    }

    /// Reports how many requests the workers of this node have in hand.
    ///
    /// # Errors
    /// The ledger cannot be asked.
    pub(crate) async fn report_in_hand(&self) -> Result<(), PostgresError> {
        match self.options.workers {
            0 => Ok(()),
            _ => {
                let (postgres, id) = (&self.desk.postgres, self.publisher.id);
                postgres.report_in_hand(id, self.hands.count(), self.node.now()).await
            }
        }
    }

    /// Looks at the settings of PostgreSQL, for ever.
    pub(crate) async fn watch_settings(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SETTINGS_EVERY).await;
            // That it cannot be asked is noticed elsewhere.
            let _ = check_postgres(&self.node, &self.desk.postgres).await;
        }
    }

    /// Looks orders up for those who may be repeating a request, for ever.
    pub(crate) async fn answer_replays(self: Arc<Self>) {
        self.replays.answer(&self.desk.postgres).await;
    }

    /// Workers of this process, until the node closes and they have nothing in hand.
    pub(crate) async fn employ_workers(self: Arc<Self>) {
        let mut workers = JoinSet::new();
        for _ in 0..self.options.workers {
            workers.spawn(consumer::work(Arc::clone(&self)));
        }
        workers.spawn(dead::work(Arc::clone(&self)));
        while workers.join_next().await.is_some() {}
    }
}
