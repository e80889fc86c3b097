//! The topics and their numbers, as the writer gives them out and takes them back.
//!
//! A message names its topic by number. Whether a message still names a topic cannot be asked of the log, which has no
//! index by topic: that would double what an append writes. So each topic says up to which offset it may be in use, a
//! little ahead, so that a busy one is not written with every message. Messages go from the oldest on; once the oldest
//! one left is beyond that offset, no message names the topic.
//!
//! Readers keep the topics they met by number, so a number must never come to mean another topic. SQLite gives out one
//! more than the highest there is: the highest stays, used or not.

use super::failure::Failure;
use super::queries::Reader;
use super::rows::{self, int, uint};
use super::statements::Statements;
use rusqlite::{Connection, OptionalExtension as _, params};
use sluicebox_core::message::Offset;
use sluicebox_core::topic::Topic;
use std::collections::{HashMap, HashSet};

/// Most topics remembered with their number; the rest is looked up.
const REMEMBERED_MAX: usize = 100_000;
/// How far ahead a topic that is used again is said to be in use. So many topics at most stay although no message names
/// them, and one write in so many messages is the price.
const OFFSETS_AHEAD: u64 = 4096;
/// Most topics that one look goes through.
const LOOKED_AT_MAX: i64 = 4096;
/// Most topics deleted in one step: each is two rows, in places far apart.
const STEP_MAX: usize = 512;

/// The topics that the writer met.
#[derive(Default)]
pub(super) struct Topics {
    known: HashMap<Topic, Known>,
    /// What all topics of the log take, about; `None`: not known. Going through them takes seconds in a large log.
    bytes: Option<u64>,
    /// By how much this transaction changed that.
    changed: i64,
}

struct Known {
    id: i64,
    used_until: u64,
}

impl Topics {
    /// The transaction is undone: all is as it was before.
    pub(super) fn undo(&mut self) {
        self.known.clear();
        // A count made meanwhile has the changes in it too.
        self.bytes = self.bytes.map(|bytes| bytes.saturating_add_signed(self.changed.saturating_neg()));
        self.changed = 0;
    }

    /// The transaction is durable.
    pub(super) fn keep(&mut self) {
        self.changed = 0;
    }

    fn change_bytes(&mut self, by: i64) {
        self.bytes = self.bytes.map(|bytes| bytes.saturating_add_signed(by));
        self.changed = self.changed.saturating_add(by);
    }

    /// What all topics take, as far as is known.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// The number of the topic of a message that is written at this offset.
    pub(super) fn number(&mut self, sql: &mut Statements<'_>, topic: &Topic, at: Offset) -> Result<i64, Failure> {
        if let Some(known) = self.known.get_mut(topic) {
            return known.use_at(sql, at);
        }
        let found = sql.topic.query_row([topic.as_str()], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?))).optional()?;
        let mut known = match found {
            Some((id, used_until)) => Known { id, used_until: used_until.cast_unsigned() },
            // Many topics have one message and no more.
            None => {
                self.change_bytes(topic_bytes(topic).cast_signed());
                Known { id: sql.topic_add.insert(params![topic.as_str(), int(at.0)])?, used_until: at.0 }
            }
        };
        let id = known.use_at(sql, at)?;
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        self.known.insert(topic.clone(), known);
        Ok(id)
    }

    /// Why these topics may not be named, if so: some are new, and there is no room for their names within `bytes_max`.
    /// Topics that the log has may always be named.
    pub(super) fn refusal<'t>(
        &mut self,
        sql: &mut Statements<'_>,
        topics: impl Iterator<Item = &'t Topic> + Clone,
        bytes_max: u64,
    ) -> Result<Option<String>, Failure> {
        let used = match self.bytes {
            Some(bytes) => bytes,
            None => sql.topics_bytes.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned(),
        };
        self.bytes = Some(used);
        // Mostly there is room although all of them were new, and nothing has to be looked up.
        if used + topics.clone().map(topic_bytes).sum::<u64>() <= bytes_max {
            return Ok(None);
        }
        let (mut wanted, mut new) = (used, HashSet::new());
        for topic in topics {
            let is_known = self.known.contains_key(topic) || sql.topic.exists([topic.as_str()])?;
            if is_known || !new.insert(topic) {
                continue;
            }
            wanted += topic_bytes(topic);
            if wanted > bytes_max {
                return Ok(Some(format!(
                    "there is no room for the name of a new topic, `{topic}`: all names may take {bytes_max} bytes, a part \
                     of `max_bytes`. Publish on topics that there are, and put what differs into the key or the body; a \
                     topic goes when its last message does"
                )));
            }
        }
        Ok(None)
    }

    /// Deletes those of `unused` that are still out of use; returns how many went.
    pub(super) fn delete(&mut self, connection: &Connection, unused: &[i64]) -> Result<usize, Failure> {
        if unused.is_empty() {
            return Ok(0);
        }
        let oldest = oldest_offset(connection)?;
        let mut delete =
            connection.prepare_cached("DELETE FROM topics WHERE id = ?1 AND used_until < ?2 RETURNING name")?;
        let mut deleted = 0;
        for id in unused {
            let name: Option<String> = delete.query_row(params![id, oldest], |row| row.get(0)).optional()?;
            if let Some(name) = name {
                let topic = rows::topic(&name)?;
                self.change_bytes(-topic_bytes(&topic).cast_signed());
                self.known.remove(&topic);
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

/// What a topic takes, about: its name is in a table and in an index.
fn topic_bytes(topic: &Topic) -> u64 {
    2 * topic.as_str().len() as u64 + 48
}

impl Known {
    fn use_at(&mut self, sql: &mut Statements<'_>, at: Offset) -> Result<i64, Failure> {
        if at.0 > self.used_until {
            self.used_until = at.0.saturating_add(OFFSETS_AHEAD);
            sql.topic_used.execute(params![self.id, int(self.used_until)])?;
        }
        Ok(self.id)
    }
}

impl Reader {
    /// Numbers of topics that no message names, among some after `after`, and where the next look goes on. All topics
    /// are gone through in turn, since there may be many and mostly all of them are in use.
    pub(super) fn unused_topics(&self, after: i64) -> Result<(Vec<i64>, i64), Failure> {
        let snapshot = self.connection().unchecked_transaction()?;
        let oldest = oldest_offset(&snapshot)?.cast_unsigned();
        let mut select = snapshot.prepare_cached(
            "SELECT id, used_until FROM topics WHERE id > ?1 AND id < (SELECT max(id) FROM topics) \
             ORDER BY id LIMIT ?2",
        )?;
        let mut found = select.query(params![after, LOOKED_AT_MAX])?;
        let (mut unused, mut seen, mut last) = (vec![], 0, 0);
        while let Some(row) = found.next()? {
            (seen, last) = (seen + 1, row.get(0)?);
            if uint(row, 1)? < oldest {
                unused.push(last);
                if unused.len() == STEP_MAX {
                    return Ok((unused, last));
                }
            }
        }
        Ok((unused, if seen == LOOKED_AT_MAX { last } else { 0 }))
    }
}

/// The offset of the oldest message; in an empty log nothing is in use.
fn oldest_offset(connection: &Connection) -> Result<i64, Failure> {
    let mut select = connection.prepare_cached("SELECT min(offset) FROM log")?;
    Ok(select.query_row([], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(i64::MAX))
}
