//! Orders: the ledger's word, and Redis's where the ledger does not have it yet.

use std::time::Duration;

use redis::RedisError;
use yoink_core::{CustomerId, Money, OrderId, Rejection, Timestamp};

use super::entry::{RecordKind, parse_record};
use super::look::look;
use super::{RedisEngine, keeper_pause};
use crate::CallError;
use crate::node::order_id::{product_of, to_hex};
use crate::postgres::{EndKind, Ended, Grant, Way};
use crate::views::{OrderStatus, OrderView, PurchaseRequest, Replayed};

/// How often a cancelling looks for an order that is on its way to the ledger.
const LOOKS_MAX: usize = 20;

impl RedisEngine {
    /// One order.
    ///
    /// # Errors
    /// Neither the ledger nor Redis can be asked.
    pub(crate) async fn order(&self, id: OrderId) -> Result<Option<OrderView>, CallError> {
        self.desk().in_background_with(self, move |engine| async move { engine.look_up(id).await }).await
    }

    async fn look_up(&self, id: OrderId) -> Result<Option<OrderView>, CallError> {
        let in_ledger = self.postgres().order(id).await;
        if let Ok(Some(order)) = in_ledger {
            return Ok(Some(order));
        }
        // Accepted a moment ago, or while the ledger is down: Redis has every order that was ever accepted.
        match self.grant_in_redis(id).await {
            Ok(Some((grant, _))) => Ok(self.view_of(&grant)),
            Ok(None) => {
                in_ledger?;
                // It may have gone from Redis to the ledger between the two looks.
                Ok(self.postgres().order(id).await?)
            }
            Err(error) => {
                in_ledger?;
                Err(error)
            }
        }
    }

    /// Whether the customer has an order of this product under the request's key already. Redis alone is asked: the
    /// ledger may be down, and need not be there to sell.
    ///
    /// # Errors
    /// Redis cannot be asked.
    pub(crate) async fn is_replay(&self, request: &PurchaseRequest) -> Result<bool, CallError> {
        let Some(key) = &request.key else { return Ok(false) };
        let Some(listed) = self.desk().find_product(&request.product).await else { return Ok(false) };
        let product = listed.row.number;
        let field =
            format!("o{}", to_hex(self.shared().node.order_ids.derive(product, &request.customer, key)));
        let asked = self.desk().in_background_with(self, move |engine| async move {
            let server = engine.servers().of(product).await.map_err(|_| CallError::Unreachable)?;
            let buyers = engine.shared().keys(product, 0).buyers;
            let mut asking = redis::cmd("HEXISTS");
            let answer = asking.arg(buyers).arg(field).query_async(&mut server.connection.clone()).await;
            answer.map_err(|_: RedisError| {
                engine.servers().forget(&server, product);
                CallError::Unreachable
            })
        });
        asked.await
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
        self.end(id, EndKind::Cancelled, reason).await
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
        self.end(id, EndKind::Failed, reason).await
    }

    /// Ends an order; an undelivered one is delivered first.
    ///
    /// # Errors
    /// There is no such order, or it ended otherwise; or a server cannot be asked.
    pub(crate) async fn end(
        &self,
        id: OrderId,
        kind: EndKind,
        reason: Box<str>,
    ) -> Result<(OrderView, Replayed), CallError> {
        self.desk()
            .in_background_with(self, move |engine| async move { engine.end_now(id, kind, &reason).await })
            .await
    }

    async fn end_now(
        &self,
        id: OrderId,
        kind: EndKind,
        reason: &str,
    ) -> Result<(OrderView, Replayed), CallError> {
        let now = self.shared().node.now();
        let mut was_nowhere = false;
        for _ in 0..LOOKS_MAX {
            let replayed = match self.postgres().end_order(id, kind, reason, now).await? {
                Ended::Now => {
                    self.apply_credits_now().await;
                    self.parts.keeper.look_at_all().await;
                    Replayed::No
                }
                Ended::Again => Replayed::Yes,
                Ended::Otherwise(EndKind::Failed) if kind == EndKind::Cancelled => {
                    return Err(Rejection::OrderFailed.into());
                }
                Ended::Otherwise(_) => Replayed::Yes,
                Ended::NotFound => {
                    let Some((grant, epoch)) = self.grant_in_redis(id).await? else {
                        if was_nowhere {
                            return Err(Rejection::OrderNotFound.into());
                        }
                        // Somebody else may have delivered and ended it between the two looks.
                        was_nowhere = true;
                        continue;
                    };
                    // It is on its way: be its worker. When its entry comes, it is known already.
                    let product = product_of(id);
                    let grants = [grant];
                    let place = (product, epoch);
                    let delivered = self.postgres().deliver(Way::Carry, place, (now, now), &grants).await?;
                    self.shared().heed_delivered(product, epoch, &grants, &delivered);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
            };
            let order = self.postgres().order(id).await?.ok_or(CallError::OutcomeUnknown)?;
            return Ok((order, replayed));
        }
        tokio::time::sleep(keeper_pause()).await;
        Err(CallError::Unreachable)
    }

    /// What Redis knows of an order: its grant, and the epoch that is on sale. `None` is certain: while Redis is being
    /// filled, orders that were accepted before may come back.
    async fn grant_in_redis(&self, id: OrderId) -> Result<Option<(Grant, i32)>, CallError> {
        let product = product_of(id);
        if self.shared().node.catalogue.by_number(product).is_none() {
            return Ok(None);
        }
        let Ok(server) = self.servers().of(product).await else { return Err(CallError::Unreachable) };
        let keys = self.shared().keys(product, 0);
        let field = format!("o{}", to_hex(id));
        let asked = look(&server, &keys, &["epoch", "state"], ("-", 1), &field).await;
        let (sale, _, record) = asked.map_err(|_| {
            self.servers().forget(&server, product);
            CallError::Unreachable
        })?;
        let text = |index: usize| sale.get(index).and_then(|value| value.as_deref());
        let epoch: Option<i32> = text(0).and_then(|epoch| epoch.parse().ok());
        let record = record.and_then(|record| parse_record(field.as_bytes(), record.as_bytes()));
        let grant = record.filter(|record| record.kind == RecordKind::Live).map(|record| record.grant);
        match grant.zip(epoch) {
            None if text(1) != Some("open") => Err(CallError::Rebuilding),
            found => Ok(found),
        }
    }

    fn view_of(&self, grant: &Grant) -> Option<OrderView> {
        let listed = self.shared().node.catalogue.by_number(product_of(grant.order))?;
        Some(OrderView {
            id: grant.order,
            seq: grant.number.unsigned_abs(),
            status: OrderStatus::Accepted,
            customer: CustomerId::parse(&grant.customer).ok()?,
            product: listed.row.id,
            quantity: grant.quantity.unsigned_abs(),
            unit_price: Money {
                amount: grant.price,
                currency: yoink_core::Currency::parse(&grant.currency)?,
            },
            accepted_at: Timestamp(grant.accepted_at),
            ended_at: None,
            reason: None,
        })
    }
}
