//! Redis as an engine.

use super::following::Following;
use super::server::Server;
use super::{members, modules, snapshots, values};
use crate::contract::Guarantees;
use crate::error::LogError;
use crate::inspect::StateQuery;
use crate::members::Members;
use crate::replicated::engine::{Engine, Page, PublishError, Room, Stored, Subject, Value, ValueSize};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use redis::{FromRedisValue as _, Value as Answer};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::{Digest, HandlerName};
use sluicebox_core::message::Key;
use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The same as on other engines, so that readers never wait long for one entry, nor writers for one another.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes and entries asked for at once. How large entries are is known from those before.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
const PAGE_ENTRIES_MAX: u64 = 128;
fn subject_text(subject: Subject<'_>) -> String {
    match subject {
        Subject::Messages => "messages".into(),
        Subject::Control => "control".into(),
        Subject::Part => "part".into(),
        Subject::Journal(shard) => format!("journal:{}:{}", shard.handler, shard.index),
    }
}

impl Engine for Server {
    type Following = Following;
    /// As long as a new connection takes.
    const UNKNOWN: Duration = Duration::from_secs(5);

    fn guarantees(&self) -> Guarantees {
        self.durability.guarantees()
    }

    fn reachable(&self) -> Result<(), LogError> {
        Ok(self.link.established().map(drop)?)
    }

    fn payload_bytes_max(&self) -> usize {
        PAYLOAD_BYTES_MAX
    }

    async fn publish(&self, subject: Subject<'_>, payload: Bytes, expected: Option<u64>) -> Result<u64, PublishError> {
        // What makes room is taken also when there is none.
        let name = if subject == Subject::Control { "publish_anyway" } else { "publish" };
        let holds = if subject == Subject::Part { "p" } else { "e" };
        let expected = expected.map_or(String::new(), |expected| expected.to_string());
        let published = self
            .call(name, |command| command.arg(subject_text(subject)).arg(holds).arg(expected).arg(&payload[..]))
            .await;
        match published? {
            Answer::Int(sequence) => Ok(u64::try_from(sequence).unwrap_or_default()),
            other => Err(PublishError::Unknown(format!("the server answered {other:?}"))),
        }
    }

    async fn follow(&self, from: u64) -> Result<Following, LogError> {
        let (seen, begins) = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = if from > seen + 1 { (from - 1, Bytes::new()) } else { (seen, begins) };
        let broken = self.link.broken();
        // The look and what follows are on one connection, so they are of one life of the server.
        let mut connection = self.connection().await?;
        let (_, epoch) = self.hello(&mut connection, known, "").await?;
        if !self.link.is_in(&epoch) {
            self.link.establish(self.connection().await?, epoch);
        }
        Ok(Following::begin(self.clone(), connection, broken, from - 1))
    }

    async fn read(&self, from: u64, last: u64) -> Result<Page, LogError> {
        let entry_bytes = self.entry_bytes.load(Ordering::Relaxed).max(1);
        let count = (PAGE_BYTES / entry_bytes).clamp(1, PAGE_ENTRIES_MAX);
        let entries = self.entries(from, format!("{last}-0"), count).await?;
        let found = entries.len() as u64;
        let bytes: u64 = entries.iter().map(|entry| entry.payload.len() as u64).sum();
        if let Some(mean) = bytes.checked_div(found) {
            self.entry_bytes.store(mean.max(entry_bytes / 2), Ordering::Relaxed);
        }
        let next = match entries.last() {
            Some(end) if found == count => end.sequence + 1,
            _ => last + 1,
        };
        Ok(Page { entries, next })
    }

    async fn get(&self, sequence: u64) -> Result<Option<Stored>, LogError> {
        Ok(self.entries(sequence, format!("{sequence}-0"), 1).await?.pop())
    }

    async fn first_since(&self, time: Timestamp) -> Result<Option<u64>, LogError> {
        match self.look("since", |command| command.arg(time.0)).await? {
            Answer::Int(sequence) => Ok(u64::try_from(sequence).ok().filter(|sequence| *sequence > 0)),
            _ => Ok(None),
        }
    }

    async fn ends(&self) -> Result<(u64, u64), LogError> {
        // The end last: between the two others may write and let entries go, and a first entry behind an older end would look
        // as if entries were lost.
        let first = self.entries(1, "+", 1).await?.first().map(|entry| entry.sequence);
        let last = self.last().await?;
        let first = match first {
            Some(first) => first,
            None => match self.entries(1, "+", 1).await?.first() {
                Some(entry) => entry.sequence,
                // One that every entry went from is still there.
                None if last > 0 && self.ask(redis::cmd("EXISTS").arg(self.key("log"))).await? == Answer::Int(0) => {
                    return Err(self.gone("its stream is not there any more"));
                }
                None => last + 1,
            },
        };
        Ok((first, last))
    }

    async fn time(&self) -> Result<Timestamp, LogError> {
        let told = self.ask(&redis::cmd("TIME")).await?;
        let (seconds, micros) = <(u64, u64)>::from_redis_value(told)
            .map_err(|error| LogError::Unavailable { reason: error.to_string() })?;
        Ok(Timestamp(seconds.saturating_mul(1000).saturating_add(micros / 1000)))
    }

