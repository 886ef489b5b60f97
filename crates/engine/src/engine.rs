//! The engine as the edge sees it: one of a closed set of ways of selling correctly.

use std::time::Duration;

use tokio::sync::oneshot;
use yoink_core::{
    Event, NewProduct, OrderId, ProductChange, ProductId, Rejection, Seq, StockAdjustment, Timestamp,
};

use crate::deliveries::Deliveries;
use crate::embedded::clock::TimeSource;
use crate::embedded::engine::EmbeddedEngine;
use crate::embedded::recovery::RecoveryReport;
use crate::embedded::writer::EngineState;
use crate::figures::EngineFigures;
use crate::node::Ping;
use crate::options::Options;
use crate::rabbitmq::{Hint, RabbitEngine, RabbitOpenError, RabbitOptions, RabbitStatus};
use crate::redis::{RedisEngine, RedisOpenError, RedisOptions, RedisStatus, RepairError, Repaired};
use crate::views::{
    Adjusted, Change, Failure, OrderFilter, OrderInShort, OrderPage, OrderView, ProductView, PurchaseRequest,
    Purchased, Replayed,
};
use crate::{CallError, Durability, OpenError, Reconciliation, Storefront, lane, redis};

/// Whether the ledger has an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// It does.
    Yes,
    /// Not in the time given.
    NotYet,
    /// It was decided that the customer gets nothing; only where requests are queued before they are decided.
    Rejected(Rejection),
    /// The order has failed; only where requests are queued before they are decided.
    Failed(Failure),
}

/// An engine. Cheap to clone; every clone is the same engine.
#[derive(Clone, Debug)]
pub struct Engine {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Embedded(EmbeddedEngine),
    Redis(RedisEngine),
    Rabbit(RabbitEngine),
}

/// Moves the calls and answers of one lane. To be run on the lane's runtime.
#[derive(Debug)]
pub struct LaneDriver {
    kind: DriverKind,
}

#[derive(Debug)]
enum DriverKind {
    Embedded(lane::LaneDriver),
    Redis(redis::LaneDriver),
    /// The publisher moves everything itself.
    None,
}

impl LaneDriver {
    /// Runs until the last [`Engine`] of this lane is dropped; or ends at once, if the engine needs none.
    pub async fn run(self) {
        match self.kind {
            DriverKind::Embedded(driver) => driver.run().await,
            DriverKind::Redis(driver) => driver.run().await,
            DriverKind::None => {}
        }
    }
}

/// Asks whichever engine it is.
macro_rules! ask {
    ($engine:expr, $one:ident => $answer:expr) => {
        match &$engine.kind {
            Kind::Embedded($one) => $answer,
            Kind::Redis($one) => $answer,
            Kind::Rabbit($one) => $answer,
        }
    };
}

/// Asks the embedded engine, or the desk of one that works on PostgreSQL.
macro_rules! ask_desk {
    ($engine:expr, $one:ident => $answer:expr) => {
        match &$engine.kind {
            Kind::Embedded($one) => $answer,
            Kind::Redis(engine) => {
                let $one = engine.desk();
                $answer
            }
            Kind::Rabbit(engine) => {
                let $one = engine.desk();
                $answer
            }
        }
    };
}

