//! The core, which says what the answers must be, and all that the redis engine says otherwise by design.

use std::collections::HashMap;
use std::time::Duration;

use yoink_core::{
    Command, CustomerId, Decision, Fact, IdempotencyKey, Inventory, NewProduct, OrderAccepted, OrderId,
    OrderState, ProductId, Purchase, Rejection, Replay, Timestamp,
};
use yoink_engine::{CallError, OrderStatus, OrderView, ProductView, Purchased, Replayed};

/// An answer to a command, with all that both must say alike.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A purchase.
    Bought(Purchased),
    /// An order that was cancelled or failed.
    Ended(OrderView, Replayed),
    /// A product that was made or changed, without its figures.
    Product {
        id: ProductId,
        details: NewProduct,
        paused: bool,
    },
    /// Units that came or went.
    Adjusted {
        delta: i64,
        replayed: Replayed,
    },
    Refused(Rejection),
    /// The engine gives no answer, for this reason; the core always does.
    Silence(CallError),
}

impl Answer {
    /// The figures of a product are compared after each step.
    pub fn product(ProductView { id, details, paused, .. }: ProductView) -> Self {
        Self::Product { id, details, paused }
    }

    /// Its name in the count of what was seen.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bought(bought) if bought.replayed == Replayed::Yes => "bought before",
            Self::Bought(_) => "bought",
            Self::Ended(_, Replayed::Yes) => "ended before",
            Self::Ended(_, Replayed::No) => "ended",
            Self::Product { .. } => "product",
            Self::Adjusted { replayed: Replayed::Yes, .. } => "adjusted before",
            Self::Adjusted { .. } => "adjusted",
            Self::Refused(rejection) => rejection.name(),
            Self::Silence(_) => "no answer",
        }
    }
}

/// The core's inventory, and what is needed to tell of it as the redis engine does.
#[derive(Default)]
pub struct Reference {
    pub inventory: Inventory,
    /// In order of acceptance.
    pub orders: Vec<OrderId>,
    numbers: HashMap<OrderId, u64>,
    accepted: HashMap<ProductId, u64>,
    remembered: HashMap<(String, ProductId), Vec<OrderId>>,
}

// What differs by design (docs/api.md, "What differs with the redis engine"). Everything else must be the same.

/// What is shown of a product is read from Redis now and then: a look that was under way before a step may end after it,
/// and what it saw is shown until the next one. Each step waits for the right figures, at most so long.
pub const FIGURES_LATE_MAX: Duration = Duration::from_secs(10);

impl Reference {
    /// A key counts for one customer and one product, because products may be on different servers.
    fn key_in_core(purchase: &Purchase) -> Option<IdempotencyKey> {
        let key = purchase.key.as_ref()?.as_str();
        Some(IdempotencyKey::parse(&format!("{}/{key}", purchase.product)).unwrap())
    }

    /// An order's `seq` is its number among the orders of its product since Redis was last filled. Nothing is lost
    /// here, so it was filled once.
    fn seq_of(&self, order: OrderId) -> u64 {
        self.numbers[&order]
    }

    /// Redis remembers the newest 20 orders of a customer and a product, and forgets those that end; the core finds
    /// older ones instead. What is named is only a help: `used` counts them all.
    fn as_remembered(&self, purchase: &Purchase, rejection: Rejection) -> Rejection {
        let Rejection::LimitReached { limit, used, mut existing } = rejection else { return rejection };
        let of = (purchase.customer.as_str().to_owned(), purchase.product);
        let remembered = self.remembered.get(&of).map(Vec::as_slice).unwrap_or_default();
        existing.retain(|order| remembered.contains(order));
        Rejection::LimitReached { limit, used, existing }
    }

    fn remember(&mut self, accepted: &OrderAccepted) {
        let of = (accepted.customer.as_str().to_owned(), accepted.product);
        let remembered = self.remembered.entry(of).or_default();
        remembered.insert(0, accepted.order);
        remembered.truncate(Rejection::EXISTING_MAX);
    }

    fn forget(&mut self, order: OrderId) {
        self.remembered.values_mut().for_each(|remembered| remembered.retain(|known| *known != order));
    }

    /// An accepted order becomes confirmed when the ledger has it, at no instant that anybody could name before; the
    /// end of a stream waits for it.
    fn status_of(state: OrderState) -> OrderStatus {
        match state {
            OrderState::Live => OrderStatus::Confirmed,
            OrderState::Cancelled => OrderStatus::Cancelled,
            OrderState::Failed => OrderStatus::Failed,
        }
    }

    /// The feed's time never runs back, whatever the clock does: an event is not older than the one before it. The core
    /// leaves that to its clock.
    pub fn time_of_event(before: Timestamp, now: Timestamp) -> Timestamp {
        now.max(before)
    }

