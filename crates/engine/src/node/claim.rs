//! A ledger is one engine's.

use crate::postgres::{Postgres, PostgresError, PostgresOpenError, SettingsCheck};

/// Why an engine may not sell from a ledger.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another engine does.
    #[error(
        "the ledger in PostgreSQL at {target} is the {owner} engine's, and this is the {engine} engine: each would sell \
         units that the other has promised. Start with --engine {owner}, or use another database"
    )]
    OtherEngine {
        /// Host, port and database.
        target: String,
        /// Whose it is.
        owner: String,
        /// Who was refused.
        engine: &'static str,
    },
    /// It cannot be asked.
    #[error("cannot find out which engine the ledger in PostgreSQL at {target} belongs to: {source}")]
    Postgres {
        /// Host, port and database.
        target: String,
        /// Why.
        source: PostgresError,
    },
}

/// Connects an engine to its ledger, with at most `connections_max` connections.
///
/// # Errors
/// See [`PostgresOpenError`] and [`ClaimError`].
pub(crate) async fn open_ledger<E>(
    engine: &'static str,
    url: &str,
    connections_max: usize,
    check: SettingsCheck,
) -> Result<Postgres, E>
where
    E: From<PostgresOpenError> + From<ClaimError>,
{
    let postgres = Postgres::connect(url, connections_max.max(1), check).await?;
    claim(&postgres, engine).await?;
    Ok(postgres)
}

/// Makes the ledger this engine's, unless it is another's.
async fn claim(postgres: &Postgres, engine: &'static str) -> Result<(), ClaimError> {
    let target = || postgres.target().to_owned();
    match postgres.claim_ledger(engine).await {
        Ok(owner) if owner == engine => Ok(()),
        Ok(owner) => Err(ClaimError::OtherEngine { target: target(), owner, engine }),
        Err(source) => Err(ClaimError::Postgres { target: target(), source }),
    }
}
