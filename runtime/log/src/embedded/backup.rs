//! Copies a data directory, also while a host works on it: the copy is the log as it was at one moment, between two
//! transactions, with every message, state, mark and position of that moment.
//!
//! All pages are copied within one read transaction. SQLite's copy would begin again whenever another process writes, but
//! not while its reader stays in one snapshot. `VACUUM INTO` would be the alternative: it writes every row anew, takes about
//! as long (`benches/long_life.rs` has both) and cannot say how far it is. Either way the write-ahead log of the host
//! cannot start over meanwhile. A copy under way is a directory of another name, and gets its own when everything in it is
//! on the disk.

use super::failure::Failure;
use super::format;
use super::lock::Lock;
use super::queries::Reader;
use crate::error::LogError;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use sluicebox_core::message::Offset;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Pages copied between two words about the progress (4 MiB).
const PAGES_PER_STEP: i32 = 1024;
/// The directory of module versions inside a data directory. The compiled cache is not copied: a host makes it anew.
const MODULES: &str = "modules";
const LOCK: &str = "lock";

/// A copy that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of the database.
    pub bytes: u64,
    /// The last message in it.
    pub end: Offset,
}

/// Why there is no copy. Nothing was left behind that looks like one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("failed to read the log in `{}`", directory.display())]
    Source { directory: PathBuf, source: LogError },
    #[error("`{}` exists and is not an empty directory: name one that does not exist", to.display())]
    Exists { to: PathBuf },
    #[error("`{}` names no directory that could be made: name one that does not exist", to.display())]
    Nameless { to: PathBuf },
    #[error("failed to write the copy: {reason}")]
    Database { reason: String },
    #[error("another copy to this place may be under way: {reason}")]
    UnderWay { reason: String },
    #[error("failed to {what} `{}`", path.display())]
    Files { what: &'static str, path: PathBuf, source: io::Error },
}

impl From<Failure> for BackupError {
    fn from(failure: Failure) -> Self {
        Self::Database { reason: failure.to_string() }
    }
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Failure::from(error).into()
    }
}

/// Copies the data in `directory` and the host's versions of `modules` to `to`, which must not exist or be empty;
/// `progress` hears the bytes done and in all. A host can be started on the copy. Blocks on the disk.
pub(super) fn back_up(
    directory: &Path,
    modules: &Path,
    to: &Path,
    progress: impl FnMut(u64, u64),
) -> Result<Copied, BackupError> {
    let source = format::open_to_read(&format::database(directory), 0)
        .map_err(|source| BackupError::Source { directory: directory.to_owned(), source })?;
    let name = to.file_name().ok_or_else(|| BackupError::Nameless { to: to.to_owned() })?;
    check_absent(to)?;
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut partial_name = name.to_owned();
    partial_name.push(".partial");
    let partial = parent.join(partial_name);
    files("make", &partial, fs::create_dir_all(&partial))?;
    // Two copies to one place would write into each other. What an earlier one left that was killed is cleared away.
    let lock = Lock::take(&partial.join(LOCK)).map_err(|error| BackupError::UnderWay { reason: error.to_string() })?;
    let copied = clear(&partial).and_then(|()| copy(modules, source, &partial, progress));
    let done = copied.and_then(|copied| {
        check_absent(to)?;
        files("rename to its own name", &partial, fs::rename(&partial, to))?;
        // DURABLE: the name of the copy, whose content was synced before.
        sync(parent)?;
        Ok(copied)
    });
    if done.is_err() {
        // The error is what matters; what stays has a name that says what it is.
        let _ = fs::remove_dir_all(&partial);
    }
    drop(lock);
    done
}

fn check_absent(to: &Path) -> Result<(), BackupError> {
    match fs::read_dir(to).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(false) | Err(_) => Err(BackupError::Exists { to: to.to_owned() }),
    }
}

fn copy(
    modules: &Path,
    source: Connection,
    partial: &Path,
    progress: impl FnMut(u64, u64),
) -> Result<Copied, BackupError> {
    let reader = Reader::new(source);
    let snapshot = reader.connection().unchecked_transaction()?;
    // The first read is what fixes the snapshot.
    let end = reader.end()?;
    // After the snapshot: a version that it names was on the disk before.
    copy_modules(modules, &partial.join(MODULES))?;
    let database = format::database(partial);
    let bytes = copy_pages(&snapshot, &database, progress)?;
    sync(&database)?;
    sync(partial)?;
    Ok(Copied { bytes, end })
}

