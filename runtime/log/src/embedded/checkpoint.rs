//! Moves pages from the write-ahead log into the database, off the thread that commits.
//!
//! The checkpointer copies what it can without holding anyone up (PASSIVE). When it has caught up SQLite reuses the
//! write-ahead log from its start. Under a load that never pauses it never quite catches up; so when the write-ahead
//! log reaches its bound the writer itself copies what little is left and starts it over (RESTART). The file is not
//! cut: overwriting blocks that the file already has makes each fsync cheaper than growing it.
//!
//! A long reader, such as a backup, keeps it from starting over, so it grows beyond its bound. When the reader is gone the
//! checkpointer copies the whole backlog before the writer starts over, so that no commit waits for it, and then the
//! file is cut after all.

use super::crash::panic_if_asked;
use super::failure::Failure;
use super::format::PAGE_BYTES;
use super::log_state::{LogState, StopOnPanic};
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// When to do what, in pages of the write-ahead log.
#[derive(Clone, Copy, Debug)]
struct Thresholds {
    /// The checkpointer copies when this many were added: rarely enough that pages written again and again are copied
    /// once, often enough that the rest is short when the bound is reached.
    until_checkpoint: u32,
    /// The write-ahead log starts over.
    max: u32,
    /// When a reader keeps it from starting over, the next try comes after this many more.
    until_retry: u32,
    /// Most that the writer itself copies.
    left_max: u32,
}

impl Thresholds {
    /// From here on the writer copies whatever is left: the checkpointer is slower than the commits.
    fn always(self) -> u32 {
        self.max.saturating_mul(8)
    }

    /// So long a file is not worth keeping.
    fn cut(self) -> u32 {
        self.max.saturating_mul(2)
    }
}

impl Thresholds {
    /// Those of a write-ahead log that starts over at this size.
    fn of(bytes_max: u64) -> Self {
        let max = u32::try_from(bytes_max / u64::from(PAGE_BYTES)).unwrap_or(u32::MAX / 8).max(16);
        Self { until_checkpoint: max / 16, max, until_retry: max / 4, left_max: max / 4 }
    }
}

/// The writer's side.
pub(super) struct Checkpoints {
    /// Pages in the write-ahead log, as SQLite says after each commit.
    pages: Arc<AtomicU32>,
    /// Of these, how many the checkpointer had copied when it last came to an end.
    copied: Arc<AtomicU32>,
    pages_at_last: u32,
    /// It starts over here: the maximum, or more after a try that failed.
    pages_bound: u32,
    thresholds: Thresholds,
    /// `None` only while being dropped.
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Counts the pages that `writer` adds and starts the checkpointer on a connection of its own. The write-ahead log
    /// starts over at about `bytes_max`.
    pub(super) fn start(
        bytes_max: u64,
        writer: &mut Connection,
        connection: Connection,
        state: Arc<LogState>,
    ) -> Result<Self, Failure> {
        Self::start_with(Thresholds::of(bytes_max), writer, connection, state)
    }

    fn start_with(
        thresholds: Thresholds,
        writer: &mut Connection,
        connection: Connection,
        state: Arc<LogState>,
    ) -> Result<Self, Failure> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = pages.clone();
        writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            counted.store(u32::try_from(pages).unwrap_or(u32::MAX), Ordering::Relaxed);
            Ok(())
        }))?;
        // One wake-up waits at most: it stands for everything written until it is taken.
        let (wake, woken) = sync_channel(1);
        let copied = Arc::new(AtomicU32::new(0));
        let copied_by_thread = copied.clone();
        let thread = std::thread::Builder::new()
            .name("checkpointer".into())
            .spawn(move || run(&connection, &woken, &copied_by_thread, &state))
            .map_err(|error| Failure::Broken(format!("failed to start the checkpointer: {error}")))?;
        let (wake, thread) = (Some(wake), Some(thread));
        Ok(Self { pages, copied, pages_at_last: 0, pages_bound: thresholds.max, thresholds, wake, thread })
    }

    /// Called by the writer after each commit.
    pub(super) fn after_commit(&mut self, writer: &Connection) -> Result<(), Failure> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.pages_at_last {
            // SQLite started it over.
            self.pages_at_last = 0;
            self.pages_bound = self.thresholds.max;
        }
        let left = pages.saturating_sub(self.copied.load(Ordering::Relaxed));
        if pages >= self.pages_bound && (left <= self.thresholds.left_max || pages >= self.thresholds.always()) {
            let mode = if pages >= self.thresholds.cut() { "TRUNCATE" } else { "RESTART" };
            let started_over = checkpoint(writer, mode)?.is_complete;
            if started_over {
                self.copied.store(0, Ordering::Relaxed);
            }
            self.pages_at_last = if started_over { 0 } else { pages };
            self.pages_bound =
                if started_over { self.thresholds.max } else { pages.saturating_add(self.thresholds.until_retry) };
        } else if pages - self.pages_at_last >= self.thresholds.until_checkpoint {
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

fn run(connection: &Connection, woken: &Receiver<()>, copied: &AtomicU32, state: &LogState) {
    let _stop_on_panic = StopOnPanic { state, thread: "checkpointer" };
    while let Ok(()) = woken.recv() {
        panic_if_asked("the checkpointer");
        match checkpoint(connection, "PASSIVE") {
            Ok(checkpointed) => copied.store(checkpointed.copied, Ordering::Relaxed),
            Err(failure) => return state.stop(format!("failed to move pages into the database: {failure}")),
        }
    }
}

/// What a checkpoint came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checkpointed {
    /// It did all that its mode says; false when someone was in the way or the disk is full, which may pass.
    is_complete: bool,
    /// Pages of the write-ahead log that are in the database.
    copied: u32,
}

