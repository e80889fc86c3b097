//! Forgets a handler in two moves: one short transaction hides it under a name that nobody can ask for and takes its
//! routing out; then everything under that name is deleted in small steps. What a crash leaves is hidden, and the next
//! call goes on with it.

use super::failure::Failure;
use super::modules;
use super::rows::int;
use crate::routings;
use rusqlite::{Connection, OptionalExtension as _, params};
use sluicebox_core::handler::HandlerName;

/// Most rows deleted in one step: commits wait for it.
const ROWS_PER_STEP: usize = 1000;

/// The tables in which a handler leaves rows.
const ERASE: [&str; 5] = [
    "DELETE FROM open WHERE (shard_id, offset) IN (SELECT shard_id, offset FROM open \
     WHERE shard_id IN (SELECT id FROM shards WHERE handler_id = ?1) LIMIT ?2)",
    "DELETE FROM marks WHERE (shard_id, commit_number) IN (SELECT shard_id, commit_number FROM marks \
     WHERE shard_id IN (SELECT id FROM shards WHERE handler_id = ?1) LIMIT ?2)",
    "DELETE FROM delayed WHERE (shard_id, number) IN (SELECT shard_id, number FROM delayed \
     WHERE shard_id IN (SELECT id FROM shards WHERE handler_id = ?1) LIMIT ?2)",
    "DELETE FROM state WHERE (handler_id, key, entry) IN (SELECT handler_id, key, entry FROM state \
     WHERE handler_id = ?1 LIMIT ?2)",
    "DELETE FROM dead WHERE number IN (SELECT number FROM dead WHERE handler_id = ?1 LIMIT ?2)",
];

/// From here on nobody finds it, and a handler of this name is a new one.
pub(super) fn hide(connection: &Connection, handler: &HandlerName) -> Result<(), Failure> {
    // A handler's name has no space, so nobody can ask for this one.
    connection
        .prepare_cached("UPDATE handlers SET name = 'forgotten ' || id, forgotten = 1 WHERE name = ?1")?
        .execute([handler.as_str()])?;
    let mut select = connection.prepare_cached("SELECT version, routings FROM routings")?;
    let (version, text): (i64, String) = select.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if version == 0 {
        return Ok(());
    }
    let mut kept = routings::decode(&text).map_err(Failure::Broken)?;
    let before = kept.len();
    kept.retain(|routing| routing.handler != *handler);
    if kept.len() < before {
        let mut update = connection.prepare_cached("UPDATE routings SET version = ?1, routings = ?2")?;
        update.execute(params![version + 1, routings::encode(&kept)])?;
    }
    Ok(())
}

/// Deletes some rows of whatever is hidden; true when nothing is left.
pub(super) fn erase(connection: &Connection) -> Result<bool, Failure> {
    let mut hidden = connection.prepare_cached("SELECT id FROM handlers WHERE forgotten LIMIT 1")?;
    let Some(handler_id) = hidden.query_row([], |row| row.get::<_, i64>(0)).optional()? else { return Ok(true) };
    if modules::erase(connection, handler_id)? {
        return Ok(false);
    }
    let mut left = ROWS_PER_STEP;
    for erase in ERASE {
        left -= connection.prepare_cached(erase)?.execute(params![handler_id, int(left as u64)])?.min(left);
        if left == 0 {
            return Ok(false);
        }
    }
    // Nothing has its number any more, so it may be given out again.
    connection.prepare_cached("DELETE FROM shards WHERE handler_id = ?1")?.execute([handler_id])?;
    connection.prepare_cached("DELETE FROM handlers WHERE id = ?1")?.execute([handler_id])?;
    Ok(hidden.query_row([], |row| row.get::<_, i64>(0)).optional()?.is_none())
}
