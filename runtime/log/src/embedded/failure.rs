//! What can go wrong with the database, told apart by what the log does next.

use crate::error::LogError;
use rusqlite::types::FromSqlError;

/// A failed database operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Out of room: the transaction was rolled back, later ones may succeed.
    #[error("{0}")]
    Full(String),
    /// Another process holds a lock for longer than anyone may wait: nothing was written, later ones may succeed.
    #[error("{0}")]
    Busy(String),
    /// An input or output error, damage, or a value that this version never wrote.
    #[error("{0}")]
    Broken(String),
}

impl Failure {
    /// A value in the database that this version never wrote.
    pub(super) fn damaged(what: impl std::fmt::Display) -> Self {
        Self::Broken(format!("the data is damaged: {what}"))
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(code, _) => {
                // The extended code tells which call failed (read, write, fsync, …), which the text does not.
                let reason = format!("{error} (SQLite error {})", code.extended_code);
                match code.code {
                    rusqlite::ErrorCode::DiskFull => Self::Full(reason),
                    rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked => Self::Busy(reason),
                    _ => Self::Broken(reason),
                }
            }
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl From<FromSqlError> for Failure {
    fn from(error: FromSqlError) -> Self {
        Self::damaged(error)
    }
}

impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full(reason) => LogError::Full { reason },
            Failure::Busy(reason) | Failure::Broken(reason) => LogError::Unavailable { reason },
        }
    }
}
