//! The directory of what a host keeps for itself: compiled modules, and versions of modules to go back to.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

const COMPILED_FOLDER: &str = "compiled";
const VERSIONS_FOLDER: &str = "modules";
/// The same name as in the directory of an embedded log: a host that keeps its data beside its log has it locked already.
const LOCK: &str = "lock";

/// Why a host cannot use its directory.
#[derive(Debug, thiserror::Error)]
pub enum HostDataError {
    #[error("failed to open the host's own directory `{}`", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the directory `{}` is in use by another host: set `data` in [host] to a directory of its own", path.display())]
    InUse { path: PathBuf },
}

/// A host's own directory. No other host uses it meanwhile.
pub(super) struct HostData {
    directory: PathBuf,
    /// `None`: the lock of the log holds for it.
    _lock: Option<File>,
}

impl HostData {
    /// Opens `directory`, which is made if it is not there. `log`: the directory of a log that this host has open.
    pub(super) fn open(directory: &Path, log: &Path) -> Result<Self, HostDataError> {
        let failed = |source| HostDataError::Open { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let directory = directory.canonicalize().map_err(failed)?;
        let lock = match log.canonicalize().is_ok_and(|log| log == directory) {
            true => None,
            false => Some(lock(&directory)?),
        };
        Ok(Self { directory, _lock: lock })
    }

    /// Where compiled modules are kept.
    pub(super) fn compiled(&self) -> PathBuf {
        self.directory.join(COMPILED_FOLDER)
    }

    /// What is known of the host's time.
    pub(super) fn clock(&self) -> PathBuf {
        self.directory.join("clock")
    }

    /// Where versions of modules are kept.
    pub(super) fn versions(&self) -> PathBuf {
        versions(&self.directory)
    }
}

/// Where a host with this directory keeps versions of modules.
pub fn versions(directory: &Path) -> PathBuf {
    directory.join(VERSIONS_FOLDER)
}

fn lock(directory: &Path) -> Result<File, HostDataError> {
    let failed = |source| HostDataError::Open { path: directory.to_owned(), source };
    let file = File::options().write(true).create(true).truncate(false).open(directory.join(LOCK)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(HostDataError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hosts_with_logs_of_their_own_cannot_share_what_belongs_to_one() {
        let folder = tempfile::tempdir().unwrap();
        let [shared, a, b] = ["shared", "a", "b"].map(|name| folder.path().join(name));
        let first = HostData::open(&shared, &a).unwrap();
        assert!(matches!(HostData::open(&shared, &b), Err(HostDataError::InUse { .. })));
        drop(first);
        HostData::open(&shared, &b).unwrap();
    }

    #[test]
    fn the_directory_of_the_log_is_locked_by_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = crate::log::embedded::EmbeddedLog::open(folder.path(), Default::default()).unwrap();
        HostData::open(&folder.path().join("."), folder.path()).unwrap();
        let other = folder.path().join("other");
        assert!(matches!(HostData::open(folder.path(), &other), Err(HostDataError::InUse { .. })));
        drop(log);
    }
}
