//! The ledger in PostgreSQL: the only authority on how many units there are and who has them.
//!
//! Every change is one call of a function in `migrations` (`V2__functions.sql` and what later versions add and replace), so
//! it is one statement and one transaction: it happened or it did not, and if the answer was lost it can be asked for
//! again. What is here are the
//! connections ([`Postgres`]), the types, and the classes of errors ([`ErrorClass`]).

mod audit;
mod columns;
mod connection;
mod credit;
mod customers;
mod dead_letter;
mod decide;
mod deliver;
mod error;
mod event;
mod grants;
mod migrate;
mod order;
mod product;
mod publisher;
mod reading;
mod row;
mod settings;
mod snapshot;
mod stock;

use std::fmt;
use std::sync::Arc;

use deadpool_postgres::Pool;
use tokio_postgres::Config;
use uuid::Uuid;

pub use self::audit::{Backlog, LedgerAudit, ProductCounts};
pub use self::connection::{Connections, KeptConnection};
pub use self::credit::{Credit, CreditKind};
pub use self::decide::{Decided, Request, Verdict};
pub use self::deliver::{Delivered, EndKind, Ended, Grant, OnRefusal, Retried, Way};
pub use self::error::{ErrorClass, PostgresError, PostgresOpenError};
pub(crate) use self::grants::number_of_rescued;
pub use self::migrate::migrate;
pub use self::order::{KnownOrder, Standing};
pub use self::product::{Changed, ProductRow, SaleState};
pub use self::publisher::{Sequences, Turn, Unseen};
pub use self::settings::SettingsCheck;
pub use self::snapshot::{LoadedCredit, LoadedOrder, LoadedWithdrawal, SaleSnapshot};
pub use self::stock::{AdjustmentBegun, AdjustmentOutcome, Withdrawal, WithdrawalEnd};

/// Connections that a process has to PostgreSQL unless it is told otherwise.
pub const CONNECTIONS_MAX_DEFAULT: usize = 5;

/// A ledger in PostgreSQL, open. Cheap to clone; every clone has the same connections.
#[derive(Clone)]
pub struct Postgres {
    pool: Pool,
    opened: Arc<Opened>,
}

/// What was found when it was opened.
struct Opened {
    config: Config,
    target: String,
    identity: LedgerIdentity,
    relaxed: Vec<String>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("target", &self.opened.target)
            .field("identity", &self.opened.identity)
            .finish_non_exhaustive()
    }
}

/// Which ledger it is, and what order ids are derived with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LedgerIdentity {
    /// Which ledger it is. All that it has in Redis is named after it.
    pub id: Uuid,
    /// What order ids are derived with, so that nobody else can name one.
    pub secret: [u8; 32],
}

impl fmt::Debug for LedgerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerIdentity").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects with at most `connections_max` connections, from 1, and looks whether what answers may be sold from.
    ///
    /// # Errors
    /// It cannot be reached; its settings would lose orders (unless `check` is relaxed); its tables are not those of
    /// this version.
    pub async fn connect(
        url: &str,
        connections_max: usize,
        check: SettingsCheck,
    ) -> Result<Self, PostgresOpenError> {
        let config = connection::config(url)?;
        let target = connection::target(&config);
        let pool = connection::pool(config.clone(), connections_max, check);
        let opened = Opened {
            config: config.clone(),
            target: target.clone(),
            identity: LedgerIdentity { id: Uuid::nil(), secret: [0; 32] },
            relaxed: Vec::new(),
        };
        let mut postgres = Self { pool, opened: Arc::new(opened) };
        let unusable = |source| PostgresOpenError::Unusable { target: target.clone(), source };
        let found = postgres.read_settings().await.map_err(unusable)?;
        if found.is_in_recovery {
            return Err(PostgresOpenError::InRecovery { target });
        }
        if !found.takes_every_name() {
            return Err(PostgresOpenError::Encoding { target, encoding: found.encoding });
        }
        let relaxed = found.reasons();
        if check == SettingsCheck::Strict && !relaxed.is_empty() {
            return Err(PostgresOpenError::Settings { target, reasons: relaxed });
        }
        postgres.check_migrations().await?;
        let identity = postgres.read_identity().await.map_err(unusable)?;
        postgres.opened = Arc::new(Opened { config, target, identity, relaxed });
        Ok(postgres)
    }

    /// Which ledger it is.
    pub fn identity(&self) -> LedgerIdentity {
        self.opened.identity
    }

    /// Host, port and database, for people.
    pub fn target(&self) -> &str {
        &self.opened.target
    }

    /// Why its promises are weaker than they should be, each as a clause; empty unless it was told to be relaxed.
    pub fn relaxed_reasons(&self) -> &[String] {
        &self.opened.relaxed
    }

    async fn read_identity(&self) -> Result<LedgerIdentity, PostgresError> {
        let rows = self.read("read which ledger it is", "SELECT id, secret FROM ledger", &[]).await?;
        let row = row::only(&rows, "ledger")?;
        let secret: Vec<u8> = row::get(row, "secret")?;
        let secret = <[u8; 32]>::try_from(secret)
            .map_err(|secret| row::not_allowed("secret of 32 bytes", format!("{} bytes", secret.len())))?;
        Ok(LedgerIdentity { id: row::get(row, "id")?, secret })
    }
}
