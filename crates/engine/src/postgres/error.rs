//! What can go wrong with PostgreSQL, and what it means for the work that met it.

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::error::{Severity, SqlState};

/// What an error says about the work that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Nothing happened, and it was not for what was asked: keep the work and try again, for ever.
    Transient,
    /// Nothing happened, and nobody knows whether it was for what was asked, as when a trigger of somebody's own raises
    /// an error. The price of a wrong guess would be somebody's order: keep the work and try again, and believe that it
    /// will never be taken only after it failed often while other work of its kind went well.
    Unclassified,
    /// Nothing happened, and the same will never be taken.
    Permanent,
    /// It was sent and no answer came: it is done or it is not. Ask the same again.
    Unknown,
}

/// Whether a statement changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Changes,
}

impl Effect {
    /// The class of an error that hides whether the statement was done.
    fn unanswered(self) -> ErrorClass {
        match self {
            Self::Reads => ErrorClass::Transient,
            Self::Changes => ErrorClass::Unknown,
        }
    }
}

/// Why PostgreSQL gave no result.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No connection could be had; nothing was sent.
    #[error("no connection to PostgreSQL to {what}: {reason}; nothing happened")]
    NoConnection {
        /// What it was for.
        what: &'static str,
        /// Why, as a phrase.
        reason: &'static str,
        /// Why.
        #[source]
        source: Option<tokio_postgres::Error>,
    },
    /// A statement failed, or its answer was lost.
    #[error("PostgreSQL failed to {what}: {}", said(source))]
    Statement {
        /// What it was for.
        what: &'static str,
        /// What it means.
        class: ErrorClass,
        /// What PostgreSQL said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// No answer came in time; the connection was given up.
    #[error("PostgreSQL did not answer in time when it was asked to {what}")]
    NoAnswer {
        /// What it was for.
        what: &'static str,
        /// What it means.
        class: ErrorClass,
    },
    /// A row holds what no version of this program writes.
    #[error("the ledger has {text:?} as a {what}, which it cannot be: somebody else wrote there")]
    NotAllowed {
        /// What the text should be.
        what: &'static str,
        /// What it is.
        text: String,
    },
    /// A column is not of the type that this version reads.
    #[error("the ledger's {column} cannot be read: {}", said(source))]
    Column {
        /// Which column.
        column: String,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
}

impl PostgresError {
    /// What it means for the work that met it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Statement { class, .. } | Self::NoAnswer { class, .. } => *class,
            Self::NoConnection { .. } | Self::NotAllowed { .. } | Self::Column { .. } => {
                ErrorClass::Transient
            }
        }
    }

    /// Whether it may lie in what was asked for: nothing happened, and the same work may fail again whenever it is tried.
    /// Otherwise it is of the ledger or of the way there, and passes.
    pub fn may_lie_in_what_was_asked(&self) -> bool {
        match self.class() {
            ErrorClass::Permanent | ErrorClass::Unclassified => true,
            ErrorClass::Transient | ErrorClass::Unknown => false,
        }
    }

    /// The pool had no connection to give.
    pub(super) fn no_connection(what: &'static str, error: PoolError) -> Self {
        let (reason, source) = match error {
            PoolError::Backend(source) => ("it refused one or cannot be reached", Some(source)),
            PoolError::Timeout(TimeoutType::Wait) => ("all of them are in use", None),
            PoolError::Timeout(_) => ("it does not answer", None),
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                ("the pool is closed", None)
            }
        };
        Self::NoConnection { what, reason, source }
    }

    /// A statement failed while it was prepared: it was not executed.
    pub(super) fn preparing(what: &'static str, source: tokio_postgres::Error) -> Self {
        Self::executing(what, Effect::Reads, source)
    }

    /// A statement failed.
    pub(super) fn executing(what: &'static str, effect: Effect, source: tokio_postgres::Error) -> Self {
        let class = classify(effect, &source);
        if let Some(code) = source.code().filter(|code| code.code().starts_with("XX")) {
            tracing::error!(
                what,
                code = code.code(),
                error = said(&source),
                "PostgreSQL reports an internal error or damaged data: it needs a person"
            );
        }
        Self::Statement { what, class, source }
    }

    /// The time for an answer is over.
    pub(super) fn no_answer(what: &'static str, effect: Effect) -> Self {
        Self::NoAnswer { what, class: effect.unanswered() }
    }

    /// Whether a row that was named is not there.
    pub(super) fn is_missing_row(&self) -> bool {
        let Self::Statement { source, .. } = self else { return false };
        source.code() == Some(&SqlState::NO_DATA_FOUND)
    }

    /// The same error, known to be of what was asked for.
    pub(super) fn permanent(self) -> Self {
        match self {
            Self::Statement { what, source, .. } => {
                Self::Statement { what, class: ErrorClass::Permanent, source }
            }
            other => other,
        }
    }

    /// Whether the connection that had it should not be used again.
    pub(super) fn spoils_connection(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => true,
            // A prepared statement that the server has forgotten, or whose tables have changed, fails for ever.
            Self::Statement { source, .. } => match source.code() {
                Some(code) => matches!(code.code(), "0A000" | "26000" | "25P02"),
                None => true,
            },
            _ => false,
        }
    }
}

