//! The few requests that the storm sends besides purchases: products, orders, and creating a product.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;

use crate::attempt::bearer;
use crate::audit::StockCounts;
use crate::client::{Answer, Client, SendError, StormRequest};
use crate::error::{OptionsProblem, StormError, plain_reason};
use crate::target::Target;

/// Few enough for a page to stay far below what the client reads of one answer.
const ORDERS_PER_PAGE: u32 = 500;

/// A product as the storm needs it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Product {
    #[serde(rename = "figures")]
    pub(crate) stock: StockCounts,
    #[serde(default)]
    pub(crate) limit_per_customer: Option<u64>,
}

/// An order as it was found again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundOrder {
    pub(crate) customer: String,
    pub(crate) product: String,
    pub(crate) quantity: u64,
    pub(crate) status: String,
    /// Why it ended, or never began.
    pub(crate) reason: Option<String>,
}

/// One page of a customer's orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderPage {
    /// Each with its id, oldest first.
    pub(crate) orders: Vec<(String, FoundOrder)>,
    /// Where the next page begins; `None` on the last.
    pub(crate) next_after: Option<u64>,
}

/// Connects once, so that "nobody there" is said in one sentence before anything else happens.
pub(crate) async fn reach(client: &mut Client, target: &Target) -> Result<(), StormError> {
    client.connect().await.map_err(|error| unreachable(target, &error))
}

fn unreachable(target: &Target, error: &SendError) -> StormError {
    let reason = match error {
        SendError::Connect(error) => plain_reason(error),
        other => other.to_string(),
    };
    StormError::Unreachable { url: target.url.clone(), reason }
}

/// The product's stock and limits.
pub(crate) async fn product(
    client: &mut Client,
    target: &Target,
    key: Option<&str>,
    id: &str,
) -> Result<Product, StormError> {
    let path = format!("/v1/products/{}", encode(id));
    let what = format!("GET {path}");
    let answer = client.send(get(target, key, &path)?).await.map_err(|error| no_answer(&what, &error))?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(|error| StormError::NoAnswer {
            what,
            reason: format!("the product was not understood: {error}"),
        }),
        404 => Err(StormError::NoProduct { url: target.url.clone(), product: id.to_owned() }),
        _ => Err(refused(what, &answer)),
    }
}

/// Creates a product with `units` and returns its id.
pub(crate) async fn create_product(
    client: &mut Client,
    target: &Target,
    admin_key: &str,
    name: &str,
    units: u64,
) -> Result<String, StormError> {
    let path = "/v1/admin/products";
    let what = format!("POST {path}");
    let body =
        serde_json::json!({ "name": name, "price": { "amount": 100, "currency": "EUR" }, "stock": units });
    let mut request = get(target, Some(admin_key), path)?;
    *request.method_mut() = Method::POST;
    *request.body_mut() = Full::new(Bytes::from(body.to_string()));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = client.send(request).await.map_err(|error| no_answer(&what, &error))?;
    if answer.status != 201 {
        return Err(refused(what, &answer));
    }
    let created: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    text(&created, "id")
        .ok_or_else(|| StormError::NoAnswer { what, reason: "the created product has no id".to_owned() })
}

/// A request for an order.
pub(crate) fn order_request(
    target: &Target,
    key: Option<&str>,
    id: &str,
) -> Result<StormRequest, StormError> {
    get(target, key, &format!("/v1/orders/{}", encode(id)))
}

/// A request for the orders of `customer` that follow `after`, 0 for the first page.
pub(crate) fn orders_request(
    target: &Target,
    key: Option<&str>,
    customer: &str,
    after: u64,
) -> Result<StormRequest, StormError> {
    let customer = encode(customer);
    get(target, key, &format!("/v1/orders?customer_id={customer}&after={after}&limit={ORDERS_PER_PAGE}"))
}

/// Reads an order; `None` if it is not one.
pub(crate) fn read_order(body: &[u8]) -> Option<FoundOrder> {
    found_order(&serde_json::from_slice(body).ok()?)
}

/// Reads an order's status alone: of an undecided order a server may know nothing else.
pub(crate) fn read_status(body: &[u8]) -> Option<String> {
    text(&serde_json::from_slice(body).ok()?, "status")
}

/// Reads a page of orders; `None` if it is not one.
pub(crate) fn read_orders(body: &[u8]) -> Option<OrderPage> {
    let page: Value = serde_json::from_slice(body).ok()?;
    let orders = page.get("orders")?.as_array()?;
    let orders = orders.iter().map(|order| Some((text(order, "id")?, found_order(order)?)));
    Some(OrderPage {
        orders: orders.collect::<Option<_>>()?,
        next_after: page.get("next_after").and_then(Value::as_u64),
    })
}

fn found_order(order: &Value) -> Option<FoundOrder> {
    Some(FoundOrder {
        customer: text(order, "customer_id")?,
        product: text(order, "product_id")?,
        quantity: order.get("quantity")?.as_u64()?,
        status: text(order, "status")?,
        reason: text(order, "reason"),
    })
}

/// An answer that says no to the storm itself.
pub(crate) fn refused(what: String, answer: &Answer) -> StormError {
    let mut detail: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
    if detail.is_empty() {
        detail = "no explanation".to_owned();
    }
    StormError::Refused { what, status: answer.status, detail }
}

fn no_answer(what: &str, error: &SendError) -> StormError {
    StormError::NoAnswer { what: what.to_owned(), reason: error.to_string() }
}

fn get(target: &Target, key: Option<&str>, path: &str) -> Result<StormRequest, StormError> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = format!("{}{path}", target.base)
        .parse()
        .map_err(|_| StormError::Target { url: target.url.clone(), reason: "its path cannot be sent" })?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, target.host.clone());
    if let Some(key) = key {
        headers.insert(header::AUTHORIZATION, bearer(key).ok_or(StormError::Options(OptionsProblem::Key))?);
    }
    Ok(request)
}

/// Ids are strings, but a number means the same.
fn text(object: &Value, field: &str) -> Option<String> {
    match object.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Percent-encodes what may not stand in a path segment.
fn encode(segment: &str) -> String {
    let mut encoded = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_with_its_ids_as_text_or_numbers() {
        let body = br#"{"id":"a","status":"accepted","customer_id":"ann","product_id":1,"quantity":2}"#;
        let order = read_order(body).unwrap();
        assert_eq!((order.customer.as_str(), order.product.as_str(), order.quantity), ("ann", "1", 2));
        assert_eq!(read_order(b"{}"), None);
        assert_eq!(read_order(b"no"), None);
    }

    #[test]
    fn a_page_of_orders_is_read_whole_or_not_at_all() {
        let body = br#"{"orders":[{"id":"a","status":"accepted","customer_id":"ann","product_id":1,"quantity":2}],"next_after":7}"#;
        let page = read_orders(body).unwrap();
        assert_eq!(
            (page.orders[0].0.as_str(), page.orders[0].1.quantity, page.next_after),
            ("a", 2, Some(7))
        );
        assert_eq!(read_orders(br#"{"orders":[],"next_after":null}"#).unwrap().next_after, None);
        for body in [&br#"{"orders":[{"id":"a"}]}"#[..], b"[]", b"{}", b"no"] {
            assert_eq!(read_orders(body), None);
        }
    }

    #[test]
    fn an_id_cannot_leave_its_path_segment() {
        assert_eq!(encode("../admin?x#y z"), "..%2Fadmin%3Fx%23y%20z");
    }
}
