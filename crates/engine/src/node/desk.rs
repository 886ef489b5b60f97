//! What the edge asks of the ledger, on the background's runtime: the connections to the ledger belong there.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use yoink_core::{Event, NewProduct, ProductId, Rejection, STOCK_UNITS_MAX, Seq, Timestamp};

use super::catalogue::Listed;
use super::{Node, Ping};
use crate::deliveries::Settled;
use crate::delivery::{DeadLetter, DeadLetterFilter, DeliveryError, DeliveryStatus};
use crate::ledger::Movement;
use crate::postgres::{Changed, ErrorClass, Postgres, PostgresError, SettingsCheck};
use crate::views::{Change, OrderFilter, OrderPage, OrderStatus, Purchased};
use crate::{CallError, Confirmed, Durability, EngineState, Storefront};

/// What the edge asks of the ledger. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) postgres: Postgres,
    pub(crate) node: Arc<Node>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("postgres", &self.postgres).finish_non_exhaustive()
    }
}

/// What needs no server.
impl Desk {
    pub(crate) fn storefront(&self) -> &Storefront {
        &self.node.storefront
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.node.now()
    }

    pub(crate) fn durability(&self) -> Durability {
        match self.node.options.settings {
            SettingsCheck::Strict => Durability::Fsync,
            SettingsCheck::Relaxed => Durability::Relaxed,
        }
    }

    pub(crate) fn state(&self) -> EngineState {
        self.node.state()
    }

    /// Accepted purchases of the epochs on sale.
    pub(crate) fn last_seq(&self) -> Seq {
        self.node.granted()
    }

    /// Where delivery is.
    pub(crate) fn delivery_status(&self) -> DeliveryStatus {
        self.node.delivery_status()
    }

    /// Waits until the ledger has the order, at most `wait`.
    pub(crate) async fn wait_confirmed(&self, purchased: &Purchased, wait: Duration) -> Confirmed {
        let told = self.node.waiters.wait(purchased.order);
        match tokio::time::timeout(wait, told).await {
            Ok(Ok(OrderStatus::Confirmed)) => Confirmed::Yes,
            _ => Confirmed::NotYet,
        }
    }
}

/// The way to the background.
impl Desk {
    /// Does something on the background's runtime. It is done to its end even if the caller goes.
    pub(crate) async fn in_background<T>(
        &self,
        work: impl Future<Output = Result<T, CallError>> + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
    {
        self.runtime.spawn(work).await.unwrap_or(Err(CallError::OutcomeUnknown))
    }

    /// As [`Self::in_background`], with the engine that this is the desk of.
    pub(crate) async fn in_background_with<E, T, F>(
        &self,
        engine: &E,
        work: impl FnOnce(E) -> F,
    ) -> Result<T, CallError>
    where
        E: Clone,
        T: Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        self.in_background(work(engine.clone())).await
    }

    /// Asks something that only a server answers, on the background's runtime.
    pub(crate) async fn ask<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, CallError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, PostgresError>> + Send + 'static,
    {
        let work = work(self.clone());
        self.in_background(async move { Ok(work.await?) }).await
    }

    /// As [`Self::in_background`], for those who tell of delivery.
    pub(crate) async fn ask_ledger<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, DeliveryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, PostgresError>> + Send + 'static,
    {
        let work = work(self.clone());
        match self.in_background(async move { Ok(work.await) }).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.class() == ErrorClass::Unknown => Err(DeliveryError::OutcomeUnknown),
            Ok(Err(error)) => Err(DeliveryError::Ledger(Box::new(error))),
            Err(_) => Err(DeliveryError::OutcomeUnknown),
        }
    }

    /// Whether PostgreSQL gives a sign of life. To be called on the background's runtime.
    pub(crate) async fn ping(&self) -> Ping {
        let begun = Instant::now();
        let is_well = self.postgres.ping().await.is_ok();
        Ping { server: "postgres", is_well, took: begun.elapsed() }
    }
}

/// Delivery.
impl Desk {
    pub(crate) async fn pause_delivery(&self) -> Result<DeliveryStatus, DeliveryError> {
        self.ask_ledger(|desk| async move {
            desk.postgres.pause_delivery().await?;
            desk.node.switch_delivery(true);
            Ok(desk.delivery_status())
        })
        .await
    }

    pub(crate) async fn resume_delivery(&self) -> Result<DeliveryStatus, DeliveryError> {
        self.ask_ledger(|desk| async move {
            desk.postgres.resume_delivery().await?;
            desk.node.switch_delivery(false);
            Ok(desk.delivery_status())
        })
        .await
    }

