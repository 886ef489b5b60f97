//! Units on their way into Redis.

use tokio_postgres::Row;
use uuid::Uuid;

use super::row::limit;
use super::{Postgres, PostgresError, row};

/// Credits that one look finds at most.
const CREDITS_MAX: usize = 1_000;

/// Units on their way into Redis: each is applied there once, by a script that leaves a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Which one. Of an order's units: the order's id.
    pub id: Uuid,
    /// Of which product.
    pub product: i32,
    /// Into which epoch.
    pub epoch: i32,
    /// How many, from 1.
    pub units: i64,
    /// Where they come from.
    pub kind: CreditKind,
    /// Whose order returned them.
    pub customer: Option<String>,
}

/// Where the units of a credit come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CreditKind {
    /// From an order that ended.
    Returned,
    /// They are new.
    Restocked,
    /// They were granted twice for one order.
    Void,
}

impl CreditKind {
    /// Its word in the ledger and in Redis.
    pub fn name(self) -> &'static str {
        match self {
            Self::Returned => "returned",
            Self::Restocked => "restocked",
            Self::Void => "void",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Returned, Self::Restocked, Self::Void].into_iter().find(|kind| kind.name() == text)
    }
}

impl Postgres {
    /// Credits of products that are open, that Redis is not known to have, oldest first.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn credits_waiting(&self, rows: usize) -> Result<Vec<Credit>, PostgresError> {
        let sql = "SELECT c.id, c.product, c.epoch, c.units, c.kind, c.customer
                   FROM credits c JOIN products p ON p.number = c.product AND p.epoch = c.epoch
                   WHERE NOT c.applied AND p.state = 'open' ORDER BY c.made_at LIMIT $1";
        let found = self.read("look for credits", sql, &[&limit(rows, CREDITS_MAX)]).await?;
        found.iter().map(credit).collect()
    }

    /// The credit with this id: of an order's units, the order's id.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn credit(&self, id: Uuid) -> Result<Option<Credit>, PostgresError> {
        let sql =
            "SELECT id, product, epoch, units, kind, customer FROM credits WHERE id = $1 AND NOT applied";
        self.read("look for a credit", sql, &[&id]).await?.first().map(credit).transpose()
    }

    /// Redis has this credit, in this epoch. `false` if it belongs to another epoch and is not applied.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn mark_credit_applied(&self, id: Uuid, epoch: i32) -> Result<bool, PostgresError> {
        let sql = "UPDATE credits SET applied = true WHERE id = $1 AND (epoch = $2 OR applied) RETURNING id";
        let rows = self.change("mark a credit", sql, &[&id, &epoch]).await?;
        Ok(!rows.is_empty())
    }
}

fn credit(row: &Row) -> Result<Credit, PostgresError> {
    Ok(Credit {
        id: row::get(row, "id")?,
        product: row::get(row, "product")?,
        epoch: row::get(row, "epoch")?,
        units: row::get(row, "units")?,
        kind: row::parsed(row, "kind", CreditKind::parse)?,
        customer: row::get(row, "customer")?,
    })
}
