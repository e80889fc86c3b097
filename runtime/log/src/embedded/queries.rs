//! What is read, on one read-only connection.

use super::failure::Failure;
use super::rows::{self, Bodies, int, uint};
use crate::contract::{Batch, ReadRequest, Routings, ShardStatus};
use crate::routings;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{Delayed, Head, LogId, Record, Term};
use sluicebox_core::effects::Entries;
use sluicebox_core::handler::{HandlerName, ShardId};
use sluicebox_core::message::{Key, Message, NewMessage, Offset};
use sluicebox_core::topic::Topic;
use std::collections::HashMap;
use std::sync::Arc;

/// Most rows looked at by one read, so that a scan over messages nobody asked for stays short.
const ROWS_PER_READ: i64 = 20_000;
/// Most topics remembered with their number; the rest is looked up.
const TOPICS_MAX: usize = 100_000;

/// A connection and the topics it met, so that messages share them.
pub(super) struct Reader {
    connection: Connection,
    topics: HashMap<i64, Topic>,
}

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, topics: HashMap::new() }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// `end` is the offset of a durable message, the newest the caller knows.
    pub(super) fn read(&mut self, request: &ReadRequest, end: Offset) -> Result<Batch, Failure> {
        let upto = request.upto.min(end);
        let mut batch = Batch { messages: vec![], upto: upto.max(request.after) };
        if upto <= request.after {
            return Ok(batch);
        }
        let mut select = self.connection.prepare_cached(
            "SELECT topic_id, offset, time, hops, key, id, headers, body FROM log \
             WHERE offset > ?1 AND offset <= ?2 ORDER BY offset LIMIT ?3",
        )?;
        let mut found = select.query(params![int(request.after.0), int(upto.0), ROWS_PER_READ])?;
        // By the number of the topic: `None` where no pattern matches.
        let mut wanted: HashMap<i64, Option<Topic>> = HashMap::new();
        let mut bodies = Bodies::default();
        let (mut rows_seen, mut bytes, mut last) = (0, 0, request.after);
        while let Some(row) = found.next()? {
            rows_seen += 1;
            last = Offset(uint(row, 1)?);
            let topic_id = row.get(0)?;
            let topic = match wanted.get(&topic_id) {
                Some(topic) => topic,
                None => {
                    let topic = topic(&self.connection, &mut self.topics, topic_id)?;
                    let matches =
                        request.patterns.is_empty() || request.patterns.iter().any(|pattern| pattern.matches(&topic));
                    wanted.entry(topic_id).or_insert(matches.then_some(topic))
                }
            };
            let Some(topic) = topic else { continue };
            let message = message(row, 1, topic.clone(), bodies.read(row, 7)?)?;
            bytes += message.bytes();
            batch.messages.push(Arc::new(message));
            if batch.messages.len() >= request.messages_max || bytes >= request.bytes_max {
                batch.upto = last;
                return Ok(batch);
            }
        }
        if rows_seen == ROWS_PER_READ {
            batch.upto = last;
        }
        Ok(batch)
    }

    pub(super) fn fetch(&mut self, offsets: &[Offset]) -> Result<Vec<Option<Arc<Message>>>, Failure> {
        let snapshot = self.connection.unchecked_transaction()?;
        let mut select = snapshot
            .prepare_cached("SELECT topic_id, offset, time, hops, key, id, headers, body FROM log WHERE offset = ?1")?;
        let mut messages = Vec::with_capacity(offsets.len());
        for offset in offsets {
            let mut found = select.query([int(offset.0)])?;
            messages.push(match found.next()? {
                Some(row) => {
                    let topic = topic(&self.connection, &mut self.topics, row.get(0)?)?;
                    Some(Arc::new(message(row, 1, topic, rows::bytes(row, 7)?)?))
                }
                None => None,
            });
        }
        Ok(messages)
    }

    pub(super) fn end(&self) -> Result<Offset, Failure> {
        let mut select = self.connection.prepare_cached("SELECT offset FROM log_end")?;
        select.query_row([], |row| Ok(uint(row, 0)))?.map(Offset)
    }

    pub(super) fn log_id(&self) -> Result<LogId, Failure> {
        let mut select = self.connection.prepare_cached("SELECT id FROM log_id")?;
        Ok(LogId(u128::from_le_bytes(select.query_row([], |row| row.get(0))?)))
    }

    /// Times never fall, so the offset is found by halving.
    pub(super) fn offset_before(&self, time: Timestamp) -> Result<Offset, Failure> {
        let snapshot = self.connection.unchecked_transaction()?;
        let mut at_or_after =
            snapshot.prepare_cached("SELECT offset, time FROM log WHERE offset >= ?1 ORDER BY offset LIMIT 1")?;
        // Every message below `low` is older, every one from `high` on is not.
        let (mut low, mut high) = (0, self.end()?.0 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = at_or_after
                .query_row([int(middle)], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
                .optional()?;
            match found {
                Some((offset, found)) if found.cast_unsigned() < time.0 => low = offset.cast_unsigned() + 1,
                _ => high = middle,
            }
        }
        let mut before =
            snapshot.prepare_cached("SELECT offset FROM log WHERE offset < ?1 ORDER BY offset DESC LIMIT 1")?;
        let offset: Option<i64> = before.query_row([int(low)], |row| row.get(0)).optional()?;
        Ok(offset.map_or(Offset::START, |offset| Offset(offset.cast_unsigned())))
    }

    pub(super) fn load(&self, handler: &HandlerName, keys: &[Key]) -> Result<Vec<Entries>, Failure> {
        let snapshot = self.connection.unchecked_transaction()?;
        let mut select = snapshot.prepare_cached(
            "SELECT entry, value FROM state WHERE handler_id = (SELECT id FROM handlers WHERE name = ?1) AND key = ?2",
        )?;
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            let mut found = select.query([handler.as_str(), key.as_str()])?;
            let mut entries: Vec<(Arc<str>, Bytes)> = vec![];
            while let Some(row) = found.next()? {
                entries.push((rows::text(row, 0)?.into(), rows::bytes(row, 1)?));
            }
            all.push(Entries::from_iter(entries));
        }
        Ok(all)
    }

    /// The record of a shard; `None` when it was never claimed.
    pub(super) fn record(&self, shard: &ShardId) -> Result<Option<Record>, Failure> {
        let snapshot = self.connection.unchecked_transaction()?;
        let found = snapshot
            .prepare_cached(
                "SELECT id, commit_number, read, marks, controlled, control FROM shards \
                 WHERE handler_id = (SELECT id FROM handlers WHERE name = ?1) AND shard_index = ?2",
            )?
            .query_row(params![shard.handler.as_str(), shard.index], |row| Ok((row.get(0)?, record(row))))
            .optional()?;
        let Some((id, record)) = found else { return Ok(None) };
        let mut record = Record { open: self.open(id)?, delayed: self.delayed(id)?, ..record? };
        let mut select =
            snapshot.prepare_cached("SELECT marks FROM marks WHERE shard_id = ?1 ORDER BY commit_number")?;
        let mut found = select.query([id])?;
        while let Some(row) = found.next()? {
            rows::read_marks(row.get_ref(0)?.as_blob()?, &mut record.marks)?;
        }
        Ok(Some(record))
    }

    fn open(&self, shard_id: i64) -> Result<Vec<Head>, Failure> {
        let mut select = self.connection.prepare_cached(
            "SELECT offset, key, attempt, due, error, digest, scope FROM open WHERE shard_id = ?1 ORDER BY offset",
        )?;
        let mut found = select.query([shard_id])?;
        let mut open = vec![];
        // Most heads are of messages that only wait, so they share one empty error.
        let no_error: Arc<str> = "".into();
        while let Some(row) = found.next()? {
            open.push(Head {
                offset: Offset(uint(row, 0)?),
                key: rows::key(row, 1)?,
                attempt: rows::narrow(row, 2)?,
                due: Timestamp(uint(row, 3)?),
                error: match rows::text(row, 4)? {
                    "" => no_error.clone(),
                    error => error.into(),
                },
                digest: rows::digest(row, 5)?,
                scope: rows::scope(row, 6)?,
            });
        }
        Ok(open)
    }

    fn delayed(&self, shard_id: i64) -> Result<Vec<Delayed>, Failure> {
        let mut select = self.connection.prepare_cached(
            "SELECT number, due, topic, hops, key, id, headers, body FROM delayed WHERE shard_id = ?1",
        )?;
        let mut found = select.query([shard_id])?;
        let mut delayed = vec![];
        while let Some(row) = found.next()? {
            delayed.push(Delayed {
                number: uint(row, 0)?,
                due: Timestamp(uint(row, 1)?),
                message: NewMessage {
                    topic: rows::topic(rows::text(row, 2)?)?,
                    hops: rows::narrow(row, 3)?,
                    key: rows::key(row, 4)?,
                    id: rows::id(row, 5)?,
                    headers: rows::headers(row, 6)?,
                    body: rows::bytes(row, 7)?,
                },
            });
        }
        Ok(delayed)
    }

    pub(super) fn routings(&self) -> Result<Routings, Failure> {
        let mut select = self.connection.prepare_cached("SELECT version, routings FROM routings")?;
        let (version, text): (i64, String) = select.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        match version.cast_unsigned() {
            0 => Ok(Routings::default()),
            version => Ok(Routings { version, routings: routings::decode(&text).map_err(Failure::Broken)? }),
        }
    }

    pub(super) fn status(&self) -> Result<Vec<ShardStatus>, Failure> {
        let snapshot = self.connection.unchecked_transaction()?;
        let end = self.end()?;
        let oldest: Option<i64> = snapshot.query_row("SELECT min(offset) FROM log", [], |row| row.get(0))?;
        // What was deleted is behind nobody.
        let before_oldest = Offset(oldest.map_or(end.0, |oldest| oldest.cast_unsigned() - 1));
        let mut select = snapshot.prepare_cached(
            "SELECT name, shard_index, term, commit_number, read, \
                    (SELECT count(*) FROM open WHERE shard_id = shards.id), marks, \
                    (SELECT count(*) FROM dead WHERE shard_id = shards.id), \
                    (SELECT count(*) FROM delayed WHERE shard_id = shards.id), control, controlled \
             FROM shards JOIN handlers ON handlers.id = handler_id WHERE NOT forgotten ORDER BY name, shard_index",
        )?;
        let mut found = select.query([])?;
        let all = self.messages_upto(end)?;
        let mut status = vec![];
        while let Some(row) = found.next()? {
            let read = Offset(uint(row, 4)?);
            status.push(ShardStatus {
                shard: shard(row, 0)?,
                term: Term(uint(row, 2)?),
                commit_number: uint(row, 3)?,
                read,
                open: uint(row, 5)?,
                marks: uint(row, 6)?,
                dead: uint(row, 7)?,
                delayed: uint(row, 8)?,
                control: rows::control(row, 9)?,
                controlled: Offset(uint(row, 10)?),
                behind: all.saturating_sub(self.messages_upto(read.max(before_oldest))?),
            });
        }
        Ok(status)
    }
}

