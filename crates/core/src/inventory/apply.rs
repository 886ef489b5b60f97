//! It happened. Live traffic and recovery share this code.

use core::{fmt, hash::BuildHasher};

use super::{AdjustmentRecord, Inventory, NONE, OrderEnd, OrderRecord, OrderState, Product};
use crate::{
    Event, Fact, NewProduct, OrderAccepted, OrderId, ProductChange, ProductId, Seq, Stock, StockAdjustment,
    Timestamp, texts::number,
};

/// Why an event that was read back cannot have followed the events before it: the log is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inconsistency {
    /// An event is missing or doubled.
    SeqGap {
        /// The place that was due.
        expected: Seq,
        /// The place that came.
        found: Seq,
    },
    /// An event is older than the one before it.
    TimeRunsBack,
    /// An event names a product that was never created.
    UnknownProduct(ProductId),
    /// A product is created again.
    ProductTwice(ProductId),
    /// An event names an order that was never accepted.
    UnknownOrder(OrderId),
    /// An order is accepted again, or again under the same key.
    OrderTwice(OrderId),
    /// An order ends that has ended: its units would come back twice.
    EndedTwice(OrderId),
    /// More units leave a figure than are in it, or more arrive than fit.
    LawBroken(ProductId),
}

impl fmt::Display for Inconsistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SeqGap { expected, found } => write!(f, "event {expected} was due, but event {found} came"),
            Self::TimeRunsBack => f.write_str("it is older than the event before it"),
            Self::UnknownProduct(id) => write!(f, "product {id} was never created"),
            Self::ProductTwice(id) => write!(f, "product {id} is created twice"),
            Self::UnknownOrder(id) => write!(f, "order {id} was never accepted"),
            Self::OrderTwice(id) => write!(f, "order {id}, or its key, is accepted twice"),
            Self::EndedTwice(id) => write!(f, "order {id} ends twice"),
            Self::LawBroken(id) => write!(f, "the units of product {id} would not add up"),
        }
    }
}

impl core::error::Error for Inconsistency {}

