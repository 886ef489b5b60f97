//! What a sale costs the ledger does not grow with the orders that it has.

use std::time::{Duration, Instant};

use yoink_core::ProductChange;
use yoink_engine::postgres::{Decided, KeptConnection, Postgres};

use super::deciding::{rabbit_ledger, request};
use super::server::Database;
use super::{LATER, NOW, deliver, grant, id, on_sale, order};

/// Batches of a hundred: tables that were empty a moment ago, as in the first minute of a sale. PostgreSQL has no
/// figures of them yet.
const BATCHES: i64 = 60;

fn numbers(batch: i64) -> std::ops::Range<i64> {
    batch * 100 + 1..batch * 100 + 101
}

/// A product with a limit per customer, so that what they have is counted.
async fn limited(ledger: &Postgres) -> i32 {
    let product = on_sale(ledger, "1", 1_000_000).await;
    let limit = ProductChange { limit_per_customer: Some(Some(3)), ..ProductChange::default() };
    ledger.change_product(&id("1"), &limit, NOW).await.unwrap();
    product
}

/// Rows of the tables that grow with every order that were read without an index, once all sessions of the ledger
/// have ended.
async fn rows_read_in_a_row(database: &Database, ledger: Postgres) -> i64 {
    drop(ledger);
    let session = database.session().await;
    let begun = Instant::now();
    let sessions = "SELECT count(*) FROM pg_stat_activity
                    WHERE application_name = 'yoink' AND datname = current_database()";
    while session.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the ledger's sessions do not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let read = "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables
                WHERE relname IN ('orders', 'refused', 'events', 'credits')";
    session.query_one(read, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn who_delivers_reads_no_table_from_end_to_end() {
    let (database, ledger) = Database::with_ledger(1).await;
    let product = limited(&ledger).await;
    for batch in 0..BATCHES {
        let grants: Vec<_> = numbers(batch).map(|number| grant(number, &format!("c{number}"), 1)).collect();
        deliver(&ledger, product, 1, &grants).await;
        let ids: Vec<_> = numbers(batch).map(order).collect();
        assert_eq!(ledger.order_statuses(&ids).await.unwrap().len(), 100);
    }
    assert_eq!(rows_read_in_a_row(&database, ledger).await, 0);
}

#[tokio::test]
async fn who_decides_and_looks_for_repetitions_reads_no_table_from_end_to_end() {
    let (database, ledger) = rabbit_ledger().await;
    let product = limited(&ledger).await;
    let (mut fence, mut kept) = (None, KeptConnection::default());
    for batch in 0..BATCHES {
        let requests: Vec<_> =
            numbers(batch).map(|number| request(number, &format!("c{number}"), 1)).collect();
        let Decided::Done { fence: token, .. } =
            ledger.decide(product, fence, (LATER, NOW), &requests).await.unwrap()
        else {
            panic!("nobody else decides");
        };
        fence = Some(token);
        let ids: Vec<_> = numbers(batch).chain(numbers(batch + 1)).map(order).collect();
        assert_eq!(ledger.known_orders(&mut kept, &ids).await.unwrap().len(), 100);
    }
    drop(kept);
    assert_eq!(rows_read_in_a_row(&database, ledger).await, 0);
}
