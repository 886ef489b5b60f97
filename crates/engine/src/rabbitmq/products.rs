//! Products: what the ledger says is what is sold.

use yoink_core::{NewProduct, ProductId};

use super::RabbitEngine;
use crate::CallError;
use crate::views::{Change, ProductView};

impl RabbitEngine {
    /// Puts something on sale.
    ///
    /// # Errors
    /// As [`crate::Engine::create_product`].
    pub(crate) async fn create_product(&self, product: NewProduct) -> Result<ProductView, CallError> {
        let number = self.desk().create_product(product).await?;
        self.desk()
            .in_background_with(self, move |engine| async move {
                // There is nothing to be filled before it is sold from.
                engine.desk().postgres.set_open(number, 1).await?;
                engine.shared().follow_products().await?;
                Ok(())
            })
            .await?;
        let listed = self.shared().node.catalogue.by_number(number).ok_or(CallError::OutcomeUnknown)?;
        Ok(listed.view())
    }

    /// Changes a product.
    ///
    /// # Errors
    /// As [`crate::Engine::change_product`].
    pub(crate) async fn change(&self, id: ProductId, change: Change) -> Result<ProductView, CallError> {
        self.desk().change(id, change).await?;
        self.desk()
            .in_background_with(self, |engine| async move { Ok(engine.shared().follow_products().await?) })
            .await?;
        let listed = self.shared().node.catalogue.find(&id).ok_or(CallError::OutcomeUnknown)?;
        Ok(listed.view())
    }
}
