//! One picture over several statements.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::timeout;
use tokio_postgres::Row;

use super::connection::{ANSWER_MAX, Parameter};
use super::error::Effect;
use super::{Postgres, PostgresError};

/// How long a single statement may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// As every other.
    Usual,
    /// An audit counts every row.
    Minutes,
}

/// A transaction that sees the ledger as it was at its first statement, and changes nothing. A connection on which it
/// was not ended is thrown away.
pub(super) struct Reading {
    connection: Option<Object>,
    answer_max: Duration,
}

impl Reading {
    pub async fn begin(postgres: &Postgres, patience: Patience) -> Result<Self, PostgresError> {
        let connection = Some(postgres.connection("begin to read").await?);
        let mut reading = Self { connection, answer_max: ANSWER_MAX };
        reading.execute("begin to read", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        if patience == Patience::Minutes {
            reading.execute("begin to read", "SET LOCAL statement_timeout = '10min'").await?;
            reading.answer_max = Duration::from_secs(605);
        }
        Ok(reading)
    }

    /// Executes a statement without parameters.
    pub async fn execute(&self, what: &'static str, sql: &str) -> Result<(), PostgresError> {
        let Some(connection) = &self.connection else { return Err(ended(what)) };
        let done = timeout(self.answer_max, connection.batch_execute(sql)).await;
        let done = done.map_err(|_| PostgresError::no_answer(what, Effect::Reads))?;
        done.map_err(|source| PostgresError::executing(what, Effect::Reads, source))
    }

    pub async fn rows(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, PostgresError> {
        let Some(connection) = &self.connection else { return Err(ended(what)) };
        let rows = timeout(self.answer_max, connection.query(sql, parameters)).await;
        let rows = rows.map_err(|_| PostgresError::no_answer(what, Effect::Reads))?;
        rows.map_err(|source| PostgresError::executing(what, Effect::Reads, source))
    }

    /// Ends it and gives the connection back.
    pub async fn finish(mut self) -> Result<(), PostgresError> {
        self.execute("end reading", "COMMIT").await?;
        drop(self.connection.take());
        Ok(())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}

fn ended(what: &'static str) -> PostgresError {
    PostgresError::NoConnection { what, reason: "the reading has ended", source: None }
}
