//! How much room there is for what is new. Appends give way before the work under way does: they are refused while
//! commits and operators' commands still fit, which make room.

use super::failure::Failure;
use crate::contract::Trimmed;
use rusqlite::Connection;
use sluicebox_core::handler::ShardId;
use std::cell::Cell;
use std::path::PathBuf;

/// The bounds that appends keep and commits may pass.
pub(super) struct Room {
    directory: PathBuf,
    /// Appends are refused when so many pages of the database are in use.
    pages_max: Option<u64>,
    /// Appends are refused when the disk has fewer bytes left.
    disk_reserve_bytes: u64,
    /// What the disk had left when it was last asked; `None`: ask. A system call for each append would be too many.
    disk_left: Cell<Option<u64>>,
    /// The shard that kept messages at the last trim.
    held_by: Option<ShardId>,
}

impl Room {
    /// Limits what commits may fill: `bytes_max` and an eighth of it.
    pub(super) fn limit(
        connection: &Connection,
        directory: PathBuf,
        bytes_max: Option<u64>,
        disk_reserve_bytes: u64,
    ) -> Result<Self, Failure> {
        let disk_left = Cell::new(None);
        let mut room = Self { directory, pages_max: None, disk_reserve_bytes, disk_left, held_by: None };
        if let Some(bytes_max) = bytes_max {
            let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
            let pages_max = bytes_max / page_bytes.cast_unsigned();
            let with_reserve = i64::try_from(pages_max + pages_max.div_ceil(8)).unwrap_or(i64::MAX);
            connection.pragma_update_and_check(None, "max_page_count", with_reserve, |_| Ok(()))?;
            room.pages_max = Some(pages_max);
        }
        Ok(room)
    }

    /// Another transaction begins: the disk is asked again.
    pub(super) fn look_again(&self) {
        self.disk_left.set(None);
    }

    /// Old messages went, or were kept.
    pub(super) fn trimmed(&mut self, trimmed: &Trimmed) {
        // A step that was cut short does not know who stands in the way of the next one.
        if !trimmed.more {
            self.held_by.clone_from(&trimmed.held_by);
        }
    }

    /// Why nothing may be appended now, if so.
    pub(super) fn refusal(&self, used_pages: impl FnOnce() -> Result<u64, Failure>) -> Result<Option<String>, Failure> {
        let left = self.disk_left.get().unwrap_or_else(|| {
            // A file system that cannot say has no reserve: there the end is when a write fails.
            let left = rustix::fs::statvfs(&self.directory).map_or(u64::MAX, |found| found.f_bavail * found.f_frsize);
            self.disk_left.set(Some(left));
            left
        });
        if left < self.disk_reserve_bytes {
            return Ok(Some(format!(
                "the disk has {left} bytes left, fewer than the {} that are kept for the work under way: make room",
                self.disk_reserve_bytes
            )));
        }
        if let Some(pages_max) = self.pages_max
            && used_pages()? >= pages_max
        {
            let advice = self.advice();
            return Ok(Some(format!("it reached its `max_bytes`, only the work under way goes on: {advice}")));
        }
        Ok(None)
    }

    /// How to free a log that reached its bound.
    fn advice(&self) -> String {
        match &self.held_by {
            Some(shard) => {
                let handler = &shard.handler;
                format!(
                    "shard {shard} keeps messages that it has not settled; see `sluicebox status`, let `{handler}` go on \
                     with `sluicebox handlers resume {handler}`, or remove it from the settings and delete what is left \
                     of it with `sluicebox handlers forget {handler}`"
                )
            }
            None => "drop dead letters with `sluicebox dead drop`, or raise `max_bytes`".into(),
        }
    }
}