fn copy_pages(source: &Connection, database: &Path, mut progress: impl FnMut(u64, u64)) -> Result<u64, BackupError> {
    let page_bytes: i64 = source.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let bytes = |pages: i32| u64::try_from(pages).unwrap_or(0) * page_bytes.cast_unsigned();
    let mut copy = Connection::open(database)?;
    // What is half-made is thrown away, so it needs no journal, and it is synced once at the end.
    copy.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    copy.pragma_update(None, "synchronous", "OFF")?;
    let backup = Backup::new(source, &mut copy)?;
    loop {
        let step = backup.step(PAGES_PER_STEP)?;
        let state = backup.progress();
        progress(bytes(state.pagecount - state.remaining), bytes(state.pagecount));
        match step {
            StepResult::Done => return Ok(bytes(state.pagecount)),
            StepResult::More => {}
            // Nobody else has the copy open, and a reader in a snapshot waits for nobody.
            _ => return Err(BackupError::Database { reason: "SQLite would not go on copying".into() }),
        }
    }
}

/// Versions of modules, when the host keeps some. They are written whole or not at all, and one that a host deletes
/// meanwhile is one that nobody needs.
fn copy_modules(from: &Path, to: &Path) -> Result<(), BackupError> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => files("read", from, entries)?,
    };
    files("make", to, fs::create_dir(to))?;
    files("protect", to, fs::metadata(from).and_then(|found| fs::set_permissions(to, found.permissions())))?;
    for entry in entries {
        let entry = files("read", from, entry)?;
        let is_whole = Path::new(&entry.file_name()).extension().is_some_and(|kind| kind != "tmp");
        if !is_whole || !files("read", &entry.path(), entry.file_type())?.is_file() {
            continue;
        }
        let copy = to.join(entry.file_name());
        match fs::copy(entry.path(), &copy) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => {
                files("copy", &entry.path(), copied)?;
                sync(&copy)?;
            }
        }
    }
    sync(to)
}

/// Empties what a copy that was killed left, but for the lock.
fn clear(partial: &Path) -> Result<(), BackupError> {
    for entry in files("read", partial, fs::read_dir(partial))? {
        let entry = files("read", partial, entry)?;
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            Ok(_) if entry.file_name() == LOCK => Ok(()),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        files("remove", &path, removed)?;
    }
    Ok(())
}

/// DURABLE: the content of a file, or the names in a directory.
fn sync(path: &Path) -> Result<(), BackupError> {
    files("sync", path, File::open(path).and_then(|file| file.sync_all()))
}

fn files<T>(what: &'static str, path: &Path, done: io::Result<T>) -> Result<T, BackupError> {
    done.map_err(|source| BackupError::Files { what, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data directory with some megabytes, and where its host keeps modules.
    fn data(place: &Path) -> (PathBuf, PathBuf) {
        let (data, modules) = (place.join("data"), place.join("modules"));
        fs::create_dir(&data).unwrap();
        let writer = format::open_or_create(&format::database(&data), 1024 * 1024).unwrap();
        let row = "INSERT INTO log SELECT NULL, 1, 1, 0, NULL, NULL, NULL, zeroblob(1000000)";
        (0..10).for_each(|_| assert_eq!(writer.execute(row, []).unwrap(), 1));
        (data, modules)
    }

    #[test]
    fn a_copy_says_how_far_it_is_and_has_the_modules_that_are_whole() {
        let place = tempfile::tempdir().unwrap();
        let ((data, modules), to) = (data(place.path()), place.path().join("copy"));
        fs::create_dir_all(modules.join("folder.wasm")).unwrap();
        fs::write(modules.join("whole.wasm"), "module").unwrap();
        fs::write(modules.join("half.tmp"), "mod").unwrap();
        // What a copy left that was killed.
        fs::create_dir_all(place.path().join("copy.partial").join(MODULES).join("folder")).unwrap();
        let mut heard = vec![];
        let copied = back_up(&data, &modules, &to, |done, all| heard.push((done, all))).unwrap();
        assert_eq!(fs::metadata(format::database(&to)).unwrap().len(), copied.bytes);
        assert!(heard.len() > 2 && heard.is_sorted() && heard[0].0 < heard[0].1, "{heard:?}");
        assert!(heard.iter().all(|(done, all)| done <= all && *all == copied.bytes), "{heard:?}");
        assert_eq!(heard.last(), Some(&(copied.bytes, copied.bytes)));
        let names = fs::read_dir(to.join(MODULES)).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["whole.wasm"]);
    }

    #[test]
    fn without_modules_there_is_a_copy_and_without_those_that_cannot_be_read_there_is_none() {
        let place = tempfile::tempdir().unwrap();
        let ((data, modules), to) = (data(place.path()), place.path().join("copy"));
        assert!(back_up(&data, &modules, &to, |_, _| ()).is_ok());
        fs::write(&modules, "not a folder").unwrap();
        let (other, partial) = (place.path().join("other"), place.path().join("other.partial"));
        assert!(back_up(&data, &modules, &other, |_, _| ()).is_err());
        assert!(!other.exists() && !partial.exists());
    }
}
