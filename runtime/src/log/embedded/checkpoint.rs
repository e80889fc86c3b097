//! Moves pages from the write-ahead log into the database, off the thread that commits.
//!
//! The checkpointer copies what it can without holding anyone up (PASSIVE). When it has caught up SQLite reuses the
//! write-ahead log from its start. Under a load that never pauses it never quite catches up; so when the write-ahead
//! log reaches its bound the writer itself copies what little is left and starts it over (RESTART). The file is not
//! cut: overwriting blocks that the file already has makes each fsync cheaper than growing it.

use super::failure::Failure;
use super::shared::Shared;
use rusqlite::Connection;
use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// The checkpointer copies when this many pages were added (16 MiB): rarely enough that pages written again and again
/// are copied once, often enough that the rest is short when the bound is reached.
const PAGES_PER_CHECKPOINT: u32 = 4096;
/// The write-ahead log starts over at this many pages (256 MiB).
const PAGES_MAX: u32 = 65536;
/// When a reader keeps it from starting over, the next try comes after this many more pages (64 MiB).
const PAGES_UNTIL_RETRY: u32 = 16384;

/// The writer's side.
pub(super) struct Checkpoints {
    /// Pages in the write-ahead log, as SQLite says after each commit.
    pages: Arc<AtomicU32>,
    pages_at_last: u32,
    pages_bound: u32,
    /// `None` only while being dropped.
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Counts the pages that `writer` adds and starts the checkpointer on a connection of its own.
    pub(super) fn start(writer: &mut Connection, connection: Connection, shared: Arc<Shared>) -> Result<Self, Failure> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = pages.clone();
        writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            counted.store(u32::try_from(pages).unwrap_or(u32::MAX), Ordering::Relaxed);
            Ok(())
        }))?;
        // One wake-up waits at most: it stands for everything written until it is taken.
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("checkpointer".into())
            .spawn(move || run(&connection, &woken, &shared))
            .map_err(|error| Failure::Broken(format!("failed to start the checkpointer: {error}")))?;
        Ok(Self { pages, pages_at_last: 0, pages_bound: PAGES_MAX, wake: Some(wake), thread: Some(thread) })
    }

    /// Called by the writer after each commit.
    pub(super) fn after_commit(&mut self, writer: &Connection) -> Result<(), Failure> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.pages_at_last {
            // SQLite started it over.
            self.pages_at_last = 0;
            self.pages_bound = PAGES_MAX;
        }
        if pages >= self.pages_bound {
            let started_over = checkpoint(writer, "RESTART")?;
            self.pages_at_last = if started_over { 0 } else { pages };
            self.pages_bound = if started_over { PAGES_MAX } else { pages.saturating_add(PAGES_UNTIL_RETRY) };
        } else if pages - self.pages_at_last >= PAGES_PER_CHECKPOINT {
            self.pages_at_last = pages;
            if let Some(wake) = &self.wake
                && let Err(TrySendError::Disconnected(())) = wake.try_send(())
            {
                return Err(Failure::Broken("the checkpointer ended".into()));
            }
        }
        Ok(())
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpointer panicked");
        }
    }
}

fn run(connection: &Connection, woken: &Receiver<()>, shared: &Shared) {
    while let Ok(()) = woken.recv() {
        if let Err(failure) = checkpoint(connection, "PASSIVE") {
            return shared.stop(format!("failed to move pages into the database: {failure}"));
        }
    }
}

/// Whether everything was copied; `false` when someone was in the way or the disk is full, which may pass.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Result<bool, Failure> {
    let done = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(0));
    match done {
        Ok(busy) => Ok(busy == 0),
        Err(error) if matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked)) => Ok(false),
        Err(error) => match Failure::from(error) {
            Failure::Full(reason) => {
                tracing::warn!(reason, "no room to move pages into the database: the write-ahead log grows");
                Ok(false)
            }
            broken @ Failure::Broken(_) => Err(broken),
        },
    }
}