    /// Of all that the server has in memory.
    async fn room(&self) -> Result<Option<Room>, LogError> {
        // Entries that come between both are counted twice.
        let (_, upto) = self.ends().await?;
        let told = self.ask(redis::cmd("INFO").arg("memory")).await?;
        let told =
            String::from_redis_value(told).map_err(|error| LogError::Unavailable { reason: error.to_string() })?;
        let number = |name: &str| {
            let line = told.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|number| number.parse::<u64>().ok())
        };
        let (Some(bytes), Some(bytes_max @ 1..)) = (number("used_memory"), number("maxmemory")) else {
            return Ok(None);
        };
        Ok(Some(Room { bytes, bytes_max, upto, copies: 1, advice: "raise `maxmemory` of the server" }))
    }

    async fn purge_before(&self, sequence: u64) -> Result<(), LogError> {
        Ok(self.call("purge", |command| command.arg(sequence)).await.map(drop)?)
    }

    async fn values(&self, handler: &HandlerName, keys: &[Key], _place: u64) -> Result<Vec<Value>, LogError> {
        values::of_keys(self, handler, keys).await
    }

    /// One server has all of it, so there is no place to wait for.
    async fn write_values(&self, values: &[(HandlerName, Value)], _in_hand_since: Duration) -> Result<u64, LogError> {
        values::write(self, values).await.map(|()| 0)
    }

    async fn values_written(&self, version: u64) -> Result<(), LogError> {
        values::written(self, version).await
    }

    async fn value_sizes(
        &self,
        query: &StateQuery,
        keys_max: usize,
        take: &mut (dyn FnMut(ValueSize) + Send),
    ) -> Result<(), LogError> {
        values::sizes(self, query, keys_max, take).await
    }

    async fn values_end(&self) -> Result<u64, LogError> {
        Ok(0)
    }

    async fn purge_values(&self, handler: &HandlerName, _place: u64, version: u64) -> Result<(), LogError> {
        values::purge(self, handler, version).await
    }

    async fn put_letter(&self, handler: &HandlerName, number: u64, letter: Bytes) -> Result<(), LogError> {
        let name = format!("{handler}/{number}");
        Ok(self.call("letter", |command| command.arg(name).arg(&letter[..])).await.map(drop)?)
    }

    async fn letter(&self, handler: &HandlerName, number: u64) -> Result<Option<Bytes>, LogError> {
        let mut command = redis::cmd("HGET");
        match self.ask(command.arg(self.key("letters")).arg(format!("{handler}/{number}"))).await? {
            Answer::BulkString(letter) => Ok(Some(letter.into())),
            _ => Ok(None),
        }
    }

    async fn letters(&self) -> Result<HashSet<(HandlerName, u64)>, LogError> {
        let mut command = redis::cmd("HKEYS");
        let Answer::Array(names) = self.ask(command.arg(self.key("letters"))).await? else {
            return Ok(HashSet::new());
        };
        let letter = |name: Answer| {
            let name = String::from_redis_value(name).ok()?;
            let (handler, number) = name.split_once('/')?;
            Some((HandlerName::parse(handler).ok()?, number.parse().ok()?))
        };
        Ok(names.into_iter().filter_map(letter).collect())
    }

    async fn drop_letter(&self, handler: &HandlerName, number: u64) -> Result<(), LogError> {
        let name = format!("{handler}/{number}");
        Ok(self.call("letter", |command| command.arg(name)).await.map(drop)?)
    }

    async fn put_snapshot(&self, sequence: u64, snapshot: Bytes) -> Result<u64, LogError> {
        snapshots::put(self, sequence, snapshot).await
    }

    async fn newest_snapshot(&self) -> Result<Option<Bytes>, LogError> {
        snapshots::newest(self).await
    }

    async fn put_module(
        &self,
        handler: &HandlerName,
        digest: Digest,
        said: Bytes,
        module: Bytes,
    ) -> Result<(), LogError> {
        modules::put(self, handler, digest, said, module).await
    }

    async fn module(&self, handler: &HandlerName, digest: Digest) -> Result<Option<Bytes>, LogError> {
        modules::get(self, handler, digest).await
    }

    async fn modules(&self) -> Result<Vec<(HandlerName, Digest, Bytes)>, LogError> {
        modules::all(self).await
    }

    async fn drop_module(&self, handler: &HandlerName, digest: Digest) -> Result<(), LogError> {
        modules::delete(self, handler, digest).await
    }

    async fn beat(&self, beat: Bytes) -> Result<(), LogError> {
        let mut command = redis::cmd("PUBLISH");
        Ok(self.ask(command.arg(self.key("members")).arg(&beat[..])).await.map(drop)?)
    }

    async fn listen(&self, members: Members) -> Result<BoxFuture<'static, ()>, LogError> {
        let heard = members::subscribe(self).await?;
        Ok(Box::pin(members::listen(self.clone(), heard, members)))
    }
}
