//! What persisting orders is held against.

use std::fmt::Write as _;
use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio_postgres::NoTls;

/// Rows per second of a plain `COPY` into a table like the ledger's, without its checks and functions.
pub async fn copy(url: &str, rows: u32) -> f64 {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
        .batch_execute("DROP TABLE IF EXISTS copied; CREATE TABLE copied (LIKE orders INCLUDING DEFAULTS INCLUDING INDEXES)")
        .await
        .unwrap();
    let begun = Instant::now();
    let columns = "(place, id, product, epoch, number, customer, quantity, price, currency, accepted_at, status, \
                   revoked)";
    let mut sink =
        pin!(client.copy_in::<_, Bytes>(&format!("COPY copied {columns} FROM STDIN")).await.unwrap());
    let mut lines = String::new();
    for row in 1..=rows {
        let id =
            uuid::Uuid::from_u128(u128::from(row).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        writeln!(
            lines,
            "{row}\t{id}\t1\t1\t{row}\tcustomer-{row}\t1\t19999\tEUR\t1767607200000000\tconfirmed\tf"
        )
        .unwrap();
        if lines.len() > 60_000 {
            sink.send(Bytes::from(std::mem::take(&mut lines))).await.unwrap();
        }
    }
    sink.send(Bytes::from(lines)).await.unwrap();
    assert_eq!(sink.as_mut().finish().await.unwrap(), u64::from(rows));
    let seconds = begun.elapsed().as_secs_f64();
    client.batch_execute("DROP TABLE copied").await.unwrap();
    f64::from(rows) / seconds
}
