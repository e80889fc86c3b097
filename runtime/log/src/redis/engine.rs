//! Redis as an engine.

use super::check::{self, Durability};
use super::failure::Failure;
use super::following::Following;
use super::link::{self, Link};
use super::options::Options;
use super::{members, snapshots, values};
use crate::contract::Guarantees;
use crate::error::LogError;
use crate::inspect::StateQuery;
use crate::members::Members;
use crate::replicated::engine::{Engine, Holds, Page, PublishError, Stored, Subject, Value, ValueSize};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue as _, ToRedisArgs, Value as Answer};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Key;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The same as on other engines, so that readers never wait long for one entry, nor writers for one another.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes and entries asked for at once. How large entries are is known from those before.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
const PAGE_ENTRIES_MAX: u64 = 128;
/// Of an entry, before any was seen.
const ENTRY_BYTES: u64 = 64 * 1024;
/// So much of an entry tells it from others: it begins with a number that its writer drew.
const TELLS_BYTES: usize = 16;

/// A log on a server.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) client: Client,
    /// For people.
    pub(super) address: String,
    /// What all keys of the log begin with.
    pub(super) root: String,
    /// Of the log, drawn when it was begun.
    id: String,
    pub(super) link: Link,
    durability: Durability,
    /// The last entry that came, and its beginning.
    seen: Arc<Mutex<(u64, Bytes)>>,
    entry_bytes: Arc<AtomicU64>,
}

impl Server {
    pub(super) async fn connect(options: &Options) -> Result<Self, LogError> {
        let (client, address) = options.client()?;
        let mut connection = link::connect(&client, &address).await?;
        let durability = check::check(&mut connection, &address).await?;
        let server = Self {
            client,
            address,
            root: format!("sb:{{{}}}", options.namespace),
            id: String::new(),
            link: Link::new(),
            durability,
            seen: Arc::default(),
            entry_bytes: Arc::new(AtomicU64::new(ENTRY_BYTES)),
        };
        let drawn = format!("{:032x}", rand::random::<u128>());
        let (id, epoch) = server.hello(&mut connection, (0, Bytes::new()), &drawn).await?;
        if id == drawn {
            tracing::info!(namespace = options.namespace, "a new log was begun");
        }
        server.link.establish(connection, epoch);
        Ok(Self { id, ..server })
    }

    /// Looks whether the log is the one that this host has, up to `known`. Returns its id and the life of the server.
    async fn hello(
        &self,
        connection: &mut MultiplexedConnection,
        (known, begins): (u64, Bytes),
        drawn: &str,
    ) -> Result<(String, String), LogError> {
        let loaded = link::load(connection).await;
        let answer = match loaded {
            Ok(()) => {
                let mut hello = redis::cmd("FCALL");
                hello.arg(link::function("hello")).arg(1).arg(&self.root);
                hello.arg(&self.id).arg(known).arg(&begins[..]).arg(drawn);
                hello.query_async::<(String, String, u64)>(connection).await.map_err(Failure::from)
            }
            Err(failure) => Err(failure),
        };
        match answer {
            Ok((id, epoch, _)) => Ok((id, epoch)),
            Err(Failure::Gone(reason)) => Err(LogError::Refused {
                reason: format!(
                    "the log on the server at {}: {reason}; what this host had of it is kept nowhere else: \
                                 start it again to go on with what is there",
                    self.address
                ),
            }),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Whoever may not connect any more may do so again later: it was let in once.
    async fn connection(&self) -> Result<MultiplexedConnection, LogError> {
        let connection = link::connect(&self.client, &self.address).await;
        connection.map_err(|error| LogError::Unavailable { reason: error.to_string() })
    }

    /// A function of the library that writes: it is told which log, and which life of the server, is meant.
    pub(super) async fn call(
        &self,
        name: &str,
        arguments: impl FnOnce(&mut Cmd) -> &mut Cmd,
    ) -> Result<Answer, Failure> {
        let established = self.link.established()?;
        let mut command = redis::cmd("FCALL");
        command.arg(link::function(name)).arg(1).arg(&self.root).arg(&self.id).arg(&established.epoch);
        arguments(&mut command);
        self.link.ask(&established, &command).await
    }

    /// A function that only reads.
    pub(super) async fn look(
        &self,
        name: &str,
        arguments: impl FnOnce(&mut Cmd) -> &mut Cmd,
    ) -> Result<Answer, Failure> {
        let established = self.link.established()?;
        let mut command = redis::cmd("FCALL_RO");
        command.arg(link::function(name)).arg(1).arg(&self.root);
        arguments(&mut command);
        self.link.ask(&established, &command).await
    }

    pub(super) async fn ask(&self, command: &Cmd) -> Result<Answer, Failure> {
        self.link.ask(&self.link.established()?, command).await
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.root)
    }

    async fn entries(&self, from: u64, last: impl ToRedisArgs, count: u64) -> Result<Vec<Stored>, LogError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(self.key("log")).arg(format!("{from}-0")).arg(last).arg("COUNT").arg(count);
        let Answer::Array(found) = self.ask(&command).await? else { return Ok(vec![]) };
        found.into_iter().map(entry).collect()
    }

    /// These entries came; after a new connection the last one must still be there.
    pub(super) fn saw(&self, entries: &[Stored]) {
        if let Some(Stored { sequence, payload, .. }) = entries.last() {
            let begins = payload.slice(..payload.len().min(TELLS_BYTES));
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (*sequence, begins);
        }
    }
}

/// An entry of the stream as the server tells it.
pub(super) fn entry(answer: Answer) -> Result<Stored, LogError> {
    let foreign = || LogError::Refused { reason: "somebody else writes to the stream of the log".into() };
    let Answer::Array(parts) = answer else { return Err(foreign()) };
    let Ok([Answer::BulkString(id), Answer::Array(fields)]) = <[Answer; 2]>::try_from(parts) else {
        return Err(foreign());
    };
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
    let sequence = id.strip_suffix(b"-0").and_then(number).ok_or_else(foreign)?;
    let (mut holds, mut time, mut payload) = (None, None, None);
    let mut fields = fields.into_iter();
    while let (Some(Answer::BulkString(name)), Some(Answer::BulkString(value))) = (fields.next(), fields.next()) {
        match (&name[..], &value[..]) {
            (b"k", b"e") => holds = Some(Holds::Entry),
            (b"k", b"p") => holds = Some(Holds::Part),
            (b"t", ms) => time = number(ms),
            (b"d", _) => payload = Some(Bytes::from(value)),
            _ => return Err(foreign()),
        }
    }
    match (holds, time, payload) {
        (Some(holds), Some(time), Some(payload)) => Ok(Stored { sequence, holds, time: Timestamp(time), payload }),
        _ => Err(foreign()),
    }
}

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
        let mut command = redis::cmd("HGET");
        let last = self.ask(command.arg(self.key("meta")).arg("seq")).await?;
        let last = u64::from_redis_value(last).map_err(|error| LogError::Unavailable { reason: error.to_string() })?;
        let first = self.entries(1, "+", 1).await?.first().map_or(last + 1, |entry| entry.sequence);
        Ok((first, last))
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

    async fn beat(&self, beat: Bytes) -> Result<(), LogError> {
        let mut command = redis::cmd("PUBLISH");
        Ok(self.ask(command.arg(self.key("members")).arg(&beat[..])).await.map(drop)?)
    }

    async fn listen(&self, members: Members) -> Result<BoxFuture<'static, ()>, LogError> {
        let heard = members::subscribe(self).await?;
        Ok(Box::pin(members::listen(self.clone(), heard, members)))
    }
}
