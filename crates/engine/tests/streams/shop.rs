//! One stream: every step is played by the engine and by the core, and everything that can be seen is compared.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use yoink_core::{Command, Fact, OrderId, Purchase, Seq, Timestamp};
use yoink_engine::{
    CallError, Confirmed, Engine, OrderFilter, OrderStatus, OrderView, PurchaseRequest, Replayed,
};

use crate::generator::{Generator, Step};
use crate::reference::{Answer, FIGURES_LATE_MAX, Reference};

/// How often each kind of answer was seen.
pub type Coverage = BTreeMap<&'static str, u64>;

const DELIVERED_WITHIN: Duration = Duration::from_secs(30);
const PAGE_EVENTS: usize = 1_000;
/// Purchases that are asked again together at the end.
const AGAIN_TOGETHER: usize = 24;

pub struct Shop {
    engine: Engine,
    generator: Generator,
    reference: Reference,
    now: Timestamp,
    /// The last event of the ledger that was seen.
    seen: Seq,
    seen_at: Timestamp,
    /// What the ledger says was accepted, in its order.
    delivered: Vec<OrderId>,
    /// Purchases that became orders under a key.
    kept: Vec<Purchase>,
    pub coverage: Coverage,
}

impl Shop {
    pub fn new(engine: Engine, seed: u64) -> Self {
        Self {
            engine,
            generator: Generator::new(seed),
            reference: Reference::default(),
            now: Timestamp(0),
            seen: 0,
            seen_at: Timestamp(0),
            delivered: Vec::new(),
            kept: Vec::new(),
            coverage: Coverage::new(),
        }
    }

    /// Plays a stream; an error says what differs.
    pub async fn play(&mut self, steps: usize) -> Result<(), String> {
        for number in 1..=steps {
            let step = self.generator.step(&self.reference.inventory, &self.reference.orders);
            let played = self.step(&step).await;
            played.map_err(|what| format!("step {number}: {what}\n{step:#?}"))?;
        }
        self.ask_again().await.map_err(|what| format!("asked again at the end: {what}"))?;
        self.close_the_books().await.map_err(|what| format!("at the end: {what}"))
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        self.now = step.now;
        self.engine.set_now(step.now);
        self.compare_forecasts(&step.commands).await?;
        // Pushed in this order, in one turn of this runtime: those of one product travel and are decided together.
        let answers = join_all(step.commands.iter().map(|command| ask(&self.engine, command))).await;
        if answers.len() > 1 {
            *self.coverage.entry("together").or_default() += 1;
        }
        let mut happened = Vec::new();
        for (command, answer) in step.commands.iter().zip(answers) {
            let command = self.with_order_of(command, &answer)?;
            let (expected, fact) = self.reference.ask(step.now, &command);
            equal("the answer", &answer, &expected)?;
            *self.coverage.entry(answer.name()).or_default() += 1;
            self.compare_order_of(&answer).await?;
            match fact {
                Some(Fact::OrderAccepted(_)) => {
                    self.kept.extend(purchase(&command).filter(|asked| asked.key.is_some()).cloned());
                }
                other => happened.extend(other),
            }
        }
        self.compare_events(&happened).await?;
        self.compare_products().await
    }

    /// A purchase with the id that the engine gave its order, which is new unless the order is.
    fn with_order_of(&self, command: &Command, answer: &Answer) -> Result<Command, String> {
        let (Command::Purchase(asked), Answer::Bought(bought)) = (command, answer) else {
            return Ok(command.clone());
        };
        if self.reference.inventory.order(bought.order).is_some() && !self.reference.is_replay(asked) {
            return Err(format!("{} is the id of another order", bought.order));
        }
        Ok(Command::Purchase(Purchase { order: bought.order, ..asked.clone() }))
    }

