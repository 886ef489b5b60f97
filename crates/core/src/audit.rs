//! The independent recount: everything again from the events alone, with plain maps and loops.
//!
//! IMPORTANT: nothing here may call [`crate::Inventory`] or [`crate::Stock`]. A bug that both shared would be invisible.

mod report;

use hashbrown::{HashMap, HashSet};

use crate::{
    CustomerId, Event, Fact, IdempotencyKey, Money, NewProduct, OrderAccepted, OrderId, ProductChange,
    ProductId, Seq, StockAdjustment, Timestamp, Window,
};
use report::Findings;

pub use report::{Finding, InvariantId, OrderCount, ProductCount, Report};

/// Reads events one after the other and keeps its own books. It never stops: an event that breaks an invariant becomes
/// a [`Finding`], and is counted as the log says, so that one error is named once and not at every event after it.
#[derive(Debug, Default)]
pub struct Audit {
    last_at: Option<Timestamp>,
    /// In order of creation.
    products: Vec<ProductBook>,
    product_numbers: HashMap<ProductId, u32>,
    customer_numbers: HashMap<Box<str>, u32>,
    orders: HashMap<OrderId, OrderBook>,
    /// (customer, key) of every accepted order that had a key.
    order_keys: HashSet<(u32, Box<str>)>,
    /// (customer, product) → units of live orders.
    live_units: HashMap<(u32, u32), u64>,
    adjustment_keys: HashSet<(u32, IdempotencyKey)>,
    count: OrderCount,
    findings: Findings,
}

/// A product as of the last event. Units are `i128`, so that a broken log is counted and not clamped.
#[derive(Debug)]
struct ProductBook {
    id: ProductId,
    price: Money,
    window: Window,
    limit_per_customer: Option<u32>,
    max_per_order: u32,
    is_paused: bool,
    stocked: i128,
    held: i128,
    sold: i128,
    withheld: i128,
}

#[derive(Debug)]
struct OrderBook {
    customer: u32,
    /// `None` if the order names a product that was never created.
    product: Option<u32>,
    quantity: u32,
    is_live: bool,
}

impl Audit {
    /// Before the first event.
    pub fn new() -> Self {
        Self::default()
    }

    /// The place of the last event seen; 0 before the first.
    pub fn seq(&self) -> Seq {
        self.findings.seq
    }

    /// Counts one event, and checks every invariant at it.
    pub fn observe(&mut self, event: &Event) {
        self.check_place(event);
        match &event.fact {
            Fact::ProductCreated { id, product } => self.create(*id, product),
            Fact::ProductChanged { product, change } => {
                if let Some((book, _)) = self.named(product) {
                    book.change(change);
                }
            }
            Fact::StockAdjusted(adjustment) => self.adjust(adjustment),
            Fact::SalePaused { product } => {
                if let Some((book, _)) = self.named(product) {
                    book.is_paused = true;
                }
            }
            Fact::SaleResumed { product } => {
                if let Some((book, _)) = self.named(product) {
                    book.is_paused = false;
                }
            }
            Fact::OrderAccepted(accepted) => self.accept(event.at, accepted),
            Fact::OrderCancelled { order, .. } => {
                if self.end(*order) {
                    self.count.cancelled = self.count.cancelled.saturating_add(1);
                }
            }
            Fact::OrderFailed { order, .. } => {
                if self.end(*order) {
                    self.count.failed = self.count.failed.saturating_add(1);
                }
            }
        }
    }

    /// The log says that the events up to `seq` are lost, and that an operator accepted it. Whatever else is missing is
    /// a finding.
    pub fn skip_lost(&mut self, seq: Seq) {
        let before = self.findings.seq;
        self.findings.seq = seq;
        if seq <= before {
            self.findings
                .add(InvariantId::DenseLog, || format!("event {seq} is lost, and was counted before"));
        }
    }

    /// What was counted, and what was found wrong, up to here.
    pub fn report(&self) -> Report {
        let products = self.products.iter().map(|book| ProductCount {
            id: book.id,
            stocked: book.stocked,
            available: book.available(),
            held: book.held,
            sold: book.sold,
            withheld: book.withheld,
        });
        self.findings.report(products.collect(), self.count)
    }

