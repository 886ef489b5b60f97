//! Products: the ledger first, then Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use yoink_core::{NewProduct, ProductId};

use super::{RedisEngine, keeper_pause};
use crate::CallError;
use crate::node::catalogue::Listed;
use crate::views::{Change, ProductView};

/// How long whoever makes a product waits until it can be bought.
const ON_SALE_WITHIN: Duration = Duration::from_secs(3);

impl RedisEngine {
    /// Puts something on sale, and waits a moment until Redis sells it.
    ///
    /// # Errors
    /// As [`crate::Engine::create_product`].
    pub(crate) async fn create_product(&self, product: NewProduct) -> Result<ProductView, CallError> {
        let number = self.desk().create_product(product).await?;
        let begun = Instant::now();
        loop {
            let Some(listed) = self.shared().node.catalogue.by_number(number) else {
                return Err(CallError::OutcomeUnknown);
            };
            self.look_at(&listed.row.id).await;
            if listed.is_selling() || begun.elapsed() >= ON_SALE_WITHIN {
                return Ok(listed.view());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Changes a product, and tells Redis, so that no purchase after the answer is decided by what was before.
    ///
    /// # Errors
    /// As [`crate::Engine::change_product`].
    pub(crate) async fn change(&self, id: ProductId, change: Change) -> Result<ProductView, CallError> {
        self.desk().change(id, change).await?;
        for _ in 0..10 {
            self.desk().refresh_catalogue().await;
            let Some(listed) = self.shared().node.catalogue.find(&id) else { break };
            if self.desk().in_background_with(self, move |engine| engine.describe(listed)).await? {
                break;
            }
            // Redis is being filled anew, which takes the newest; or it cannot be asked, and is told later.
            tokio::time::sleep(keeper_pause()).await;
        }
        self.look_at(&id).await;
        let listed = self.shared().node.catalogue.find(&id).ok_or(CallError::OutcomeUnknown)?;
        Ok(listed.view())
    }

    async fn describe(self, listed: Arc<Listed>) -> Result<bool, CallError> {
        match self.servers().of(listed.row.number).await {
            Ok(server) => Ok(super::changes::describe(self.shared(), &server, &listed).await.is_ok()),
            Err(_) => Ok(false),
        }
    }
}
