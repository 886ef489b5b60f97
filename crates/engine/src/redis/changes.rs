//! Tells Redis what changed in the ledger: what is said about a product, and units that it is given.

use super::filling::description;
use super::servers::Server;
use super::{Shared, script};
use crate::node::catalogue::Listed;
use crate::postgres::Credit;

/// Tells Redis what the ledger says about a product.
pub(crate) async fn describe(shared: &Shared, server: &Server, listed: &Listed) -> redis::RedisResult<()> {
    let keys = shared.keys(listed.row.number, listed.epoch());
    let mut call = script::DESCRIBE.prepare_invoke();
    call.key(keys.sale).arg(listed.epoch()).arg(listed.row.version);
    for (name, value) in description(&listed.row) {
        call.arg(name).arg(value);
    }
    let _: redis::Value = call.invoke_async(&mut server.connection.clone()).await?;
    Ok(())
}

/// Whether Redis has the units of a credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credited {
    Yes,
    /// Another epoch is there, or it is being loaded.
    NotYet,
    /// It does not know the order that they come from, or its figures are none.
    Never,
}

/// Gives Redis the units of a credit, unless it has them.
pub(crate) async fn apply_credit(
    shared: &Shared,
    server: &Server,
    credit: &Credit,
) -> redis::RedisResult<Credited> {
    let keys = shared.keys(credit.product, credit.epoch);
    let mut call = script::CREDIT.prepare_invoke();
    call.key(keys.sale).key(keys.buyers).arg(credit.epoch).arg(credit.id.simple().to_string());
    call.arg(credit.units).arg(credit.kind.name()).arg(credit.customer.as_deref().unwrap_or(""));
    let answer: redis::Value = call.invoke_async(&mut server.connection.clone()).await?;
    Ok(match answer {
        redis::Value::Int(1 | 2) => Credited::Yes,
        redis::Value::BulkString(text) if text == b"C" => Credited::Never,
        _ => Credited::NotYet,
    })
}

/// The mistake: a crash before the ledger heard of it, and nothing in Redis tells that it was done.
#[cfg(feature = "faults")]
pub(crate) async fn apply_credit_twice(
    shared: &Shared,
    server: &Server,
    credit: &Credit,
) -> redis::RedisResult<()> {
    let sale = shared.keys(credit.product, credit.epoch).sale;
    let mut twice = redis::pipe();
    for field in ["available", "credited", "available", "credited"] {
        twice.cmd("HINCRBY").arg(&sale).arg(field).arg(credit.units).ignore();
    }
    twice.query_async(&mut server.connection.clone()).await
}
