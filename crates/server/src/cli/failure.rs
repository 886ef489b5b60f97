//! What is said, and with which code the process ends, when something fails.

use std::io::{self, Write as _};
use std::process::ExitCode;

use yoink_engine::postgres::PostgresOpenError;
use yoink_engine::redis::RedisOpenError;
use yoink_engine::{OpenError, RabbitOpenError};

use crate::ServeError;

/// Wrong usage: what clap ends with, too.
pub(super) const CODE_USAGE: u8 = 2;
const CODE_FAILED: u8 = 1;
/// `EX_DATAERR` of sysexits.
const CODE_DAMAGED: u8 = 65;
/// `EX_CANTCREAT` of sysexits: the data folder is in use.
const CODE_IN_USE: u8 = 73;
/// `EX_IOERR` of sysexits: the disk failed under the running engine.
const CODE_STORAGE_FAILED: u8 = 74;
/// What a shell reports of a command that SIGPIPE ended.
const CODE_BROKEN_PIPE: u8 = 141;

/// Says on standard error what happened and why, and gives the exit code for it.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::from(CODE_BROKEN_PIPE);
    }
    let mut text = format!("yoink: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  because: {cause}\n"));
    }
    // Where standard error is gone, nobody can be told.
    io::stderr().lock().write_all(text.as_bytes()).ok();
    ExitCode::from(code_of(error))
}

fn code_of(error: &anyhow::Error) -> u8 {
    if let Some(ServeError::EngineStopped) = error.downcast_ref() {
        return CODE_STORAGE_FAILED;
    }
    if let Some(error) = error.downcast_ref::<RedisOpenError>() {
        return match error {
            RedisOpenError::Postgres(error) => code_of_postgres(error),
            _ => CODE_FAILED,
        };
    }
    if let Some(error) = error.downcast_ref::<RabbitOpenError>() {
        return match error {
            RabbitOpenError::Postgres(error) => code_of_postgres(error),
            _ => CODE_FAILED,
        };
    }
    if let Some(error) = error.downcast_ref::<PostgresOpenError>() {
        return code_of_postgres(error);
    }
    match error.downcast_ref::<OpenError>() {
        Some(OpenError::InUse { .. }) => CODE_IN_USE,
        Some(
            OpenError::Damaged { .. }
            | OpenError::LedgerDamaged { .. }
            | OpenError::Truncated { .. }
            | OpenError::LedgerAhead { .. }
            | OpenError::NewerFormat { .. },
        ) => CODE_DAMAGED,
        _ => CODE_FAILED,
    }
}

/// Tables that are not what this version can use are as a folder that is not.
fn code_of_postgres(error: &PostgresOpenError) -> u8 {
    match error {
        PostgresOpenError::Newer { .. } | PostgresOpenError::Foreign { .. } => CODE_DAMAGED,
        _ => CODE_FAILED,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_and_damaged_data_have_codes_of_their_own() {
        let in_use = anyhow::Error::new(OpenError::InUse { path: "data".into() });
        assert_eq!(code_of(&in_use.context("starting")), 73);
        let damaged = OpenError::Damaged { path: "data".into(), seq: 7, what: "checksum".into() };
        assert_eq!(code_of(&anyhow::Error::new(damaged)), 65);
        let newer = PostgresOpenError::Newer { target: "db".into(), found: 9, known: 1 };
        assert_eq!(code_of(&anyhow::Error::new(RedisOpenError::from(newer))), 65);
        assert_eq!(code_of(&anyhow::anyhow!("anything else")), 1);
    }

    #[test]
    fn a_reader_that_went_away_is_no_news() {
        let gone = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing");
        assert!(is_broken_pipe(&gone));
        assert!(!is_broken_pipe(&anyhow::anyhow!("broken pipe")));
    }
}
