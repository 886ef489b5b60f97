//! May this happen? Reads only; nothing changes whatever the answer.

use super::{Decision, Inventory, OrderState, Product, Replay};
use crate::{
    Command, Event, Fact, NewProduct, OrderAccepted, OrderId, ProductChange, ProductId, Purchase, Rejection,
    STOCK_UNITS_MAX, StockAdjustment, Timestamp, Window,
};

impl Inventory {
    /// May this happen at `now`? Reads only; nothing changes whatever the answer.
    ///
    /// The checks run in the order of [`Rejection`]'s variants, and a request that was accepted before is found before
    /// any of them that could say no: a winner who asks again after sell-out is told "you won".
    pub fn decide(&self, now: Timestamp, command: &Command) -> Decision {
        let verdict = match command {
            Command::Purchase(purchase) => self.purchase(now, purchase),
            Command::Cancel { order, reason } => self.cancel(*order, reason),
            Command::Fail { order, reason } => self.fail(*order, reason),
            Command::CreateProduct(product) => self.create_product(product),
            Command::ChangeProduct { product, change } => self.change_product(product, change),
            Command::AdjustStock(adjustment) => self.adjust_stock(adjustment),
            Command::Pause { product } => self.pause(*product),
            Command::Resume { product } => self.resume(*product),
        };
        match verdict {
            Ok(fact) => Decision::Accept(Event { seq: self.last_seq.saturating_add(1), at: now, fact }),
            Err(No::Replay(replay)) => Decision::Replay(replay),
            Err(No::Refuse(rejection)) => Decision::Refuse(rejection),
        }
    }

    fn purchase(&self, now: Timestamp, purchase: &Purchase) -> Result<Fact, No> {
        let product_number = self.product_number(&purchase.product).ok_or(Rejection::ProductNotFound)?;
        let product = self.products.get(product_number as usize).ok_or(Rejection::ProductNotFound)?;
        let customer = self.customers.find(&self.hasher, purchase.customer.as_str());
        if let Some(customer) = customer {
            self.find_replay(customer, product_number, purchase)?;
        }
        if purchase.quantity > product.details.max_per_order {
            return Err(Rejection::QuantityAboveMax { max_per_order: product.details.max_per_order }.into());
        }
        open_for_sale(product, now)?;
        if let Some(customer) = customer {
            self.within_limit(customer, product_number, product, purchase.quantity)?;
        } else if let Some(limit) = product.details.limit_per_customer
            && purchase.quantity > limit
        {
            return Err(Rejection::LimitReached { limit, used: 0, existing: Vec::new() }.into());
        }
        let available = product.figures().available;
        if u64::from(purchase.quantity) > available {
            return Err(Rejection::SoldOut { available }.into());
        }
        Ok(Fact::OrderAccepted(OrderAccepted {
            order: purchase.order,
            customer: purchase.customer.clone(),
            product: purchase.product,
            quantity: purchase.quantity,
            unit_price: product.details.price,
            key: purchase.key.clone(),
        }))
    }

    fn find_replay(&self, customer: u32, product: u32, purchase: &Purchase) -> Result<(), No> {
        let Some(key) = &purchase.key else { return Ok(()) };
        let Some(number) = self.order_number_by_key(customer, key.as_str()) else {
            return Ok(());
        };
        let Some(order) = self.orders.get(number as usize) else {
            return Ok(());
        };
        if order.product == product && order.quantity == purchase.quantity {
            Err(No::Replay(Replay::Order(order.id)))
        } else {
            Err(Rejection::KeyReused { original: Some(order.id) }.into())
        }
    }

    fn within_limit(&self, customer: u32, number: u32, product: &Product, quantity: u32) -> Result<(), No> {
        let Some(limit) = product.details.limit_per_customer else {
            return Ok(());
        };
        let used = self.live_units.get(&(customer, number)).copied().unwrap_or(0);
        if used.saturating_add(quantity) <= limit {
            return Ok(());
        }
        // A customer who orders and cancels all day has a long chain; what is named is only a help.
        let walked_max = 1_000;
        let existing = self
            .chain(self.customers.last_order(customer))
            .take(walked_max)
            .filter_map(|order| self.orders.get(order as usize))
            .filter(|order| order.product == number && order.state == OrderState::Live)
            .map(|order| order.id)
            .take(Rejection::EXISTING_MAX)
            .collect();
        Err(Rejection::LimitReached { limit, used, existing }.into())
    }

    fn cancel(&self, order: OrderId, reason: &str) -> Result<Fact, No> {
        match self.order(order).ok_or(Rejection::OrderNotFound)?.state {
            OrderState::Live => Ok(Fact::OrderCancelled { order, reason: reason.into() }),
            OrderState::Cancelled => Err(No::Replay(Replay::Order(order))),
            OrderState::Failed => Err(Rejection::OrderFailed.into()),
        }
    }

