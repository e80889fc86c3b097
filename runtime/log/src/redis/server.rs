//! A log on a server: what is asked of it, and whether it is still the log that this host has.

use super::check::{self, Durability};
use super::failure::Failure;
use super::link::{self, Established, Link};
use super::locator::Locator;
use super::options::Options;
use crate::error::LogError;
use crate::replicated::engine::{Holds, Stored};
use bytes::Bytes;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{Cmd, ToRedisArgs, Value as Answer};
use sluicebox_core::clock::Timestamp;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

/// Of an entry, before any was seen.
const ENTRY_BYTES: u64 = 64 * 1024;
/// So much of an entry tells it from others: it begins with a number that its writer drew.
const TELLS_BYTES: usize = 16;

/// A log on a server.
#[derive(Clone, Debug)]
pub struct Server {
    locator: Locator,
    /// For people.
    pub(super) address: String,
    /// What all keys of the log begin with.
    pub(super) root: String,
    /// Of the log, drawn when it was begun.
    id: String,
    pub(super) link: Link,
    pub(super) durability: Durability,
    /// The last entry that came, and its beginning.
    pub(super) seen: Arc<Mutex<(u64, Bytes)>>,
    /// How large they are, about.
    pub(super) entry_bytes: Arc<AtomicU64>,
}

impl Server {
    pub(super) async fn connect(options: &Options) -> Result<Self, LogError> {
        let (locator, address) = options.locator()?;
        let mut connection = link::connect(&locator, &address).await?;
        let durability = match check::check(&mut connection, &address).await {
            // They name another one in a moment.
            Err(LogError::Refused { reason }) if locator.asks() && reason.contains(check::REPLICA) => {
                return Err(LogError::Unavailable { reason });
            }
            checked => checked?,
        };
        let server = Self {
            locator,
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
    pub(super) async fn hello(
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
            Err(Failure::Gone(reason)) => Err(self.gone(&reason)),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The log, or its end, is lost.
    pub(super) fn gone(&self, reason: &str) -> LogError {
        let address = &self.address;
        LogError::Refused {
            reason: format!(
                "the log on the server at {address}: {reason}; what this host had of it is kept nowhere else: start it again to \
                 go on with what is there"
            ),
        }
    }

    /// The sequence of the last entry, and that the log is still this one.
    pub(super) async fn last(&self) -> Result<u64, LogError> {
        let mut command = redis::cmd("HMGET");
        let found = self.ask(command.arg(self.key("meta")).arg("id").arg("seq")).await?;
        let found: (Option<String>, Option<u64>) =
            redis::from_redis_value(found).map_err(|error| LogError::Unavailable { reason: error.to_string() })?;
        match found {
            (Some(id), Some(last)) if id == self.id => Ok(last),
            (Some(_), _) => Err(self.gone("another log is in its place")),
            (None, _) => Err(self.gone("the log is not there any more")),
        }
    }

    /// Whoever may not connect any more may do so again later: it was let in once.
    pub(super) async fn connection(&self) -> Result<MultiplexedConnection, LogError> {
        let connection = link::connect(&self.locator, &self.address).await;
        connection.map_err(|error| LogError::Unavailable { reason: error.to_string() })
    }

    /// A connection for what is published to channels.
    pub(super) async fn subscriber(&self) -> Result<PubSub, LogError> {
        let unavailable = |error: redis::RedisError| LogError::Unavailable { reason: error.to_string() };
        self.locator.client().await?.get_async_pubsub().await.map_err(unavailable)
    }

    /// A function of the library that writes: it is told which log, and which life of the server, is meant.
    pub(super) async fn call(
        &self,
        name: &str,
        arguments: impl FnOnce(&mut Cmd) -> &mut Cmd,
    ) -> Result<Answer, Failure> {
        self.call_in(&self.link.established()?, name, arguments).await
    }

    /// The same, in the life of the server that this connection is of.
    pub(super) async fn call_in(
        &self,
        established: &Established,
        name: &str,
        arguments: impl FnOnce(&mut Cmd) -> &mut Cmd,
    ) -> Result<Answer, Failure> {
        let mut command = redis::cmd("FCALL");
        command.arg(link::function(name)).arg(1).arg(&self.root).arg(&self.id).arg(&established.epoch);
        arguments(&mut command);
        self.link.ask(established, &command).await
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

    pub(super) async fn entries(&self, from: u64, last: impl ToRedisArgs, count: u64) -> Result<Vec<Stored>, LogError> {
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
