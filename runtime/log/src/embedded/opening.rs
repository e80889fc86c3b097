//! A log that is open and not yet at work: nobody else can open it, and what it was left with can be looked at and set
//! right first.

use super::crash::CrashPoint;
use super::failure::Failure;
use super::lock::Lock;
use super::redate::{self, HostBoot};
use super::{EmbeddedLog, Options, format};
use crate::error::LogError;
use rusqlite::Connection;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::skew::Redate;
use std::path::{Path, PathBuf};

/// See [`EmbeddedLog::open`]. Everything blocks on the disk.
pub struct Opening {
    // Dropped in this order: the lock is the last to go.
    pub(super) connection: Connection,
    pub(super) lock: Lock,
    pub(super) directory: PathBuf,
    pub(super) options: Options,
}

impl Opening {
    /// Makes the log if there is none, and migrates one of an older format.
    pub fn begin(directory: &Path, options: Options) -> Result<Self, LogError> {
        create_directory(directory)?;
        let lock = Lock::take(&directory.join("lock"))?;
        let connection = format::open_or_create(&format::database(directory), options.writer_cache_bytes)?;
        Ok(Self { connection, lock, directory: directory.to_owned(), options })
    }

    /// The time of the last message ever appended; 0: there was none.
    pub fn last_time(&self) -> Result<Timestamp, LogError> {
        let last = self.connection.query_row("SELECT time FROM log_end", [], |row| row.get::<_, i64>(0));
        Ok(Timestamp(last.map_err(Failure::from)?.cast_unsigned()))
    }

    /// Moves all times of the log, as the host's is set; whole or not at all. That they are those of `accepted` now is
    /// kept until [`Opening::accepted_is_noted`]: moved twice they would be wrong.
    pub fn redate(&self, redate: &Redate, accepted: &HostBoot) -> Result<(), LogError> {
        redate::redate(&self.connection, redate, accepted)?;
        CrashPoint::from_environment().reach("after-redate");
        Ok(())
    }

    /// What the times of the log were moved to, if no host has taken note of it.
    pub fn accepted(&self) -> Result<Option<HostBoot>, LogError> {
        Ok(redate::accepted(&self.connection)?)
    }

    /// The host's own note is on the disk.
    pub fn accepted_is_noted(&self) -> Result<(), LogError> {
        Ok(redate::forget_accepted(&self.connection)?)
    }

    /// Starts its threads.
    pub fn open(self) -> Result<EmbeddedLog, LogError> {
        EmbeddedLog::start(self)
    }
}

pub(super) fn create_directory(directory: &Path) -> Result<(), LogError> {
    let create = || {
        std::fs::create_dir_all(directory)?;
        // DURABLE: or the directory itself could be gone after a loss of power.
        if let Some(parent) = directory.canonicalize()?.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    create().map_err(|error: std::io::Error| LogError::Refused {
        reason: format!("failed to create the directory `{}` for the log: {error}", directory.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_made_with_the_directories_that_it_needs() {
        let place = tempfile::tempdir().unwrap();
        let opening = Opening::begin(&place.path().join("some").join("where"), Options::default()).unwrap();
        assert_eq!(opening.last_time().unwrap(), Timestamp(0));
    }
}
