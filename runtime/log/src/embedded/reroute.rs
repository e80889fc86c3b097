//! Gives a handler all of its records anew, within the transaction under way.

use super::failure::Failure;
use super::rows::{self, int};
use super::shard::{self, MARKS_PER_ROW};
use super::statements::Statements;
use crate::rerouting::{MovedLetter, Rerouting};
use crate::routings;
use rusqlite::{Connection, OptionalExtension as _, params};
use sluicebox_core::commit::Record;

/// Where the records that are replaced were.
const RECORDS: [&str; 3] = [
    "DELETE FROM open WHERE shard_id IN (SELECT id FROM shards WHERE handler_id = ?1)",
    "DELETE FROM marks WHERE shard_id IN (SELECT id FROM shards WHERE handler_id = ?1)",
    "DELETE FROM delayed WHERE shard_id IN (SELECT id FROM shards WHERE handler_id = ?1)",
];

/// That it was made from what there is, the caller knows.
pub(super) fn write(
    connection: &Connection,
    sql: &mut Statements<'_>,
    handler_id: i64,
    rerouting: &Rerouting,
) -> Result<(), Failure> {
    for delete in RECORDS {
        connection.prepare_cached(delete)?.execute([handler_id])?;
    }
    let mut ids = Vec::with_capacity(rerouting.records.len());
    for (index, record) in (0_u16..).zip(&rerouting.records) {
        ids.push(write_record(sql, (handler_id, index), rerouting, record)?);
    }
    let mut letter = connection
        .prepare_cached("UPDATE dead SET shard_id = ?3, identity = ?4 WHERE number = ?1 AND handler_id = ?2")?;
    for MovedLetter { number, shard, identity } in &rerouting.letters {
        let Some(id) = ids.get(usize::from(*shard)) else { continue };
        let identity = identity.map(|identity| identity.0.to_le_bytes());
        letter.execute(params![int(*number), handler_id, id, identity])?;
    }
    let kept = rerouting.routing.shards;
    connection
        .prepare_cached(
            "UPDATE dead SET shard_id = ?3 WHERE shard_id IN \
             (SELECT id FROM shards WHERE handler_id = ?1 AND shard_index >= ?2)",
        )?
        .execute(params![handler_id, kept, ids.first()])?;
    connection
        .prepare_cached("DELETE FROM shards WHERE handler_id = ?1 AND shard_index >= ?2")?
        .execute(params![handler_id, kept])?;
    write_routing(connection, rerouting)
}

fn write_record(
    sql: &mut Statements<'_>,
    (handler_id, index): (i64, u16),
    rerouting: &Rerouting,
    record: &Record,
) -> Result<i64, Failure> {
    let known = sql.shard.query_row(params![handler_id, index], |row| row.get::<_, i64>(0)).optional()?;
    let id = match known {
        Some(id) => id,
        None => sql.shard_add.insert(params![handler_id, index, int(record.read.0), int(record.controlled.0), 0])?,
    };
    for head in &record.open {
        shard::put_head(&mut sql.open_put, id, head)?;
    }
    for delayed in &record.delayed {
        shard::put_delayed(&mut sql.delayed_put, id, delayed)?;
    }
    let mut number = rerouting.commit_number();
    for marks in record.marks.chunks(MARKS_PER_ROW) {
        number += 1;
        shard::put_marks(&mut sql.marks_put, id, number, marks)?;
    }
    sql.shard_term.execute(params![id, int(rerouting.term().0)])?;
    let (marks, controlled) = (record.marks.len() as u64, int(record.controlled.0));
    sql.shard_commit.execute(params![id, int(number), int(record.read.0), int(marks), controlled])?;
    sql.shard_control.execute(params![id, rows::control_text(&record.control)])?;
    Ok(id)
}

fn write_routing(connection: &Connection, rerouting: &Rerouting) -> Result<(), Failure> {
    let mut select = connection.prepare_cached("SELECT routings FROM routings")?;
    let text: String = select.query_row([], |row| row.get(0))?;
    let mut all = routings::decode(&text).map_err(Failure::Broken)?;
    let own = |routing: &&mut sluicebox_core::routing::Routing| routing.handler == rerouting.routing.handler;
    if let Some(routing) = all.iter_mut().find(own) {
        *routing = rerouting.routing.clone();
    }
    let mut update = connection.prepare_cached("UPDATE routings SET version = ?1, routings = ?2")?;
    update.execute(params![int(rerouting.version + 1), routings::encode(&all)])?;
    Ok(())
}
