//! The database file: what it is called, how it is made, and which files are refused.

use super::failure::Failure;
use crate::error::LogError;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `SLBX`: tells our files from other SQLite databases.
const APPLICATION_ID: i32 = 0x534c_4258;
/// The format this version writes.
const VERSION: i32 = 6;
/// Step `n` leads from format `n + 1` to the next, in the transaction that also raises the version.
const MIGRATIONS: [&str; VERSION as usize - 1] = [
    include_str!("migrate_1_to_2.sql"),
    include_str!("migrate_2_to_3.sql"),
    include_str!("migrate_3_to_4.sql"),
    include_str!("migrate_4_to_5.sql"),
    include_str!("migrate_5_to_6.sql"),
];
/// Bytes in a page. Of 4, 8 and 16 KiB the smallest writes least for single messages and for scattered state.
pub(super) const PAGE_BYTES: u32 = 4096;
/// How long a connection waits for another one's lock. Only checkpoints and recovery ever hold one that matters.
const BUSY: Duration = Duration::from_secs(5);

/// The database in a data directory.
pub(super) fn database(directory: &Path) -> PathBuf {
    directory.join("sluicebox.db")
}

/// Opens the database for writing, and makes it if there is none. The lock must be held.
pub(super) fn open_or_create(path: &Path, cache_bytes: u64) -> Result<Connection, LogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(path, flags)?;
    match identify(&connection, path)? {
        Identity::Empty => create(&connection).map_err(|failure| failed("create", path, &failure))?,
        Identity::Ours { version: VERSION } => {}
        Identity::Ours { version } => {
            migrate(&connection, version).map_err(|failure| failed("migrate", path, &failure))?;
        }
    }
    let tuned = durable(&connection).and_then(|()| cache(&connection, cache_bytes));
    tuned.map_err(|failure| failed("open", path, &failure))?;
    Ok(connection)
}

/// Opens the database for reading; it must exist. Works while another process writes to it.
pub(super) fn open_to_read(path: &Path, cache_bytes: u64) -> Result<Connection, LogError> {
    if !path.exists() {
        return Err(LogError::Refused { reason: format!("there is no log: `{}` does not exist", path.display()) });
    }
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    match identify(&connection, path)? {
        Identity::Ours { version: VERSION } => {
            cache(&connection, cache_bytes).map_err(|failure| failed("open", path, &failure))?;
            Ok(connection)
        }
        Identity::Ours { version } => Err(LogError::Refused {
            reason: format!(
                "the log `{}` has the older format {version}: start `sluicebox run` once to migrate it",
                path.display()
            ),
        }),
        Identity::Empty => Err(LogError::Refused { reason: format!("there is no log: `{}` is empty", path.display()) }),
    }
}

/// Opens a connection that only moves pages from the write-ahead log into the database.
pub(super) fn open_to_checkpoint(path: &Path) -> Result<Connection, LogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(path, flags)?;
    durable(&connection).map_err(|failure| failed("open", path, &failure))?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, LogError> {
    let open = || -> Result<Connection, Failure> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.pragma_update(None, "foreign_keys", false)?;
        Ok(connection)
    };
    open().map_err(|failure| failed("open", path, &failure))
}

fn cache(connection: &Connection, bytes: u64) -> Result<(), Failure> {
    // Negative: KiB instead of pages.
    Ok(connection.pragma_update(None, "cache_size", -i64::try_from(bytes / 1024).unwrap_or(i64::MAX))?)
}

enum Identity {
    /// New, or its creation was cut short before anything was in it.
    Empty,
    Ours {
        version: i32,
    },
}

fn identify(connection: &Connection, path: &Path) -> Result<Identity, LogError> {
    let refused = |reason: &str| LogError::Refused { reason: format!("`{}` {reason}", path.display()) };
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let application = match number("application_id") {
        Ok(id) => id,
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            return Err(refused("is not a log: it is no SQLite database"));
        }
        Err(error) => return Err(failed("read", path, &error.into())),
    };
    let read = || -> Result<(i32, i64), Failure> {
        let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((number("user_version")?, tables))
    };
    let (version, tables) = read().map_err(|failure| failed("read", path, &failure))?;
    match (application, version) {
        (0, 0) if tables == 0 => Ok(Identity::Empty),
        (APPLICATION_ID, 1..=VERSION) => Ok(Identity::Ours { version }),
        (APPLICATION_ID, _) => Err(refused(&format!(
            "has format {version}, this version reads formats 1 to {VERSION}: use the sluicebox that wrote it or a newer one"
        ))),
        _ => Err(refused("is not a log: it is the database of another application")),
    }
}

fn create(connection: &Connection) -> Result<(), Failure> {
    // Both only take effect before the first page is written.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    journal(connection)?;
    // DURABLE: tables and identity in one transaction, so a half-made database is either empty or ours.
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(include_str!("schema.sql"))?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

fn migrate(connection: &Connection, from: i32) -> Result<(), Failure> {
    let steps = usize::try_from(from - 1).ok().and_then(|done| MIGRATIONS.get(done..)).unwrap_or_default();
    let transaction = connection.unchecked_transaction()?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// Every commit is on the disk before it is answered, or the log is not opened.
fn durable(connection: &Connection) -> Result<(), Failure> {
    journal(connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Our own thread checkpoints; SQLite would do it on the thread that commits.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    let synchronous: i32 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if synchronous == 2 { Ok(()) } else { Err(Failure::Broken("SQLite does not take `synchronous = FULL`".into())) }
}

fn journal(connection: &Connection) -> Result<(), Failure> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    Err(Failure::Broken(format!(
        "the file system does not support a write-ahead log (SQLite uses `{mode}`): use a local directory"
    )))
}

fn failed(what: &str, path: &Path, failure: &Failure) -> LogError {
    LogError::Refused { reason: format!("failed to {what} the log `{}`: {failure}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_the_cache_and_the_durability_that_it_was_opened_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = database(directory.path());
        let number = |connection: &Connection, pragma| connection.pragma_query_value(None, pragma, |row| row.get(0));
        let writer = open_or_create(&path, 8 * 1024 * 1024).unwrap();
        // Negative: in KiB.
        assert_eq!(number(&writer, "cache_size"), Ok(-8192_i64));
        assert_eq!(number(&open_to_read(&path, 1024 * 1024).unwrap(), "cache_size"), Ok(-1024));
        for durable in [writer, open_to_checkpoint(&path).unwrap()] {
            assert_eq!((number(&durable, "synchronous"), number(&durable, "wal_autocheckpoint")), (Ok(2), Ok(0)));
        }
    }

    #[test]
    fn who_opens_it_to_read_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = database(directory.path());
        let _writer = open_or_create(&path, 1024 * 1024).unwrap();
        assert!(open_to_read(&path, 0).unwrap().execute("DELETE FROM log", []).is_err());
    }
}
