//! Orders on their way into the ledger, as the functions there take them: one array per column.

use uuid::Uuid;
use yoink_core::OrderId;

use super::row;

/// The columns of some orders, each in the same order.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) customers: Vec<&'a str>,
    pub(super) quantities: Vec<i32>,
    pub(super) prices: Vec<i64>,
    pub(super) currencies: Vec<&'a str>,
    pub(super) times: Vec<i64>,
}

/// What every order has, whatever it is called.
pub(super) struct Parts<'a> {
    pub(super) order: OrderId,
    pub(super) customer: &'a str,
    pub(super) quantity: i32,
    pub(super) price: i64,
    pub(super) currency: &'a str,
    pub(super) accepted_at: i64,
}

impl<'a> FromIterator<Parts<'a>> for Columns<'a> {
    fn from_iter<T: IntoIterator<Item = Parts<'a>>>(orders: T) -> Self {
        let mut columns = Self::default();
        for order in orders {
            columns.ids.push(row::uuid(order.order));
            columns.customers.push(order.customer);
            columns.quantities.push(order.quantity);
            columns.prices.push(order.price);
            columns.currencies.push(order.currency);
            columns.times.push(order.accepted_at);
        }
        columns
    }
}
