//! Connections: a bounded number of them, none of which waits for ever.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, NoTls, Row};

use super::error::Effect;
use super::{Postgres, PostgresError, PostgresOpenError, SettingsCheck};

/// How long a connection may take to be made, or to be waited for.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// PostgreSQL gives up statements after 10 s; who says nothing for longer is not there any more.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(15);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
/// How long what was sent may stay unacknowledged by the other machine.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(6);
/// What each session is set to. A session that died in a transaction would keep a product's row locked.
const SESSION: &str = "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=5s";
/// Fails in a transaction that was left open, by dividing by zero, and in one that was aborted: a connection in either
/// is thrown away instead of being used again.
const RECYCLE: &str = "SELECT 1 / (now() = statement_timestamp())::integer";
/// The same, and fails in a session that says that orders are committed before they are: it began while a setting of
/// the database or of the user was wrong, and keeps that for as long as it lasts.
const RECYCLE_STRICTLY: &str = "SELECT 1 / (now() = statement_timestamp()
    AND current_setting('synchronous_commit') IN ('on', 'remote_apply'))::integer";

/// A parameter of a statement.
pub(super) type Parameter<'a> = &'a (dyn ToSql + Sync);

/// Reads a URL and adds what every connection has.
pub(super) fn config(url: &str) -> Result<Config, PostgresOpenError> {
    let mut config: Config = url.parse().map_err(|source| PostgresOpenError::Url { source })?;
    let options = match config.get_options() {
        Some(options) => format!("{SESSION} {options}"),
        None => SESSION.to_owned(),
    };
    limit_waiting(&mut config).options(options);
    Ok(config)
}

/// Reads a URL for migrations, which may take their time once they are connected.
pub(super) fn patient_config(url: &str) -> Result<Config, PostgresOpenError> {
    let mut config: Config = url.parse().map_err(|source| PostgresOpenError::Url { source })?;
    limit_waiting(&mut config);
    Ok(config)
}

fn limit_waiting(config: &mut Config) -> &mut Config {
    if config.get_application_name().is_none() {
        config.application_name("yoink");
    }
    config
        .connect_timeout(CONNECT_MAX)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_EVERY)
        .keepalives_retries(3)
        .tcp_user_timeout(UNACKNOWLEDGED_MAX)
}

/// Host, port and database, for people; never the password.
pub(super) fn target(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let database = config.get_dbname().or(config.get_user()).unwrap_or("its default database");
    format!("{host}:{port}/{database}")
}

/// A pool that has made no connection yet.
pub(super) fn pool(config: Config, connections_max: usize, check: SettingsCheck) -> Pool {
    let recycle = match check {
        SettingsCheck::Strict => RECYCLE_STRICTLY,
        SettingsCheck::Relaxed => RECYCLE,
    };
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Custom(recycle.to_owned()) };
    let waits = Timeouts { wait: Some(CONNECT_MAX), create: Some(CONNECT_MAX), recycle: Some(CONNECT_MAX) };
    let built = Pool::builder(Manager::from_config(config, NoTls, recycling))
        .max_size(connections_max.max(1))
        .timeouts(waits)
        .runtime(Runtime::Tokio1)
        .build();
    built.unwrap_or_else(|error| unreachable!("a pool with a runtime can be built: {error}"))
}

/// The connections of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Open.
    pub total: usize,
    /// Of them, in nobody's hands.
    pub idle: usize,
    /// Who waits for one.
    pub waiting: usize,
}

impl Postgres {
    /// How many connections there are.
    pub fn connections(&self) -> Connections {
        let status = self.pool.status();
        Connections { total: status.size, idle: status.available, waiting: status.waiting }
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn ping(&self) -> Result<(), PostgresError> {
        self.read("give a sign of life", "SELECT", &[]).await.map(drop)
    }

    /// A connection that is in no transaction.
    pub(super) async fn connection(&self, what: &'static str) -> Result<Object, PostgresError> {
        self.pool.get().await.map_err(|error| PostgresError::no_connection(what, error))
    }

    /// Asks for rows by one statement that changes nothing. `what` completes "PostgreSQL failed to …".
    pub(super) async fn read(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, PostgresError> {
        self.run((what, Effect::Reads), sql, parameters).await
    }

    /// As [`Self::read`], without parameters, in a session that begins for it and ends with it.
    pub(super) async fn read_in_new_session(
        &self,
        what: &'static str,
        sql: &str,
    ) -> Result<Vec<Row>, PostgresError> {
        let failed = |source| PostgresError::executing(what, Effect::Reads, source);
        let asked = async {
            let (client, connection) = self.opened.config.connect(NoTls).await.map_err(failed)?;
            // Ends when the client is gone.
            tokio::spawn(connection);
            client.query(sql, &[]).await.map_err(failed)
        };
        let answer = timeout(ANSWER_MAX, asked).await;
        answer.unwrap_or_else(|_| Err(PostgresError::no_answer(what, Effect::Reads)))
    }

    /// Changes something by one statement, which is one transaction.
    pub(super) async fn change(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, PostgresError> {
        self.run((what, Effect::Changes), sql, parameters).await
    }

    /// As [`Self::read`], on a connection that is kept for the next reading unless this one fails: looking whether a
    /// connection is well costs a trip each time.
    pub(super) async fn read_on(
        &self,
        kept: &mut KeptConnection,
        what: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, PostgresError> {
        let connection = match kept.0.take() {
            Some(connection) => connection,
            None => self.connection(what).await?,
        };
        let (rows, connection) = ask(connection, (what, Effect::Reads), sql, parameters).await;
        // Nobody is kept waiting for it.
        if rows.is_ok() && self.pool.status().waiting == 0 {
            kept.0 = connection;
        }
        rows
    }

    async fn run(
        &self,
        what: (&'static str, Effect),
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, PostgresError> {
        let connection = self.connection(what.0).await?;
        ask(connection, what, sql, parameters).await.0
    }
}

/// A connection in the hands of one who reads often. Whoever pauses should drop it: it may end unnoticed meanwhile, and
/// others may need it.
#[derive(Default)]
pub struct KeptConnection(Option<Object>);

/// Executes one statement. Gives the connection back, unless the statement left it unusable.
async fn ask(
    connection: Object,
    (what, effect): (&'static str, Effect),
    sql: &str,
    parameters: &[Parameter<'_>],
) -> (Result<Vec<Row>, PostgresError>, Option<Object>) {
    let asked = async {
        let statement = connection.prepare_cached(sql).await;
        let statement = statement.map_err(|source| PostgresError::preparing(what, source))?;
        // Done when the server is ready for the next statement, which is after it has committed this one.
        let rows = connection.query(&statement, parameters).await;
        rows.map_err(|source| PostgresError::executing(what, effect, source))
    };
    let answer = timeout(ANSWER_MAX, asked).await;
    let answer = answer.unwrap_or_else(|_| Err(PostgresError::no_answer(what, effect)));
    if answer.as_ref().is_err_and(PostgresError::spoils_connection) {
        drop(Object::take(connection));
        return (answer, None);
    }
    (answer, Some(connection))
}
