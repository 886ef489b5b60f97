//! `GET /v1/events`: the log as a feed.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::IntoParams;
use yoink_core::ProductChange;
use yoink_engine::limits::READ_EVENTS_MAX;

use super::paging::Page;
use super::{Query, ok};
use crate::edge::Core;
use crate::guard::auth::Operator;
use crate::problem::Problem;
use crate::wire::{Event, EventList, Fact, Money, When};

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only those after this one.
    #[serde(default)]
    #[param(default = 0, maximum = 9_223_372_036_854_775_807_i64)]
    after: u64,
    /// At most this many.
    #[param(minimum = 1, maximum = 4096, default = 100)]
    limit: Option<usize>,
}

/// The log as a feed: every committed event, oldest first. Numbers leave a gap only where a loss was accepted.
#[utoipa::path(
    get, path = "/v1/events", tag = "operators", params(Filter),
    responses((status = 200, description = "One page of events", body = EventList), crate::api::ReadProblems)
)]
pub(crate) async fn list_events(
    _: Operator,
    State(core): State<Arc<Core>>,
    Query(filter): Query<Filter>,
) -> Result<impl IntoResponse, Problem> {
    let Page { after, limit } = Page::check(filter.after, filter.limit, READ_EVENTS_MAX)?;
    let found = core.engine.events(after, limit).await.map_err(|error| core.problem(error))?;
    let next_after = found.last().map_or(after, |event| event.seq);
    let events = found.into_iter().map(to_wire).collect();
    Ok(ok(EventList { events, next_after }))
}

fn to_wire(event: yoink_core::Event) -> Event {
    Event { seq: event.seq, at: When(event.at), fact: to_wire_fact(event.fact) }
}

fn to_wire_fact(fact: yoink_core::Fact) -> Fact {
    use yoink_core::Fact as Core;
    match fact {
        Core::ProductCreated { id, product } => Fact::ProductCreated {
            product_id: id.to_string(),
            name: product.name.into(),
            price: product.price.into(),
            stock: product.stock,
            starts_at: product.window.starts_at.map(When),
            ends_at: product.window.ends_at.map(When),
            limit_per_customer: product.limit_per_customer,
            max_per_order: product.max_per_order,
        },
        Core::ProductChanged { product, change } => {
            Fact::ProductChanged { product_id: product.to_string(), changes: changes(change) }
        }
        Core::StockAdjusted(adjustment) => Fact::StockAdjusted {
            product_id: adjustment.product.to_string(),
            delta: adjustment.delta,
            reason: adjustment.reason.into(),
        },
        Core::SalePaused { product } => Fact::SalePaused { product_id: product.to_string() },
        Core::SaleResumed { product } => Fact::SaleResumed { product_id: product.to_string() },
        Core::OrderAccepted(order) => Fact::OrderAccepted {
            order_id: order.order.to_string(),
            customer_id: order.customer.as_str().to_owned(),
            product_id: order.product.to_string(),
            quantity: order.quantity,
            unit_price: order.unit_price.into(),
        },
        Core::OrderCancelled { order, reason } => {
            Fact::OrderCancelled { order_id: order.to_string(), reason: reason.into() }
        }
        Core::OrderFailed { order, reason } => {
            Fact::OrderFailed { order_id: order.to_string(), reason: reason.into() }
        }
    }
}

/// Only what changed, as it would be sent to change it.
fn changes(change: ProductChange) -> serde_json::Value {
    let mut changes = serde_json::Map::new();
    let mut put = |name: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            changes.insert(name.to_owned(), value);
        }
    };
    let when = |field: Option<Option<yoink_core::Timestamp>>| {
        field.map(|when| when.map(|when| When(when).to_string()).into())
    };
    put("name", change.name.map(|name| String::from(name).into()));
    let price = change.price.map(Money::from);
    put("price", price.map(|price| serde_json::json!({"amount": price.amount, "currency": price.currency})));
    put("starts_at", when(change.starts_at));
    put("ends_at", when(change.ends_at));
    put("limit_per_customer", change.limit_per_customer.map(Into::into));
    put("max_per_order", change.max_per_order.map(Into::into));
    serde_json::Value::Object(changes)
}
