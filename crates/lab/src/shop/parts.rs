//! What several strategies do in the same words: taking a unit in Redis, writing an order in PostgreSQL.

use anyhow::{Context as _, Result};
use deadpool_postgres::GenericClient;
use redis::aio::ConnectionManager;
use redis::{AsyncCommands as _, Script};

use super::{Answer, Attempt, Shop};

/// The key of a product's stock in Redis.
#[must_use]
pub fn stock_key(product: &str) -> String {
    format!("stock:{product}")
}

/// Takes units if there are enough, in one atomic step, as the older systems' script does: gives the count before, or
/// `None` if there are too few or there is no count. A list and a text may be given: the text is put at the list's left
/// end in the same step, if units are taken.
///
/// # Errors
/// Redis cannot be used.
pub async fn decrement(
    redis: &mut ConnectionManager,
    product: &str,
    quantity: i64,
    push: Option<(&str, &str)>,
) -> Result<Option<i64>> {
    let script = Script::new(
        r"local stock = tonumber(redis.call('GET', KEYS[1]))
        if not stock or stock < tonumber(ARGV[1]) then return false end
        redis.call('DECRBY', KEYS[1], ARGV[1])
        if KEYS[2] then redis.call('LPUSH', KEYS[2], ARGV[2]) end
        return stock",
    );
    let mut call = script.key(stock_key(product));
    call.arg(quantity);
    if let Some((list, text)) = push {
        call.key(list).arg(text);
    }
    call.invoke_async(redis).await.context("Redis cannot take a unit")
}

/// Adds units to the count in Redis.
///
/// # Errors
/// Redis cannot be used.
pub async fn give_back(redis: &mut ConnectionManager, product: &str, quantity: i64) -> Result<i64> {
    redis.incr(stock_key(product), quantity).await.context("Redis cannot take a unit back")
}

/// Takes the attempt's units in PostgreSQL, if there are enough, by one UPDATE, which also locks the product's row until
/// the transaction ends: gives the stock before, or `None` if there are too few.
///
/// # Errors
/// PostgreSQL cannot be used.
pub async fn take_units<C: GenericClient>(client: &C, attempt: &Attempt) -> Result<Option<i64>> {
    let quantity = i32::try_from(attempt.quantity)?;
    let row = client
        .query_opt(
            "UPDATE products SET stock = stock - $2 WHERE id = $1 AND stock >= $2 RETURNING stock + $2",
            &[&attempt.product, &quantity],
        )
        .await
        .context("cannot take a unit")?;
    Ok(row.map(|row| i64::from(row.get::<_, i32>(0))))
}

/// An order as it is written.
#[derive(Clone, Copy, Debug)]
pub struct NewOrder<'a> {
    /// Its id.
    pub id: &'a str,
    /// What was asked for.
    pub attempt: &'a Attempt,
    /// `CONFIRMED`, or `FAILED` with its units given back.
    pub status: &'a str,
}

/// Writes an order.
///
/// # Errors
/// PostgreSQL cannot be used, or refuses.
pub async fn insert_order<C: GenericClient>(
    client: &C,
    order: NewOrder<'_>,
) -> Result<(), tokio_postgres::Error> {
    let NewOrder { id, attempt, status } = order;
    let quantity = i32::try_from(attempt.quantity).unwrap_or(i32::MAX);
    client
        .execute(
            "INSERT INTO orders (id, user_id, product_id, quantity, request, status) VALUES ($1, $2, $3, $4, $5, $6)",
            &[&id, &attempt.user, &attempt.product, &quantity, &attempt.key, &status],
        )
        .await?;
    Ok(())
}

/// Takes the order's units from the count in PostgreSQL, whatever it is, and writes the order: both or none, if `client` is
/// a transaction. Whoever calls this has decided before that there are enough.
///
/// # Errors
/// PostgreSQL cannot be used, or refuses.
pub async fn insert_order_and_lower_stock<C: GenericClient>(
    client: &C,
    order: NewOrder<'_>,
) -> Result<(), tokio_postgres::Error> {
    let quantity = i32::try_from(order.attempt.quantity).unwrap_or(i32::MAX);
    client
        .execute("UPDATE products SET stock = stock - $2 WHERE id = $1", &[&order.attempt.product, &quantity])
        .await?;
    insert_order(client, order).await
}

/// Reads the stock, checks it, writes it back and writes the order: without a row lock or a transaction, so right only
/// for whoever is alone. Between reading and writing is the point `inside-lock`, of those who do this under a lock.
///
/// # Errors
/// PostgreSQL cannot be used; that is written down.
pub async fn read_check_write(shop: &Shop, attempt: &Attempt, order: &str) -> Result<Answer> {
    let trace = &shop.trace;
    let broken = |error: &anyhow::Error| trace.database_error(&attempt.key, &format!("{error:#}"));
    let client = shop.postgres(&attempt.key).await?;
    let read = client.query_one("SELECT stock FROM products WHERE id = $1", &[&attempt.product]).await;
    let stock: i32 = read.context("cannot read the stock").inspect_err(broken)?.get(0);
    trace.step(&attempt.key, "reads the stock", &format!("stock = {stock}"));
    if i64::from(stock) < attempt.quantity {
        return Ok(Answer::SoldOut);
    }
    shop.points.reach("inside-lock", trace, &attempt.key).await;
    let left = stock - i32::try_from(attempt.quantity)?;
    let write =
        client.execute("UPDATE products SET stock = $2 WHERE id = $1", &[&attempt.product, &left]).await;
    write.context("cannot write the stock").inspect_err(broken)?;
    trace.takes(&attempt.key, "writes the stock", &format!("stock = {left}"), i64::from(stock));
    let written = insert_order(&client, NewOrder { id: order, attempt, status: "CONFIRMED" }).await;
    written.context("cannot write the order").inspect_err(broken)?;
    trace.step(&attempt.key, "writes the order", "");
    Ok(Answer::Bought { order: order.to_owned() })
}
