//! How each thing that can be asked is answered.

use super::*;
use crate::embedded::ticket::Books;
use crate::views::{OrderFilter, OrderPage, OrderStatus, OrderView};

impl Writer {
    pub(super) fn answer(&mut self, now: Timestamp, ask: Ask, committed: &mut Vec<Event>) -> Reply {
        match ask {
            Ask::Purchase(request) => self.purchase(now, request, committed).map(Answer::Purchased),
            Ask::Command(command) => self.command(now, &command, committed),
            Ask::Order(id) => Ok(Answer::Order(Box::new(self.order_view(id)))),
            Ask::OrderByKey(customer, key) => {
                let order = self.inventory.order_by_key(&customer, &key);
                Ok(Answer::Order(Box::new(
                    order.and_then(|order| OrderView::new(&order, &self.is_confirmed)),
                )))
            }
            Ask::Orders(filter) => Ok(Answer::Orders(self.orders(&filter))),
            Ask::Events { after, limit } => {
                // Staged events of this batch are not in the log yet, so only committed ones are read.
                let limit = limit.min(limits::READ_EVENTS_MAX);
                self.log.events_after(after, limit).map(Answer::Events).map_err(|error| {
                    error!(error = &error as &dyn std::error::Error, "the log cannot be read");
                    CallError::OutcomeUnknown
                })
            }
            Ask::Books => Ok(Answer::Books(Box::new(self.books()))),
        }
    }

    fn purchase(
        &mut self,
        now: Timestamp,
        request: PurchaseRequest,
        committed: &mut Vec<Event>,
    ) -> Result<Purchased, CallError> {
        let PurchaseRequest { customer, product, quantity, key } = request;
        let order = self.next_order_id(now);
        let command = Command::Purchase(Purchase { order, customer, product, quantity, key });
        let done = self.decide(now, &command, committed);
        let counters = &self.shared.counters;
        match &done {
            Ok(Done::Now(_)) => drop(counters.accepted.fetch_add(1, Ordering::Relaxed)),
            Ok(Done::Before(_)) => drop(counters.replayed.fetch_add(1, Ordering::Relaxed)),
            Err(CallError::Refused(rejection)) => counters.reject(rejection),
            Err(_) => {}
        }
        match (done?, committed.last()) {
            // The event says all there is to say; looking the order up again would cost as much as deciding it did.
            (Done::Now(seq), Some(Event { at, fact: Fact::OrderAccepted(accepted), .. })) => Ok(Purchased {
                order,
                seq,
                accepted_at: *at,
                unit_price: accepted.unit_price,
                replayed: Replayed::No,
                status: OrderStatus::Accepted,
            }),
            (Done::Before(Replay::Order(original)), _) => {
                let order = self.inventory.order(original).ok_or(Rejection::OrderNotFound)?;
                Ok(Purchased {
                    order: original,
                    seq: order.seq,
                    accepted_at: order.accepted_at,
                    unit_price: order.unit_price,
                    replayed: Replayed::Yes,
                    status: OrderStatus::Accepted,
                })
            }
            (other, _) => unreachable!("a purchase is never answered by {other:?}"),
        }
    }

    fn command(&mut self, now: Timestamp, command: &Command, committed: &mut Vec<Event>) -> Reply {
        let done = self.decide(now, command, committed)?;
        match command {
            Command::Cancel { order, .. } | Command::Fail { order, .. } => {
                if let Done::Now(_) = done {
                    let counters = &self.shared.counters;
                    let count = match command {
                        Command::Cancel { .. } => &counters.cancelled,
                        _ => &counters.failed,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let view = self.order_view(*order).ok_or(Rejection::OrderNotFound)?;
                Ok(Answer::Ended(Box::new(view), done.replayed()))
            }
            Command::CreateProduct(_) => match committed.last().map(|event| &event.fact) {
                Some(Fact::ProductCreated { id, .. }) => self.product_answer(id),
                other => unreachable!("creating a product never leads to {other:?}"),
            },
            Command::ChangeProduct { product, .. }
            | Command::Pause { product }
            | Command::Resume { product } => self.product_answer(product),
            Command::AdjustStock(adjustment) => {
                let product =
                    self.inventory.product(&adjustment.product).ok_or(Rejection::ProductNotFound)?;
                let seq = match &done {
                    Done::Now(seq) => *seq,
                    Done::Before(Replay::Adjustment(made)) => made.seq,
                    Done::Before(other) => unreachable!("an adjustment is never answered by {other:?}"),
                };
                let (figures, replayed) = (product.figures(), done.replayed());
                Ok(Answer::Adjusted(Adjusted { seq, delta: adjustment.delta, figures, replayed }))
            }
            Command::Purchase(_) => unreachable!("purchases have their own way in"),
        }
    }

    fn product_answer(&self, id: &yoink_core::ProductId) -> Reply {
        let product = self.inventory.product(id).ok_or(Rejection::ProductNotFound)?;
        Ok(Answer::Product(Box::new(ProductView {
            id: product.id,
            details: product.details.clone(),
            paused: product.paused,
            figures: product.figures(),
        })))
    }

    fn order_view(&self, id: OrderId) -> Option<OrderView> {
        self.inventory.order(id).and_then(|order| OrderView::new(&order, &self.is_confirmed))
    }

    /// One page. Looks at a bounded number of orders, and copies only those that are wanted.
    fn orders(&self, filter: &OrderFilter) -> OrderPage {
        match &filter.customer {
            None => {
                self.page(filter, self.inventory.orders_after(filter.after).take(limits::LIST_EXAMINED_MAX))
            }
            Some(customer) => {
                // A customer's orders come newest first from the inventory; a page is oldest first, as everywhere.
                let newest = self.inventory.orders_of(customer.as_str()).take(limits::LIST_EXAMINED_MAX);
                let mut newer: Vec<_> = newest.take_while(|order| order.seq > filter.after).collect();
                newer.reverse();
                self.page(filter, newer.into_iter())
            }
        }
    }

    fn page<'a>(
        &'a self,
        filter: &OrderFilter,
        orders: impl Iterator<Item = yoink_core::Order<'a>>,
    ) -> OrderPage {
        let limit = filter.limit.min(limits::LIST_ORDERS_MAX);
        let mut page = OrderPage::default();
        let mut last = filter.after;
        let is_wanted = |order: &yoink_core::Order<'_>| {
            filter.product.is_none_or(|product| order.product == product)
                && filter
                    .status
                    .is_none_or(|status| status == crate::views::status(order, &self.is_confirmed))
        };
        for order in orders {
            if page.orders.len() >= limit {
                break;
            }
            last = order.seq;
            if is_wanted(&order) {
                page.orders.extend(OrderView::new(&order, &self.is_confirmed));
            }
        }
        let is_last = match &filter.customer {
            None => self.inventory.orders_after(last).next().is_none(),
            Some(customer) => {
                self.inventory.orders_of(customer.as_str()).next().is_none_or(|order| order.seq <= last)
            }
        };
        page.next_after = (!is_last).then_some(last);
        page
    }

    fn books(&self) -> Books {
        Books {
            seq: self.inventory.last_seq(),
            products: self.inventory.products().map(|product| (product.id, product.figures())).collect(),
        }
    }
}
