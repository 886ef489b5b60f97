//! Databases for tests, each on a private server of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use tokio_postgres::{Client, NoTls};
use yoink_engine::postgres::{Postgres, SettingsCheck, migrate};

/// A database and its server, gone at the end of the test.
pub struct Database {
    url: String,
    _server: yoink_testkit::Postgres,
}

impl Database {
    /// An empty one.
    pub async fn new() -> Self {
        let server = yoink_testkit::Postgres::start().unwrap();
        Self { url: server.create_database("ledger").unwrap(), _server: server }
    }

    /// One with the ledger's tables, and the ledger.
    pub async fn with_ledger(connections_max: usize) -> (Self, Postgres) {
        let database = Self::new().await;
        migrate(&database.url()).await.expect("the tables are made");
        let ledger = Postgres::connect(&database.url(), connections_max, SettingsCheck::Strict).await;
        (database, ledger.expect("the ledger opens"))
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// A session beside those of the ledger.
    pub async fn session(&self) -> Client {
        session(&self.url).await
    }

    /// Waits until so many sessions of the ledger wait for a lock.
    pub async fn wait_for_locked(&self, count: i64) {
        let session = self.session().await;
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE application_name = 'yoink' AND datname = current_database() AND wait_event_type = 'Lock'";
        let begun = std::time::Instant::now();
        while session.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) < count {
            assert!(begun.elapsed() < std::time::Duration::from_secs(10), "they wait for no lock");
            tokio::task::yield_now().await;
        }
    }

    /// Executes statements beside the ledger.
    pub async fn execute(&self, sql: &str) {
        self.session().await.batch_execute(sql).await.unwrap();
    }
}

async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}
