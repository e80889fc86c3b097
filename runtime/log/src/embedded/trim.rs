//! Deletes old messages and then unused topics in steps, and gives the space back.
//!
//! How far it may go is read beside the writer: what the shards need only ever moves on, so a floor that is a little
//! old only keeps a little more. The deleting is a transaction of the writer, as short as the caller wants it.

use super::failure::Failure;
use super::queries::Reader;
use super::rows::{self, int, uint};
use crate::contract::{Held, Trim, Trimmed, Why};
use rusqlite::{Connection, OptionalExtension as _, params};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::{HandlerName, ShardId};
use sluicebox_core::message::Offset;

/// Most bytes of messages deleted in one step, about: long bodies have many pages, and each must be let go of.
const STEP_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What a row takes besides its body, about.
const ROW_BYTES: u64 = 100;
/// Free pages are kept to be filled again up to this many (16 MiB), or up to a quarter of those in use: giving a page
/// back to the file system means moving another one into its place.
const FREE_PAGES_KEPT: u64 = 4096;
/// Most pages given back in one step (2 MiB).
const PAGES_GIVEN_BACK: u64 = 512;

/// The first offset that someone needs, and who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Floor {
    offset: Offset,
    holder: Option<Held>,
}

impl Floor {
    fn lower(&mut self, offset: Offset, handler: &HandlerName, index: u16, why: Why) {
        if offset < self.offset {
            let shard = ShardId { handler: handler.clone(), index };
            *self = Self { offset, holder: Some(Held { shard, why, paused: false, tripped: false }) };
        }
    }
}

/// What a look without the writer found.
pub(super) enum Looked {
    NothingToDo {
        /// What the log takes.
        bytes: u64,
    },
    /// There may be something to delete, or space to give back.
    Due(Due),
}

/// What one step may delete.
pub(super) struct Due {
    /// Messages below it.
    pub(super) floor: Floor,
    /// Numbers of topics that no message named at the look.
    pub(super) unused_topics: Vec<i64>,
}

impl Reader {
    /// Whether a step is worth the writer's time. A host looks all the time, and mostly nothing is due.
    pub(super) fn look(&self, trim: &Trim, unused_topics: Vec<i64>) -> Result<Looked, Failure> {
        let snapshot = self.connection().unchecked_transaction()?;
        let bytes = used_bytes(&snapshot)?;
        let mut select = snapshot.prepare_cached("SELECT time FROM log ORDER BY offset LIMIT 1")?;
        let oldest: Option<i64> = select.query_row([], |row| row.get(0)).optional()?;
        let goes = oldest.is_some_and(|time| {
            trim.older_than.is_some_and(|older| Timestamp(time.cast_unsigned()) < older)
                || trim.bytes_max.is_some_and(|max| bytes > max)
        });
        if !goes && unused_topics.is_empty() && !has_much_to_give_back(&snapshot)? {
            return Ok(Looked::NothingToDo { bytes });
        }
        drop(select);
        drop(snapshot);
        Ok(Looked::Due(Due { floor: self.floor(&trim.holders)?, unused_topics }))
    }

    /// How many messages after this offset are gone.
    pub(super) fn gone_after(&self, offset: Offset) -> Result<u64, Failure> {
        let mut select = self.connection().prepare_cached("SELECT min(offset) FROM log")?;
        let oldest: Option<i64> = select.query_row([], |row| row.get(0))?;
        let last_gone = oldest.map_or(self.end()?.0, |oldest| oldest.cast_unsigned() - 1);
        Ok(self.messages_upto(Offset(last_gone))?.saturating_sub(self.messages_upto(offset)?))
    }

    /// What these handlers have not settled: from the oldest open head, from `read` and from `controlled` of each shard
    /// on, and from the start where a shard was never claimed.
    fn floor(&self, holders: &[HandlerName]) -> Result<Floor, Failure> {
        let snapshot = self.connection().unchecked_transaction()?;
        let routings = self.routings()?.routings;
        let mut select = snapshot.prepare_cached(
            "SELECT shard_index, read, controlled, (SELECT min(offset) FROM open WHERE shard_id = shards.id) \
             FROM shards WHERE handler_id = (SELECT id FROM handlers WHERE name = ?1)",
        )?;
        let mut floor = Floor { offset: Offset::END, holder: None };
        for handler in holders {
            let mut found = select.query([handler.as_str()])?;
            let mut claimed = 0;
            while let Some(row) = found.next()? {
                claimed += 1;
                let index = super::rows::narrow(row, 0)?;
                floor.lower(after(uint(row, 1)?.min(uint(row, 2)?)), handler, index, Why::Unread);
                if let Some(open) = row.get::<_, Option<i64>>(3)? {
                    floor.lower(Offset(open.cast_unsigned()), handler, index, Why::Open);
                }
            }
            let routing = routings.iter().find(|routing| routing.handler == *handler);
            if let Some(routing) = routing.filter(|routing| claimed < routing.shards) {
                floor.lower(after(routing.start().0), handler, claimed, Why::NeverStarted);
            }
        }
        if let Some(held) = &mut floor.holder {
            let mut select = snapshot.prepare_cached(
                "SELECT control FROM shards WHERE handler_id = (SELECT id FROM handlers WHERE name = ?1) AND shard_index = ?2",
            )?;
            let mut found = select.query(params![held.shard.handler.as_str(), held.shard.index])?;
            if let Some(row) = found.next()? {
                let control = rows::control(row, 0)?;
                (held.paused, held.tripped) = (control.paused, control.tripped);
            }
        }
        Ok(floor)
    }
}

