//! What the edge asks of the background: its connections to the ledger belong to the runtime there.

use std::future::Future;
use std::sync::Arc;

use yoink_core::ProductId;

use super::RedisEngine;
use super::catalogue::Listed;
use crate::CallError;
use crate::postgres::{ErrorClass, PostgresError};
use crate::views::ProductView;

impl From<PostgresError> for CallError {
    fn from(error: PostgresError) -> Self {
        tracing::warn!(%error, "the ledger gave no answer");
        match error.class() {
            ErrorClass::Unknown => Self::OutcomeUnknown,
            ErrorClass::Transient | ErrorClass::Permanent => Self::Unreachable,
        }
    }
}

impl RedisEngine {
    /// Does something on the background's runtime. It is done to its end even if the caller goes.
    pub(crate) async fn in_background<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, CallError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let done = self.parts.runtime.spawn(work(self.clone()));
        done.await.unwrap_or(Err(CallError::OutcomeUnknown))
    }

    /// A product, which may have been made on another node a moment ago.
    pub(crate) async fn find_product(&self, id: &ProductId) -> Option<Arc<Listed>> {
        if let Some(listed) = self.shared().catalogue.find(id) {
            return Some(listed);
        }
        if !self.shared().may_look_for_products() {
            return None;
        }
        self.refresh_catalogue().await;
        self.shared().catalogue.find(id)
    }

    /// A product as everybody may see it. One that is new here is looked at first, so that it can be bought here, too.
    pub(crate) async fn product(&self, id: &ProductId) -> Option<ProductView> {
        if self.shared().catalogue.find(id).is_none() {
            self.find_product(id).await?;
            self.look_at(id).await;
        }
        Some(self.shared().catalogue.find(id)?.view())
    }

    /// Reads the products again, now.
    pub(crate) async fn refresh_catalogue(&self) {
        let read = self.in_background(|engine| async move {
            let rows = engine.postgres().products().await?;
            engine.shared().catalogue.replace(rows);
            engine.shared().publish_storefront();
            Ok(())
        });
        // What is known already will do while the ledger cannot be asked.
        let _ = read.await;
    }

    /// Looks at a product in Redis, now.
    pub(crate) async fn look_at(&self, id: &ProductId) {
        let Some(listed) = self.shared().catalogue.find(id) else { return };
        let looked = self.in_background(|engine| async move {
            engine.parts.keeper.look(listed).await;
            engine.shared().publish_storefront();
            Ok(())
        });
        let _ = looked.await;
    }

    /// Gives Redis the units that wait for it, now and not a moment later.
    pub(crate) async fn apply_credits_now(&self) {
        // Otherwise the keeper does it.
        let _ = self.parts.keeper.apply_credits().await;
    }
}
