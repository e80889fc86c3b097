//! The dead letters of the handlers, as the writer adds, deletes and bounds them.

use super::failure::Failure;
use super::rows::{self, int};
use super::statements::Statements;
use rusqlite::{Statement, params};
use sluicebox_core::commit::{DeadLetter, ShardCommit};
use std::collections::HashMap;

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

    /// Writes what a commit of a shard does to the letters of its handler.
    pub(super) fn write(
        &mut self,
        sql: &mut Statements<'_>,
        handler_id: i64,
        shard_id: i64,
        commit: &ShardCommit,
    ) -> Result<(), Failure> {
        let mut dropped = 0;
        for number in &commit.dead_drop {
            dropped += sql.dead_drop.execute(params![shard_id, int(*number)])? as u64;
        }
        for letter in &commit.dead {
            add(&mut sql.dead_add, handler_id, shard_id, letter)?;
        }
        let added = commit.dead.len() as u64;
        if let Some(count) = self.counts.get_mut(&handler_id) {
            *count = (*count + added).saturating_sub(dropped);
        }
        if commit.dead_max == u64::MAX {
            return Ok(());
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
        Ok(())
    }
}

fn add(add: &mut Statement<'_>, handler_id: i64, shard_id: i64, letter: &DeadLetter) -> Result<(), Failure> {
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
    ])?;
    Ok(())
}