impl Inventory {
    /// Could this event have followed the ones before it? Recovery asks before it applies what it read; live traffic
    /// need not, because `decide` made the event.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check(&self, event: &Event) -> Result<(), Inconsistency> {
        let expected = self.last_seq.saturating_add(1);
        if event.seq != expected {
            return Err(Inconsistency::SeqGap { expected, found: event.seq });
        }
        if event.at < self.last_at {
            return Err(Inconsistency::TimeRunsBack);
        }
        match &event.fact {
            Fact::ProductCreated { id, .. } if self.product_number(id).is_some() => {
                Err(Inconsistency::ProductTwice(*id))
            }
            Fact::ProductCreated { .. } => Ok(()),
            Fact::ProductChanged { product, .. }
            | Fact::SalePaused { product }
            | Fact::SaleResumed { product } => self.known(product).map(|_| ()),
            Fact::StockAdjusted(adjustment) => self.check_adjustment(adjustment),
            Fact::OrderAccepted(accepted) => self.check_accepted(accepted),
            Fact::OrderCancelled { order, .. } | Fact::OrderFailed { order, .. } => {
                match self.order(*order).ok_or(Inconsistency::UnknownOrder(*order))?.state {
                    OrderState::Live => Ok(()),
                    OrderState::Cancelled | OrderState::Failed => Err(Inconsistency::EndedTwice(*order)),
                }
            }
        }
    }

    /// It happened. Must not fail: only events that `decide` accepted, or that `check` let pass, reach it.
    ///
    /// # Panics
    /// If the event cannot have followed the ones before it: going on would sell what is not there.
    pub fn apply(&mut self, event: &Event) {
        assert_eq!(Some(event.seq), self.last_seq.checked_add(1), "an event was applied out of its place");
        match &event.fact {
            Fact::ProductCreated { id, product } => self.apply_created(*id, product),
            Fact::ProductChanged { product, change } => apply_change(self.product_mut(product), change),
            Fact::StockAdjusted(adjustment) => self.apply_adjustment(event.seq, adjustment),
            Fact::SalePaused { product } => self.product_mut(product).paused = true,
            Fact::SaleResumed { product } => self.product_mut(product).paused = false,
            Fact::OrderAccepted(accepted) => self.apply_accepted(event, accepted),
            Fact::OrderCancelled { order, reason } => {
                self.apply_end(event, *order, OrderState::Cancelled, reason)
            }
            Fact::OrderFailed { order, reason } => self.apply_end(event, *order, OrderState::Failed, reason),
        }
        self.last_seq = event.seq;
        self.last_at = event.at;
    }

    /// Events up to `seq` are lost, and an operator accepted that. Their numbers are not given again, so that nobody
    /// who read them takes another event for one of them.
    ///
    /// # Panics
    /// If an event with this number was applied: it is not lost.
    pub fn skip_lost(&mut self, seq: Seq) {
        assert!(seq > self.last_seq, "event {seq} is not lost: the last one is {}", self.last_seq);
        self.last_seq = seq;
    }

    fn known(&self, product: &ProductId) -> Result<&Product, Inconsistency> {
        self.product(product).ok_or(Inconsistency::UnknownProduct(*product))
    }

    fn check_adjustment(&self, adjustment: &StockAdjustment) -> Result<(), Inconsistency> {
        let figures = self.known(&adjustment.product)?.figures();
        let units = adjustment.delta.unsigned_abs();
        let fits = match adjustment.delta < 0 {
            true => units <= figures.available,
            false => figures.stocked.checked_add(units).is_some(),
        };
        if fits { Ok(()) } else { Err(Inconsistency::LawBroken(adjustment.product)) }
    }

    fn check_accepted(&self, accepted: &OrderAccepted) -> Result<(), Inconsistency> {
        if u64::from(accepted.quantity) > self.known(&accepted.product)?.figures().available {
            return Err(Inconsistency::LawBroken(accepted.product));
        }
        let key_is_taken =
            accepted.key.as_ref().is_some_and(|key| self.order_by_key(&accepted.customer, key).is_some());
        match key_is_taken || self.order_number(accepted.order).is_some() {
            true => Err(Inconsistency::OrderTwice(accepted.order)),
            false => Ok(()),
        }
    }

    fn product_mut(&mut self, id: &ProductId) -> &mut Product {
        self.numbered_product_mut(id).1
    }

    fn numbered_product_mut(&mut self, id: &ProductId) -> (u32, &mut Product) {
        let number = self.product_number(id);
        match number.and_then(|number| Some((number, self.products.get_mut(number as usize)?))) {
            Some(numbered) => numbered,
            None => panic!("an event names product {id}, which was never created"),
        }
    }

    fn apply_created(&mut self, id: ProductId, details: &NewProduct) {
        let mut stock = Stock::default();
        stock.add(details.stock);
        self.insert_product(Product { id, details: details.clone(), paused: false, stock });
    }

    pub(super) fn insert_product(&mut self, product: Product) {
        self.product_numbers.insert(product.id, number(self.products.len()));
        self.products.push(product);
    }

    fn apply_adjustment(&mut self, seq: Seq, adjustment: &StockAdjustment) {
        let units = adjustment.delta.unsigned_abs();
        let stock = &mut self.product_mut(&adjustment.product).stock;
        if adjustment.delta < 0 {
            stock.withdraw(units);
        } else {
            stock.add(units);
        }
        let record = AdjustmentRecord { seq, delta: adjustment.delta };
        if let Some(product) = self.product_number(&adjustment.product) {
            self.adjustments.insert((product, adjustment.key.clone()), record);
        }
    }

    fn apply_accepted(&mut self, event: &Event, accepted: &OrderAccepted) {
        let (product, sold) = self.numbered_product_mut(&accepted.product);
        sold.stock.sell(u64::from(accepted.quantity));
        let customer = self.customers.find_or_add(&self.hasher, accepted.customer.as_str());
        self.insert_order(
            OrderRecord {
                id: accepted.order,
                seq: event.seq,
                accepted_at: event.at,
                amount: accepted.unit_price.amount,
                customer,
                product,
                quantity: accepted.quantity,
                key: NONE,
                previous_of_customer: NONE,
                currency: accepted.unit_price.currency,
                state: OrderState::Live,
            },
            accepted.key.as_ref().map(|key| key.as_str()),
        );
    }

    /// Files an order under its id, its key and its customer, and counts its units if it is live.
    pub(super) fn insert_order(&mut self, mut record: OrderRecord, key: Option<&str>) {
        let position = number(self.orders.len());
        let (id, customer, product, quantity) = (record.id, record.customer, record.product, record.quantity);
        let is_live = record.state == OrderState::Live;
        if let Some(key) = key {
            record.key = self.keys.push(key);
        }
        record.previous_of_customer = self.customers.last_order(customer).unwrap_or(NONE);
        self.orders.push(record);
        self.customers.set_last_order(customer, position);

        self.orders_by_id.insert(self.hasher.hash_one(id), position);
        if let Some(key) = key {
            self.orders_by_key.insert(self.hasher.hash_one((customer, key)), position);
        }
        if is_live {
            let units = self.live_units.entry((customer, product)).or_insert(0);
            *units = match units.checked_add(quantity) {
                Some(sum) => sum,
                None => panic!("a customer would have more units than can be counted after order {id}"),
            };
        }
    }

    fn apply_end(&mut self, event: &Event, order: OrderId, state: OrderState, reason: &str) {
        let Some(position) = self.order_number(order) else {
            panic!("an event ends order {order}, which was never accepted")
        };
        let Some(record) = self.orders.get_mut(position as usize) else {
            return;
        };
        assert_eq!(record.state, OrderState::Live, "order {order} would give its units back twice");
        record.state = state;
        let (customer, product, quantity) = (record.customer, record.product, record.quantity);
        if let Some(product) = self.products.get_mut(product as usize) {
            product.stock.give_back(u64::from(quantity));
        }
        if let Some(units) = self.live_units.get_mut(&(customer, product)) {
            match units.checked_sub(quantity) {
                Some(0) => drop(self.live_units.remove(&(customer, product))),
                Some(rest) => *units = rest,
                None => panic!("a customer would have fewer than no units after order {order} ended"),
            }
        }
        self.ends.insert(position, OrderEnd { seq: event.seq, at: event.at, reason: reason.into() });
    }

    pub(super) fn set_last(&mut self, seq: Seq, at: Timestamp) {
        self.last_seq = seq;
        self.last_at = at;
    }
}

fn apply_change(product: &mut Product, change: &ProductChange) {
    let details = &mut product.details;
    if let Some(name) = &change.name {
        details.name = name.clone();
    }
    if let Some(price) = change.price {
        details.price = price;
    }
    if let Some(starts_at) = change.starts_at {
        details.window.starts_at = starts_at;
    }
    if let Some(ends_at) = change.ends_at {
        details.window.ends_at = ends_at;
    }
    if let Some(limit) = change.limit_per_customer {
        details.limit_per_customer = limit;
    }
    if let Some(max_per_order) = change.max_per_order {
        details.max_per_order = max_per_order;
    }
}
