//! A shop under random commands, watched from all sides: the inventory that decides, a follower that learns only from
//! its events, the audit, and a plain record of what was accepted.

use std::collections::{BTreeMap, HashMap};

use yoink_core::audit::Audit;
use yoink_core::{
    Command, CustomerId, Decision, Event, Fact, Inventory, OrderId, OrderState, ProductChange, ProductId,
    Purchase, Rejection, Replay, STOCK_UNITS_MAX, Timestamp, Window,
};

use crate::generator::{Generator, Roll};

/// How often each kind of answer and fact was seen.
pub type Coverage = BTreeMap<&'static str, u64>;

/// What was accepted under a customer's key.
#[derive(Debug, PartialEq)]
struct Accepted {
    order: OrderId,
    product: ProductId,
    quantity: u32,
}

#[derive(Default)]
pub struct Shop {
    pub inventory: Inventory,
    pub log: Vec<Event>,
    pub generator: Generator,
    follower: Inventory,
    audit: Audit,
    accepted_by_key: HashMap<(String, String), Accepted>,
    pub coverage: Coverage,
}

impl Shop {
    /// Makes a command, asks it, and holds the answer against everything that is known.
    pub fn play(&mut self, roll: &Roll) {
        let command = self.generator.command(roll);
        let now = self.generator.now;
        let decision = self.inventory.decide(now, &command);
        assert_eq!(decision, self.inventory.decide(now, &command), "decided twice");
        assert_eq!(decision, self.follower.decide(now, &command), "the follower differs");
        let seq = self.inventory.last_seq();
        match decision {
            Decision::Accept(event) => self.accept(&command, event),
            Decision::Replay(replay) => {
                self.assert_replays(&command, &replay);
                *self.coverage.entry(replay_name(&replay)).or_default() += 1;
                assert_eq!(self.inventory.last_seq(), seq);
            }
            Decision::Refuse(rejection) => {
                self.assert_justified(now, &command, &rejection);
                *self.coverage.entry(rejection.name()).or_default() += 1;
                assert_eq!(self.inventory.last_seq(), seq);
            }
        }
    }

    fn accept(&mut self, command: &Command, event: Event) {
        assert_eq!(event.at, self.generator.now);
        assert_eq!(self.follower.check(&event), Ok(()), "{event:?}");
        self.follower.apply(&event);
        self.inventory.apply(&event);
        self.audit.observe(&event);
        *self.coverage.entry(fact_name(&event.fact)).or_default() += 1;
        if let (Fact::OrderAccepted(accepted), Command::Purchase(asked)) = (&event.fact, command) {
            assert_eq!((accepted.order, accepted.product), (asked.order, asked.product));
            assert_eq!((&accepted.customer, accepted.quantity), (&asked.customer, asked.quantity));
            assert_eq!(accepted.key, asked.key);
            self.generator.orders.push(accepted.order);
            if let Some(of_key) = of_key(asked) {
                let before = self.accepted_by_key.insert(
                    of_key,
                    Accepted { order: asked.order, product: asked.product, quantity: asked.quantity },
                );
                assert_eq!(before, None, "a key was accepted twice");
            }
        }
        self.log.push(event);
    }

    fn assert_replays(&self, command: &Command, replay: &Replay) {
        match (command, replay) {
            (Command::Purchase(asked), Replay::Order(order)) => {
                let original = of_key(asked).and_then(|of_key| self.accepted_by_key.get(&of_key));
                let expected = Accepted { order: *order, product: asked.product, quantity: asked.quantity };
                assert_eq!(original, Some(&expected), "{command:?}");
            }
            (Command::Cancel { order, .. } | Command::Fail { order, .. }, Replay::Order(replayed)) => {
                assert_eq!(order, replayed);
                assert_ne!(self.inventory.order(*order).map(|o| o.state), Some(OrderState::Live));
            }
            (Command::AdjustStock(asked), Replay::Adjustment(record)) => {
                let original = &self.log[usize::try_from(record.seq).expect("a short log") - 1].fact;
                let Fact::StockAdjusted(made) = original else {
                    panic!("{record:?} is no adjustment, but {original:?}")
                };
                assert_eq!((made, record.delta), (asked, asked.delta));
            }
            (Command::ChangeProduct { product, .. }, Replay::Product(replayed))
            | (Command::Pause { product } | Command::Resume { product }, Replay::Product(replayed)) => {
                assert_eq!(product, replayed);
            }
            _ => panic!("{command:?} was replayed as {replay:?}"),
        }
    }

