//! What travels: the JSON of the native routes, in both directions.
//!
//! Every shape can be written and read, so that the command line speaks the same words as the server. Ids are strings,
//! money is whole minor units, times are RFC 3339 in UTC with microseconds.

mod operate;

use std::cell::Cell;
use std::fmt;
use std::io::Write as _;

pub use operate::{
    BulkAnswer, BulkDiscard, BulkFilter, BulkRetry, DeadLetter, DeadLetterList, DeadLetterState, Delivery,
    Event, EventList, Fact, Info, InfoLimits, Invariant, OrderCounts, ProductFigures, Reconciliation,
    ServerTime,
};

use bytes::BufMut as _;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, RefOr};
use utoipa::{PartialSchema, ToSchema};
use yoink_core::{Currency, OrderId, Timestamp};
use yoink_engine::{OrderView, ProductView};

/// A point in time on the wire, for example `2026-01-05T10:00:00.123456Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When(pub Timestamp);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
        let timestamp = jiff::Timestamp::from_microsecond(self.0.0).map_err(|_| fmt::Error)?;
        PRINTER.print_timestamp(&timestamp, jiff::fmt::StdFmtWrite(f)).map_err(|_| fmt::Error)
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let timestamp = jiff::Timestamp::deserialize(deserializer)?;
        Ok(Self(Timestamp(timestamp.as_microsecond())))
    }
}

impl PartialSchema for When {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl ToSchema for When {}

/// A price in whole minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// In minor units (cents for EUR).
    #[schema(minimum = 0, maximum = 10_000_000_000_i64)]
    pub amount: i64,
    /// An ISO 4217 code.
    #[schema(pattern = "^[A-Z]{3}$")]
    pub currency: String,
}

impl From<yoink_core::Money> for Money {
    fn from(money: yoink_core::Money) -> Self {
        Self { amount: money.amount, currency: money.currency.as_str().to_owned() }
    }
}

impl Money {
    /// The price, if the amount and the currency are possible.
    pub fn to_core(&self) -> Option<yoink_core::Money> {
        let currency = Currency::parse(&self.currency)?;
        (0..=yoink_core::Money::AMOUNT_MAX)
            .contains(&self.amount)
            .then_some(yoink_core::Money { amount: self.amount, currency })
    }
}

/// Where an order is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OrderStatus {
    /// The request is kept, and will be decided (rabbitmq engine).
    Queued,
    /// The units are the customer's; the ledger does not have the order yet.
    Accepted,
    /// The ledger has it.
    Confirmed,
    /// Somebody gave the units back.
    Cancelled,
    /// The ledger can never take it, or never decide it; units that it had came back.
    Failed,
    /// It was queued, and then decided that the customer gets nothing (rabbitmq engine).
    Rejected,
}

impl From<yoink_engine::OrderStatus> for OrderStatus {
    fn from(status: yoink_engine::OrderStatus) -> Self {
        match status {
            yoink_engine::OrderStatus::Queued => Self::Queued,
            yoink_engine::OrderStatus::Accepted => Self::Accepted,
            yoink_engine::OrderStatus::Confirmed => Self::Confirmed,
            yoink_engine::OrderStatus::Cancelled => Self::Cancelled,
            yoink_engine::OrderStatus::Failed => Self::Failed,
            yoink_engine::OrderStatus::Rejected => Self::Rejected,
        }
    }
}

impl From<OrderStatus> for yoink_engine::OrderStatus {
    fn from(status: OrderStatus) -> Self {
        match status {
            OrderStatus::Queued => Self::Queued,
            OrderStatus::Accepted => Self::Accepted,
            OrderStatus::Confirmed => Self::Confirmed,
            OrderStatus::Cancelled => Self::Cancelled,
            OrderStatus::Failed => Self::Failed,
            OrderStatus::Rejected => Self::Rejected,
        }
    }
}

/// An order as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Order {
    /// A UUID.
    #[schema(format = Uuid)]
    pub id: String,
    /// The event that accepted it; 0 while it is queued.
    pub seq: u64,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// Who bought.
    pub customer_id: String,
    /// What.
    pub product_id: String,
    /// How many.
    pub quantity: u32,
    /// What one unit cost when the order was accepted.
    pub unit_price: Money,
    /// When it was accepted, or queued.
    pub accepted_at: When,
    /// When it was cancelled, failed or rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ended_at: Option<When>,
    /// Why it was cancelled, failed or rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// `relaxed`, in the answer to a purchase, if the servers may forget it (`/v1/info` says more).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub durability: Option<String>,
}

