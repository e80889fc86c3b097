//! How much room there is for what is new. Appends give way before the work under way does: they are refused while
//! commits and operators' commands still fit, which make room.
//!
//! Inside `max_bytes` dead letters and topics have bounds of their own, so that neither can fill a log for good: a quarter
//! for the letters of all handlers, each with an equal share (kept here for those that drop the oldest, by the host for those
//! that stop), and an eighth for the names of topics.

use super::failure::Failure;
use super::trim::used_bytes;
use crate::contract::{DeadUsage, Held, Trimmed, Usage};
use rusqlite::Connection;
use sluicebox_core::handler::HandlerName;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The part of `max_bytes` that dead letters may take: 1 / 4.
const DEAD_PART: u64 = 4;
/// The part that topics may take, and never more: all of them are gone through at the start.
const TOPICS_PART: u64 = 8;
const TOPICS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The bounds of a log, and what is known of how it is filled. Shared by the writer and whoever looks; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Bounds(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    bytes_max: Option<u64>,
    disk_reserve_bytes: u64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The shard that kept messages at the last trim.
    held: Option<Held>,
    dead: BTreeMap<HandlerName, DeadUsage>,
}

impl Bounds {
    pub(super) fn new(directory: PathBuf, bytes_max: Option<u64>, disk_reserve_bytes: u64) -> Self {
        Self(Arc::new(Inner { directory, bytes_max, disk_reserve_bytes, known: Mutex::default() }))
    }

    /// Most bytes of the dead letters of one of so many handlers.
    pub(super) fn dead_bytes_max(&self, handlers: u64) -> Option<u64> {
        self.0.bytes_max.map(|max| max / DEAD_PART / handlers.max(1))
    }

    /// Most bytes of topics.
    pub(super) fn topics_bytes_max(&self) -> Option<u64> {
        self.0.bytes_max.map(|max| (max / TOPICS_PART).min(TOPICS_BYTES_MAX))
    }

    /// The dead letters of a handler, as of the last transaction.
    pub(super) fn note_dead(&self, handler: &HandlerName, usage: DeadUsage) {
        self.known().dead.insert(handler.clone(), usage);
    }

    pub(super) fn forget_dead(&self, handler: &HandlerName) {
        self.known().dead.remove(handler);
    }

    /// How full the log is, as `connection` sees it.
    pub(super) fn usage(&self, connection: &Connection) -> Result<Usage, Failure> {
        let bytes = used_bytes(connection)?;
        let handlers: i64 =
            connection.query_row("SELECT count(*) FROM handlers WHERE NOT forgotten", [], |row| row.get(0))?;
        Ok(Usage {
            bytes,
            bytes_max: self.0.bytes_max,
            full: self.no_disk(self.disk_left()).or_else(|| self.no_bytes(bytes)),
            dead_bytes_max: self.dead_bytes_max(handlers.cast_unsigned()),
            dead: self.known().dead.clone(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk_left(&self) -> u64 {
        // A file system that cannot say has no reserve: there the end is when a write fails.
        rustix::fs::statvfs(&self.0.directory).map_or(u64::MAX, |found| found.f_bavail * found.f_frsize)
    }

    fn no_disk(&self, left: u64) -> Option<String> {
        let reserve = self.0.disk_reserve_bytes;
        (left < reserve).then(|| {
            format!(
                "the disk has {left} bytes left, fewer than the {reserve} that are kept for the work under way: make room"
            )
        })
    }

    fn no_bytes(&self, used: u64) -> Option<String> {
        let max = self.0.bytes_max.filter(|max| used >= *max)?;
        let advice = match &self.known().held {
            Some(held) => held.to_string(),
            None => "drop dead letters with `sluicebox dead drop`, or raise `max_bytes`".into(),
        };
        Some(format!("it reached its `max_bytes` ({used} of {max}), only the work under way goes on: {advice}"))
    }
}

/// The writer's side: whether an append may be taken.
pub(super) struct Room {
    pub(super) bounds: Bounds,
    page_bytes: u64,
    /// What the disk had left when it was last asked; `None`: ask. A system call for each append would be too many.
    disk_left: Cell<Option<u64>>,
}

impl Room {
    /// Limits what commits may fill: `bytes_max` and an eighth of it.
    pub(super) fn limit(connection: &Connection, bounds: Bounds) -> Result<Self, Failure> {
        let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let page_bytes = page_bytes.cast_unsigned();
        if let Some(bytes_max) = bounds.0.bytes_max {
            let pages_max = bytes_max / page_bytes;
            let with_reserve = i64::try_from(pages_max + pages_max.div_ceil(8)).unwrap_or(i64::MAX);
            connection.pragma_update_and_check(None, "max_page_count", with_reserve, |_| Ok(()))?;
        }
        Ok(Self { bounds, page_bytes, disk_left: Cell::new(None) })
    }

    /// Another transaction begins: the disk is asked again.
    pub(super) fn look_again(&self) {
        self.disk_left.set(None);
    }

    /// Old messages went, or were kept.
    pub(super) fn trimmed(&mut self, trimmed: &Trimmed) {
        // A step that was cut short does not know who stands in the way of the next one.
        if !trimmed.more {
            self.bounds.known().held.clone_from(&trimmed.held);
        }
    }

    /// Why nothing may be appended now, if so.
    pub(super) fn refusal(&self, used_pages: impl FnOnce() -> Result<u64, Failure>) -> Result<Option<String>, Failure> {
        let left = self.disk_left.get().unwrap_or_else(|| {
            let left = self.bounds.disk_left();
            self.disk_left.set(Some(left));
            left
        });
        if let Some(reason) = self.bounds.no_disk(left) {
            return Ok(Some(reason));
        }
        match self.bounds.0.bytes_max {
            Some(_) => Ok(self.bounds.no_bytes(used_pages()? * self.page_bytes)),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::format;
    use super::*;

    #[test]
    fn a_full_disk_is_noticed_and_that_it_has_room_again_with_the_next_transaction() {
        let directory = tempfile::tempdir().unwrap();
        let connection = format::open_or_create(&format::database(directory.path()), 1024 * 1024).unwrap();
        let room = Room::limit(&connection, Bounds::new(directory.path().to_owned(), None, 1)).unwrap();
        let is_refused = || room.refusal(|| Ok(0)).unwrap().is_some();
        assert!(!is_refused());
        room.disk_left.set(Some(0));
        assert!(is_refused());
        room.look_again();
        assert!(!is_refused());
    }

    #[test]
    fn topics_may_take_an_eighth_of_the_log_and_no_more_than_can_be_gone_through_at_each_start() {
        let mebibytes = |max: Option<u64>| {
            let bounds = Bounds::new(PathBuf::new(), max.map(|max| max << 20), 0);
            bounds.topics_bytes_max().map(|bytes| bytes >> 20)
        };
        assert_eq!([Some(64), Some(1024), Some(2048)].map(mebibytes), [Some(8), Some(128), Some(256)]);
        assert_eq!([Some(4096), Some(16 << 20)].map(mebibytes), [Some(256); 2]);
        assert_eq!(mebibytes(None), None);
    }
}
