//! Making the tables, and seeing whether they are those of this version.

use refinery::Runner;
use tokio_postgres::NoTls;

use super::connection::{patient_config, target};
use super::error::Effect;
use super::{Postgres, PostgresError, PostgresOpenError, row};

/// Who migrates holds this advisory lock.
const LOCK: &str = "SELECT pg_advisory_lock(7096334)";
const HISTORY: &str = "refinery_schema_history";

mod migrations {
    refinery::embed_migrations!("src/postgres/migrations");
}

fn runner() -> Runner {
    // All in one transaction: a migration that fails leaves nothing behind.
    migrations::migrations::runner().set_grouped(true)
}

/// Makes the tables of the ledger, or brings them up to this version. Returns what was applied, oldest first; nothing
/// if they were up to date. Several may do it at once: they wait for each other.
///
/// # Errors
/// It cannot be reached, or the tables are of a newer version or made by something else; nothing was changed then.
pub async fn migrate(url: &str) -> Result<Vec<String>, PostgresOpenError> {
    let config = patient_config(url)?;
    let target = target(&config);
    let unusable = |source| PostgresOpenError::Unusable { target: target.clone(), source };
    let failed = |what: &'static str, error| unusable(PostgresError::executing(what, Effect::Reads, error));
    let connected = config.connect(NoTls).await;
    let (mut client, connection) = connected.map_err(|source| failed("connect", source))?;
    let driver = tokio::spawn(connection);
    client.batch_execute(LOCK).await.map_err(|source| failed("wait for other migrations", source))?;
    let applied = runner().run_async(&mut client).await;
    // Closing the connection gives the lock back.
    drop(client);
    // The connection's own end says nothing new.
    let _ = driver.await;
    let report = applied.map_err(|error| not_migrated(&target, error))?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

fn not_migrated(target: &str, error: refinery::Error) -> PostgresOpenError {
    use refinery::error::Kind;
    let target = target.to_owned();
    match error.kind() {
        Kind::MissingVersion(found) => {
            PostgresOpenError::Newer { target, found: found.version(), known: newest() }
        }
        Kind::DivergentVersion(applied, _) => {
            PostgresOpenError::Foreign { target, name: applied.to_string() }
        }
        _ => PostgresOpenError::Migration { target, source: error },
    }
}

fn newest() -> i32 {
    runner().get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0)
}

impl Postgres {
    /// Are the tables those of this version?
    pub(super) async fn check_migrations(&self) -> Result<(), PostgresOpenError> {
        let target = self.target().to_owned();
        let applied = self.read_applied().await;
        let applied =
            applied.map_err(|source| PostgresOpenError::Unusable { target: target.clone(), source })?;
        let known = newest();
        if let Some((found, _)) = applied.iter().find(|(version, _)| *version > known) {
            return Err(PostgresOpenError::Newer { target, found: *found, known });
        }
        let mut missing = Vec::new();
        let runner = runner();
        // They come in the order of their names, where the tenth is before the second.
        let mut migrations: Vec<_> = runner.get_migrations().iter().collect();
        migrations.sort_by_key(|migration| migration.version());
        for migration in migrations {
            match applied.iter().find(|(version, _)| *version == migration.version()) {
                None => missing.push(migration.to_string()),
                Some((_, checksum)) if *checksum != migration.checksum().to_string() => {
                    return Err(PostgresOpenError::Foreign { target, name: migration.to_string() });
                }
                Some(_) => {}
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(PostgresOpenError::MigrationsDue { target, missing }) }
    }

    /// Versions and checksums of what was applied.
    async fn read_applied(&self) -> Result<Vec<(i32, String)>, PostgresError> {
        let what = "read which migrations were applied";
        let exists = "SELECT to_regclass($1) IS NOT NULL AS exists";
        let rows = self.read(what, exists, &[&HISTORY]).await?;
        if !row::get::<bool>(row::only(&rows, "history")?, "exists")? {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT version, checksum FROM {HISTORY}");
        let rows = self.read(what, &sql, &[]).await?;
        rows.iter().map(|row| Ok((row::get(row, "version")?, row::get(row, "checksum")?))).collect()
    }
}