    /// A "no" must be true, too: a shop that refuses everybody never oversells either.
    fn assert_justified(&self, now: Timestamp, command: &Command, rejection: &Rejection) {
        let is_true = match command {
            Command::Purchase(asked) => self.refuses_rightly(now, asked, rejection),
            Command::Cancel { order, .. } | Command::Fail { order, .. } => match rejection {
                Rejection::OrderNotFound => !self.generator.orders.contains(order),
                Rejection::OrderFailed => {
                    self.inventory.order(*order).map(|o| o.state) == Some(OrderState::Failed)
                }
                _ => false,
            },
            Command::CreateProduct(asked) => match rejection {
                Rejection::ProductExists => asked.id.is_some_and(|id| self.inventory.product(&id).is_some()),
                Rejection::StockTooLarge => asked.stock > STOCK_UNITS_MAX,
                Rejection::WindowEmpty => is_empty(asked.window),
                _ => false,
            },
            Command::AdjustStock(asked) => match (self.inventory.product(&asked.product), rejection) {
                (found, Rejection::ProductNotFound) => found.is_none(),
                (Some(found), Rejection::BelowCommitted { available }) => {
                    *available == found.figures().available && asked.delta.unsigned_abs() > *available
                }
                (Some(found), Rejection::StockTooLarge) => {
                    found.figures().stocked + asked.delta.unsigned_abs() > STOCK_UNITS_MAX
                }
                (Some(_), Rejection::KeyReused { original: None }) => self.log.iter().any(|event| {
                    matches!(&event.fact, Fact::StockAdjusted(made) if made.product == asked.product
                        && made.key == asked.key && made.delta != asked.delta)
                }),
                _ => false,
            },
            Command::ChangeProduct { product, change } => {
                match (self.inventory.product(product), rejection) {
                    (found, Rejection::ProductNotFound) => found.is_none(),
                    (Some(found), Rejection::WindowEmpty) => is_empty(Window {
                        starts_at: change.starts_at.unwrap_or(found.details.window.starts_at),
                        ends_at: change.ends_at.unwrap_or(found.details.window.ends_at),
                    }),
                    _ => false,
                }
            }
            Command::Pause { product } | Command::Resume { product } => {
                *rejection == Rejection::ProductNotFound && self.inventory.product(product).is_none()
            }
        };
        assert!(is_true, "{command:?} was refused with {rejection:?}");
    }

    fn refuses_rightly(&self, now: Timestamp, asked: &Purchase, rejection: &Rejection) -> bool {
        let Some(product) = self.inventory.product(&asked.product) else {
            return *rejection == Rejection::ProductNotFound;
        };
        let details = &product.details;
        match rejection {
            Rejection::KeyReused { original } => {
                of_key(asked).and_then(|of_key| self.accepted_by_key.get(&of_key)).is_some_and(|before| {
                    Some(before.order) == *original
                        && (before.product != asked.product || before.quantity != asked.quantity)
                })
            }
            Rejection::QuantityAboveMax { max_per_order } => {
                *max_per_order == details.max_per_order && asked.quantity > *max_per_order
            }
            Rejection::SaleNotStarted { starts_at } => {
                details.window.starts_at == Some(*starts_at) && now < *starts_at
            }
            Rejection::SaleEnded { ends_at } => details.window.ends_at == Some(*ends_at) && now >= *ends_at,
            Rejection::SalePaused => product.paused,
            Rejection::LimitReached { limit, used, existing } => {
                let live: Vec<_> = self
                    .inventory
                    .orders_of(asked.customer.as_str())
                    .filter(|order| order.product == asked.product && order.state == OrderState::Live)
                    .collect();
                let ids = live.iter().map(|order| order.id).take(Rejection::EXISTING_MAX);
                details.limit_per_customer == Some(*limit)
                    && *used == live.iter().map(|order| order.quantity).sum::<u32>()
                    && used + asked.quantity > *limit
                    && *existing == ids.collect::<Vec<_>>()
            }
            Rejection::SoldOut { available } => {
                *available == product.figures().available && u64::from(asked.quantity) > *available
            }
            _ => false,
        }
    }

    /// The inventory, the follower and the audit say the same.
    pub fn assert_agreement(&self) {
        let report = self.audit.report();
        assert_eq!(report.findings, []);
        assert_eq!(report.seq, self.inventory.last_seq());
        let counted: Vec<_> = report
            .products
            .iter()
            .map(|p| (p.id, [p.stocked, p.available, p.held, p.sold, p.withheld]))
            .collect();
        let claimed: Vec<_> = self
            .inventory
            .products()
            .map(|product| {
                let f = product.figures();
                assert_eq!(f.conservation_error_units(), 0);
                let figures = [f.stocked, f.available, f.held, f.sold, f.withheld];
                (product.id, figures.map(i128::from))
            })
            .collect();
        assert_eq!(counted, claimed);
        let in_state = |state| {
            let orders = self.inventory.orders_after(0);
            orders.filter(|order| order.state == state).count() as u64
        };
        assert_eq!(report.orders.accepted, self.inventory.orders_len() as u64);
        assert_eq!(report.orders.live, in_state(OrderState::Live));
        assert_eq!(report.orders.cancelled, in_state(OrderState::Cancelled));
        assert_eq!(report.orders.failed, in_state(OrderState::Failed));
        assert_equal(&self.inventory, &self.follower);
    }

