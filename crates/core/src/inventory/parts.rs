//! The inventory taken apart and put together again, for snapshots. The engine decides how parts look on disk.

use super::{
    AdjustmentRecord, Inconsistency, Inventory, NONE, Order, OrderEnd, OrderRecord, OrderState, Product,
};
use crate::{Figures, IdempotencyKey, NewProduct, ProductId, Seq, Stock, Timestamp};

/// One piece of an inventory. Products come before what names them; orders come in order of acceptance.
#[derive(Clone, Debug, PartialEq)]
pub enum Part<'a> {
    /// A product as it stands.
    Product {
        /// Its id.
        id: ProductId,
        /// Name, price, window and limits.
        details: NewProduct,
        /// Whether an operator paused the sale.
        paused: bool,
        /// Its units.
        figures: Figures,
    },
    /// A stock adjustment, remembered for its key.
    Adjustment {
        /// Of which product.
        product: ProductId,
        /// Under which key.
        key: IdempotencyKey,
        /// What was made.
        record: AdjustmentRecord,
    },
    /// An order as it stands.
    Order(Order<'a>),
}

impl Inventory {
    /// Every part, in an order in which [`Inventory::insert_part`] takes them.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let products = self.products.iter().map(|product| Part::Product {
            id: product.id,
            details: product.details.clone(),
            paused: product.paused,
            figures: product.figures(),
        });
        let adjustments = self.adjustments.iter().filter_map(|((product, key), record)| {
            let product = self.products.get(*product as usize)?.id;
            Some(Part::Adjustment { product, key: key.clone(), record: *record })
        });
        products.chain(adjustments).chain(self.orders_after(0).map(Part::Order))
    }

    /// Makes room for about this many orders, so that none of the tables has to grow on the way.
    pub fn reserve_orders(&mut self, orders: usize) {
        self.orders_by_id.reserve(orders);
        self.orders_by_key.reserve(orders);
        self.customers.reserve(orders);
        self.live_units.reserve(orders);
    }

    /// Puts a part back.
    ///
    /// # Errors
    /// The part names something that is not there, is there already, or breaks the law of conservation.
    pub fn insert_part(&mut self, part: Part<'_>) -> Result<(), Inconsistency> {
        match part {
            Part::Product { id, details, paused, figures } => {
                if self.product_number(&id).is_some() {
                    return Err(Inconsistency::ProductTwice(id));
                }
                if figures.conservation_error_units() != 0 {
                    return Err(Inconsistency::LawBroken(id));
                }
                self.insert_product(Product { id, details, paused, stock: Stock::from_figures(figures) });
            }
            Part::Adjustment { product, key, record } => {
                let number = self.product_number(&product).ok_or(Inconsistency::UnknownProduct(product))?;
                self.adjustments.insert((number, key), record);
            }
            Part::Order(order) => self.insert_order_part(&order)?,
        }
        Ok(())
    }

    /// Closes the parts: what comes next is the event after `seq`.
    ///
    /// # Errors
    /// A product's sold units are not the units of its live orders.
    pub fn finish_parts(&mut self, seq: Seq, at: Timestamp) -> Result<(), Inconsistency> {
        let mut sold = vec![0_u64; self.products.len()];
        for order in self.orders.iter().filter(|order| order.state == OrderState::Live) {
            if let Some(units) = sold.get_mut(order.product as usize) {
                *units = units.saturating_add(u64::from(order.quantity));
            }
        }
        for (product, sold) in self.products.iter().zip(sold) {
            if product.figures().sold != sold {
                return Err(Inconsistency::LawBroken(product.id));
            }
        }
        self.set_last(seq, at);
        Ok(())
    }

    fn insert_order_part(&mut self, order: &Order<'_>) -> Result<(), Inconsistency> {
        let product =
            self.product_number(&order.product).ok_or(Inconsistency::UnknownProduct(order.product))?;
        if self.order_number(order.id).is_some() {
            return Err(Inconsistency::OrderTwice(order.id));
        }
        let customer = self.customers.find_or_add(&self.hasher, order.customer);
        // As `check` does for events: two orders under one key would make its replays a matter of luck.
        if let Some(key) = order.key
            && self.order_number_by_key(customer, key).is_some()
        {
            return Err(Inconsistency::OrderTwice(order.id));
        }
        if let Some(end) = order.end {
            let position = crate::texts::number(self.orders.len());
            self.ends.insert(position, OrderEnd { seq: end.seq, at: end.at, reason: end.reason.clone() });
        }
        self.insert_order(
            OrderRecord {
                id: order.id,
                seq: order.seq,
                accepted_at: order.accepted_at,
                amount: order.unit_price.amount,
                customer,
                product,
                quantity: order.quantity,
                key: NONE,
                previous_of_customer: NONE,
                currency: order.unit_price.currency,
                state: order.state,
            },
            order.key,
        );
        Ok(())
    }
}