    fn check_place(&mut self, event: &Event) {
        let expected = self.findings.seq.saturating_add(1);
        self.findings.seq = event.seq;
        if event.seq != expected {
            self.findings.add(InvariantId::DenseLog, || {
                format!("event {expected} was due, but event {} came", event.seq)
            });
        }
        if let Some(last_at) = self.last_at.filter(|last_at| event.at < *last_at) {
            self.findings
                .add(InvariantId::TimeForward, || format!("{} µs comes after {} µs", event.at.0, last_at.0));
        }
        self.last_at = Some(event.at);
    }

    /// The product's book and number; a finding if there is none.
    fn named(&mut self, id: &ProductId) -> Option<(&mut ProductBook, u32)> {
        let number = self.product_numbers.get(id).copied();
        if number.is_none() {
            self.findings.add(InvariantId::KnownNames, || format!("product {id} was never created"));
        }
        let number = number?;
        Some((self.products.get_mut(number as usize)?, number))
    }

    fn create(&mut self, id: ProductId, product: &NewProduct) {
        if self.product_numbers.contains_key(&id) {
            self.findings.add(InvariantId::OneProductPerId, || format!("product {id} is created again"));
            return;
        }
        self.product_numbers.insert(id, number(self.products.len()));
        self.products.push(ProductBook {
            id,
            price: product.price,
            window: product.window,
            limit_per_customer: product.limit_per_customer,
            max_per_order: product.max_per_order,
            is_paused: false,
            stocked: product.stock.into(),
            held: 0,
            sold: 0,
            withheld: 0,
        });
    }

    fn adjust(&mut self, adjustment: &StockAdjustment) {
        let StockAdjustment { product, delta, key, .. } = adjustment;
        let Some((book, number)) = self.named(product) else {
            return;
        };
        if *delta < 0 {
            book.withheld = book.withheld.saturating_add(delta.unsigned_abs().into());
        } else {
            book.stocked = book.stocked.saturating_add((*delta).into());
        }
        let available = book.available();
        if *delta < 0 && available < 0 {
            self.findings.add(InvariantId::Conservation, || {
                format!("product {product} has {available} units available after {delta}")
            });
        }
        if !self.adjustment_keys.insert((number, key.clone())) {
            self.findings.add(InvariantId::OneAdjustmentPerKey, || {
                format!("product {product} is adjusted again under key {key:?}")
            });
        }
    }

    fn accept(&mut self, at: Timestamp, accepted: &OrderAccepted) {
        self.count.accepted = self.count.accepted.saturating_add(1);
        self.count.live = self.count.live.saturating_add(1);
        let customer = self.customer_number(&accepted.customer);
        let has_own_id = !self.orders.contains_key(&accepted.order);
        let has_own_key = match &accepted.key {
            Some(key) => self.order_keys.insert((customer, key.as_str().into())),
            None => true,
        };
        if !(has_own_id && has_own_key) {
            self.findings.duplicated_orders = self.findings.duplicated_orders.saturating_add(1);
        }
        if !has_own_key {
            self.findings.add(InvariantId::OneOrderPerKey, || {
                let OrderAccepted { customer, order, key, .. } = accepted;
                format!("order {order} is not the first of customer {customer:?} under key {key:?}")
            });
        }
        let quantity = accepted.quantity;
        let mut product = None;
        if let Some((book, number)) = self.named(&accepted.product) {
            product = Some(number);
            book.sold = book.sold.saturating_add(quantity.into());
            let units = self.live_units.entry((customer, number)).or_default();
            *units = units.saturating_add(quantity.into());
            let units = *units;
            if let Some(book) = self.products.get(number as usize) {
                book.check_accepted(at, accepted, units, &mut self.findings);
            }
        }
        if !has_own_id {
            self.findings
                .add(InvariantId::OneOrderPerId, || format!("order {} is accepted again", accepted.order));
            return;
        }
        self.orders.insert(accepted.order, OrderBook { customer, product, quantity, is_live: true });
    }

