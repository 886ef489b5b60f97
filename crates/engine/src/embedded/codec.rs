//! How facts look on disk. The core's types are converted here field by field, so a rename there can never change the
//! disk by accident. The format is versioned by the log's `user_version`; kinds are only ever added.

use yoink_core::{
    Currency, CustomerId, Fact, IdempotencyKey, Money, NewProduct, OrderAccepted, OrderId, ProductChange,
    ProductId, StockAdjustment, Timestamp, Window,
};

pub use super::bytes::DecodeError;
use super::bytes::{Decoder, Encoder};

const PRODUCT_CREATED: u8 = 1;
const PRODUCT_CHANGED: u8 = 2;
const STOCK_ADJUSTED: u8 = 3;
const SALE_PAUSED: u8 = 4;
const SALE_RESUMED: u8 = 5;
const ORDER_ACCEPTED: u8 = 6;
const ORDER_CANCELLED: u8 = 7;
const ORDER_FAILED: u8 = 8;

/// Appends one fact to `bytes`.
pub fn encode_fact(fact: &Fact, bytes: &mut Vec<u8>) {
    let mut to = Encoder(bytes);
    match fact {
        Fact::ProductCreated { id, product } => {
            to.byte(PRODUCT_CREATED);
            to.text(id.as_str());
            encode_details(&mut to, product);
        }
        Fact::ProductChanged { product, change } => {
            to.byte(PRODUCT_CHANGED);
            to.text(product.as_str());
            encode_change(&mut to, change);
        }
        Fact::StockAdjusted(adjustment) => {
            to.byte(STOCK_ADJUSTED);
            to.text(adjustment.product.as_str());
            to.signed(adjustment.delta);
            to.text(&adjustment.reason);
            to.text(adjustment.key.as_str());
        }
        Fact::SalePaused { product } => {
            to.byte(SALE_PAUSED);
            to.text(product.as_str());
        }
        Fact::SaleResumed { product } => {
            to.byte(SALE_RESUMED);
            to.text(product.as_str());
        }
        Fact::OrderAccepted(accepted) => {
            to.byte(ORDER_ACCEPTED);
            to.raw(&accepted.order.0);
            to.text(accepted.customer.as_str());
            to.text_bytes(accepted.product.as_bytes());
            to.unsigned(u64::from(accepted.quantity));
            encode_money(&mut to, accepted.unit_price);
            to.option(accepted.key.as_ref(), |to, key| to.text(key.as_str()));
        }
        Fact::OrderCancelled { order, reason } => encode_end(&mut to, ORDER_CANCELLED, *order, reason),
        Fact::OrderFailed { order, reason } => encode_end(&mut to, ORDER_FAILED, *order, reason),
    }
}

/// Takes one fact from the front of `from`.
///
/// # Errors
/// The bytes are not a fact that this version can read.
pub(super) fn decode_fact(from: &mut Decoder<'_>) -> Result<Fact, DecodeError> {
    Ok(match from.byte()? {
        PRODUCT_CREATED => {
            let id = decode_product_id(from)?;
            Fact::ProductCreated { id, product: decode_details(from, id)? }
        }
        PRODUCT_CHANGED => {
            Fact::ProductChanged { product: decode_product_id(from)?, change: decode_change(from)? }
        }
        STOCK_ADJUSTED => Fact::StockAdjusted(StockAdjustment {
            product: decode_product_id(from)?,
            delta: from.signed()?,
            reason: from.text()?.into(),
            key: decode_key(from)?,
        }),
        SALE_PAUSED => Fact::SalePaused { product: decode_product_id(from)? },
        SALE_RESUMED => Fact::SaleResumed { product: decode_product_id(from)? },
        ORDER_ACCEPTED => Fact::OrderAccepted(OrderAccepted {
            order: OrderId(from.array()?),
            customer: CustomerId::parse(from.text()?).map_err(|_| DecodeError::BadText)?,
            product: decode_product_id(from)?,
            quantity: from.unsigned_32()?,
            unit_price: decode_money(from)?,
            key: from.option(decode_key)?,
        }),
        ORDER_CANCELLED => {
            Fact::OrderCancelled { order: OrderId(from.array()?), reason: from.text()?.into() }
        }
        ORDER_FAILED => Fact::OrderFailed { order: OrderId(from.array()?), reason: from.text()?.into() },
        other => return Err(DecodeError::UnknownKind(other)),
    })
}

