//! Databases for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::{Client, NoTls};
use yoink_engine::postgres::{Postgres, SettingsCheck, migrate};

/// The server that the tests make their databases on.
fn server_url() -> String {
    std::env::var("YOINK_TEST_POSTGRES").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:54329".to_owned())
}

/// A database of its own, gone at the end of the test.
pub struct Database {
    name: String,
}

impl Database {
    /// An empty one.
    pub async fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("yoink_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let server = session(&format!("{}/postgres", server_url())).await;
        server.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
        server.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Self { name }
    }

    /// One with the ledger's tables, and the ledger.
    pub async fn with_ledger(connections_max: usize) -> (Self, Postgres) {
        let database = Self::new().await;
        migrate(&database.url()).await.expect("the tables are made");
        let ledger = Postgres::connect(&database.url(), connections_max, SettingsCheck::Strict).await;
        (database, ledger.expect("the ledger opens"))
    }

    pub fn url(&self) -> String {
        format!("{}/{}", server_url(), self.name)
    }

    /// A session beside those of the ledger.
    pub async fn session(&self) -> Client {
        session(&self.url()).await
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

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.name.clone();
        // The test's own runtime may be the one that is busy dropping this.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = session(&format!("{}/postgres", server_url())).await;
                server.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
            });
        });
        dropping.join().unwrap();
    }
}
