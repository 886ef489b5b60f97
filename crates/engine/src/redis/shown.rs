//! What Redis shows of the ledger. Each of these figures was in the ledger before it was in Redis, and none ever falls
//! there: a ledger that is asked later and has less was restored to an earlier state, or took over from one whose last
//! commits it lacks.

use std::cmp::Ordering;

use crate::postgres::{ProductRow, SaleState};

/// No sale comes to as many epochs. Somebody who writes a higher one must not use them all up.
const EPOCH_MAX: i32 = 1 << 30;

/// The epoch that a sale says it is of; `None` if that can be none.
pub(crate) fn epoch_of(text: &str) -> Option<i32> {
    text.parse().ok().filter(|epoch| (1..=EPOCH_MAX).contains(epoch))
}

/// What a sale in Redis shows of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) epoch: i32,
    /// Of what is said about the product.
    version: i64,
    /// Units of grants of the epoch that the ledger has charged.
    delivered: u64,
    /// Units that the ledger has given to the epoch.
    given: u64,
    /// Something was sold from it, which is not before the ledger knows that it was opened.
    is_open: bool,
}

impl Shown {
    /// What a sale shows; `field` finds the value of a field. `None` if its epoch is none.
    pub(crate) fn of<'a>(field: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let figure = |name| field(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        Some(Self {
            epoch: epoch_of(field("epoch")?)?,
            version: field("version").and_then(|value| value.parse().ok()).unwrap_or(0),
            delivered: figure("delivered"),
            given: figure("given"),
            is_open: field("state") == Some("open"),
        })
    }

    /// Whether the ledger, which said this of the product later, must have had more.
    pub(crate) fn is_beyond(&self, row: &ProductRow) -> bool {
        match self.epoch.cmp(&row.epoch) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => {
                self.version > row.version
                    || self.delivered > row.sold
                    || self.given > row.given()
                    || (self.is_open && row.state == SaleState::Loading)
            }
        }
    }
}
