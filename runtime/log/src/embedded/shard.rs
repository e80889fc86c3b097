//! The rows of one shard, as the writer changes them.

use super::failure::Failure;
use super::rows::{self, int};
use super::statements::Statements;
use rusqlite::{Statement, params};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{Delayed, Head, KeyWrites, Mark, ShardCommit, Term};
use sluicebox_core::message::Offset;
use std::collections::VecDeque;

/// Most rows of marks deleted by one commit, so that a window that ran out does not delay one commit for long. A
/// commit adds one row, so the rows do not pile up.
const MARK_ROWS_DROPPED_MAX: usize = 16;

/// Most marks in a row where they are not those of one commit: what one step of trimming may take.
pub(super) const MARKS_PER_ROW: usize = 1000;

/// The row of a shard, and what is needed to trim its marks.
pub(super) struct Shard {
    pub(super) id: i64,
    pub(super) handler_id: i64,
    pub(super) term: Term,
    pub(super) commit_number: u64,
    pub(super) read: Offset,
    pub(super) marks: u64,
    pub(super) controlled: Offset,
    /// The first rows of its marks; empty: not known.
    pub(super) oldest: VecDeque<MarksRow>,
}

pub(super) struct MarksRow {
    commit_number: u64,
    newest_time: Timestamp,
    count: u64,
}

impl Shard {
    /// Writes all of a commit but its outputs and dead letters.
    pub(super) fn write(&mut self, sql: &mut Statements<'_>, commit: &ShardCommit) -> Result<(), Failure> {
        for offset in &commit.open_drop {
            sql.open_drop.execute(params![self.id, int(offset.0)])?;
        }
        for head in &commit.open_put {
            put_head(&mut sql.open_put, self.id, head)?;
        }
        for number in &commit.delayed_drop {
            sql.delayed_drop.execute(params![self.id, int(*number)])?;
        }
        for delayed in &commit.delayed_put {
            put_delayed(&mut sql.delayed_put, self.id, delayed)?;
        }
        for KeyWrites { key, writes } in &commit.state {
            for write in writes {
                match &write.value {
                    Some(value) => {
                        sql.state_put.execute(params![self.handler_id, key.as_str(), &*write.entry, &**value])?
                    }
                    None => sql.state_drop.execute(params![self.handler_id, key.as_str(), &*write.entry])?,
                };
            }
        }
        self.write_marks(sql, commit)?;
        self.commit_number = commit.number;
        self.read = commit.read;
        self.controlled = commit.controlled;
        let controlled = int(commit.controlled.0);
        let numbers = params![self.id, int(commit.number), int(commit.read.0), int(self.marks), controlled];
        sql.shard_commit.execute(numbers)?;
        if let Some(control) = &commit.control {
            sql.shard_control.execute(params![self.id, rows::control_text(control)])?;
        }
        Ok(())
    }

    fn write_marks(&mut self, sql: &mut Statements<'_>, commit: &ShardCommit) -> Result<(), Failure> {
        self.marks += put_marks(&mut sql.marks_put, self.id, commit.number, &commit.marks)?;
        for _ in 0..MARK_ROWS_DROPPED_MAX {
            if self.oldest.is_empty() && self.marks > 0 {
                self.read_oldest(sql)?;
            }
            let Some(row) = self.oldest.front() else { break };
            let left = self.marks.saturating_sub(row.count);
            if row.newest_time >= commit.marks_since && left < commit.marks_max as u64 {
                break;
            }
            sql.marks_drop.execute(params![self.id, int(row.commit_number)])?;
            self.marks = left;
            self.oldest.pop_front();
        }
        Ok(())
    }

    fn read_oldest(&mut self, sql: &mut Statements<'_>) -> Result<(), Failure> {
        let mut found = sql.marks_oldest.query([self.id])?;
        while let Some(row) = found.next()? {
            let row = MarksRow {
                commit_number: rows::uint(row, 0)?,
                newest_time: Timestamp(rows::uint(row, 1)?),
                count: rows::uint(row, 2)?,
            };
            self.oldest.push_back(row);
        }
        Ok(())
    }
}

pub(super) fn put_head(put: &mut Statement<'_>, shard_id: i64, head: &Head) -> Result<(), Failure> {
    put.execute(params![
        shard_id,
        int(head.offset.0),
        head.key.as_ref().map(|key| key.as_str()),
        head.attempt,
        int(head.due.0),
        &*head.error,
        head.digest.map(|digest| digest.0),
        rows::scope_number(head.scope),
    ])?;
    Ok(())
}

pub(super) fn put_delayed(put: &mut Statement<'_>, shard_id: i64, delayed: &Delayed) -> Result<(), Failure> {
    let message = &delayed.message;
    put.execute(params![
        shard_id,
        int(delayed.number),
        int(delayed.due.0),
        message.topic.as_str(),
        message.hops,
        message.key.as_ref().map(|key| key.as_str()),
        message.id.as_deref(),
        rows::headers_blob(&message.headers),
        &*message.body,
    ])?;
    Ok(())
}

/// Returns how many they are.
pub(super) fn put_marks(put: &mut Statement<'_>, shard_id: i64, number: u64, marks: &[Mark]) -> Result<u64, Failure> {
    let Some(newest) = marks.iter().map(|mark| mark.time).max() else { return Ok(0) };
    let count = marks.len() as u64;
    put.execute(params![shard_id, int(number), int(newest.0), int(count), rows::marks_blob(marks)])?;
    Ok(count)
}
