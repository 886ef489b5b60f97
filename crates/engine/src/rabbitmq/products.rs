//! Products: what the ledger says is what is sold.

use yoink_core::{NewProduct, ProductChange, ProductId};

use super::RabbitEngine;
use crate::CallError;
use crate::views::ProductView;

impl RabbitEngine {
    /// Puts something on sale.
    ///
    /// # Errors
    /// As [`crate::Engine::create_product`].
    pub(crate) async fn create_product(&self, product: NewProduct) -> Result<ProductView, CallError> {
        let number = self.desk().create_product(product).await?;
        self.in_background(move |engine| async move {
            // There is nothing to be filled before it is sold from.
            engine.desk().postgres.set_open(number, 1).await?;
            engine.shared().follow_products().await?;
            Ok(())
        })
        .await?;
        let listed = self.shared().node.catalogue.by_number(number).ok_or(CallError::OutcomeUnknown)?;
        Ok(listed.view())
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
        self.desk().change_product(id, change).await?;
        self.after_change(id).await
    }

    /// Stops selling a product.
    ///
    /// # Errors
    /// As [`crate::Engine::pause`].
    pub(crate) async fn pause(&self, id: ProductId) -> Result<ProductView, CallError> {
        self.desk().pause_product(id).await?;
        self.after_change(id).await
    }

    /// Sells a product again.
    ///
    /// # Errors
    /// As [`crate::Engine::resume`].
    pub(crate) async fn resume(&self, id: ProductId) -> Result<ProductView, CallError> {
        self.desk().resume_product(id).await?;
        self.after_change(id).await
    }

    async fn after_change(&self, id: ProductId) -> Result<ProductView, CallError> {
        self.in_background(|engine| async move { Ok(engine.shared().follow_products().await?) }).await?;
        let listed = self.shared().node.catalogue.find(&id).ok_or(CallError::OutcomeUnknown)?;
        Ok(listed.view())
    }
}
