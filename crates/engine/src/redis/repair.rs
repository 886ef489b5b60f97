//! What an operator may do about a Redis that differs from the ledger: fill it anew from the ledger, under a new epoch.
//!
//! It is what the loader does by itself when it sees that Redis cannot be trusted, so no repair can sell a unit twice:
//! the ledger says how many units there are, and the old epoch can take no more than it sold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use yoink_core::ProductId;

use super::{RedisEngine, keeper_pause};
use crate::CallError;
use crate::postgres::{PostgresError, ProductRow, SaleState};

/// How long a product may take until it can be bought again.
const SELLING_WITHIN: Duration = Duration::from_secs(60);

/// A product that Redis was filled with anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Which.
    pub product: ProductId,
    /// What was wrong, as a sentence.
    pub what: String,
    /// The epoch that is sold from now.
    pub epoch: i32,
}

/// Why a repair was not done, or not brought to its end. Doing it again does no harm.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// Other engines have no second store that could differ from the one that decides.
    #[error("only the redis engine can need a repair: the others have no second store that could differ")]
    OtherEngine,
    /// Redis and the ledger could not be compared.
    #[error("Redis and the ledger could not be compared; nothing was changed")]
    NotCompared(#[source] CallError),
    /// The ledger failed.
    #[error("the ledger failed; repairs so far are written down there")]
    Ledger(#[from] PostgresError),
    /// Redis does not sell it again.
    #[error(
        "Redis was not filled with product {product} within {} s: {because}. Whoever works on Redis next goes on with it",
        SELLING_WITHIN.as_secs()
    )]
    NotFilled {
        /// Which.
        product: ProductId,
        /// What happened last.
        because: String,
    },
}

impl RedisEngine {
    /// Fills Redis anew with every product in which it differs from the ledger, and waits until each can be bought.
    ///
    /// # Errors
    /// See [`RepairError`].
    pub(crate) async fn repair(&self, reason: Box<str>) -> Result<Vec<Repaired>, RepairError> {
        let work = self
            .desk()
            .in_background_with(self, |engine| async move { Ok(engine.repair_all(&reason).await) });
        work.await.map_err(RepairError::NotCompared)?
    }

    async fn repair_all(&self, reason: &str) -> Result<Vec<Repaired>, RepairError> {
        let mut repaired = Vec::new();
        for row in self.postgres().products().await? {
            let compared = self.compare(row.number).await.map_err(RepairError::NotCompared)?;
            let Some(what) = compared.difference() else { continue };
            self.postgres().record_repair(row.number, &what, reason, self.shared().node.now()).await?;
            let epoch = self.fill_anew(&row).await?;
            repaired.push(Repaired { product: row.id, what, epoch });
        }
        Ok(repaired)
    }

    /// Loads until Redis sells the product from a later epoch than that of `row`, which is returned.
    async fn fill_anew(&self, row: &ProductRow) -> Result<i32, RepairError> {
        let begun = Instant::now();
        let mut because = "another node is at it".to_owned();
        while begun.elapsed() < SELLING_WITHIN {
            if let Some(now) = self.postgres().product_numbered(row.number).await?
                && (now.epoch > row.epoch || row.state == SaleState::Loading)
                && self.is_sold(now.number).await?
            {
                return Ok(now.epoch);
            }
            // Another epoch than the one that was looked at is not distrusted.
            if let Err(error) = self.parts.keeper.loader.load(row.number, Some(row.epoch)).await {
                because = error.to_string();
            }
            tokio::time::sleep(keeper_pause()).await;
        }
        Err(RepairError::NotFilled { product: row.id, because })
    }

    async fn is_sold(&self, product: i32) -> Result<bool, PostgresError> {
        self.shared().node.catalogue.refresh(self.postgres()).await?;
        let Some(listed) = self.shared().node.catalogue.by_number(product) else { return Ok(false) };
        self.parts.keeper.look(Arc::clone(&listed)).await;
        Ok(listed.is_selling())
    }
}
