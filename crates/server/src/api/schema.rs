//! What the OpenAPI document says of texts and ids in requests: the bounds that the parsers keep, taken from where the
//! parsers take them.
//!
//! JSON schema counts characters and the parsers count bytes, so a text of other than ASCII can fit the document and
//! still be too long. Whatever the document refuses, the parsers refuse too.

use std::borrow::Cow;

use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, Required};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use yoink_core::{
    CustomerId, IdempotencyKey, PRODUCT_NAME_BYTES_MAX, ProductId, REASON_BYTES_MAX, STOCK_UNITS_MAX,
};

use crate::json::NUMBER_MAX;

/// All but control characters.
const PRINTABLE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";
const PRODUCT_ID: &str = "^[A-Za-z0-9._-]+$";
/// All of visible ASCII, which is what lies between these two.
const VISIBLE: &str = "^[!-~]+$";

fn text(pattern: &str, length_max: usize) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(length_max))
        .pattern(Some(pattern))
}

/// A reason for the books.
pub(crate) fn reason() -> RefOr<Schema> {
    text(PRINTABLE, REASON_BYTES_MAX).description(Some("Why, for the books.")).into()
}

/// What people call a product.
pub(crate) fn product_name() -> RefOr<Schema> {
    text(PRINTABLE, PRODUCT_NAME_BYTES_MAX).description(Some("What people call it.")).into()
}

/// A reason where none is needed; `null` is none.
pub(crate) fn reason_or_null() -> RefOr<Schema> {
    or_null(text(PRINTABLE, REASON_BYTES_MAX)).description(Some("Kept for nothing; may be left out.")).into()
}

fn or_null(text: ObjectBuilder) -> ObjectBuilder {
    text.schema_type(SchemaType::from_iter([Type::String, Type::Null]))
}

/// A product's id where only a text can stand: in paths, queries and filters.
pub(crate) fn product_id() -> RefOr<Schema> {
    text(PRODUCT_ID, ProductId::BYTES_MAX).into()
}

/// A product's id in a filter; `null` is any.
pub(crate) fn product_id_or_null() -> RefOr<Schema> {
    or_null(text(PRODUCT_ID, ProductId::BYTES_MAX)).description(Some("Only those of this product.")).into()
}

/// A customer's id where only a text can stand.
pub(crate) fn customer_id() -> RefOr<Schema> {
    text(PRINTABLE, CustomerId::BYTES_MAX).into()
}

/// Units to add, or to take if below zero; never 0.
pub(crate) fn delta() -> RefOr<Schema> {
    let most = i64::try_from(STOCK_UNITS_MAX).unwrap_or(i64::MAX);
    let range = |minimum: i64, maximum: i64| {
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(minimum)).maximum(Some(maximum))
    };
    OneOfBuilder::new()
        .item(range(1, most))
        .item(range(-most, -1))
        .description(Some("Units to add, or to take if below zero. Never 0."))
        .into()
}

/// An id in a body: a string, or a whole number.
fn text_or_number(text: ObjectBuilder) -> RefOr<Schema> {
    let number = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .minimum(Some(0))
        .maximum(Some(i64::try_from(NUMBER_MAX).unwrap_or(i64::MAX)));
    OneOfBuilder::new().item(text).item(number).into()
}

/// A product's id in a body.
pub(crate) struct ProductIdSchema;

impl PartialSchema for ProductIdSchema {
    fn schema() -> RefOr<Schema> {
        text_or_number(text(PRODUCT_ID, ProductId::BYTES_MAX))
    }
}

impl ToSchema for ProductIdSchema {
    fn name() -> Cow<'static, str> {
        "ProductId".into()
    }
}

/// A customer's id in a body.
pub(crate) struct CustomerIdSchema;

impl PartialSchema for CustomerIdSchema {
    fn schema() -> RefOr<Schema> {
        text_or_number(text(PRINTABLE, CustomerId::BYTES_MAX))
    }
}

impl ToSchema for CustomerIdSchema {
    fn name() -> Cow<'static, str> {
        "CustomerId".into()
    }
}

fn path(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Vec<Parameter> {
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(schema));
    vec![parameter.build()]
}

fn header(name: &str, required: Required, description: &str, schema: ObjectBuilder) -> Vec<Parameter> {
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(required)
        .description(Some(description))
        .schema(Some(schema));
    vec![parameter.build()]
}

fn idempotency_key(required: Required, scope: &str) -> Vec<Parameter> {
    let description = format!("1 to {} visible ASCII characters; {scope}", IdempotencyKey::BYTES_MAX);
    header("Idempotency-Key", required, &description, text(VISIBLE, IdempotencyKey::BYTES_MAX))
}

/// How long to wait for the ledger. Any text may stand there: what is not understood is ignored.
pub(crate) struct Prefer;

impl IntoParams for Prefer {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let description = "`wait=N`: wait up to N seconds, at most 30, for the ledger";
        header("Prefer", Required::False, description, ObjectBuilder::new().schema_type(Type::String))
    }
}

/// A product's id in the path.
pub(crate) struct ProductInPath;

impl IntoParams for ProductInPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        path("id", "The product's id", product_id())
    }
}

/// An order's id in the path.
pub(crate) struct OrderInPath;

impl IntoParams for OrderInPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let uuid = SchemaFormat::KnownFormat(KnownFormat::Uuid);
        let schema = ObjectBuilder::new().schema_type(Type::String).format(Some(uuid));
        path("id", "The order's id", schema)
    }
}

/// A customer's id in the path of a compatible route.
pub(crate) struct UserInPath;

impl IntoParams for UserInPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        path("userId", "The customer's id", customer_id())
    }
}

/// The key of a purchase.
pub(crate) struct PurchaseKey;

impl IntoParams for PurchaseKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        idempotency_key(Required::False, "scoped to the customer")
    }
}

/// The key of a restock or a withdrawal.
pub(crate) struct AdjustmentKey;

impl IntoParams for AdjustmentKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        idempotency_key(Required::True, "scoped to the product")
    }
}

/// The key of a restock on the compatible route, whose clients knew none.
pub(crate) struct OldRestockKey;

impl IntoParams for OldRestockKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        idempotency_key(Required::False, "scoped to the product")
    }
}

/// The key of a product's creation.
pub(crate) struct CreationKey;

impl IntoParams for CreationKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        idempotency_key(Required::False, "where the body has no `id`, the product's id is made from it")
    }
}
