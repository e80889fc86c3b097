//! The dead letters of the handlers, as the writer adds, deletes and bounds them: by number, as the handler's settings say,
//! and by bytes, so that they never fill a log with `max_bytes`.

use super::failure::Failure;
use super::room::Bounds;
use super::rows::{self, int, uint};
use super::statements::Statements;
use crate::contract::DeadUsage;
use rusqlite::{Statement, params};
use sluicebox_core::commit::{DeadLetter, Deaths, ShardCommit};
use sluicebox_core::handler::HandlerName;
use std::collections::HashMap;
use std::time::Duration;

/// Most letters beyond the maximum that one commit deletes besides as many as it adds, so that a maximum that was
/// lowered does not delay one commit for long. The next ones delete the rest.
const LETTERS_DROPPED_MAX: u64 = 1024;

/// How many letters each handler has: counted once, then kept. Counting goes through all of them.
#[derive(Default)]
pub(super) struct DeadBoxes {
    /// By the number of the handler; absent: not known.
    counts: HashMap<i64, DeadUsage>,
    /// What was known before this transaction, of those that it changed.
    before: HashMap<i64, Option<DeadUsage>>,
    /// What this transaction changed.
    changed: HashMap<HandlerName, DeadUsage>,
    /// This transaction may have deleted letters of handlers that are forgotten, and their numbers.
    erases: bool,
    /// By handler, since the log was opened.
    dropped_for_bytes: HashMap<HandlerName, u64>,
}

impl DeadBoxes {
    /// The transaction is undone: all is as it was before.
    pub(super) fn undo(&mut self) {
        for (handler_id, before) in self.before.drain() {
            match before {
                Some(before) => self.counts.insert(handler_id, before),
                None => self.counts.remove(&handler_id),
            };
        }
        self.changed.clear();
        self.erases = false;
    }

    /// The letters of this handler go, and its number may be given out again afterwards.
    pub(super) fn forget(&mut self, handler_id: i64) {
        let before = self.counts.remove(&handler_id);
        self.before.entry(handler_id).or_insert(before);
    }

    /// Handlers that are forgotten lose letters, or their number: what is counted from here on was not so before.
    pub(super) fn erase(&mut self) {
        self.erases = true;
    }

    /// The transaction is durable.
    pub(super) fn tell(&mut self, bounds: &Bounds) {
        self.before.clear();
        self.erases = false;
        for (handler, mut usage) in self.changed.drain() {
            let dropped = self.dropped_for_bytes.entry(handler.clone()).or_default();
            *dropped += usage.dropped_for_bytes;
            usage.dropped_for_bytes = *dropped;
            bounds.note_dead(&handler, usage);
        }
    }

    /// What is known, by the number of the handler.
    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<(i64, DeadUsage)> {
        self.counts.iter().map(|(handler_id, usage)| (*handler_id, *usage)).collect()
    }

    /// Writes what a commit of a shard does to the letters of its handler. Returns how many took the place of another.
    pub(super) fn write(
        &mut self,
        sql: &mut Statements<'_>,
        bounds: &Bounds,
        handler_id: i64,
        shard_id: i64,
        commit: &ShardCommit,
    ) -> Result<u64, Failure> {
        let known = self.counts.get(&handler_id).copied();
        if commit.dead.is_empty() && commit.dead_drop.is_empty() {
            // Most commits: nothing to do unless the maximum was lowered.
            let letters = known.map(|known| known.letters);
            if commit.dead_max == u64::MAX || letters.is_some_and(|letters| letters <= commit.dead_max) {
                return Ok(0);
            }
        }
        let mut count = match known {
            Some(known) => known,
            // Of before this transaction too, which changes nothing of a handler before it is counted, unless it erases.
            None => {
                let counted = count(sql, handler_id)?;
                self.counts.insert(handler_id, counted);
                if self.erases {
                    self.before.entry(handler_id).or_insert(None);
                }
                counted
            }
        };
        for number in &commit.dead_drop {
            let mut dropped = sql.dead_drop.query(params![shard_id, int(*number)])?;
            while let Some(row) = dropped.next()? {
                count.less(uint(row, 0)?);
            }
        }
        let mut joined = 0;
        for letter in &commit.dead {
            let older = take_same(sql, shard_id, letter, commit.dead_window, &mut count)?;
            joined += u64::from(older.is_some());
            let deaths = older.map_or(letter.deaths, |older| letter.deaths.joined(older));
            count.bytes += add(&mut sql.dead_add, handler_id, shard_id, letter, deaths)?;
            count.letters += 1;
        }
        count.dropped_for_bytes = self.changed.get(&commit.shard.handler).map_or(0, |usage| usage.dropped_for_bytes);
        // A handler that stops at a full box does so before: what is settled meanwhile is not lost.
        if commit.dead_max != u64::MAX {
            let mut may_go = commit.dead.len() as u64 + LETTERS_DROPPED_MAX;
            let handlers = sql.handlers_count.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned();
            let bytes_max = bounds.dead_bytes_max(handlers).unwrap_or(u64::MAX);
            loop {
                let too_many = count.letters > commit.dead_max;
                // The newest stays, however large: a letter that nobody ever saw would be a message lost.
                let too_large = count.bytes > bytes_max && count.letters > 1;
                if may_go == 0 || !(too_many || too_large) {
                    break;
                }
                may_go -= 1;
                let mut dropped = sql.dead_drop_oldest.query([handler_id])?;
                let Some(row) = dropped.next()? else { break };
                count.less(uint(row, 0)?);
                count.dropped_for_bytes += u64::from(!too_many);
            }
        }
        let before = self.counts.insert(handler_id, DeadUsage { dropped_for_bytes: 0, ..count });
        self.before.entry(handler_id).or_insert(before);
        self.changed.insert(commit.shard.handler.clone(), count);
        Ok(joined)
    }
}

impl DeadUsage {
    fn less(&mut self, bytes: u64) {
        self.letters = self.letters.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

fn count(sql: &mut Statements<'_>, handler_id: i64) -> Result<DeadUsage, Failure> {
    let counted = sql.dead_count.query_row([handler_id], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    Ok(DeadUsage { letters: counted.0.cast_unsigned(), bytes: counted.1.cast_unsigned(), dropped_for_bytes: 0 })
}

/// Deletes the letter of the same message, if there is one: what became of it.
fn take_same(
    sql: &mut Statements<'_>,
    shard_id: i64,
    letter: &DeadLetter,
    window: Duration,
    count: &mut DeadUsage,
) -> Result<Option<Deaths>, Failure> {
    let Some(identity) = letter.identity else { return Ok(None) };
    let time = letter.message.time;
    let (since, until) = (int(time.before(window).0), int(time.after(window).0));
    let mut found = sql.dead_same.query(params![shard_id, identity.0.to_le_bytes(), since, until])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let (number, deaths): (i64, Deaths) = (row.get(0)?, rows::deaths(row, 1)?);
    drop(found);
    let mut dropped = sql.dead_drop.query(params![shard_id, number])?;
    while let Some(row) = dropped.next()? {
        count.less(uint(row, 0)?);
    }
    Ok(Some(deaths))
}

/// Adds a letter and returns what it takes.
pub(super) fn add(
    add: &mut Statement<'_>,
    handler_id: i64,
    shard_id: i64,
    letter: &DeadLetter,
    deaths: Deaths,
) -> Result<u64, Failure> {
    let message = &letter.message;
    let mut added = add.query(params![
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
    let bytes = added.next()?.map_or(Ok(0), |row| uint(row, 0))?;
    // A statement with an answer is done when it has no more of it.
    while added.next()?.is_some() {}
    Ok(bytes)
}
