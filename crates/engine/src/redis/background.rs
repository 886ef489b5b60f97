//! What the edge asks of the background: its connections belong to the runtime there.

use yoink_core::ProductId;

use super::RedisEngine;
use crate::views::ProductView;

impl RedisEngine {
    /// A product as everybody may see it. One that is new here is looked at first, so that it can be bought here, too.
    pub(crate) async fn product(&self, id: &ProductId) -> Option<ProductView> {
        if self.shared().node.catalogue.find(id).is_none() {
            self.desk().find_product(id).await?;
            self.look_at(id).await;
        }
        Some(self.shared().node.catalogue.find(id)?.view())
    }

    /// Looks at a product in Redis, now.
    pub(crate) async fn look_at(&self, id: &ProductId) {
        let Some(listed) = self.shared().node.catalogue.find(id) else { return };
        let looked = self.desk().in_background_with(self, |engine| async move {
            engine.parts.keeper.look(listed).await;
            engine.shared().node.publish_storefront();
            Ok(())
        });
        let _ = looked.await;
    }

    /// Gives Redis the units that wait for it, now and not a moment later. Nobody is told from now on that all are sold
    /// because of what was seen before.
    pub(crate) async fn apply_credits_now(&self) {
        // Otherwise the keeper does it.
        let _ = self.parts.keeper.apply_credits().await;
        self.shared().node.catalogue.all().iter().for_each(|listed| listed.note_arrival());
    }
}
