//! Which errors mean what.

use rusqlite::{Error, ErrorCode};

/// What an error says about the work that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Nothing about the order: busy, disk full, I/O error, out of memory. Keep the work and try again, for ever: an
    /// outage cancels nobody's order.
    Transient,
    /// The ledger refuses this order's row, and nothing else. Only what SQLite says of the data itself is in this
    /// class; whatever is not known to be about the data is [`Self::Transient`], because the price of a wrong guess
    /// would be somebody's order.
    PermanentForOrder,
    /// COMMIT did not answer with success: the work is done or it is not. Ask the file, then run the same batch again.
    Unknown,
}

impl ErrorClass {
    /// The class of an error of a single statement.
    pub fn of_statement(error: &Error) -> Self {
        match error {
            Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch => {
                    Self::PermanentForOrder
                }
                _ => Self::Transient,
            },
            Error::ToSqlConversionFailure(_) => Self::PermanentForOrder,
            _ => Self::Transient,
        }
    }
}

/// Why a transaction was not done, or may not have been.
#[derive(Debug, thiserror::Error)]
#[error("the ledger did not take a transaction")]
pub struct WriteError {
    /// [`ErrorClass::Transient`] or [`ErrorClass::Unknown`]; what is permanent for an order is dealt with inside.
    pub class: ErrorClass,
    /// What SQLite said.
    #[source]
    pub source: Error,
}

impl WriteError {
    /// The transaction was rolled back.
    pub(crate) fn before_commit(source: Error) -> Self {
        Self { class: ErrorClass::Transient, source }
    }

    /// The transaction may have been committed.
    pub(crate) fn at_commit(source: Error) -> Self {
        Self { class: ErrorClass::Unknown, source }
    }
}

impl From<Error> for WriteError {
    fn from(source: Error) -> Self {
        Self::before_commit(source)
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn class_of(code: i32) -> ErrorClass {
        ErrorClass::of_statement(&Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn only_what_is_said_of_the_data_is_permanent() {
        let permanent =
            [ffi::SQLITE_CONSTRAINT, ffi::SQLITE_CONSTRAINT_CHECK, ffi::SQLITE_TOOBIG, ffi::SQLITE_MISMATCH];
        for code in permanent {
            assert_eq!(class_of(code), ErrorClass::PermanentForOrder, "code {code}");
        }
        let transient = [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_INTERRUPT,
            ffi::SQLITE_RANGE,
            ffi::SQLITE_ERROR,
        ];
        for code in transient {
            assert_eq!(class_of(code), ErrorClass::Transient, "code {code}");
        }
    }
}