    /// The units come back. Whether they did: not if the order is unknown, or ended before.
    fn end(&mut self, id: OrderId) -> bool {
        let Some(order) = self.orders.get_mut(&id) else {
            self.findings.add(InvariantId::KnownNames, || format!("order {id} was never accepted"));
            return false;
        };
        if !order.is_live {
            self.findings.add(InvariantId::UnitsBackOnce, || {
                format!("order {id} ends again: its {} units would come back twice", order.quantity)
            });
            return false;
        }
        order.is_live = false;
        self.count.live = self.count.live.saturating_sub(1);
        let Some(product) = order.product else { return true };
        if let Some(book) = self.products.get_mut(product as usize) {
            book.sold = book.sold.saturating_sub(order.quantity.into());
        }
        if let Some(units) = self.live_units.get_mut(&(order.customer, product)) {
            *units = units.saturating_sub(order.quantity.into());
        }
        true
    }

    fn customer_number(&mut self, customer: &CustomerId) -> u32 {
        if let Some(number) = self.customer_numbers.get(customer.as_str()) {
            return *number;
        }
        let number = number(self.customer_numbers.len());
        self.customer_numbers.insert(customer.as_str().into(), number);
        number
    }
}

impl ProductBook {
    fn available(&self) -> i128 {
        self.stocked.saturating_sub(self.held).saturating_sub(self.sold).saturating_sub(self.withheld)
    }

    fn change(&mut self, change: &ProductChange) {
        self.price = change.price.unwrap_or(self.price);
        self.window.starts_at = change.starts_at.unwrap_or(self.window.starts_at);
        self.window.ends_at = change.ends_at.unwrap_or(self.window.ends_at);
        self.limit_per_customer = change.limit_per_customer.unwrap_or(self.limit_per_customer);
        self.max_per_order = change.max_per_order.unwrap_or(self.max_per_order);
    }

    /// What must hold at an acceptance. The order's units are counted already; `customer_units` is what its customer
    /// has now.
    fn check_accepted(
        &self,
        at: Timestamp,
        accepted: &OrderAccepted,
        customer_units: u64,
        findings: &mut Findings,
    ) {
        let OrderAccepted { order, product, quantity, unit_price, .. } = accepted;
        let oversold = self.sold.saturating_sub(self.stocked);
        if oversold > 0 {
            findings.oversold_units = findings
                .oversold_units
                .saturating_add(u64::try_from(oversold).unwrap_or(u64::MAX).min((*quantity).into()));
            findings.add(InvariantId::NoOversell, || {
                let Self { sold, stocked, .. } = self;
                format!("order {order}: product {product} has {sold} units sold of {stocked} stocked")
            });
        } else if self.available() < 0 {
            findings.add(InvariantId::Conservation, || {
                let available = self.available();
                format!("order {order}: product {product} has {available} units available after it")
            });
        }
        if !(1..=self.max_per_order).contains(quantity) {
            findings.add(InvariantId::QuantityInRange, || {
                let max = self.max_per_order;
                format!("order {order} has {quantity} units; product {product} allows 1 to {max}")
            });
        }
        if let Some(limit) = self.limit_per_customer
            && customer_units > limit.into()
        {
            findings.add(InvariantId::LimitPerCustomer, || {
                let customer = &accepted.customer;
                format!(
                    "order {order}: customer {customer:?} has {customer_units} units of product {product}; \
                     the limit is {limit}"
                )
            });
        }
        self.check_open(at, accepted, findings);
        if *unit_price != self.price {
            findings.add(InvariantId::PriceAsListed, || {
                let Money { amount, currency } = self.price;
                let paid = unit_price.amount;
                let paid_in = unit_price.currency;
                format!(
                    "order {order} costs {paid} {paid_in:?}; product {product} costs {amount} {currency:?}"
                )
            });
        }
    }

    fn check_open(&self, at: Timestamp, accepted: &OrderAccepted, findings: &mut Findings) {
        let OrderAccepted { order, product, .. } = accepted;
        let is_early = self.window.starts_at.is_some_and(|starts_at| at < starts_at);
        let is_late = self.window.ends_at.is_some_and(|ends_at| at >= ends_at);
        if is_early || is_late {
            findings.add(InvariantId::InsideWindow, || {
                format!("order {order} at {} µs is outside the sale window of product {product}", at.0)
            });
        }
        if self.is_paused {
            findings.add(InvariantId::NotWhilePaused, || {
                format!("order {order} was accepted while product {product} was paused")
            });
        }
    }
}

/// A position as a 32-bit number. Four thousand million customers are beyond one machine's memory, so it never
/// saturates.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
