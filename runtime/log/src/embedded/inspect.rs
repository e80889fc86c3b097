//! What people look at: open heads, delayed messages and keys with state, on a read-only connection.

use super::failure::Failure;
use super::queries::Reader;
use super::rows::{self, uint};
use crate::inspect::{
    DelayedFacts, DelayedPlace, DelayedQuery, HeadQuery, MessageFacts, OpenHead, Smallest, StateKey, StateQuery,
};
use rusqlite::{Row, params};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::Head;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::{Key, Offset};

/// SQLite's numbers are signed: what is beyond them is beyond every row.
fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Reader {
    pub(super) fn heads(&self, query: &HeadQuery) -> Result<Vec<OpenHead>, Failure> {
        let snapshot = self.connection().unchecked_transaction()?;
        // Each shard's heads are in the order of the offsets, so those that cannot be among the first are never read.
        let mut select = snapshot.prepare_cached(
            "SELECT open.offset, open.key, attempt, due, error, digest, scope, topics.name, log.id, log.time FROM open \
             LEFT JOIN log ON log.offset = open.offset LEFT JOIN topics ON topics.id = log.topic_id \
             WHERE shard_id = ?1 AND open.offset > ?2 AND (?3 IS NULL OR open.key = ?3) AND attempt >= ?4 \
               AND (?5 IS NULL OR open.offset = ?5) \
             ORDER BY open.offset",
        )?;
        let filter = &query.filter;
        let key = filter.key.as_ref().map(Key::as_str);
        let only = filter.offset.map(|offset| bound(offset.0));
        let mut first = Smallest::new(query.heads_max);
        for (shard_id, shard) in self.shards_of(&query.handler)? {
            let after = bound(query.after.0);
            let mut found = select.query(params![shard_id, after, key, filter.attempts_min, only])?;
            while let Some(row) = found.next()? {
                let offset = Offset(uint(row, 0)?);
                if !first.wants(offset) {
                    break;
                }
                let head = open_head(row, shard, offset)?;
                if filter.matches(&head) {
                    first.add(offset, head);
                }
            }
        }
        Ok(first.in_order())
    }

    pub(super) fn delayed_facts(&self, query: &DelayedQuery) -> Result<Vec<DelayedFacts>, Failure> {
        let snapshot = self.connection().unchecked_transaction()?;
        // No index by due time: it would cost every delayed message, and a shard has a bounded number of them.
        let mut select = snapshot.prepare_cached(
            "SELECT number, due, topic, key, id, length(body) + ifnull(length(headers), 0) FROM delayed \
             WHERE shard_id = ?1",
        )?;
        let mut first = Smallest::new(query.delayed_max);
        for (shard_id, shard) in self.shards_of(&query.handler)? {
            let mut found = select.query([shard_id])?;
            while let Some(row) = found.next()? {
                let place = DelayedPlace { due: Timestamp(uint(row, 1)?), shard, number: uint(row, 0)? };
                if query.after.is_some_and(|after| place <= after) || !first.wants(place) {
                    continue;
                }
                let topic = rows::topic(rows::text(row, 2)?)?;
                let (key, id, bytes) = (rows::key(row, 3)?, rows::id(row, 4)?, uint(row, 5)?);
                let facts = DelayedFacts { place, topic, key, id, bytes };
                if query.filter.matches(&facts) {
                    first.add(place, facts);
                }
            }
        }
        Ok(first.in_order())
    }

    pub(super) fn state_keys(&self, query: &StateQuery) -> Result<Vec<StateKey>, Failure> {
        let mut select = self.connection().prepare_cached(
            "SELECT key, count(*), sum(length(CAST(entry AS BLOB)) + length(value)) FROM state \
             WHERE handler_id = (SELECT id FROM handlers WHERE name = ?1) AND key >= ?2 AND key > ?3 \
             GROUP BY key ORDER BY key LIMIT ?4",
        )?;
        let after = query.after.as_ref().map_or("", Key::as_str);
        let max = i64::try_from(query.keys_max).unwrap_or(i64::MAX);
        let mut found = select.query(params![query.handler.as_str(), query.prefix, after, max])?;
        let mut keys = vec![];
        while let Some(row) = found.next()? {
            if !rows::text(row, 0)?.starts_with(&query.prefix) {
                break;
            }
            let key = rows::key(row, 0)?.ok_or_else(|| Failure::damaged("state without a key"))?;
            keys.push(StateKey { key, entries: uint(row, 1)?, bytes: uint(row, 2)? });
        }
        Ok(keys)
    }

    /// Number and index of each shard of a handler.
    fn shards_of(&self, handler: &HandlerName) -> Result<Vec<(i64, u16)>, Failure> {
        let mut select = self.connection().prepare_cached(
            "SELECT id, shard_index FROM shards WHERE handler_id = (SELECT id FROM handlers WHERE name = ?1)",
        )?;
        let mut found = select.query([handler.as_str()])?;
        let mut shards = vec![];
        while let Some(row) = found.next()? {
            shards.push((row.get(0)?, rows::narrow(row, 1)?));
        }
        Ok(shards)
    }
}

fn open_head(row: &Row<'_>, shard: u16, offset: Offset) -> Result<OpenHead, Failure> {
    let head = Head {
        offset,
        key: rows::key(row, 1)?,
        attempt: rows::narrow(row, 2)?,
        due: Timestamp(uint(row, 3)?),
        error: rows::text(row, 4)?.into(),
        digest: rows::digest(row, 5)?,
        scope: rows::scope(row, 6)?,
    };
    let topic = row.get_ref(7)?.as_str_or_null()?.map(rows::topic).transpose()?;
    let message = match topic {
        Some(topic) => Some(MessageFacts { topic, id: rows::id(row, 8)?, time: Timestamp(uint(row, 9)?) }),
        None => None,
    };
    Ok(OpenHead { shard, head, message })
}