impl Engine {
    /// Opens the embedded engine: reads the data folder back and starts selling.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was changed then.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        Ok(Self { kind: Kind::Embedded(EmbeddedEngine::open(options)?) })
    }

    /// As [`Engine::open`], with another source of time.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with_time(options: Options, time: Box<dyn TimeSource>) -> Result<Self, OpenError> {
        Ok(Self { kind: Kind::Embedded(EmbeddedEngine::open_with_time(options, time)?) })
    }

    /// Opens the redis engine: connects to Redis and PostgreSQL and starts what goes on in the background.
    ///
    /// # Errors
    /// See [`RedisOpenError`].
    pub fn open_redis(options: RedisOptions) -> Result<Self, RedisOpenError> {
        Ok(Self { kind: Kind::Redis(RedisEngine::open(options)?) })
    }

    /// Opens the rabbitmq engine: connects to PostgreSQL and starts what goes on in the background, where it connects to
    /// the broker and to Redis as soon as they are there.
    ///
    /// # Errors
    /// See [`RabbitOpenError`].
    pub fn open_rabbit(options: RabbitOptions) -> Result<Self, RabbitOpenError> {
        Ok(Self { kind: Kind::Rabbit(RabbitEngine::open(options)?) })
    }

    /// The engine's name in configuration and answers.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Embedded(_) => "embedded",
            Kind::Redis(_) => "redis",
            Kind::Rabbit(_) => "rabbitmq",
        }
    }

    /// The same engine with a lane of its own: calls made in one turn of a runtime travel together, and so do their
    /// answers. Run the driver on that runtime.
    pub fn with_own_lane(&self) -> (Self, LaneDriver) {
        match &self.kind {
            Kind::Embedded(engine) => {
                let (engine, driver) = engine.with_own_lane();
                (Self { kind: Kind::Embedded(engine) }, LaneDriver { kind: DriverKind::Embedded(driver) })
            }
            Kind::Redis(engine) => {
                let (engine, driver) = engine.with_own_lane();
                (Self { kind: Kind::Redis(engine) }, LaneDriver { kind: DriverKind::Redis(driver) })
            }
            Kind::Rabbit(_) => (self.clone(), LaneDriver { kind: DriverKind::None }),
        }
    }

    /// What everybody may see without asking for a decision.
    pub fn storefront(&self) -> &Storefront {
        ask_desk!(self, one => one.storefront())
    }

    /// One product, also if it was made on another node a moment ago.
    pub async fn product(&self, id: &ProductId) -> Option<ProductView> {
        match &self.kind {
            Kind::Embedded(engine) => engine.storefront().product(id),
            Kind::Redis(engine) => engine.product(id).await,
            Kind::Rabbit(engine) => engine.product(id).await,
        }
    }

    /// The rejection that a purchase would certainly get now; `None`: only a decision can tell.
    pub fn refuse_early(&self, request: &PurchaseRequest) -> Option<Rejection> {
        match &self.kind {
            Kind::Embedded(engine) => engine.storefront().refuse_early(engine.now(), request),
            Kind::Redis(engine) => engine.would_refuse(request),
            Kind::Rabbit(engine) => engine.would_refuse(request, Hint::Heeded),
        }
    }

    /// As [`Engine::refuse_early`], for what is bought with [`Engine::enqueue`].
    pub fn refuse_to_enqueue(&self, request: &PurchaseRequest) -> Option<Rejection> {
        match &self.kind {
            Kind::Rabbit(engine) => engine.would_refuse(request, Hint::Ignored),
            Kind::Embedded(_) | Kind::Redis(_) => self.refuse_early(request),
        }
    }

    /// The engine's time.
    pub fn now(&self) -> Timestamp {
        ask_desk!(self, one => one.now())
    }

    /// What an answer survives.
    pub fn durability(&self) -> Durability {
        ask_desk!(self, one => one.durability())
    }

    /// What the engine as a whole is doing.
    pub fn state(&self) -> EngineState {
        ask_desk!(self, one => one.state())
    }

    /// What recovery did when the engine was opened.
    pub fn recovery(&self) -> RecoveryReport {
        match &self.kind {
            Kind::Embedded(engine) => engine.recovery(),
            Kind::Redis(_) | Kind::Rabbit(_) => RecoveryReport::default(),
        }
    }

    /// The last committed event; with the redis engine, how many purchases were accepted in the epochs on sale; with the
    /// rabbitmq engine, how many this node has queued.
    pub fn last_seq(&self) -> Seq {
        ask_desk!(self, one => one.last_seq())
    }

    /// Buys.
    ///
    /// # Errors
    /// The sale says no, or the engine is too slow. Only [`CallError::OutcomeUnknown`] leaves it open whether the
    /// order was accepted: ask again with the same key.
    pub async fn purchase(&self, request: PurchaseRequest) -> Result<Purchased, CallError> {
        match &self.kind {
            Kind::Embedded(engine) => engine.purchase(request).await,
            Kind::Redis(engine) => engine.purchase(request).await,
            Kind::Rabbit(engine) => engine.purchase(request, Hint::Heeded).await,
        }
    }

    /// Buys, and leaves it to the decision whether units are left: where requests are queued before they are decided, this
    /// one is queued, even if the ledger has none. With other engines as [`Engine::purchase`].
    ///
    /// # Errors
    /// As [`Engine::purchase`].
    pub async fn enqueue(&self, request: PurchaseRequest) -> Result<Purchased, CallError> {
        match &self.kind {
            Kind::Rabbit(engine) => engine.purchase(request, Hint::Ignored).await,
            Kind::Embedded(_) | Kind::Redis(_) => self.purchase(request).await,
        }
    }

    /// Waits until the ledger has the order, at most `wait`. An order that ended meanwhile is not confirmed.
    pub async fn wait_confirmed(&self, purchased: &Purchased, wait: Duration) -> Confirmed {
        match &self.kind {
            Kind::Embedded(engine) => engine.wait_confirmed(purchased, wait).await,
            Kind::Redis(engine) => engine.desk().wait_confirmed(purchased, wait).await,
            Kind::Rabbit(engine) => engine.wait_confirmed(purchased, wait).await,
        }
    }

    /// Waits until delivery is done with event `seq` of the embedded engine and what it led to, at most `wait`. With
    /// other engines: until nothing waits for the ledger.
    pub async fn wait_delivered(&self, seq: Seq, wait: Duration) -> Confirmed {
        match &self.kind {
            Kind::Embedded(engine) => engine.wait_delivered(seq, wait).await,
            Kind::Redis(engine) => engine.wait_settled(wait).await,
            Kind::Rabbit(engine) => engine.wait_settled(wait).await,
        }
    }

    /// One order.
    ///
    /// # Errors
    /// The engine is too slow or closing, or a server that it needs cannot be reached.
    pub async fn order(&self, id: OrderId) -> Result<Option<OrderView>, CallError> {
        ask!(self, engine => engine.order(id).await)
    }

    /// An order that [`Engine::order`] does not find, although a request was queued for it or may have been.
    ///
    /// # Errors
    /// As [`Engine::order`].
    pub async fn order_in_short(&self, id: OrderId) -> Result<Option<OrderInShort>, CallError> {
        match &self.kind {
            Kind::Embedded(_) | Kind::Redis(_) => Ok(None),
            Kind::Rabbit(engine) => engine.order_in_short(id).await,
        }
    }

    /// Whether there is an order under the request's key already, so that a purchase can only tell of it, or that the
    /// key was used for something else.
    ///
    /// # Errors
    /// As [`Engine::order`].
    pub async fn is_replay(&self, request: &PurchaseRequest) -> Result<bool, CallError> {
        match &self.kind {
            Kind::Embedded(engine) => match &request.key {
                Some(key) if engine.storefront().may_have_bought(&request.customer) => {
                    let before = engine.order_by_key(request.customer.clone(), key.clone()).await?;
                    Ok(before.is_some())
                }
                _ => Ok(false),
            },
            Kind::Redis(engine) => engine.is_replay(request).await,
            Kind::Rabbit(engine) => engine.is_replay(request).await,
        }
    }

    /// A page of orders, oldest first.
    ///
    /// # Errors
    /// As [`Engine::order`].
    pub async fn orders(&self, filter: OrderFilter) -> Result<OrderPage, CallError> {
        ask_desk!(self, one => one.orders(filter).await)
    }

    /// Gives the units of an order back because somebody asked for it.
    ///
    /// # Errors
    /// There is no such order, or it has failed; or as [`Engine::order`].
    pub async fn cancel(&self, id: OrderId, reason: Box<str>) -> Result<(OrderView, Replayed), CallError> {
        ask!(self, engine => engine.cancel(id, reason).await)
    }

    /// Gives the units of an order back as delivery does for a dead letter. For tests of decisions.
    ///
    /// # Errors
    /// There is no such order; or as [`Engine::order`].
    #[cfg(feature = "faults")]
    pub async fn fail(&self, id: OrderId, reason: Box<str>) -> Result<(OrderView, Replayed), CallError> {
        ask!(self, engine => engine.fail(id, reason).await)
    }

    /// Sets the time of every decision. For tests of decisions, with engines that have no source of time of their own.
    #[cfg(feature = "faults")]
    pub fn set_now(&self, now: Timestamp) {
        match &self.kind {
            Kind::Embedded(_) => {}
            Kind::Redis(engine) => engine.desk().node.set_now(now),
            Kind::Rabbit(engine) => engine.desk().node.set_now(now),
        }
    }

    /// Puts something on sale.
    ///
    /// # Errors
    /// It exists, or what is asked does not fit together; or as [`Engine::order`].
    pub async fn create_product(&self, product: NewProduct) -> Result<ProductView, CallError> {
        ask!(self, engine => engine.create_product(product).await)
    }

    /// Changes what is said about a product; never its stock.
    ///
    /// # Errors
    /// There is no such product, or what is asked does not fit together; or as [`Engine::order`].
    pub async fn change_product(
        &self,
        id: ProductId,
        change: ProductChange,
    ) -> Result<ProductView, CallError> {
        ask!(self, engine => engine.change(id, Change::Details(change)).await)
    }

    /// Stops selling a product.
    ///
    /// # Errors
    /// There is no such product; or as [`Engine::order`].
    pub async fn pause(&self, id: ProductId) -> Result<ProductView, CallError> {
        ask!(self, engine => engine.change(id, Change::Pause).await)
    }

    /// Sells a product again.
    ///
    /// # Errors
    /// There is no such product; or as [`Engine::order`].
    pub async fn resume(&self, id: ProductId) -> Result<ProductView, CallError> {
        ask!(self, engine => engine.change(id, Change::Resume).await)
    }

    /// Restocks or withdraws.
    ///
    /// # Errors
    /// There is no such product, the key was used for another adjustment, or the units are not there; or as
    /// [`Engine::order`].
    pub async fn adjust_stock(&self, adjustment: StockAdjustment) -> Result<Adjusted, CallError> {
        ask!(self, engine => engine.adjust_stock(adjustment).await)
    }

    /// Committed events after `after`, oldest first, at most `limit` and [`crate::limits::READ_EVENTS_MAX`].
    ///
    /// # Errors
    /// They cannot be read; or as [`Engine::order`].
    pub async fn events(&self, after: Seq, limit: usize) -> Result<Vec<Event>, CallError> {
        ask_desk!(self, one => one.events(after, limit).await)
    }

    /// Delivery: where it is, its switch, its dead letters, the ledger behind it.
    pub fn delivery(&self) -> Deliveries<'_> {
        match &self.kind {
            Kind::Embedded(engine) => engine.delivery().into(),
            Kind::Redis(engine) => Deliveries::of_redis(engine),
            Kind::Rabbit(engine) => Deliveries::of_rabbit(engine),
        }
    }

    /// Recounts everything; selling goes on.
    ///
    /// # Errors
    /// What is counted cannot be read; or as [`Engine::order`].
    pub async fn reconcile(&self) -> Result<Reconciliation, CallError> {
        ask!(self, engine => engine.reconcile().await)
    }

    /// Fills Redis anew, under a new epoch, with every product in which it differs from the ledger, writes down why, and
    /// waits until each can be bought again. Nothing is sold twice by it.
    ///
    /// # Errors
    /// See [`RepairError`]; other engines than the redis engine need none.
    pub async fn repair(&self, reason: Box<str>) -> Result<Vec<Repaired>, RepairError> {
        match &self.kind {
            Kind::Embedded(_) | Kind::Rabbit(_) => Err(RepairError::OtherEngine),
            Kind::Redis(engine) => engine.repair(reason).await,
        }
    }

    /// How the redis engine is; `None` with another engine. No server is asked.
    pub fn redis_status(&self) -> Option<RedisStatus> {
        match &self.kind {
            Kind::Embedded(_) | Kind::Rabbit(_) => None,
            Kind::Redis(engine) => Some(engine.status()),
        }
    }

    /// How the rabbitmq engine is; `None` with another engine. No server is asked.
    pub fn rabbit_status(&self) -> Option<RabbitStatus> {
        match &self.kind {
            Kind::Embedded(_) | Kind::Redis(_) => None,
            Kind::Rabbit(engine) => Some(engine.status()),
        }
    }

    /// Asks the servers behind the engine for a sign of life; the embedded engine has none.
    ///
    /// # Errors
    /// The engine is closing.
    pub async fn ping(&self) -> Result<Vec<Ping>, CallError> {
        match &self.kind {
            Kind::Embedded(_) => Ok(Vec::new()),
            Kind::Redis(engine) => Ok(engine.ping().await?.to_vec()),
            Kind::Rabbit(engine) => engine.ping().await,
        }
    }

    /// What the engine counted since it was opened.
    pub fn figures(&self) -> EngineFigures {
        ask!(self, engine => engine.figures())
    }

    /// Refuses new calls, finishes what waits, lets the embedded engine's delivery catch up for at most `drain`, and
    /// leaves everything so that the next start is quick. Blocks; calling it again does nothing.
    pub fn close_blocking(&self, drain: Duration) {
        ask!(self, engine => engine.close_blocking(drain));
    }

    /// As [`Engine::close_blocking`], for callers on a runtime.
    ///
    /// # Errors
    /// No thread could be started to do it.
    pub async fn close(&self) -> Result<(), CallError> {
        let engine = self.clone();
        let (done, closed) = oneshot::channel();
        let closing = std::thread::Builder::new().name("yoink-close".to_owned()).spawn(move || {
            engine.close_blocking(Duration::from_secs(5));
            let _ = done.send(());
        });
        closing.map_err(|_| CallError::Closing)?;
        closed.await.map_err(|_| CallError::Closing)
    }
}
