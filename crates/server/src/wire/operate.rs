//! What operators read and write.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use yoink_engine::DeliveryStatus;

use super::{Figures, Money, When};

/// The server's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerTime {
    /// Now.
    pub now: When,
}

/// What is running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// The version of yoink.
    pub version: String,
    /// `embedded` or `redis`.
    pub engine: String,
    /// When an accepted order is on disk: `fsync`, `os-buffer` or `relaxed`.
    pub durability: String,
    /// What an accepted order survives.
    pub survives: String,
    /// What requests may be at most.
    pub limits: InfoLimits,
}

/// What requests may be at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InfoLimits {
    /// Bytes of a body.
    pub body_bytes_max: u64,
    /// Units in one order, whatever a product allows.
    pub quantity_max: u32,
    /// Seconds in `Prefer: wait=N`.
    pub wait_seconds_max: u64,
    /// Orders in one page.
    pub list_orders_max: u64,
    /// Events in one page.
    pub read_events_max: u64,
}

/// A fact at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its place: one more than the event before.
    pub seq: u64,
    /// When it was decided.
    pub at: When,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Fact {
    /// Something is on sale.
    ProductCreated {
        /// Which product.
        product_id: String,
        /// What people call it.
        name: String,
        /// What one unit costs.
        price: Money,
        /// Units to begin with.
        stock: u64,
        /// When its sale starts.
        starts_at: Option<When>,
        /// When its sale ends.
        ends_at: Option<When>,
        /// Units of live orders per customer.
        limit_per_customer: Option<u32>,
        /// Units in one order.
        max_per_order: u32,
    },
    /// What is said about a product changed; only what changed is there.
    ProductChanged {
        /// Which product.
        product_id: String,
        /// What changed.
        changes: serde_json::Value,
    },
    /// Units came or went.
    StockAdjusted {
        /// Of which product.
        product_id: String,
        /// Units added, or taken if below zero.
        delta: i64,
        /// Why.
        reason: String,
    },
    /// Selling stopped.
    SalePaused {
        /// Of which product.
        product_id: String,
    },
    /// Selling went on.
    SaleResumed {
        /// Of which product.
        product_id: String,
    },
    /// Units were given to a customer.
    OrderAccepted {
        /// Which order.
        order_id: String,
        /// Who bought.
        customer_id: String,
        /// What.
        product_id: String,
        /// How many.
        quantity: u32,
        /// What one unit cost.
        unit_price: Money,
    },
    /// The units of an order came back because somebody asked.
    OrderCancelled {
        /// Which order.
        order_id: String,
        /// Why.
        reason: String,
    },
    /// The units of an order came back because the ledger can never take it.
    OrderFailed {
        /// Which order.
        order_id: String,
        /// Why.
        reason: String,
    },
}

/// One page of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// Give this as `after` to go on from here.
    pub next_after: u64,
}

/// The invariants, recounted from the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reconciliation {
    /// Whether all of them hold.
    pub ok: bool,
    /// The last event that was counted.
    #[serde(default)]
    pub seq: u64,
    /// Units sold beyond what was stocked.
    pub oversold: u64,
    /// Orders that the ledger should have and does not.
    pub lost: u64,
    /// Orders that the ledger has more than once.
    pub duplicated: u64,
    /// Units that nobody can buy and nobody has.
    pub stuck: u64,
    /// The units of every product.
    pub products: Vec<ProductFigures>,
    /// Orders by status.
    pub orders: OrderCounts,
    /// Each invariant.
    pub invariants: Vec<Invariant>,
}

/// The units of one product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProductFigures {
    /// Which product.
    pub id: String,
    /// Its units.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Orders by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderCounts {
    /// Live, and not in the ledger yet.
    pub accepted: u64,
    /// Live, and in the ledger.
    pub confirmed: u64,
    /// Given back because somebody asked.
    pub cancelled: u64,
    /// Given back because the ledger can never take them.
    pub failed: u64,
}

/// One invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invariant {
    /// Its name.
    pub id: String,
    /// Whether it holds.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

impl From<yoink_engine::Reconciliation> for Reconciliation {
    fn from(found: yoink_engine::Reconciliation) -> Self {
        let product = |product: yoink_engine::ProductFigures| ProductFigures {
            id: product.id.to_string(),
            figures: product.figures.into(),
        };
        let invariant = |invariant: yoink_engine::Invariant| Invariant {
            id: invariant.id.to_owned(),
            ok: invariant.ok,
            detail: invariant.detail,
        };
        let yoink_engine::OrderCounts { accepted, confirmed, cancelled, failed } = found.orders;
        Self {
            ok: found.ok,
            seq: found.seq,
            oversold: found.oversold,
            lost: found.lost,
            duplicated: found.duplicated,
            stuck: found.stuck,
            products: found.products.into_iter().map(product).collect(),
            orders: OrderCounts { accepted, confirmed, cancelled, failed },
            invariants: found.invariants.into_iter().map(invariant).collect(),
        }
    }
}

