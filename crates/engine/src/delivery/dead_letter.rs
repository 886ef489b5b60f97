//! Dead letters: orders that the ledger refused for good.

use yoink_core::{CustomerId, OrderId, ProductId, Seq, Timestamp};

/// Dead letters that one listing returns at most.
pub const DEAD_LETTERS_LISTED_MAX: usize = 1_000;

/// What happens to an order that the ledger refused for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDeadLetter {
    /// The order fails and its units come back, once.
    #[default]
    Release,
    /// The units stay sold until an operator retries or discards it.
    Park,
}

/// An order that the ledger refused for good, or something in a queue that could not be read as an order at all. Kept
/// for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number; the oldest has the lowest.
    pub id: i64,
    /// Which order; `None`, as are the next four, if it could not be read.
    pub order: Option<OrderId>,
    /// The event that accepted the order.
    pub seq: Option<Seq>,
    /// What was bought.
    pub product: Option<ProductId>,
    /// By whom.
    pub customer: Option<CustomerId>,
    /// How many units.
    pub quantity: Option<u32>,
    /// What could not be read, as text: the beginning of it, up to 500 characters, control characters escaped. `None`
    /// for an order.
    pub message: Option<String>,
    /// What the ledger said the last time, or why it could not be read.
    pub error: String,
    /// How often it was tried, retries by operators included; 0 if it could not be read.
    pub attempts: u32,
    /// When it became a dead letter.
    pub created_at: Timestamp,
    /// When its state changed last.
    pub updated_at: Timestamp,
    /// Where it is in its life.
    pub state: DeadLetterState,
    /// Why an operator discarded it.
    pub reason: Option<String>,
}

/// Where a dead letter is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadLetterState {
    /// Waits for an operator; the units are still sold.
    Parked,
    /// The units are being given back.
    Releasing,
    /// The units came back and the order has failed.
    Released,
    /// An operator sent it to be delivered again.
    Retried,
    /// An operator discarded it; the units came back if they had not before.
    Discarded,
}

impl DeadLetterState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Parked, Self::Releasing, Self::Released, Self::Retried, Self::Discarded];

    /// The state's name in answers and in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Releasing => "releasing",
            Self::Released => "released",
            Self::Retried => "retried",
            Self::Discarded => "discarded",
        }
    }

    /// The state with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Which dead letters to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only those of this product.
    pub product: Option<ProductId>,
    /// Only those whose error contains this text.
    pub error: Option<String>,
    /// Only those with a higher id (keyset paging); 0 begins at the beginning.
    pub after: i64,
    /// At most this many, up to [`DEAD_LETTERS_LISTED_MAX`].
    pub limit: usize,
    /// Only those in this state.
    pub state: Option<DeadLetterState>,
}

/// Why a dead letter was not retried or discarded. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterRefusal {
    /// There is none with this id.
    #[error("there is no such dead letter")]
    NotFound,
    /// Its units are back in stock, or on their way; delivering it now would sell them twice.
    #[error("the units of this order are back in stock; it cannot be delivered any more")]
    AlreadyReleased,
    /// An operator discarded it.
    #[error("this dead letter was discarded, and the units of its order are back in stock")]
    AlreadyDiscarded,
    /// An operator sent it to be delivered again.
    #[error("this order was sent to be delivered again; cancel the order instead")]
    AlreadyRetried,
    /// It is no order.
    #[error(
        "this message could not be read as an order, so there is nothing to deliver; it can only be discarded"
    )]
    Unreadable,
}