fn topic(connection: &Connection, known: &mut HashMap<i64, Topic>, id: i64) -> Result<Topic, Failure> {
    if let Some(topic) = known.get(&id) {
        return Ok(topic.clone());
    }
    let mut select = connection.prepare_cached("SELECT name FROM topics WHERE id = ?1")?;
    let name: String = select.query_row([id], |row| row.get(0))?;
    let topic = rows::topic(&name)?;
    if known.len() >= TOPICS_MAX {
        known.clear();
    }
    known.insert(id, topic.clone());
    Ok(topic)
}

/// What the row of a shard says of its record, from the columns id, commit_number, read, marks, controlled and control.
fn record(row: &Row<'_>) -> Result<Record, Failure> {
    Ok(Record {
        commit_number: uint(row, 1)?,
        read: Offset(uint(row, 2)?),
        marks: Vec::with_capacity(rows::narrow(row, 3)?),
        controlled: Offset(uint(row, 4)?),
        control: rows::control(row, 5)?,
        ..Record::default()
    })
}

/// A message from the columns offset, time, hops, key, id and headers, the first of which is `first`.
pub(super) fn message(row: &Row<'_>, first: usize, topic: Topic, body: Bytes) -> Result<Message, Failure> {
    Ok(Message {
        offset: Offset(uint(row, first)?),
        topic,
        time: Timestamp(uint(row, first + 1)?),
        hops: rows::narrow(row, first + 2)?,
        key: rows::key(row, first + 3)?,
        id: rows::id(row, first + 4)?,
        headers: rows::headers(row, first + 5)?,
        body,
    })
}

/// A shard from the columns name and shard_index.
pub(super) fn shard(row: &Row<'_>, first: usize) -> Result<ShardId, Failure> {
    let handler = HandlerName::parse(rows::text(row, first)?).map_err(Failure::damaged)?;
    Ok(ShardId { handler, index: rows::narrow(row, first + 1)? })
}
