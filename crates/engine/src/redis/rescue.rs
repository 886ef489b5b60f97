//! Brings back into the ledger what Redis knows and the ledger does not any more, because it was restored to an earlier
//! state. Redis has a record of every order of the sale, so all of them are found, however they came there.
//!
//! It is done while nothing is sold: the epoch of Redis is sealed, and the next one, which Redis is not filled with yet,
//! takes the orders as far as it has units. What it has none for is revoked visibly, as always. Whoever does it again,
//! after a loader died, finds the orders in the ledger.

use std::collections::HashMap;

use yoink_core::OrderId;

use super::entry::{Record, RecordKind, parse_record};
use super::loader::{LoadError, Loader};
use super::look::page_of_fields;
use super::servers::Server;
use crate::node::order_id::product_of;
use crate::postgres::{Delivered, EndKind, Ended, Grant, ProductRow, Standing, Way, number_of_rescued};

/// Orders that are written at once.
const ORDERS_MAX: usize = 128;
/// Why an order ends that had ended before.
const HAD_ENDED: &str = "it had ended before the ledger was restored to an earlier state";

/// What Redis knows and the ledger does not.
#[derive(Debug, Default)]
struct Lost {
    /// Orders that the ledger does not have.
    live: Vec<Grant>,
    /// The same, and they had ended.
    ended: Vec<Grant>,
    /// Orders that the ledger has, and does not know to have ended.
    revived: Vec<OrderId>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rescued {
    orders: u64,
    /// There was no unit for them.
    revoked: u64,
    ended: u64,
}

impl Loader {
    /// Writes what Redis knows of a product's orders, and the ledger does not, into an epoch that is not opened yet.
    /// Redis must not be selling.
    pub(super) async fn rescue(
        &self,
        server: &Server,
        row: &ProductRow,
        epoch: i32,
    ) -> Result<(), LoadError> {
        let lost = self.find_lost(server, row.number).await?;
        let mut rescued = Rescued::default();
        // First, because their units may be somebody else's by now.
        rescued.ended += self.end_again(&lost.revived).await?;
        for outcome in self.take_in(Way::Rescue, row.number, epoch, &lost.live).await? {
            match outcome {
                Delivered::Revoked => rescued.revoked += 1,
                Delivered::Known | Delivered::Duplicate | Delivered::Sealed => {}
                Delivered::Confirmed | Delivered::Collided | Delivered::Refused => rescued.orders += 1,
            }
        }
        for outcome in self.take_in(Way::RescueEnded, row.number, epoch, &lost.ended).await? {
            rescued.ended += u64::from(outcome == Delivered::Revoked);
        }
        self.shared.gauges.rescued(rescued.orders);
        let Rescued { orders, revoked, ended } = rescued;
        tracing::warn!(
            product = %row.id, epoch, orders, revoked, ended,
            "the ledger had gone back to an earlier state: what Redis knew of a product's orders was written to it"
        );
        Ok(())
    }

    /// Reads all records that Redis has, and asks the ledger for each.
    async fn find_lost(&self, server: &Server, product: i32) -> Result<Lost, LoadError> {
        let buyers = self.shared.keys(product, 0).buyers;
        let (mut lost, mut cursor) = (Lost::default(), 0_u64);
        loop {
            let Some((next, fields)) = page_of_fields(server, &buyers, cursor).await? else {
                return Ok(lost);
            };
            // What is listed twice is one order.
            let records: HashMap<OrderId, Record> = fields
                .iter()
                .filter_map(|(field, value)| parse_record(field, value))
                .filter(|record| product_of(record.grant.order) == product)
                .map(|record| (record.grant.order, record))
                .collect();
            self.sort_out(records, &mut lost).await?;
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        // Where there are too few units, who came first has them.
        for orders in [&mut lost.live, &mut lost.ended] {
            orders.sort_by_key(|grant| (grant.accepted_at, grant.order));
            orders.dedup_by_key(|grant| grant.order);
        }
        Ok(lost)
    }

    async fn sort_out(&self, records: HashMap<OrderId, Record>, lost: &mut Lost) -> Result<(), LoadError> {
        let ids: Vec<OrderId> = records.keys().copied().collect();
        let standing = self.postgres.standing(&ids).await?;
        for (order, record) in records {
            let grant = Grant { number: number_of_rescued(order), ..record.grant };
            match (standing.get(&order), record.kind) {
                (None, RecordKind::Live) => lost.live.push(grant),
                (None, RecordKind::Ended) => lost.ended.push(grant),
                (Some(Standing::Live), RecordKind::Ended) => lost.revived.push(order),
                (Some(_), _) => {}
            }
        }
        Ok(())
    }

    /// Writes orders to the ledger; what became of each.
    async fn take_in(
        &self,
        way: Way,
        product: i32,
        epoch: i32,
        grants: &[Grant],
    ) -> Result<Vec<Delivered>, LoadError> {
        let worker = self.worker(product);
        let mut outcomes = Vec::new();
        for some in grants.chunks(ORDERS_MAX) {
            let written = worker.write(way, epoch, some).await?;
            if let Some(error) = written.error {
                return Err(error.into());
            }
            outcomes.extend(written.delivered.into_iter().map(|(_, outcome)| outcome));
            if outcomes.contains(&Delivered::Sealed) {
                return Err(LoadError::Refused("another loader has opened it by now".to_owned()));
            }
        }
        Ok(outcomes)
    }

    /// Ends orders that had ended. Gives how many had not.
    async fn end_again(&self, orders: &[OrderId]) -> Result<u64, LoadError> {
        let mut ended = 0;
        for order in orders {
            let now = self.shared.node.now();
            let end = self.postgres.end_order(*order, EndKind::Cancelled, HAD_ENDED, now).await?;
            ended += u64::from(end == Ended::Now);
        }
        Ok(ended)
    }
}
