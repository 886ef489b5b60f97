//! Orders: the ledger's word, and this node's where the ledger has not decided yet.

use std::time::{Duration, Instant};

use yoink_core::{Currency, CustomerId, Money, OrderId, Rejection, Timestamp};

use super::RabbitEngine;
use crate::node::order_id::product_of;
use crate::postgres::{EndKind, Ended, Request};
use crate::views::{Failure, OrderInShort, OrderStatus, OrderView, Purchased, Replayed};
use crate::{CallError, Confirmed};

/// How long somebody who ends an order waits for its decision.
const DECIDED_WITHIN: Duration = Duration::from_secs(2);
/// The wait between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

impl RabbitEngine {
    /// One order.
    ///
    /// # Errors
    /// The ledger cannot be asked, and this node does not know it.
    pub(crate) async fn order(&self, id: OrderId) -> Result<Option<OrderView>, CallError> {
        self.desk().in_background_with(self, move |engine| async move { engine.look_up(id).await }).await
    }

    async fn look_up(&self, id: OrderId) -> Result<Option<OrderView>, CallError> {
        let in_ledger = self.ask_ledger(id).await;
        if let Ok(Some(order)) = in_ledger {
            return Ok(Some(order));
        }
        // What somebody was told before is not taken back, also if the ledger is away now.
        if let Some(queued) = self.shared().publisher.retained.find_undecided(id) {
            return Ok(self.view_of(&queued));
        }
        in_ledger?;
        // It may have been decided, and forgotten here, between the two looks.
        self.ask_ledger(id).await
    }

    /// An order, if the ledger has it: it is decided then.
    async fn ask_ledger(&self, id: OrderId) -> Result<Option<OrderView>, CallError> {
        let order = self.desk().postgres.order(id).await?;
        if order.is_some() {
            self.shared().publisher.retained.note_decided(id);
        }
        Ok(order)
    }

    /// An order that was not found, and that any node may have queued.
    ///
    /// # Errors
    /// The ledger cannot be asked.
    pub(crate) async fn order_in_short(&self, id: OrderId) -> Result<Option<OrderInShort>, CallError> {
        let node = &self.shared().node;
        if !node.order_ids.is_sealed(id) {
            return Ok(None);
        }
        if let Some(failure) = self.failure(id).await? {
            return Ok(Some(OrderInShort::Failed(failure)));
        }
        Ok(node.catalogue.by_number(product_of(id)).map(|_| OrderInShort::Queued))
    }

    async fn failure(&self, id: OrderId) -> Result<Option<Failure>, CallError> {
        self.desk().ask(move |desk| async move { desk.postgres.failure(id).await }).await
    }

    fn view_of(&self, queued: &Request) -> Option<OrderView> {
        let listed = self.shared().node.catalogue.by_number(product_of(queued.order))?;
        Some(OrderView {
            id: queued.order,
            seq: 0,
            status: OrderStatus::Queued,
            customer: CustomerId::parse(&queued.customer).ok()?,
            product: listed.row.id,
            quantity: queued.quantity.unsigned_abs(),
            unit_price: Money { amount: queued.price, currency: Currency::parse(&queued.currency)? },
            accepted_at: Timestamp(queued.accepted_at),
            ended_at: None,
            reason: None,
        })
    }

    /// Waits until the order is decided, at most `wait`.
    pub(crate) async fn wait_confirmed(&self, purchased: &Purchased, wait: Duration) -> Confirmed {
        let order = purchased.order;
        let told = self.shared().node.waiters.wait(order);
        let told = tokio::time::timeout(wait, told).await;
        if let Ok(Ok(_)) = told {
            self.shared().publisher.retained.note_decided(order);
        }
        match told {
            Ok(Ok(OrderStatus::Confirmed)) => Confirmed::Yes,
            Ok(Ok(OrderStatus::Rejected)) => {
                let why = self.desk().ask(move |desk| async move { desk.postgres.rejection(order).await });
                match why.await {
                    Ok(Some(rejection)) => Confirmed::Rejected(rejection),
                    Ok(None) | Err(_) => Confirmed::NotYet,
                }
            }
            Ok(Ok(OrderStatus::Failed)) => match self.failure(order).await {
                Ok(Some(failure)) => Confirmed::Failed(failure),
                Ok(None) | Err(_) => Confirmed::NotYet,
            },
            _ => Confirmed::NotYet,
        }
    }

    /// Gives the units of an order back because somebody asked for it.
    ///
    /// # Errors
    /// As [`crate::Engine::cancel`].
    pub(crate) async fn cancel(
        &self,
        id: OrderId,
        reason: Box<str>,
    ) -> Result<(OrderView, Replayed), CallError> {
        self.desk()
            .in_background_with(self, move |engine| async move {
                engine.end(id, EndKind::Cancelled, &reason).await
            })
            .await
    }

    /// Gives the units of an order back as a dead letter does.
    ///
    /// # Errors
    /// As [`Self::cancel`].
    #[cfg(feature = "faults")]
    pub(crate) async fn fail(
        &self,
        id: OrderId,
        reason: Box<str>,
    ) -> Result<(OrderView, Replayed), CallError> {
        self.desk()
            .in_background_with(
                self,
                move |engine| async move { engine.end(id, EndKind::Failed, &reason).await },
            )
            .await
    }

    async fn end(
        &self,
        id: OrderId,
        kind: EndKind,
        reason: &str,
    ) -> Result<(OrderView, Replayed), CallError> {
        let postgres = &self.desk().postgres;
        let begun = Instant::now();
        loop {
            if let Some(order) = self.ask_ledger(id).await? {
                if order.status == OrderStatus::Rejected {
                    // It never had units that could be given back.
                    return Err(Rejection::OrderFailed.into());
                }
                break;
            }
            match self.order_in_short(id).await? {
                Some(OrderInShort::Queued) => {}
                Some(OrderInShort::Failed(_)) => return Err(Rejection::OrderFailed.into()),
                None => return Err(Rejection::OrderNotFound.into()),
            }
            if begun.elapsed() >= DECIDED_WITHIN {
                return Err(CallError::Overloaded);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        let replayed = match postgres.end_order(id, kind, reason, self.shared().node.now()).await? {
            Ended::Now => {
                self.shared().follow_products().await?;
                Replayed::No
            }
            Ended::Otherwise(EndKind::Failed) if kind == EndKind::Cancelled => {
                return Err(Rejection::OrderFailed.into());
            }
            Ended::Again | Ended::Otherwise(_) => Replayed::Yes,
            Ended::NotFound => return Err(Rejection::OrderNotFound.into()),
        };
        let order = postgres.order(id).await?.ok_or(CallError::OutcomeUnknown)?;
        Ok((order, replayed))
    }
}