    pub(crate) async fn dead_letters(
        &self,
        filter: DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, DeliveryError> {
        self.ask_ledger(|desk| async move { desk.postgres.dead_letters(&filter).await }).await
    }

    pub(crate) async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, DeliveryError> {
        self.ask_ledger(move |desk| async move { desk.postgres.dead_letter(id).await }).await
    }

    pub(crate) async fn retry_dead_letter(&self, id: i64) -> Result<Settled, DeliveryError> {
        self.ask_ledger(move |desk| async move { desk.postgres.retry_dead_letter(id, desk.now()).await })
            .await
    }

    /// Gives the units of a dead letter back and archives it; `then` is what the engine does with units that came back.
    pub(crate) async fn discard_dead_letter(
        &self,
        id: i64,
        reason: Box<str>,
        then: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Settled, DeliveryError> {
        self.ask_ledger(move |desk| async move {
            let settled = desk.postgres.discard_dead_letter(id, &reason, desk.now()).await?;
            then.await;
            Ok(settled)
        })
        .await
    }

    pub(crate) async fn export_orders(&self, after: Seq, limit: usize) -> Result<OrderPage, DeliveryError> {
        self.ask_ledger(move |desk| async move { desk.postgres.export_orders(after, limit).await }).await
    }

    pub(crate) async fn export_movements(
        &self,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Movement>, DeliveryError> {
        self.ask_ledger(move |desk| async move { desk.postgres.export_movements(after, limit).await }).await
    }
}

/// Orders and events.
impl Desk {
    /// A page of orders, in the order in which the ledger took them.
    ///
    /// # Errors
    /// The ledger cannot be asked.
    pub(crate) async fn orders(&self, filter: OrderFilter) -> Result<OrderPage, CallError> {
        self.ask(|desk| async move { desk.postgres.orders(&filter).await }).await
    }

    /// The ledger's events.
    ///
    /// # Errors
    /// The ledger cannot be asked.
    pub(crate) async fn events(&self, after: Seq, limit: usize) -> Result<Vec<Event>, CallError> {
        self.ask(move |desk| async move { desk.postgres.events(after, limit).await }).await
    }
}

/// Products.
impl Desk {
    /// Reads the products again, now.
    pub(crate) async fn refresh_catalogue(&self) {
        let read = self.ask(|desk| async move {
            desk.node.catalogue.refresh(&desk.postgres).await?;
            desk.node.publish_storefront();
            Ok(())
        });
        // What is known already will do while the ledger cannot be asked.
        let _ = read.await;
    }

    /// A product, which may have been made on another node a moment ago.
    pub(crate) async fn find_product(&self, id: &ProductId) -> Option<Arc<Listed>> {
        if let Some(listed) = self.node.catalogue.find(id) {
            return Some(listed);
        }
        if !self.node.may_look_for_products() {
            return None;
        }
        self.refresh_catalogue().await;
        self.node.catalogue.find(id)
    }

    /// Writes a new product down; this node knows it then. Returns its number.
    ///
    /// # Errors
    /// As [`crate::Engine::create_product`].
    pub(crate) async fn create_product(&self, product: NewProduct) -> Result<i32, CallError> {
        if product.id.is_some_and(|id| self.node.catalogue.find(&id).is_some()) {
            self.refresh_catalogue().await;
            return Err(Rejection::ProductExists.into());
        }
        if product.stock > STOCK_UNITS_MAX {
            return Err(Rejection::StockTooLarge.into());
        }
        if let (Some(starts_at), Some(ends_at)) = (product.window.starts_at, product.window.ends_at)
            && ends_at <= starts_at
        {
            return Err(Rejection::WindowEmpty.into());
        }
        let made =
            self.ask(|desk| async move { desk.postgres.create_product(&product, desk.now()).await }).await;
        // Also if it exists: whoever is told so finds it, although another node may have made it a moment ago.
        self.refresh_catalogue().await;
        made?.ok_or_else(|| Rejection::ProductExists.into())
    }

    /// Changes a product in the ledger.
    ///
    /// # Errors
    /// As [`crate::Engine::change_product`].
    pub(crate) async fn change(&self, id: ProductId, change: Change) -> Result<(), CallError> {
        let changed = self.ask(move |desk| async move {
            let (postgres, now) = (&desk.postgres, desk.now());
            match change {
                Change::Details(change) => postgres.change_product(&id, &change, now).await,
                Change::Pause => postgres.pause_product(&id, now).await,
                Change::Resume => postgres.resume_product(&id, now).await,
            }
        });
        match changed.await? {
            Changed::NotFound => Err(Rejection::ProductNotFound.into()),
            Changed::WindowEmpty => Err(Rejection::WindowEmpty.into()),
            Changed::Done | Changed::Again => Ok(()),
        }
    }
}