fn after(offset: u64) -> Offset {
    Offset(offset.saturating_add(1))
}

/// One step, within the transaction under way.
pub(super) fn step(connection: &Connection, trim: &Trim, floor: &Floor) -> Result<Trimmed, Failure> {
    let page_bytes = pragma(connection, "page_size")?;
    let used = |connection| Ok::<_, Failure>(page_bytes * used_pages(connection)?);
    let beyond = |bytes: u64| trim.bytes_max.map_or(0, |max| bytes.saturating_sub(max));
    let mut trimmed = Trimmed::default();
    let last = choose(connection, trim, beyond(used(connection)?), floor, &mut trimmed)?;
    if let Some(last) = last {
        connection.prepare_cached("DELETE FROM log WHERE offset <= ?1")?.execute([int(last.0)])?;
    }
    trimmed.bytes = used(connection)?;
    // The rows were measured about; what they took is known only now.
    if !trimmed.more && trimmed.held.is_none() && beyond(trimmed.bytes) > 0 {
        let oldest = connection.prepare_cached("SELECT min(offset) FROM log")?.query_row([], |row| row.get(0));
        match oldest.optional()?.flatten().map(|offset: i64| Offset(offset.cast_unsigned())) {
            Some(oldest) if oldest >= floor.offset => trimmed.held.clone_from(&floor.holder),
            Some(_) => trimmed.more = true,
            None => {}
        }
    }
    if !trimmed.more {
        trimmed.more = give_back(connection)?;
    }
    Ok(trimmed)
}

/// The last message to delete in this step; says in `trimmed` how many those are and why it is not more.
fn choose(
    connection: &Connection,
    trim: &Trim,
    bytes_beyond: u64,
    floor: &Floor,
    trimmed: &mut Trimmed,
) -> Result<Option<Offset>, Failure> {
    let messages_max = trim.messages_max.max(1) as u64;
    // SQLite knows the length of a body without reading it.
    let mut select =
        connection.prepare_cached("SELECT offset, time, length(body) FROM log ORDER BY offset LIMIT ?1")?;
    let mut found = select.query(params![int(messages_max.saturating_add(1).min(i64::MAX as u64))])?;
    let (mut last, mut bytes) = (None, 0);
    while let Some(row) = found.next()? {
        let offset = Offset(uint(row, 0)?);
        let old = trim
            .older_than
            .is_some_and(|time| row.get::<_, i64>(1).is_ok_and(|at| Timestamp(at.cast_unsigned()) < time));
        if !old && bytes >= bytes_beyond {
            break;
        }
        if offset >= floor.offset {
            trimmed.held.clone_from(&floor.holder);
            break;
        }
        if trimmed.deleted == messages_max || bytes >= STEP_BYTES_MAX {
            trimmed.more = true;
            break;
        }
        trimmed.deleted += 1;
        bytes += ROW_BYTES + uint(row, 2)?;
        last = Some(offset);
    }
    Ok(last)
}

/// Moves a few pages from the end of the file into free places, when those are many; true if they still are.
fn give_back(connection: &Connection) -> Result<bool, Failure> {
    if !has_much_to_give_back(connection)? {
        return Ok(false);
    }
    let mut vacuum = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_GIVEN_BACK})"))?;
    let mut moved = vacuum.query([])?;
    // A row for each page.
    while moved.next()?.is_some() {}
    drop(moved);
    has_much_to_give_back(connection)
}

fn has_much_to_give_back(connection: &Connection) -> Result<bool, Failure> {
    Ok(pragma(connection, "freelist_count")? > FREE_PAGES_KEPT.max(used_pages(connection)? / 4))
}

pub(super) fn used_bytes(connection: &Connection) -> Result<u64, Failure> {
    Ok(pragma(connection, "page_size")? * used_pages(connection)?)
}

fn used_pages(connection: &Connection) -> Result<u64, Failure> {
    Ok(pragma(connection, "page_count")?.saturating_sub(pragma(connection, "freelist_count")?))
}

fn pragma(connection: &Connection, name: &str) -> Result<u64, Failure> {
    let mut select = connection.prepare_cached(&format!("SELECT * FROM pragma_{name}"))?;
    Ok(select.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::super::format;
    use super::*;

    #[test]
    fn messages_without_a_body_go_as_far_as_their_size_asks_for_and_no_further() {
        let directory = tempfile::tempdir().unwrap();
        let connection = format::open_or_create(&format::database(directory.path()), 1024 * 1024).unwrap();
        let rows = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 20000) \
                    INSERT INTO log SELECT n, 1, 1, 0, NULL, NULL, NULL, '' FROM number";
        assert_eq!(connection.execute(rows, []).unwrap(), 20_000);
        let trim = Trim { older_than: None, bytes_max: Some(0), holders: vec![], messages_max: 100_000 };
        let floor = Floor { offset: Offset(15_000), holder: None };
        let chosen = |bytes_beyond| {
            let mut trimmed = Trimmed::default();
            let last = choose(&connection, &trim, bytes_beyond, &floor, &mut trimmed).unwrap();
            (last, trimmed.deleted)
        };
        assert_eq!(chosen(100 * ROW_BYTES), (Some(Offset(100)), 100));
        assert_eq!(chosen(u64::MAX), (Some(Offset(14_999)), 14_999), "whoever needs one keeps it");
    }
}
