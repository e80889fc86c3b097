//! The dead letters of the handlers, as the writer adds, deletes and bounds them.

use super::failure::Failure;
use super::rows::{self, int};
use super::statements::Statements;
use rusqlite::{Statement, params};
use sluicebox_core::commit::{DeadLetter, Deaths, ShardCommit};
use std::collections::HashMap;
use std::time::Duration;

/// Most letters beyond the maximum that one commit deletes besides as many as it adds, so that a maximum that was
/// lowered does not delay one commit for long. The next ones delete the rest.
const LETTERS_DROPPED_MAX: u64 = 1024;

/// How many letters each handler has: counted once, then kept.
#[derive(Default)]
pub(super) struct DeadBoxes {
    /// By the number of the handler; absent: not known.
    counts: HashMap<i64, u64>,
}

impl DeadBoxes {
    /// After an undone transaction, or when letters went otherwise.
    pub(super) fn forget_counts(&mut self) {
        self.counts.clear();
    }

    /// Writes what a commit of a shard does to the letters of its handler. Returns how many took the place of another.
    pub(super) fn write(
        &mut self,
        sql: &mut Statements<'_>,
        handler_id: i64,
        shard_id: i64,
        commit: &ShardCommit,
    ) -> Result<u64, Failure> {
        let mut dropped = 0;
        for number in &commit.dead_drop {
            dropped += sql.dead_drop.execute(params![shard_id, int(*number)])? as u64;
        }
        let mut joined = 0;
        for letter in &commit.dead {
            let older = take_same(sql, shard_id, letter, commit.dead_window)?;
            joined += u64::from(older.is_some());
            let deaths = older.map_or(letter.deaths, |older| letter.deaths.joined(older));
            add(&mut sql.dead_add, handler_id, shard_id, letter, deaths)?;
        }
        dropped += joined;
        let added = commit.dead.len() as u64;
        if let Some(count) = self.counts.get_mut(&handler_id) {
            *count = (*count + added).saturating_sub(dropped);
        }
        if commit.dead_max == u64::MAX {
            return Ok(joined);
        }
        let count = match self.counts.get(&handler_id) {
            Some(known) => *known,
            None => sql.dead_count.query_row([handler_id], |row| row.get::<_, i64>(0))?.cast_unsigned(),
        };
        let beyond = count.saturating_sub(commit.dead_max).min(added + LETTERS_DROPPED_MAX);
        let deleted = match beyond {
            0 => 0,
            beyond => sql.dead_drop_oldest.execute(params![handler_id, int(beyond)])? as u64,
        };
        self.counts.insert(handler_id, count.saturating_sub(deleted));
        Ok(joined)
    }
}

/// Deletes the letter of the same message, if there is one: what became of it.
fn take_same(
    sql: &mut Statements<'_>,
    shard_id: i64,
    letter: &DeadLetter,
    window: Duration,
) -> Result<Option<Deaths>, Failure> {
    let Some(identity) = letter.identity else { return Ok(None) };
    let time = letter.message.time;
    let (since, until) = (int(time.before(window).0), int(time.after(window).0));
    let mut found = sql.dead_same.query(params![shard_id, identity.0.to_le_bytes(), since, until])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let (number, deaths): (i64, Deaths) = (row.get(0)?, rows::deaths(row, 1)?);
    drop(found);
    sql.dead_drop.execute(params![shard_id, number])?;
    Ok(Some(deaths))
}

fn add(
    add: &mut Statement<'_>,
    handler_id: i64,
    shard_id: i64,
    letter: &DeadLetter,
    deaths: Deaths,
) -> Result<(), Failure> {
    let message = &letter.message;
    add.execute(params![
        shard_id,
        letter.key.as_ref().map(|key| key.as_str()),
        letter.attempts,
        letter.kind,
        letter.error,
        letter.digest.map(|digest| digest.0),
        int(letter.time.0),
        int(message.offset.0),
        int(message.time.0),
        message.topic.as_str(),
        message.hops,
        message.key.as_ref().map(|key| key.as_str()),
        message.id.as_deref(),
        rows::headers_blob(&message.headers),
        &*message.body,
        handler_id,
        letter.identity.map(|identity| identity.0.to_le_bytes()),
        deaths.count,
        int(deaths.first_offset.0),
        int(deaths.first_time.0),
        deaths.returns,
    ])?;
    Ok(())
}
