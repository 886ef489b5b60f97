//! Settings of PostgreSQL under which a committed order could be lost.

use tokio_postgres::Row;

use super::{Postgres, PostgresError, row};

/// Whether a PostgreSQL that can lose committed orders is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SettingsCheck {
    /// It is not.
    #[default]
    Strict,
    /// It is, and [`Postgres::relaxed_reasons`] has why that is less than promised.
    Relaxed,
}

/// The settings that decide whether what was committed can be lost.
#[derive(Debug)]
pub(super) struct Settings {
    fsync: String,
    synchronous_commit: String,
    full_page_writes: String,
    pub is_in_recovery: bool,
    /// How the database keeps text.
    pub encoding: String,
}

/// Asks for [`Settings`].
const QUESTION: &str = "SELECT current_setting('fsync') AS fsync,
                               current_setting('synchronous_commit') AS synchronous_commit,
                               current_setting('full_page_writes') AS full_page_writes,
                               pg_is_in_recovery() AS is_in_recovery,
                               current_setting('server_encoding') AS encoding";
const WHAT: &str = "read its settings";

impl Settings {
    fn of(rows: &[Row]) -> Result<Self, PostgresError> {
        let row = row::only(rows, "settings")?;
        Ok(Self {
            fsync: row::get(row, "fsync")?,
            synchronous_commit: row::get(row, "synchronous_commit")?,
            full_page_writes: row::get(row, "full_page_writes")?,
            is_in_recovery: row::get(row, "is_in_recovery")?,
            encoding: row::get(row, "encoding")?,
        })
    }

    /// Whether every name that a buyer may have fits into its text.
    pub fn takes_every_name(&self) -> bool {
        matches!(self.encoding.as_str(), "UTF8" | "SQL_ASCII")
    }

    /// What is wrong, each as a clause.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.fsync != "on" {
            reasons.push(format!("fsync is {}, so a power loss can destroy the database", self.fsync));
        }
        if !matches!(self.synchronous_commit.as_str(), "on" | "remote_apply") {
            let is = &self.synchronous_commit;
            reasons.push(format!(
                "synchronous_commit is {is}, so it says that orders are committed that a power loss can still lose"
            ));
        }
        if self.full_page_writes != "on" {
            let is = &self.full_page_writes;
            reasons.push(format!("full_page_writes is {is}, so a power loss can damage the tables"));
        }
        if self.is_in_recovery {
            reasons.push("it is in recovery, so nothing can be written to it".to_owned());
        }
        reasons
    }
}

impl Postgres {
    /// Looks again whether its settings would lose orders: what is wrong now, each as a clause. They can be changed
    /// while it runs, and a failover can change which server answers.
    ///
    /// Asks in a session that begins now: what `ALTER DATABASE` and `ALTER ROLE` set holds for such sessions only.
    /// Those that began before are looked at whenever they are used.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn check_settings(&self) -> Result<Vec<String>, PostgresError> {
        let rows = self.read_in_new_session(WHAT, QUESTION).await?;
        Ok(Settings::of(&rows)?.reasons())
    }

    /// The settings of a session that there is already, if there is one.
    pub(super) async fn read_settings(&self) -> Result<Settings, PostgresError> {
        Settings::of(&self.read(WHAT, QUESTION, &[]).await?)
    }
}
