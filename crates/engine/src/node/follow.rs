//! What every node does again and again, whichever engine it runs: it reads the ledger, and tells who waits for it.
//! All of it may run on any number of nodes at once.

use std::sync::Arc;
use std::time::Duration;

use yoink_core::Timestamp;

use super::Node;
use crate::postgres::{Backlog, Postgres, PostgresError};

/// How often those who wait for the ledger are told.
const TELL_EVERY: Duration = Duration::from_millis(15);
/// Refused orders that one turn tries again.
const REFUSED_MAX: usize = 500;

impl Node {
    /// Takes over the ledger's products, and whether delivery is paused, unless that was changed here meanwhile.
    ///
    /// # Errors
    /// The ledger cannot be asked.
    pub(crate) async fn follow_products(&self, postgres: &Postgres) -> Result<(), PostgresError> {
        self.catalogue.refresh(postgres).await?;
        self.forget_backlogs(|product| self.catalogue.by_number(product).is_none());
        let switched = self.delivery_switched();
        self.saw_delivery_paused(switched, postgres.delivery_is_paused().await?);
        Ok(())
    }

    /// Takes over what waits in the ledger. Returns all of it.
    ///
    /// # Errors
    /// The ledger cannot be asked.
    pub(crate) async fn follow_backlog(&self, postgres: &Postgres) -> Result<Backlog, PostgresError> {
        let backlog = postgres.backlog().await?;
        self.note_refused(backlog.refused_retrying, backlog.dead_letters_open);
        Ok(backlog)
    }

    /// Tries refused orders again whose time has come, unless delivery is paused.
    ///
    /// # Errors
    /// The ledger cannot be asked.
    pub(crate) async fn retry_refused(
        &self,
        postgres: &Postgres,
        now: Timestamp,
    ) -> Result<(), PostgresError> {
        if self.delivery_is_paused() {
            return Ok(());
        }
        let options = &self.options.delivery;
        let retry_at = self.retry_at(now);
        for order in postgres.due_refused(now, REFUSED_MAX).await? {
            let then = options.on_dead_letter;
            match postgres.retry_refused(order, options.attempts_max, then, (retry_at, now)).await {
                Ok(tried) => self.note_retried(tried),
                // Of this order alone, as far as can be told: the others are not held up by it.
                Err(error) if error.may_lie_in_what_was_asked() => {
                    self.note_delivery_error(&error);
                    let (why, times) = (error.to_string(), (retry_at, now));
                    let postponed = postgres.postpone_refused(order, &why, options.attempts_max, times);
                    self.note_retried(postponed.await?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// When an order that the ledger refuses now is tried again. The ledger doubles the wait with every attempt.
    pub(crate) fn retry_at(&self, now: Timestamp) -> Timestamp {
        let wait = i64::try_from(self.options.delivery.backoff_base.as_micros()).unwrap_or(i64::MAX);
        Timestamp(now.0.saturating_add(wait))
    }

    /// Tells those who wait for the ledger, for ever.
    pub(crate) async fn tell_waiters(self: Arc<Self>, postgres: Postgres) {
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            let orders = self.waiters.orders();
            if orders.is_empty() {
                continue;
            }
            // While the ledger is down there is nothing to tell.
            for (order, status) in postgres.order_statuses(&orders).await.unwrap_or_default() {
                self.waiters.tell(order, status);
            }
        }
    }
}

/// Notes what is wrong with the settings of PostgreSQL. Whether it told: if not, what it told last holds.
pub(crate) async fn check_postgres(node: &Node, postgres: &Postgres) -> bool {
    let told = postgres_complaints(postgres).await;
    let has_told = told.is_ok();
    if let Ok(complaints) = told {
        node.note_settings(postgres.target(), complaints);
    }
    has_told
}

/// What is wrong with the settings of PostgreSQL, in sentences; nothing if all is well.
///
/// # Errors
/// It cannot be asked.
async fn postgres_complaints(postgres: &Postgres) -> Result<Vec<String>, PostgresError> {
    let target = postgres.target();
    let reasons = postgres.check_settings().await?;
    Ok(reasons.into_iter().map(|reason| format!("PostgreSQL at {target}: {reason}")).collect())
}