    fn fail(&self, order: OrderId, reason: &str) -> Result<Fact, No> {
        match self.order(order).ok_or(Rejection::OrderNotFound)?.state {
            OrderState::Live => Ok(Fact::OrderFailed { order, reason: reason.into() }),
            // Cancelled: its units are back already, and they come back at most once.
            OrderState::Cancelled | OrderState::Failed => Err(No::Replay(Replay::Order(order))),
        }
    }

    fn create_product(&self, product: &NewProduct) -> Result<Fact, No> {
        let id = match product.id {
            Some(id) if self.product_numbers.contains_key(&id) => return Err(Rejection::ProductExists.into()),
            Some(id) => id,
            None => self.free_product_id(),
        };
        if product.stock > STOCK_UNITS_MAX {
            return Err(Rejection::StockTooLarge.into());
        }
        not_empty(product.window)?;
        Ok(Fact::ProductCreated { id, product: NewProduct { id: Some(id), ..product.clone() } })
    }

    /// The smallest whole number above the count of products that no product has as its id.
    fn free_product_id(&self) -> ProductId {
        let first = self.products.len().saturating_add(1);
        (first..)
            .filter_map(|number| ProductId::parse(&number.to_string()).ok())
            .find(|id| !self.product_numbers.contains_key(id))
            .unwrap_or_else(|| unreachable!("there are more numbers than products"))
    }

    fn change_product(&self, id: &ProductId, change: &ProductChange) -> Result<Fact, No> {
        let product = self.product(id).ok_or(Rejection::ProductNotFound)?;
        not_empty(Window {
            starts_at: change.starts_at.unwrap_or(product.details.window.starts_at),
            ends_at: change.ends_at.unwrap_or(product.details.window.ends_at),
        })?;
        if *change == ProductChange::default() {
            return Err(No::Replay(Replay::Product(*id)));
        }
        Ok(Fact::ProductChanged { product: *id, change: change.clone() })
    }

    fn adjust_stock(&self, adjustment: &StockAdjustment) -> Result<Fact, No> {
        let number = self.product_number(&adjustment.product).ok_or(Rejection::ProductNotFound)?;
        let product = self.products.get(number as usize).ok_or(Rejection::ProductNotFound)?;
        // Cloning the key is fine here: restocks are rare.
        if let Some(made) = self.adjustments.get(&(number, adjustment.key.clone())) {
            return Err(if made.delta == adjustment.delta {
                No::Replay(Replay::Adjustment(*made))
            } else {
                Rejection::KeyReused { original: None }.into()
            });
        }
        let figures = product.figures();
        let units = adjustment.delta.unsigned_abs();
        if adjustment.delta < 0 && units > figures.available {
            return Err(Rejection::BelowCommitted { available: figures.available }.into());
        }
        if adjustment.delta > 0 && figures.stocked.saturating_add(units) > STOCK_UNITS_MAX {
            return Err(Rejection::StockTooLarge.into());
        }
        Ok(Fact::StockAdjusted(adjustment.clone()))
    }

    fn pause(&self, product: ProductId) -> Result<Fact, No> {
        match self.product(&product).ok_or(Rejection::ProductNotFound)?.paused {
            true => Err(No::Replay(Replay::Product(product))),
            false => Ok(Fact::SalePaused { product }),
        }
    }

    fn resume(&self, product: ProductId) -> Result<Fact, No> {
        match self.product(&product).ok_or(Rejection::ProductNotFound)?.paused {
            true => Ok(Fact::SaleResumed { product }),
            false => Err(No::Replay(Replay::Product(product))),
        }
    }
}

/// Why `decide` returns early.
enum No {
    Replay(Replay),
    Refuse(Rejection),
}

impl From<Rejection> for No {
    fn from(rejection: Rejection) -> Self {
        Self::Refuse(rejection)
    }
}

fn open_for_sale(product: &Product, now: Timestamp) -> Result<(), Rejection> {
    if product.figures().conservation_error_units() != 0 {
        return Err(Rejection::ConservationBroken);
    }
    let Window { starts_at, ends_at } = product.details.window;
    if let Some(starts_at) = starts_at.filter(|starts_at| now < *starts_at) {
        return Err(Rejection::SaleNotStarted { starts_at });
    }
    if let Some(ends_at) = ends_at.filter(|ends_at| now >= *ends_at) {
        return Err(Rejection::SaleEnded { ends_at });
    }
    if product.paused { Err(Rejection::SalePaused) } else { Ok(()) }
}

fn not_empty(window: Window) -> Result<(), Rejection> {
    match (window.starts_at, window.ends_at) {
        (Some(starts_at), Some(ends_at)) if ends_at <= starts_at => Err(Rejection::WindowEmpty),
        _ => Ok(()),
    }
}