impl Checkpointed {
    pub(super) fn is_complete(self) -> bool {
        self.is_complete
    }
}

pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Result<Checkpointed, Failure> {
    let done = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let copied = u32::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
        Ok(Checkpointed { is_complete: row.get::<_, i64>(0)? == 0, copied })
    });
    match done {
        Ok(checkpointed) => Ok(checkpointed),
        Err(error) => match Failure::from(error) {
            Failure::Full(reason) => {
                tracing::warn!(reason, "no room to move pages into the database: the write-ahead log grows");
                Ok(Checkpointed::default())
            }
            Failure::Busy(_) => Ok(Checkpointed::default()),
            broken @ Failure::Broken(_) => Err(broken),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::format;
    use super::*;
    use sluicebox_core::clock;
    use sluicebox_core::message::Offset;
    use std::time::Duration;

    const SMALL: Thresholds = Thresholds { until_checkpoint: 20, max: 100, until_retry: 50, left_max: 50 };

    #[test]
    fn pages_are_moved_many_times_before_the_bound_and_the_writer_moves_few_until_far_beyond_it() {
        for pages in [64, 1600, 65_536] {
            let of = Thresholds::of(pages * u64::from(PAGE_BYTES));
            assert_eq!(u64::from(of.max), pages);
            assert!((1..=of.max / 8).contains(&of.until_checkpoint), "{of:?}");
            assert!((2..=of.max / 2).contains(&of.until_retry), "{of:?}");
            assert!((2..=of.max / 2).contains(&of.left_max), "{of:?}");
            assert!(of.cut() > of.max && of.always() > of.cut(), "{of:?}");
        }
        assert!(Thresholds::of(0).until_checkpoint > 0, "a bound that is too small for anything");
        let largest = Thresholds::of(u64::MAX);
        assert!(largest.max > 1 << 24 && largest.always() > largest.max, "{largest:?}");
    }

    struct Written {
        writer: Connection,
        checkpoints: Checkpoints,
        path: std::path::PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Written {
        fn new() -> Self {
            Self::with(SMALL)
        }

        fn with(thresholds: Thresholds) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = format::database(directory.path());
            let mut writer = format::open_or_create(&path, 1024 * 1024).unwrap();
            writer.busy_timeout(Duration::ZERO).unwrap();
            let second = format::open_to_checkpoint(&path).unwrap();
            let state = Arc::new(LogState::new(Offset::START));
            let checkpoints = Checkpoints::start_with(thresholds, &mut writer, second, state).unwrap();
            Self { writer, checkpoints, path, _directory: directory }
        }

        /// Commits so many times and returns the most pages the write-ahead log had.
        fn commit(&mut self, times: u32) -> u32 {
            let mut most = 0;
            for _ in 0..times {
                let insert = "INSERT INTO log SELECT NULL, 1, 1, 0, NULL, NULL, NULL, zeroblob(3000)";
                self.writer.execute(insert, []).unwrap();
                most = most.max(self.checkpoints.pages.load(Ordering::Relaxed));
                self.checkpoints.after_commit(&self.writer).unwrap();
            }
            most
        }

        /// Commits until the write-ahead log starts over, which has to wait for what the checkpointer has under way.
        fn commit_until_it_starts_over(&mut self) {
            let begun = clock::instant();
            let mut before = 0;
            while self.checkpoints.pages.load(Ordering::Relaxed) >= before {
                before = self.checkpoints.pages.load(Ordering::Relaxed);
                self.commit(1);
                assert!(begun.elapsed() < Duration::from_secs(60), "{before} pages and it does not start over");
            }
        }
    }

    #[test]
    fn the_writer_starts_it_over_at_its_bound_when_little_is_left_and_far_beyond_it_whatever_is_left() {
        // The checkpointer is never woken: what it has copied is what this says.
        let thresholds = Thresholds { until_checkpoint: u32::MAX, ..SMALL };
        for (copied, bound) in [(u32::MAX, thresholds.max), (0, thresholds.always())] {
            let mut written = Written::with(thresholds);
            written.checkpoints.copied.store(copied, Ordering::Relaxed);
            let (mut most, mut pages) = (0, 0);
            while pages >= most {
                most = pages;
                written.commit(1);
                pages = written.checkpoints.pages.load(Ordering::Relaxed);
            }
            assert!((bound..bound + 20).contains(&most), "{most} pages with {copied} copied");
            assert_eq!(written.checkpoints.copied.load(Ordering::Relaxed), 0, "nothing of the new one is copied");
        }
    }

    #[test]
    fn a_write_ahead_log_that_is_never_left_alone_starts_over_at_its_bound() {
        let mut written = Written::new();
        for _ in 0..5 {
            written.commit_until_it_starts_over();
        }
    }

    #[test]
    fn a_reader_in_the_way_delays_the_start_over_and_no_commit() {
        let mut written = Written::new();
        let reader = format::open_to_read(&written.path, 0).unwrap();
        let snapshot = reader.unchecked_transaction().unwrap();
        let count = || snapshot.query_row("SELECT count(*) FROM log", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count(), 0);
        assert!(written.commit(300) > 2 * SMALL.max);
        assert_eq!(count(), 0, "the reader still sees its snapshot");
        drop(snapshot);
        let grown = std::fs::metadata(written.path.with_extension("db-wal")).unwrap().len();
        written.commit_until_it_starts_over();
        let file_bytes = std::fs::metadata(written.path.with_extension("db-wal")).unwrap().len();
        assert!(file_bytes < grown / 2, "the file was cut: {file_bytes} of {grown} bytes");
    }
}