    /// What the engine says before a decision must come true.
    async fn compare_forecasts(&mut self, commands: &[Command]) -> Result<(), String> {
        let Some(asked) = commands.first().and_then(purchase) else { return Ok(()) };
        let request = request(asked);
        let is_replay = self.engine.is_replay(&request).await;
        equal("whether it is a replay", &is_replay, &Ok(self.reference.is_replay(asked)))?;
        if let Some(rejection) = self.engine.refuse_early(&request) {
            let answer = self.reference.refusal(self.now, asked);
            equal("the early refusal", &Some(rejection), &answer)?;
            *self.coverage.entry("refused early").or_default() += 1;
        }
        Ok(())
    }

    async fn compare_order_of(&self, answer: &Answer) -> Result<(), String> {
        match answer {
            Answer::Bought(bought) => self.compare_order(bought.order).await,
            Answer::Refused(_) | Answer::Product { .. } | Answer::Adjusted { .. } => Ok(()),
            Answer::Ended(order, _) => self.compare_order(order.id).await,
            Answer::Silence(error) => Err(error.to_string()),
        }
    }

    async fn compare_order(&self, id: OrderId) -> Result<(), String> {
        let order = self.engine.order(id).await.map(|order| order.map(live_is_confirmed));
        equal("the order", &order, &Ok(self.reference.order(id)))
    }

    /// The ledger's events since the last look: this happened, beside purchases, and nothing else.
    async fn compare_events(&mut self, happened: &[Fact]) -> Result<(), String> {
        let mut others = Vec::new();
        loop {
            let events =
                self.engine.events(self.seen, PAGE_EVENTS).await.map_err(|error| error.to_string())?;
            let is_last_page = events.len() < PAGE_EVENTS;
            for event in events {
                self.seen = event.seq;
                let was_at = std::mem::replace(&mut self.seen_at, event.at);
                match event.fact {
                    Fact::OrderAccepted(accepted) => {
                        let expected = self.reference.accepted(accepted.order);
                        equal("the event", &Some(&accepted), &expected.as_ref())?;
                        self.delivered.push(accepted.order);
                    }
                    other => {
                        let at = Reference::time_of_event(was_at, self.now);
                        equal("the time of the event", &event.at, &at)?;
                        others.push(other);
                    }
                }
            }
            if is_last_page {
                break;
            }
        }
        equal("what happened", &others.as_slice(), &happened)
    }

