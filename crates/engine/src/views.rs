//! What the engine answers: owned copies, so that nothing outside the writer touches the inventory.

use yoink_core::{
    CustomerId, Figures, IdempotencyKey, Money, NewProduct, Order, OrderId, OrderState, ProductChange,
    ProductId, Seq, Timestamp,
};

/// What a buyer asks for; the engine adds the order id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurchaseRequest {
    /// Who buys.
    pub customer: CustomerId,
    /// What.
    pub product: ProductId,
    /// How many, 1 to [`yoink_core::QUANTITY_MAX`].
    pub quantity: u32,
    /// What makes a repetition of this request the same request.
    pub key: Option<IdempotencyKey>,
}

/// An accepted purchase, or one that will be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purchased {
    /// The order.
    pub order: OrderId,
    /// The event that accepted it; 0 while it is queued.
    pub seq: Seq,
    /// When it was accepted, or queued.
    pub accepted_at: Timestamp,
    /// The price of one unit.
    pub unit_price: Money,
    /// Whether this answers a repetition of a request that was accepted before.
    pub replayed: Replayed,
    /// [`OrderStatus::Accepted`] where the answer is the decision, [`OrderStatus::Queued`] where that follows.
    pub status: OrderStatus,
}

/// Whether a call did something or found it done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It did something.
    No,
    /// The same request was accepted before; nothing happened now.
    Yes,
}

/// Where an order is in its life: `accepted → confirmed → cancelled`, or `accepted → failed`. Where the ledger decides,
/// `queued → confirmed → cancelled`, or `queued → rejected`, or `queued → failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderStatus {
    /// The request is kept, and will be decided.
    Queued,
    /// The units are the customer's; the ledger does not have the order yet.
    Accepted,
    /// The ledger has it.
    Confirmed,
    /// Somebody gave the units back.
    Cancelled,
    /// The ledger can never take it, or never decide it; units that it had came back.
    Failed,
    /// It was decided that the customer gets nothing.
    Rejected,
}

impl OrderStatus {
    /// Every status, in the order of an order's life.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Accepted, Self::Confirmed, Self::Cancelled, Self::Failed, Self::Rejected];

    /// The status in answers, metrics and the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Accepted => "accepted",
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
        }
    }
}

/// An order as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderView {
    /// Its id.
    pub id: OrderId,
    /// The event that accepted it.
    pub seq: Seq,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// Who bought.
    pub customer: CustomerId,
    /// What.
    pub product: ProductId,
    /// How many.
    pub quantity: u32,
    /// The price of one unit when it was accepted.
    pub unit_price: Money,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it was cancelled or failed.
    pub ended_at: Option<Timestamp>,
    /// Why it was cancelled or failed.
    pub reason: Option<Box<str>>,
}

impl OrderView {
    /// Copies an order; `is_confirmed` says whether the ledger has it.
    pub(crate) fn new(order: &Order<'_>, is_confirmed: impl FnOnce(&Order<'_>) -> bool) -> Option<Self> {
        let status = status(order, is_confirmed);
        Some(Self {
            id: order.id,
            seq: order.seq,
            status,
            customer: CustomerId::parse(order.customer).ok()?,
            product: order.product,
            quantity: order.quantity,
            unit_price: order.unit_price,
            accepted_at: order.accepted_at,
            ended_at: order.end.map(|end| end.at),
            reason: order.end.map(|end| end.reason.clone()),
        })
    }
}

/// Where an order is in its life; `is_confirmed` says whether the ledger has it.
pub(crate) fn status(order: &Order<'_>, is_confirmed: impl FnOnce(&Order<'_>) -> bool) -> OrderStatus {
    match order.state {
        OrderState::Cancelled => OrderStatus::Cancelled,
        OrderState::Failed => OrderStatus::Failed,
        OrderState::Live if is_confirmed(order) => OrderStatus::Confirmed,
        OrderState::Live => OrderStatus::Accepted,
    }
}

/// How an order failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Box<str>,
}

/// An order of which little more than its id can be told. Only the rabbitmq engine has such orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderInShort {
    /// It may be queued and undecided: its id was made for this ledger. One in 65,536 made-up ids may be, too.
    Queued,
    /// It was queued, and could not be decided because the ledger does not have its product.
    Failed(Failure),
}

/// Which orders to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderFilter {
    /// Only this customer's.
    pub customer: Option<CustomerId>,
    /// Only those at this point of their life.
    pub status: Option<OrderStatus>,
    /// Only those of this product.
    pub product: Option<ProductId>,
    /// Only those accepted after this event (keyset paging); 0 begins at the beginning.
    pub after: Seq,
    /// At most this many, up to [`crate::limits::LIST_ORDERS_MAX`].
    pub limit: usize,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderPage {
    /// The orders, oldest first. May be fewer than asked for although more follow, if many had to be passed over.
    pub orders: Vec<OrderView>,
    /// Where the next page begins ([`OrderFilter::after`]); `None` if this is the last.
    pub next_after: Option<Seq>,
}

/// A product as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductView {
    /// Its id.
    pub id: ProductId,
    /// Name, price, window and limits (its `stock` is what it began with).
    pub details: NewProduct,
    /// Whether an operator paused the sale.
    pub paused: bool,
    /// Its units.
    pub figures: Figures,
}

/// What is changed about a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Name, price, window or limits.
    Details(ProductChange),
    /// It is not sold for now.
    Pause,
    /// It is sold again.
    Resume,
}

/// A restock or withdrawal that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjusted {
    /// The event that made it.
    pub seq: Seq,
    /// Units added, or taken if below zero.
    pub delta: i64,
    /// The product's units after it, or now if it was made before.
    pub figures: Figures,
    /// Whether it was made before.
    pub replayed: Replayed,
}