    /// Opens every sale, and sends new buyers until each is told that there is nothing left.
    pub fn sell_out(&mut self) {
        let now = self.generator.now;
        let products: Vec<_> = self.inventory.products().map(|p| (p.id, p.figures().available)).collect();
        let few = products.into_iter().filter(|(_, available)| *available < 10_000);
        for (product, available) in few {
            let open = ProductChange {
                starts_at: Some(None),
                ends_at: Some(None),
                limit_per_customer: Some(Some(1)),
                ..ProductChange::default()
            };
            for command in [Command::ChangeProduct { product, change: open }, Command::Resume { product }] {
                if let Decision::Accept(event) = self.inventory.decide(now, &command) {
                    self.accept(&command, event);
                }
            }
            for buyer in 0..=available {
                let command = Command::Purchase(Purchase {
                    order: OrderId(((1_u128 + self.log.len() as u128) << 64).to_be_bytes()),
                    customer: CustomerId::parse(&format!("late-{buyer}")).expect("a customer id"),
                    product,
                    quantity: 1,
                    key: None,
                });
                match self.inventory.decide(now, &command) {
                    Decision::Accept(event) => self.accept(&command, event),
                    other => {
                        assert_eq!(buyer, available, "{other:?}");
                        assert_eq!(other, Decision::Refuse(Rejection::SoldOut { available: 0 }));
                    }
                }
            }
            let figures = self.inventory.product(&product).expect("the product").figures();
            assert_eq!((figures.available, figures.sold + figures.withheld), (0, figures.stocked));
        }
    }

    /// Takes the follower apart and puts it together again; it must go on as before.
    pub fn rebuild_follower(&mut self) {
        self.follower = rebuilt(&self.follower);
        assert_equal(&self.inventory, &self.follower);
    }
}

/// From parts, as after a restart from a snapshot.
pub fn rebuilt(inventory: &Inventory) -> Inventory {
    let mut rebuilt = Inventory::new();
    rebuilt.reserve_orders(inventory.orders_len() / 2);
    for part in inventory.parts() {
        rebuilt.insert_part(part).expect("a part of a sound inventory");
    }
    rebuilt.finish_parts(inventory.last_seq(), inventory.last_at()).expect("the parts add up");
    rebuilt
}

/// Whatever can be read of both is the same.
pub fn assert_equal(left: &Inventory, right: &Inventory) {
    assert_eq!((left.last_seq(), left.last_at()), (right.last_seq(), right.last_at()));
    assert!(left.products().eq(right.products()));
    assert!(left.orders_after(0).eq(right.orders_after(0)));
    assert!(left.customers().eq(right.customers()));
    for customer in left.customers() {
        assert!(left.orders_of(customer).eq(right.orders_of(customer)));
        for product in left.products() {
            let units = left.live_units(customer, &product.id);
            assert_eq!(units, right.live_units(customer, &product.id));
        }
    }
}

fn of_key(asked: &Purchase) -> Option<(String, String)> {
    let key = asked.key.as_ref()?;
    Some((asked.customer.as_str().to_owned(), key.as_str().to_owned()))
}

fn is_empty(window: Window) -> bool {
    matches!((window.starts_at, window.ends_at), (Some(starts), Some(ends)) if ends <= starts)
}

fn fact_name(fact: &Fact) -> &'static str {
    match fact {
        Fact::ProductCreated { .. } => "ProductCreated",
        Fact::ProductChanged { .. } => "ProductChanged",
        Fact::StockAdjusted(_) => "StockAdjusted",
        Fact::SalePaused { .. } => "SalePaused",
        Fact::SaleResumed { .. } => "SaleResumed",
        Fact::OrderAccepted(_) => "OrderAccepted",
        Fact::OrderCancelled { .. } => "OrderCancelled",
        Fact::OrderFailed { .. } => "OrderFailed",
    }
}

fn replay_name(replay: &Replay) -> &'static str {
    match replay {
        Replay::Order(_) => "Replay::Order",
        Replay::Adjustment(_) => "Replay::Adjustment",
        Replay::Product(_) => "Replay::Product",
    }
}

/// Everything that random commands must have led to.
pub fn expected_coverage() -> impl Iterator<Item = &'static str> {
    let others = [
        "ProductCreated",
        "ProductChanged",
        "StockAdjusted",
        "SalePaused",
        "SaleResumed",
        "OrderAccepted",
        "OrderCancelled",
        "OrderFailed",
        "Replay::Order",
        "Replay::Adjustment",
        "Replay::Product",
    ];
    // No command can break the law of conservation.
    let rejections = Rejection::NAMES.into_iter().filter(|name| *name != "conservation-broken");
    rejections.chain(others)
}