fn classify(effect: Effect, error: &tokio_postgres::Error) -> ErrorClass {
    let Some(said) = error.as_db_error() else {
        return effect.unanswered();
    };
    // The server ended the session. It may have been waiting for a standby after it had committed.
    if matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) {
        return effect.unanswered();
    }
    class_of_code(said.code().code())
}

/// The class of an answer with this SQLSTATE: only what PostgreSQL says of the data itself is permanent, and only what
/// it says of itself, of the connection, of its settings or of others who work at the same time is known to pass.
fn class_of_code(code: &str) -> ErrorClass {
    match code.get(..2) {
        Some("22" | "23") => ErrorClass::Permanent,
        Some("08" | "0A" | "25" | "26" | "28" | "3D" | "40" | "53" | "55" | "57" | "58" | "F0" | "XX") => {
            ErrorClass::Transient
        }
        _ => ErrorClass::Unclassified,
    }
}

/// What PostgreSQL said; the client's own errors do not show it.
fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}

/// Why a ledger in PostgreSQL was not opened. Every message says what happened, to what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PostgresOpenError {
    /// The URL cannot be read.
    #[error(
        "the PostgreSQL URL cannot be used; it should look like postgres://user:password@host:5432/database"
    )]
    Url {
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// It does not answer, or not well.
    #[error("cannot use PostgreSQL at {target}: {source}. Check that it runs and that the URL is right")]
    Unusable {
        /// Host, port and database.
        target: String,
        /// Why.
        source: PostgresError,
    },
    /// Its settings would lose orders that were promised.
    #[error(
        "PostgreSQL at {target} would lose orders that were promised: {}. Change its settings, or run relaxed",
        reasons.join("; ")
    )]
    Settings {
        /// Host, port and database.
        target: String,
        /// Each as a clause.
        reasons: Vec<String>,
    },
    /// Its text has no room for some customers' names: their orders could never be written.
    #[error(
        "PostgreSQL at {target} keeps text as {encoding}, which cannot hold every customer's name; make a database \
         with ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding {
        /// Host, port and database.
        target: String,
        /// The name of the encoding.
        encoding: String,
    },
    /// It is a standby, which nothing can be written to.
    #[error("PostgreSQL at {target} is in recovery: it is a standby; use the primary's address")]
    InRecovery {
        /// Host, port and database.
        target: String,
    },
    /// Its tables are not made, or not those of this version.
    #[error(
        "the tables of PostgreSQL at {target} are not up to date (missing: {}); run `yoink migrate --postgres URL`",
        missing.join(", ")
    )]
    MigrationsDue {
        /// Host, port and database.
        target: String,
        /// The names of what was not applied.
        missing: Vec<String>,
    },
    /// Its tables are of a newer version.
    #[error(
        "the tables of PostgreSQL at {target} are of version {found}, and this version knows them up to {known}; \
         start the newer version instead"
    )]
    Newer {
        /// Host, port and database.
        target: String,
        /// Their version.
        found: i32,
        /// The newest version known here.
        known: i32,
    },
    /// Its tables were made by something else.
    #[error(
        "the tables of PostgreSQL at {target} were made by something else: migration {name} is not the one that this \
         version has; use another database"
    )]
    Foreign {
        /// Host, port and database.
        target: String,
        /// Which migration differs.
        name: String,
    },
    /// The migrations failed; each is in one transaction, so nothing is half done.
    #[error("the tables of PostgreSQL at {target} could not be made: {source}; nothing was changed")]
    Migration {
        /// Host, port and database.
        target: String,
        /// Why.
        source: refinery::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_the_data_is_permanent_and_only_what_passes_is_transient() {
        for code in ["22003", "22021", "23502", "23505", "23514"] {
            assert_eq!(class_of_code(code), ErrorClass::Permanent, "code {code}");
        }
        let transient = [
            "08006", "0A000", "25006", "26000", "28P01", "40001", "40P01", "53100", "53300", "55P03",
            "57014", "57P01", "57P03", "58030", "XX000", "XX001",
        ];
        for code in transient {
            assert_eq!(class_of_code(code), ErrorClass::Transient, "code {code}");
        }
        for code in ["54000", "P0001", "P0002", "42P01", "42501", "38000", "", "2"] {
            assert_eq!(class_of_code(code), ErrorClass::Unclassified, "code {code}");
        }
    }

    #[test]
    fn silence_after_a_change_is_unknown_and_after_a_reading_is_not() {
        assert_eq!(PostgresError::no_answer("count", Effect::Reads).class(), ErrorClass::Transient);
        assert_eq!(PostgresError::no_answer("deliver", Effect::Changes).class(), ErrorClass::Unknown);
    }
}