    /// The ledger's event of an order. It names no key: the order's id is made from it.
    pub fn accepted(&self, order: OrderId) -> Option<OrderAccepted> {
        let OrderView { id, customer, product, quantity, unit_price, .. } = self.order(order)?;
        Some(OrderAccepted { order: id, customer, product, quantity, unit_price, key: None })
    }
}

impl Reference {
    /// The refusal that a purchase would get.
    pub fn refusal(&self, now: Timestamp, asked: &Purchase) -> Option<Rejection> {
        let in_core = Purchase { key: Self::key_in_core(asked), ..asked.clone() };
        match self.inventory.decide(now, &Command::Purchase(in_core)) {
            Decision::Refuse(rejection) => Some(self.as_remembered(asked, rejection)),
            _ => None,
        }
    }

    /// The answer to a command, and what happened. A purchase's `order` is the id that it gets if it is accepted.
    pub fn ask(&mut self, now: Timestamp, command: &Command) -> (Answer, Option<Fact>) {
        let in_core = match command {
            Command::Purchase(asked) => {
                Command::Purchase(Purchase { key: Self::key_in_core(asked), ..asked.clone() })
            }
            other => other.clone(),
        };
        match (self.inventory.decide(now, &in_core), command) {
            (Decision::Accept(event), _) => {
                self.inventory.apply(&event);
                self.note(&event.fact);
                (self.done(&event.fact), Some(event.fact))
            }
            (Decision::Replay(Replay::Order(order)), Command::Purchase(_)) => {
                (self.bought(order, Replayed::Yes), None)
            }
            (Decision::Replay(Replay::Order(order)), _) => {
                (Answer::Ended(self.order(order).unwrap(), Replayed::Yes), None)
            }
            (Decision::Replay(Replay::Adjustment(made)), _) => {
                (Answer::Adjusted { delta: made.delta, replayed: Replayed::Yes }, None)
            }
            (Decision::Replay(Replay::Product(product)), _) => (self.told(&product), None),
            (Decision::Refuse(rejection), Command::Purchase(asked)) => {
                (Answer::Refused(self.as_remembered(asked, rejection)), None)
            }
            (Decision::Refuse(rejection), _) => (Answer::Refused(rejection), None),
        }
    }

    /// The order that was accepted under this purchase's key.
    pub fn is_replay(&self, asked: &Purchase) -> bool {
        let before = Self::key_in_core(asked).map(|key| self.inventory.order_by_key(&asked.customer, &key));
        before.flatten().is_some()
    }

    /// Every product, in order of creation.
    pub fn products(&self) -> Vec<ProductView> {
        self.inventory.products().map(|product| self.product(&product.id)).collect()
    }

    /// An order as it is once the ledger has it.
    pub fn order(&self, id: OrderId) -> Option<OrderView> {
        let order = self.inventory.order(id)?;
        Some(OrderView {
            id,
            seq: self.seq_of(id),
            status: Self::status_of(order.state),
            customer: CustomerId::parse(order.customer).unwrap(),
            product: order.product,
            quantity: order.quantity,
            unit_price: order.unit_price,
            accepted_at: order.accepted_at,
            ended_at: order.end.map(|end| end.at),
            reason: order.end.map(|end| end.reason.clone()),
        })
    }

    fn product(&self, id: &ProductId) -> ProductView {
        let product = self.inventory.product(id).unwrap();
        ProductView {
            id: product.id,
            details: product.details.clone(),
            paused: product.paused,
            figures: product.figures(),
        }
    }

    fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::OrderAccepted(accepted) => {
                let number = self.accepted.entry(accepted.product).or_default();
                *number += 1;
                self.numbers.insert(accepted.order, *number);
                self.orders.push(accepted.order);
                self.remember(accepted);
            }
            Fact::OrderCancelled { order, .. } | Fact::OrderFailed { order, .. } => self.forget(*order),
            _ => {}
        }
    }

    fn done(&self, fact: &Fact) -> Answer {
        match fact {
            Fact::OrderAccepted(accepted) => self.bought(accepted.order, Replayed::No),
            Fact::OrderCancelled { order, .. } | Fact::OrderFailed { order, .. } => {
                Answer::Ended(self.order(*order).unwrap(), Replayed::No)
            }
            Fact::StockAdjusted(made) => Answer::Adjusted { delta: made.delta, replayed: Replayed::No },
            Fact::ProductCreated { id: product, .. }
            | Fact::ProductChanged { product, .. }
            | Fact::SalePaused { product }
            | Fact::SaleResumed { product } => self.told(product),
        }
    }

    fn told(&self, product: &ProductId) -> Answer {
        Answer::product(self.product(product))
    }

    fn bought(&self, id: OrderId, replayed: Replayed) -> Answer {
        let order = self.inventory.order(id).unwrap();
        let (accepted_at, unit_price) = (order.accepted_at, order.unit_price);
        let (seq, status) = (self.seq_of(id), OrderStatus::Accepted);
        Answer::Bought(Purchased { order: id, seq, accepted_at, unit_price, replayed, status })
    }
}