/// Where the delivery of orders to the ledger is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// Whether an operator paused it.
    pub paused: bool,
    /// The last event whose effect is in the ledger.
    pub position: u64,
    /// Events behind it.
    pub lag_events: u64,
    /// Age of the oldest order that the ledger does not have.
    pub oldest_undelivered_seconds: f64,
    /// Orders that the ledger refused and that will be tried again.
    pub retrying: u64,
    /// Dead letters that are not settled.
    pub dead_letters: u64,
}

impl Delivery {
    /// `last_seq` is the last event of the log, `oldest_undelivered_seconds` an age.
    pub(crate) fn new(status: &DeliveryStatus, last_seq: u64, oldest_undelivered_seconds: f64) -> Self {
        Self {
            paused: status.paused,
            position: status.position,
            lag_events: last_seq.saturating_sub(status.position),
            oldest_undelivered_seconds,
            retrying: status.retrying,
            dead_letters: status.dead_letters_open,
        }
    }
}

/// Where a dead letter is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeadLetterState {
    /// Waits for an operator; the units are still sold.
    Parked,
    /// The units are being given back.
    Releasing,
    /// The units came back and the order has failed.
    Released,
    /// An operator sent it to be delivered again.
    Retried,
    /// An operator discarded it.
    Discarded,
}

impl From<yoink_engine::DeadLetterState> for DeadLetterState {
    fn from(state: yoink_engine::DeadLetterState) -> Self {
        match state {
            yoink_engine::DeadLetterState::Parked => Self::Parked,
            yoink_engine::DeadLetterState::Releasing => Self::Releasing,
            yoink_engine::DeadLetterState::Released => Self::Released,
            yoink_engine::DeadLetterState::Retried => Self::Retried,
            yoink_engine::DeadLetterState::Discarded => Self::Discarded,
        }
    }
}

impl From<DeadLetterState> for yoink_engine::DeadLetterState {
    fn from(state: DeadLetterState) -> Self {
        match state {
            DeadLetterState::Parked => Self::Parked,
            DeadLetterState::Releasing => Self::Releasing,
            DeadLetterState::Released => Self::Released,
            DeadLetterState::Retried => Self::Retried,
            DeadLetterState::Discarded => Self::Discarded,
        }
    }
}

/// An order that the ledger refused for good, or a message that could not be read as an order at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// Its number; the oldest has the lowest.
    pub id: i64,
    /// Which order; `null`, as are the next three, if it could not be read.
    pub order_id: Option<String>,
    /// What was bought.
    pub product_id: Option<String>,
    /// By whom.
    pub customer_id: Option<String>,
    /// How many.
    pub quantity: Option<u32>,
    /// What could not be read: its first 500 characters, control characters escaped. `null` for an order.
    pub message: Option<String>,
    /// What the ledger said the last time, or why it could not be read.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it became a dead letter.
    pub created_at: When,
    /// Where it is in its life.
    pub state: DeadLetterState,
    /// Why an operator discarded it.
    pub reason: Option<String>,
}

impl From<yoink_engine::DeadLetter> for DeadLetter {
    fn from(letter: yoink_engine::DeadLetter) -> Self {
        Self {
            id: letter.id,
            order_id: letter.order.map(|order| order.to_string()),
            product_id: letter.product.map(|product| product.to_string()),
            customer_id: letter.customer.map(|customer| customer.as_str().to_owned()),
            quantity: letter.quantity,
            message: letter.message,
            error: letter.error,
            attempts: letter.attempts,
            created_at: When(letter.created_at),
            state: letter.state.into(),
            reason: letter.reason,
        }
    }
}

/// One page of dead letters, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterList {
    /// The dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// Give this as `after` to get the next page; `null` on the last one.
    pub next_after: Option<i64>,
}

/// Which open dead letters to retry or discard at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkFilter {
    /// Only those of this product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::api::schema::product_id_or_null)]
    pub product: Option<String>,
    /// Only those whose error contains this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Retry every open dead letter that a filter lets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkRetry {
    /// Which; `{}` is all of them.
    pub filter: BulkFilter,
    /// Only say which they are.
    #[serde(default)]
    pub dry_run: bool,
    /// Nobody needs one to retry; checked if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::api::schema::reason_or_null)]
    pub reason: Option<String>,
}

/// Discard every open dead letter that a filter lets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkDiscard {
    /// Which; `{}` is all of them.
    pub filter: BulkFilter,
    /// Only say which they are.
    #[serde(default)]
    pub dry_run: bool,
    /// Why, for the books.
    #[schema(schema_with = crate::api::schema::reason)]
    pub reason: String,
}

/// What a bulk request did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkAnswer {
    /// Open dead letters that the filter lets through.
    pub matched: u64,
    /// How many of them were changed; 0 in a dry run.
    pub changed: u64,
    /// Whether it was one.
    pub dry_run: bool,
    /// The numbers of those that matched.
    pub ids: Vec<i64>,
}