impl From<OrderView> for Order {
    fn from(order: OrderView) -> Self {
        Self {
            id: order.id.to_string(),
            seq: order.seq,
            status: order.status.into(),
            customer_id: order.customer.as_str().to_owned(),
            product_id: order.product.to_string(),
            quantity: order.quantity,
            unit_price: order.unit_price.into(),
            accepted_at: When(order.accepted_at),
            ended_at: order.ended_at.map(When),
            reason: order.reason.map(String::from),
            durability: None,
        }
    }
}

/// An order of which the rest is not known: another node queued it, and nobody has decided it yet or ever can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderInShort {
    /// A UUID.
    #[schema(format = Uuid)]
    pub id: String,
    /// `queued` or `failed`.
    #[schema(pattern = "^(queued|failed)$")]
    pub status: String,
    /// When it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ended_at: Option<When>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
}

impl OrderInShort {
    pub(crate) fn new(id: OrderId, order: yoink_engine::OrderInShort) -> Self {
        let (status, failure) = match order {
            yoink_engine::OrderInShort::Queued => ("queued", None),
            yoink_engine::OrderInShort::Failed(failure) => ("failed", Some(failure)),
        };
        let (ended_at, reason) =
            failure.map(|failure| (When(failure.at), String::from(failure.reason))).unzip();
        Self { id: id.to_string(), status: status.to_owned(), ended_at, reason }
    }
}

/// An order as it is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OrderFound {
    /// With everything that is known of it.
    Known(Order),
    /// Undecided, or never to be decided.
    InShort(OrderInShort),
}

/// One page of orders, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderList {
    /// The orders.
    pub orders: Vec<Order>,
    /// Give this as `after` to get the next page; `null` on the last one.
    pub next_after: Option<u64>,
}

/// Units of a product: `stocked = available + held + sold + withheld`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Figures {
    /// Units ever added.
    pub stocked: u64,
    /// Units a buyer can have now.
    pub available: u64,
    /// Units set aside for a while.
    pub held: u64,
    /// Units of live orders.
    pub sold: u64,
    /// Units withdrawn from sale.
    pub withheld: u64,
}

impl From<yoink_core::Figures> for Figures {
    fn from(figures: yoink_core::Figures) -> Self {
        Self {
            stocked: figures.stocked,
            available: figures.available,
            held: figures.held,
            sold: figures.sold,
            withheld: figures.withheld,
        }
    }
}

/// A product. Its figures are public, so that anybody can check what a sale claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Product {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What one unit costs.
    pub price: Money,
    /// Units a buyer can have now.
    pub stock: u64,
    /// The first instant at which it is sold; `null` is open-ended.
    pub starts_at: Option<When>,
    /// The first instant at which it is no longer sold; `null` is open-ended.
    pub ends_at: Option<When>,
    /// Units of live orders that one customer may have; `null` does not limit them.
    pub limit_per_customer: Option<u32>,
    /// Units that fit in one order.
    pub max_per_order: u32,
    /// Whether an operator paused the sale.
    pub paused: bool,
    /// All its units.
    pub figures: Figures,
}

impl From<&ProductView> for Product {
    fn from(view: &ProductView) -> Self {
        let details = &view.details;
        Self {
            id: view.id.to_string(),
            name: details.name.to_string(),
            price: details.price.into(),
            stock: view.figures.available,
            starts_at: details.window.starts_at.map(When),
            ends_at: details.window.ends_at.map(When),
            limit_per_customer: details.limit_per_customer,
            max_per_order: details.max_per_order,
            paused: view.paused,
            figures: view.figures.into(),
        }
    }
}

/// Every product, in order of creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProductList {
    /// The products.
    pub products: Vec<Product>,
}

/// A restock or withdrawal that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adjustment {
    /// The event that made it.
    pub seq: u64,
    /// Of which product.
    pub product_id: String,
    /// Units added, or taken if below zero.
    pub delta: i64,
    /// The product's units now.
    pub figures: Figures,
}

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn put_text(buffer: &mut Vec<u8>, text: &str) {
    buffer.put_u8(b'"');
    // All of it is looked at without stopping, which takes many bytes at a time.
    let is_plain = |byte| (byte >= 0x20) & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |passes, byte| passes & is_plain(byte)) {
        buffer.put_slice(text.as_bytes());
    } else {
        put_escaped(buffer, text);
    }
    buffer.put_u8(b'"');
}