/// Takes exactly `count` facts that fill `bytes`.
///
/// # Errors
/// As [`decode_fact`], and where bytes are left over.
pub fn decode_facts(bytes: &[u8], count: u64) -> Result<Vec<Fact>, DecodeError> {
    let mut from = Decoder(bytes);
    let mut facts = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(bytes.len()));
    for _ in 0..count {
        facts.push(decode_fact(&mut from)?);
    }
    if from.is_empty() { Ok(facts) } else { Err(DecodeError::Long) }
}

pub(super) fn encode_details(to: &mut Encoder<'_>, product: &NewProduct) {
    to.text(&product.name);
    encode_money(to, product.price);
    to.unsigned(product.stock);
    to.option(product.window.starts_at, |to, at| to.signed(at.0));
    to.option(product.window.ends_at, |to, at| to.signed(at.0));
    to.option(product.limit_per_customer, |to, limit| to.unsigned(u64::from(limit)));
    to.unsigned(u64::from(product.max_per_order));
}

pub(super) fn decode_details(from: &mut Decoder<'_>, id: ProductId) -> Result<NewProduct, DecodeError> {
    Ok(NewProduct {
        id: Some(id),
        name: from.text()?.into(),
        price: decode_money(from)?,
        stock: from.unsigned()?,
        window: Window { starts_at: from.option(decode_timestamp)?, ends_at: from.option(decode_timestamp)? },
        limit_per_customer: from.option(Decoder::unsigned_32)?,
        max_per_order: from.unsigned_32()?,
    })
}

fn encode_change(to: &mut Encoder<'_>, change: &ProductChange) {
    to.option(change.name.as_deref(), |to, name| to.text(name));
    to.option(change.price, encode_money);
    to.option(change.starts_at, |to, at| to.option(at, |to, at| to.signed(at.0)));
    to.option(change.ends_at, |to, at| to.option(at, |to, at| to.signed(at.0)));
    to.option(change.limit_per_customer, |to, limit| {
        to.option(limit, |to, limit| to.unsigned(u64::from(limit)))
    });
    to.option(change.max_per_order, |to, max| to.unsigned(u64::from(max)));
}

fn decode_change(from: &mut Decoder<'_>) -> Result<ProductChange, DecodeError> {
    Ok(ProductChange {
        name: from.option(|from| Ok(from.text()?.into()))?,
        price: from.option(decode_money)?,
        starts_at: from.option(|from| from.option(decode_timestamp))?,
        ends_at: from.option(|from| from.option(decode_timestamp))?,
        limit_per_customer: from.option(|from| from.option(Decoder::unsigned_32))?,
        max_per_order: from.option(Decoder::unsigned_32)?,
    })
}

fn encode_end(to: &mut Encoder<'_>, kind: u8, order: OrderId, reason: &str) {
    to.byte(kind);
    to.raw(&order.0);
    to.text(reason);
}

pub(super) fn encode_money(to: &mut Encoder<'_>, money: Money) {
    to.signed(money.amount);
    to.raw(money.currency.as_bytes());
}

pub(super) fn decode_money(from: &mut Decoder<'_>) -> Result<Money, DecodeError> {
    let amount = from.signed()?;
    let code = core::str::from_utf8(from.raw(3)?).map_err(|_| DecodeError::BadText)?;
    Ok(Money { amount, currency: Currency::parse(code).ok_or(DecodeError::BadText)? })
}

pub(super) fn decode_timestamp(from: &mut Decoder<'_>) -> Result<Timestamp, DecodeError> {
    from.signed().map(Timestamp)
}

pub(super) fn decode_product_id(from: &mut Decoder<'_>) -> Result<ProductId, DecodeError> {
    ProductId::parse(from.text()?).map_err(|_| DecodeError::BadText)
}

pub(super) fn decode_key(from: &mut Decoder<'_>) -> Result<IdempotencyKey, DecodeError> {
    IdempotencyKey::parse(from.text()?).map_err(|_| DecodeError::BadText)
}
