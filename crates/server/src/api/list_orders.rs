//! `GET /v1/orders`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;
use yoink_core::{CustomerId, ProductId};
use yoink_engine::OrderFilter;
use yoink_engine::limits::LIST_ORDERS_MAX;

use super::paging::Page;
use super::{Query, ok};
use crate::edge::Core;
use crate::guard::auth::Caller;
use crate::problem::{FORBIDDEN, Problem};
use crate::wire::{Order, OrderList, OrderStatus};

/// Which orders.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only this customer's.
    #[param(schema_with = crate::api::schema::customer_id, required = false)]
    customer_id: Option<String>,
    /// Only those of this product.
    #[param(schema_with = crate::api::schema::product_id, required = false)]
    product_id: Option<String>,
    /// Only those at this point of their life.
    status: Option<OrderStatus>,
    /// Only those accepted after this event.
    #[serde(default)]
    #[param(default = 0, maximum = 9_223_372_036_854_775_807_i64)]
    after: u64,
    /// At most this many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Orders, oldest first.
///
/// The holder of a customer token sees their own; others need the scope `orders:read`.
#[utoipa::path(
    get, path = "/v1/orders", tag = "buyers", params(Filter),
    responses((status = 200, description = "One page of orders", body = OrderList), crate::api::ReadProblems)
)]
pub(crate) async fn list_orders(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    Query(filter): Query<Filter>,
) -> Result<impl IntoResponse, Problem> {
    let caller = core.shared.auth.lister(&headers)?;
    let filter = to_engine(filter, &caller)?;
    let page = core.engine.orders(filter).await.map_err(|error| core.problem(error))?;
    let orders = page.orders.into_iter().map(Order::from).collect();
    Ok(ok(OrderList { orders, next_after: page.next_after }))
}

fn to_engine(filter: Filter, caller: &Caller) -> Result<OrderFilter, Problem> {
    let named = filter.customer_id.map(|id| CustomerId::parse(&id)).transpose();
    let named = named.map_err(|error| Problem::field("", format!("query: customer_id {error}")))?;
    let customer = match (caller, named) {
        (Caller::Customer(customer), None) => Some(customer.clone()),
        (caller, Some(named)) if !caller.may_act_for(&named) => {
            return Err(Problem::new(&FORBIDDEN, "This token reads its own customer's orders only."));
        }
        (_, named) => named,
    };
    let Page { after, limit } = Page::check(filter.after, filter.limit, LIST_ORDERS_MAX)?;
    let product = filter.product_id.map(|id| ProductId::parse(&id)).transpose();
    Ok(OrderFilter {
        customer,
        status: filter.status.map(Into::into),
        product: product.map_err(|error| Problem::field("", format!("query: product_id {error}")))?,
        after,
        limit,
    })
}
