//! Products: the ledger first, then Redis.

use std::time::{Duration, Instant};

use yoink_core::{NewProduct, ProductChange, ProductId, Rejection, STOCK_UNITS_MAX};

use super::{RedisEngine, keeper_pause};
use crate::CallError;
use crate::postgres::Changed;
use crate::views::ProductView;

/// How long whoever makes a product waits until it can be bought.
const ON_SALE_WITHIN: Duration = Duration::from_secs(3);

impl RedisEngine {
    /// Puts something on sale, and waits a moment until Redis sells it.
    ///
    /// # Errors
    /// As [`crate::Engine::create_product`].
    pub(crate) async fn create_product(&self, product: NewProduct) -> Result<ProductView, CallError> {
        if product.id.is_some_and(|id| self.shared().catalogue.find(&id).is_some()) {
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
        let number = self.in_background(move |engine| async move {
            let made = engine.postgres().create_product(&product, engine.shared().now()).await?;
            made.ok_or_else(|| Rejection::ProductExists.into())
        });
        let number = number.await;
        // Also if it exists: whoever is told so finds it, although another node may have made it a moment ago.
        self.refresh_catalogue().await;
        let number = number?;
        let begun = Instant::now();
        loop {
            let Some(listed) = self.shared().catalogue.by_number(number) else {
                return Err(CallError::OutcomeUnknown);
            };
            self.look_at(&listed.row.id).await;
            if listed.is_selling() || begun.elapsed() >= ON_SALE_WITHIN {
                return Ok(listed.view());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Changes what is said about a product.
    ///
    /// # Errors
    /// As [`crate::Engine::change_product`].
    pub(crate) async fn change_product(
        &self,
        id: ProductId,
        change: ProductChange,
    ) -> Result<ProductView, CallError> {
        let changed = self.in_background(move |engine| async move {
            Ok(engine.postgres().change_product(&id, &change, engine.shared().now()).await?)
        });
        self.after_change(id, changed.await?).await
    }

    /// Stops selling a product.
    ///
    /// # Errors
    /// As [`crate::Engine::pause`].
    pub(crate) async fn pause(&self, id: ProductId) -> Result<ProductView, CallError> {
        let changed = self.in_background(move |engine| async move {
            Ok(engine.postgres().pause_product(&id, engine.shared().now()).await?)
        });
        self.after_change(id, changed.await?).await
    }

    /// Sells a product again.
    ///
    /// # Errors
    /// As [`crate::Engine::resume`].
    pub(crate) async fn resume(&self, id: ProductId) -> Result<ProductView, CallError> {
        let changed = self.in_background(move |engine| async move {
            Ok(engine.postgres().resume_product(&id, engine.shared().now()).await?)
        });
        self.after_change(id, changed.await?).await
    }

    /// Tells Redis, so that no purchase after the answer is decided by what was before.
    async fn after_change(&self, id: ProductId, changed: Changed) -> Result<ProductView, CallError> {
        match changed {
            Changed::NotFound => return Err(Rejection::ProductNotFound.into()),
            Changed::WindowEmpty => return Err(Rejection::WindowEmpty.into()),
            Changed::Done | Changed::Again => {}
        }
        for _ in 0..10 {
            self.refresh_catalogue().await;
            let Some(listed) = self.shared().catalogue.find(&id) else { break };
            if self.in_background(move |engine| engine.describe(listed)).await? {
                break;
            }
            // Redis is being filled anew, which takes the newest; or it cannot be asked, and is told later.
            tokio::time::sleep(keeper_pause()).await;
        }
        self.look_at(&id).await;
        let listed = self.shared().catalogue.find(&id).ok_or(CallError::OutcomeUnknown)?;
        Ok(listed.view())
    }

    async fn describe(self, listed: std::sync::Arc<super::catalogue::Listed>) -> Result<bool, CallError> {
        match self.servers().of(listed.row.number).await {
            Ok(server) => Ok(super::keeper::describe(&server, &listed).await.is_ok()),
            Err(_) => Ok(false),
        }
    }
}