    async fn compare_products(&self) -> Result<(), String> {
        let (expected, begun) = (self.reference.products(), Instant::now());
        loop {
            // Looks at Redis now, whether everything is delivered or not.
            self.engine.wait_delivered(0, Duration::ZERO).await;
            let compared = equal("the products", &self.engine.storefront().products(), &expected);
            if compared.is_ok() || begun.elapsed() >= FIGURES_LATE_MAX {
                return compared;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whatever became of it: who has an order is told of it.
    async fn ask_again(&mut self) -> Result<(), String> {
        let kept = std::mem::take(&mut self.kept);
        for purchases in kept.chunks(AGAIN_TOGETHER) {
            let commands = purchases.iter().cloned().map(Command::Purchase).collect();
            self.step(&Step { now: self.now, commands }).await?;
        }
        equal("orders that were kept", &self.kept, &Vec::new())
    }

    async fn close_the_books(&mut self) -> Result<(), String> {
        let settled = self.engine.wait_delivered(0, DELIVERED_WITHIN).await;
        equal("whether all is delivered", &settled, &Confirmed::Yes)?;
        self.compare_events(&[]).await?;
        self.delivered.sort_unstable();
        let mut accepted = self.reference.orders.clone();
        accepted.sort_unstable();
        equal("the orders in the ledger", &self.delivered, &accepted)?;
        for id in &accepted {
            // Confirmed by now, and not only accepted.
            let order = self.engine.order(*id).await;
            equal("the order", &order, &Ok(self.reference.order(*id)))?;
        }
        self.compare_list(&accepted).await?;
        self.compare_products().await?;
        self.reconcile().await
    }

    /// The list has every order once.
    async fn compare_list(&self, accepted: &[OrderId]) -> Result<(), String> {
        let (mut listed, mut after) = (Vec::new(), Some(0));
        while let Some(from) = after {
            let filter = OrderFilter { after: from, limit: 100, ..OrderFilter::default() };
            let page = self.engine.orders(filter).await.map_err(|error| error.to_string())?;
            listed.extend(page.orders.iter().map(|order| order.id));
            after = page.next_after;
        }
        listed.sort_unstable();
        equal("the list of orders", &listed.as_slice(), &accepted)
    }

    async fn reconcile(&self) -> Result<(), String> {
        let found = self.engine.reconcile().await.map_err(|error| error.to_string())?;
        let findings = [found.oversold, found.lost, found.duplicated, found.stuck];
        equal("reconciliation", &(found.ok, findings), &(true, [0; 4]))
            .map_err(|what| format!("{what}\n{found:#?}"))?;
        let figures: Vec<_> = found.products.iter().map(|product| (product.id, product.figures)).collect();
        let expected = self.reference.products();
        let expected: Vec<_> = expected.iter().map(|product| (product.id, product.figures)).collect();
        equal("the recounted figures", &figures, &expected)?;
        let count = |status| {
            let orders = self.reference.orders.iter().filter_map(|order| self.reference.order(*order));
            orders.filter(|order| order.status == status).count() as u64
        };
        let counted =
            [found.orders.accepted, found.orders.confirmed, found.orders.cancelled, found.orders.failed];
        let of_status =
            [count(OrderStatus::Confirmed), count(OrderStatus::Cancelled), count(OrderStatus::Failed)];
        equal("the recounted orders", &counted, &[0, of_status[0], of_status[1], of_status[2]])
    }
}

async fn ask(engine: &Engine, command: &Command) -> Answer {
    asked(engine, command.clone()).await.unwrap_or_else(|error| match error {
        CallError::Refused(rejection) => Answer::Refused(rejection),
        other => Answer::Silence(other),
    })
}

async fn asked(engine: &Engine, command: Command) -> Result<Answer, CallError> {
    Ok(match command {
        Command::Purchase(asked) => Answer::Bought(engine.purchase(request(&asked)).await?),
        Command::Cancel { order, reason } => ended(engine.cancel(order, reason).await?),
        Command::Fail { order, reason } => ended(engine.fail(order, reason).await?),
        Command::CreateProduct(product) => Answer::product(engine.create_product(product).await?),
        Command::ChangeProduct { product, change } => {
            Answer::product(engine.change_product(product, change).await?)
        }
        Command::Pause { product } => Answer::product(engine.pause(product).await?),
        Command::Resume { product } => Answer::product(engine.resume(product).await?),
        Command::AdjustStock(adjustment) => {
            let made = engine.adjust_stock(adjustment).await?;
            Answer::Adjusted { delta: made.delta, replayed: made.replayed }
        }
    })
}

fn ended((order, replayed): (OrderView, Replayed)) -> Answer {
    Answer::Ended(live_is_confirmed(order), replayed)
}

fn live_is_confirmed(order: OrderView) -> OrderView {
    match order.status {
        OrderStatus::Accepted => OrderView { status: OrderStatus::Confirmed, ..order },
        _ => order,
    }
}

fn purchase(command: &Command) -> Option<&Purchase> {
    match command {
        Command::Purchase(asked) => Some(asked),
        _ => None,
    }
}

fn request(asked: &Purchase) -> PurchaseRequest {
    PurchaseRequest {
        customer: asked.customer.clone(),
        product: asked.product,
        quantity: asked.quantity,
        key: asked.key.clone(),
    }
}

fn equal<T: std::fmt::Debug + PartialEq>(what: &str, engine: &T, core: &T) -> Result<(), String> {
    match engine == core {
        true => Ok(()),
        false => Err(format!("{what} differs\n  engine: {engine:?}\n  core:   {core:?}")),
    }
}
