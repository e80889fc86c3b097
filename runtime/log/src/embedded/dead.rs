//! Lists and counts dead letters, on a read-only connection.

use super::failure::Failure;
use super::queries::{Reader, message, shard};
use super::rows::{self, uint};
use super::statements::letter_bytes;
use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{DeadCount, DeadFilter, DeadLetter, DeadOrder, DeadQuery, NumberedDeadLetter};
use std::sync::Arc;

/// Most letters looked at in one snapshot: while one is open the write-ahead log cannot start over.
const LETTERS_PER_SNAPSHOT: i64 = 10_000;

/// Conditions on `dead` that SQLite checks, with their values. The topic's pattern is left to the caller.
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn of(filter: &DeadFilter) -> Self {
        let mut conditions = Self { sql: "NOT forgotten".into(), values: vec![] };
        let handler = filter.handler.as_ref().map(|handler| Value::from(handler.as_str().to_owned()));
        // One of the indexes serves each of the first two, in the order of the numbers.
        match (handler, filter.shard.map(|index| Value::from(i64::from(index)))) {
            (Some(handler), Some(index)) => {
                conditions.add(
                    "shard_id = (SELECT shards.id FROM shards JOIN handlers ON handlers.id = handler_id WHERE name = ?",
                    handler,
                );
                conditions.add("shard_index = ?)", index);
            }
            (Some(handler), None) => {
                conditions.add("dead.handler_id = (SELECT id FROM handlers WHERE name = ?)", handler);
            }
            (None, Some(index)) => conditions.add("shard_index = ?", index),
            (None, None) => {}
        }
        if let Some(key) = &filter.key {
            conditions.add("lane_key = ?", key.as_str().to_owned());
        }
        if let Some(kind) = &filter.kind {
            conditions.add("kind = ?", kind.clone());
        }
        if !filter.numbers.is_empty() {
            let numbers: Vec<i64> = filter.numbers.iter().filter_map(|number| i64::try_from(*number).ok()).collect();
            let numbers = serde_json::to_string(&numbers).expect("numbers can always be written as JSON");
            conditions.add("number IN (SELECT value FROM json_each(?))", numbers);
        }
        if let Some(upto) = filter.upto {
            conditions.add("number <= ?", number(upto));
        }
        conditions
    }

    fn add(&mut self, condition: &str, value: impl Into<Value>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.push(value.into());
    }
}

/// Numbers are given out from 1, so whatever is beyond SQLite's range is beyond all of them.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Reader {
    pub(super) fn dead(&self, query: &DeadQuery) -> Result<Vec<NumberedDeadLetter>, Failure> {
        let columns = "topic, number, name, shard_index, lane_key, attempts, kind, error, dead.digest, given_up, \
                       dead.offset, time, hops, key, dead.id, headers, body, \
                       identity, deaths, first_offset, first_given_up, returns";
        let (mut letters, mut bytes) = (vec![], 0usize);
        if query.letters_max == 0 || query.bytes_max == 0 {
            return Ok(letters);
        }
        self.each_dead(columns, &query.filter, query.order, |row| {
            let letter = letter(row)?;
            bytes = bytes.saturating_add(letter.message.bytes());
            letters.push(NumberedDeadLetter { number: uint(row, 1)?, letter });
            Ok(letters.len() < query.letters_max && bytes < query.bytes_max)
        })?;
        Ok(letters)
    }

    pub(super) fn dead_count(&self, filter: &DeadFilter) -> Result<DeadCount, Failure> {
        let mut count = DeadCount::default();
        let columns = concat!("topic, number, ", letter_bytes!());
        self.each_dead(columns, filter, DeadOrder::Oldest { above: 0 }, |row| {
            count = DeadCount { letters: count.letters + 1, bytes: count.bytes + uint(row, 2)?, newest: uint(row, 1)? };
            Ok(true)
        })?;
        Ok(count)
    }

    /// Calls `each` with the rows of a filter in order until it returns false. The first two columns must be the topic
    /// and the number.
    fn each_dead(
        &self,
        columns: &str,
        filter: &DeadFilter,
        order: DeadOrder,
        mut each: impl FnMut(&Row<'_>) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let Conditions { sql, values } = Conditions::of(filter);
        let (beyond, direction, mut last) = match order {
            DeadOrder::Newest { below } => ("<", "DESC", below.map_or(i64::MAX, number)),
            DeadOrder::Oldest { above } => (">", "ASC", number(above)),
        };
        // CROSS JOIN keeps SQLite from beginning with another table, after which it would have to sort whole letters.
        let mut select = self.connection().prepare_cached(&format!(
            "SELECT {columns} FROM dead CROSS JOIN shards ON shards.id = shard_id \
             CROSS JOIN handlers ON handlers.id = dead.handler_id \
             WHERE {sql} AND number {beyond} ? ORDER BY number {direction} LIMIT {LETTERS_PER_SNAPSHOT}"
        ))?;
        loop {
            let bound = values.iter().cloned().chain([Value::from(last)]);
            let mut found = select.query(params_from_iter(bound))?;
            let mut seen = 0;
            while let Some(row) = found.next()? {
                seen += 1;
                last = row.get(1)?;
                let wanted = match &filter.topic {
                    Some(pattern) => pattern.matches(&rows::topic(rows::text(row, 0)?)?),
                    None => true,
                };
                if wanted && !each(row)? {
                    return Ok(());
                }
            }
            if seen < LETTERS_PER_SNAPSHOT {
                return Ok(());
            }
        }
    }
}

fn letter(row: &Row<'_>) -> Result<DeadLetter, Failure> {
    Ok(DeadLetter {
        shard: shard(row, 2)?,
        key: rows::key(row, 4)?,
        attempts: rows::narrow(row, 5)?,
        kind: rows::text(row, 6)?.to_owned(),
        error: rows::text(row, 7)?.to_owned(),
        digest: rows::digest(row, 8)?,
        time: Timestamp(uint(row, 9)?),
        identity: rows::identity(row, 17)?,
        deaths: rows::deaths(row, 18)?,
        message: Arc::new(message(row, 10, rows::topic(rows::text(row, 0)?)?, rows::bytes(row, 16)?)?),
    })
}