fn put_escaped(buffer: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            '"' => buffer.put_slice(b"\\\""),
            '\\' => buffer.put_slice(b"\\\\"),
            '\n' => buffer.put_slice(b"\\n"),
            '\r' => buffer.put_slice(b"\\r"),
            '\t' => buffer.put_slice(b"\\t"),
            control if u32::from(control) < 0x20 => {
                // Writing to a buffer that grows cannot fail.
                let _ = write!(buffer, "\\u{:04x}", u32::from(control));
            }
            other => buffer.put_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Appends a whole number.
pub(crate) fn put_number(buffer: &mut Vec<u8>, number: u64) {
    // 20 digits hold any u64.
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        // `rest % 10` is below 10.
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        length += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    buffer.put_slice(digits.get(digits.len() - length..).unwrap_or_default());
}

/// The bytes of a point in time as a JSON string, quotes included, in years that have four digits.
const WHEN_BYTES: usize = 29;

thread_local! {
    /// The last point in time that was written by this thread. All orders of one commit have the same.
    static LAST_WHEN: Cell<Option<(Timestamp, [u8; WHEN_BYTES])>> = const { Cell::new(None) };
}

/// Appends a point in time as a JSON string.
pub(crate) fn put_when(buffer: &mut Vec<u8>, when: Timestamp) {
    if let Some((_, text)) = LAST_WHEN.get().filter(|(last, _)| *last == when) {
        buffer.put_slice(&text);
        return;
    }
    let start = buffer.len();
    // Writing to a buffer that grows cannot fail, and the engine's clock stays within years that have four digits.
    let _ = write!(buffer, "\"{}\"", When(when));
    if let Some(text) = buffer.get(start..).and_then(|text| text.try_into().ok()) {
        LAST_WHEN.set(Some((when, text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_are_written_as_serde_json_would() {
        for text in ["", "user_123", "a\"b\\c", "tab\tline\nbell\u{7}", "ünïcode 🦀", "\u{7f}"] {
            let mut buffer = Vec::new();
            put_text(&mut buffer, text);
            assert_eq!(buffer, serde_json::to_string(text).unwrap().as_bytes());
        }
        for number in [0, 7, 10, 99, 100, 4_096, u64::MAX] {
            let mut buffer = Vec::new();
            put_number(&mut buffer, number);
            assert_eq!(buffer, number.to_string().as_bytes());
        }
    }

    #[test]
    fn of_an_order_without_a_product_it_is_told_how_it_ended() {
        let (id, at) = (OrderId([7; 16]), Timestamp(1_767_607_200_000_000));
        let told = |order| serde_json::to_value(OrderFound::InShort(OrderInShort::new(id, order))).unwrap();
        let queued = serde_json::json!({"id": id.to_string(), "status": "queued"});
        assert_eq!(told(yoink_engine::OrderInShort::Queued), queued);
        let failure = yoink_engine::Failure { at, reason: "dead letter 3".into() };
        let failed = serde_json::json!({"id": id.to_string(), "status": "failed",
            "ended_at": "2026-01-05T10:00:00.000000Z", "reason": "dead letter 3"});
        assert_eq!(told(yoink_engine::OrderInShort::Failed(failure)), failed);
    }

    #[test]
    fn times_have_six_digits_and_a_z() {
        let when = When(Timestamp(1_767_607_200_123_456));
        assert_eq!(when.to_string(), "2026-01-05T10:00:00.123456Z");
        let whole = When(Timestamp(1_767_607_200_000_000));
        assert_eq!(serde_json::to_string(&whole).unwrap(), "\"2026-01-05T10:00:00.000000Z\"");
        assert_eq!(serde_json::from_str::<When>("\"2026-01-05T10:00:00Z\"").unwrap(), whole);
        let mut buffer = Vec::new();
        let times = [when, when, whole, when];
        times.iter().for_each(|when| put_when(&mut buffer, when.0));
        let expected = times.map(|when| serde_json::to_string(&when).unwrap()).concat();
        assert_eq!(buffer, expected.as_bytes());
    }
}
