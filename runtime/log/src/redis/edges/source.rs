//! Reads the stream that plain clients add to, by id: no consumer group takes part, the position that a commit has is the
//! truth. What comes on channels goes along with it, since whoever takes the stream up is the one host that should listen.
//!
//! Entries are read by a function, which leaves out what is too large; a blocking read on a connection of its own only says
//! that something came.

use super::heard::Heard;
use super::place::{At, Id};
use super::plain::{self, Field, shortened};
use crate::edges::{Arrivals, Arrived, Position, Source, Unfit};
use crate::error::LogError;
use crate::redis::RedisLog;
use crate::redis::failure::Failure;
use crate::redis::server::Server;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue as _, Value};
use sluicebox_core::clock;
use sluicebox_core::message::{BODY_BYTES_MAX, HEADERS_BYTES_MAX, NewMessage};
use sluicebox_core::topic::Pattern;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Messages of one commit of either side, and bytes of them: with one more of any size they are one entry of the log.
const MESSAGES_MAX: usize = 500;
const BYTES_MAX: usize = 200 * 1024;
/// An entry with more is no message: what one may have, and names of fields, key, id and topic beside it.
const ENTRY_BYTES_MAX: usize = BODY_BYTES_MAX + HEADERS_BYTES_MAX + 16 * 1024;
/// How long the server waits for an entry before it says that there is none, in ms.
const BLOCK_MS: u64 = 2000;
/// How long entries stay in the stream after they were taken up: for people who look for one that was no message. They are
/// in the server's memory.
const KEPT: Duration = Duration::from_secs(3600);
/// Entries that go at once: so long the server does nothing else.
const TRIM_MAX: usize = 10_000;

/// What plain Redis clients send.
pub struct RedisSource {
    server: Server,
    topics: Vec<Pattern>,
    channels: Vec<Pattern>,
    kept: Duration,
    /// Of what came on channels.
    lost: Arc<AtomicU64>,
}

impl RedisSource {
    /// The stream beside the log, where entries with these topics may come, and these channels.
    pub fn beside(log: &RedisLog, topics: &[Pattern], channels: &[Pattern]) -> Self {
        let (topics, channels) = (topics.to_vec(), channels.to_vec());
        Self { server: log.engine().clone(), topics, channels, kept: KEPT, lost: Arc::default() }
    }

    /// The same; what was taken up stays this long.
    pub fn keeping(self, kept: Duration) -> Self {
        Self { kept, ..self }
    }

    fn stream(&self) -> String {
        self.server.key("in")
    }

    async fn read_after(&self, position: Option<Position>) -> Result<Box<dyn Arrivals>, LogError> {
        let at = match position.map(|position| At::parse(&position)) {
            None => At::begin(),
            Some(Ok(at)) => at,
            // A log that was moved here brings along how far it was in the stream that it had there.
            Some(Err(error)) => {
                tracing::warn!(stream = self.stream(), %error, "everything in the stream is taken up");
                At::begin()
            }
        };
        let heard = match self.channels.is_empty() {
            true => None,
            false => Some(Heard::listen(&self.server, &self.channels, self.lost.clone()).await?),
        };
        let (server, topics, stream) = (self.server.clone(), self.topics.clone(), self.stream());
        Ok(Box::new(Arriving { server, topics, stream, at, heard, blocked: None, connection: None }))
    }

    async fn taken(&self, position: &Position) -> Result<(), LogError> {
        let at = At::parse(position)?;
        // Ids are times, unless a client said otherwise.
        let old = Id { ms: clock::steady().before(self.kept).0, number: 0 };
        let keep_from = at.id.min(old);
        loop {
            let mut trim = redis::cmd("XTRIM");
            // As whole nodes of the stream: a few more stay.
            trim.arg(self.stream()).arg("MINID").arg("~").arg(keep_from.to_string()).arg("LIMIT").arg(TRIM_MAX);
            let gone = self.server.ask(&trim).await?;
            if !matches!(gone, Value::Int(1..)) {
                return Ok(());
            }
        }
    }
}

impl Source for RedisSource {
    fn name(&self) -> String {
        match (self.topics.is_empty(), self.channels.is_empty()) {
            (false, true) => format!("stream {}", self.stream()),
            (false, false) => format!("stream {} and channels", self.stream()),
            (true, _) => "channels".into(),
        }
    }

    fn read_after(&self, position: Option<Position>) -> BoxFuture<'_, Result<Box<dyn Arrivals>, LogError>> {
        Box::pin(self.read_after(position))
    }

    fn taken(&self, position: Position) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.taken(&position).await })
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

struct Arriving {
    server: Server,
    topics: Vec<Pattern>,
    stream: String,
    at: At,
    heard: Option<Heard>,
    /// Returns when something came, or after a while. One that was asked for is waited for, also after others came: the
    /// connection does nothing else until it is answered.
    blocked: Option<BoxFuture<'static, Result<MultiplexedConnection, LogError>>>,
    /// For the next one.
    connection: Option<MultiplexedConnection>,
}

impl Arriving {
    async fn next(&mut self) -> Result<Arrived, LogError> {
        loop {
            let mut waiting = 0;
            let mut messages = vec![];
            let mut at = self.at;
            if !self.topics.is_empty() {
                (messages, at, waiting) = self.page().await?;
            }
            // Nothing is waited for after this: what was heard is nowhere else.
            if let Some(heard) = &mut self.heard {
                messages.extend(heard.take(MESSAGES_MAX, BYTES_MAX)?);
            }
            self.at = at;
            if !messages.is_empty() {
                return Ok(Arrived { messages, upto: at.position(), waiting });
            }
            self.wait().await?;
        }
    }

    /// Until there may be something. Safe to cancel.
    async fn wait(&mut self) -> Result<(), LogError> {
        if self.blocked.is_none() && !self.topics.is_empty() {
            let connection = self.connection.take();
            self.blocked = Some(blocked(self.server.clone(), connection, self.stream.clone(), self.at.id).boxed());
        }
        let (heard, blocked) = (&self.heard, &mut self.blocked);
        let entries = async {
            match blocked {
                Some(blocked) => blocked.await,
                None => std::future::pending().await,
            }
        };
        let messages = async {
            match heard {
                Some(heard) => heard.came().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Safe to cancel, both: they only say that something came.
            came = entries => {
                self.blocked = None;
                self.connection = Some(came?);
                Ok(())
            }
            () = messages => Ok(()),
        }
    }

    /// Entries after this place, the place after them, and how many there are beyond, about.
    async fn page(&mut self) -> Result<(Vec<Result<NewMessage, Unfit>>, At, u64), LogError> {
        let mut at = self.at;
        let answer = self
            .server
            .call("arrived", |command| {
                command.arg(at.id.to_string()).arg(MESSAGES_MAX).arg(BYTES_MAX).arg(ENTRY_BYTES_MAX)
            })
            .await
            .map_err(|failure| match failure {
                Failure::Unavailable(reason) if reason.contains("WRONGTYPE") => LogError::Unavailable {
                    reason: format!("the key `{}` is no stream ({reason}): delete or rename it", self.stream),
                },
                other => other.into(),
            })?;
        let (is_anew, added, is_more, entries): (u64, u64, u64, Vec<Value>) =
            redis::from_redis_value(answer).map_err(|error| unreadable(&error))?;
        if is_anew == 1 {
            tracing::warn!(stream = self.stream, "the stream was made anew: everything in it is taken up");
            at = At::begin();
        }
        let mut messages = Vec::with_capacity(entries.len());
        for entry in entries {
            let (id, message) = self.read(entry)?;
            at.id = id;
            at.added += 1;
            messages.push(message);
        }
        if is_more == 0 {
            at.added = added;
        }
        Ok((messages, at, added.saturating_sub(at.added)))
    }

    /// An entry as the function tells it: id and fields, or id, topic and size of what is too large.
    fn read(&self, entry: Value) -> Result<(Id, Result<NewMessage, Unfit>), LogError> {
        let mut parts = Vec::<Value>::from_redis_value(entry).map_err(|error| unreadable(&error))?.into_iter();
        let mut next = || parts.next().unwrap_or(Value::Nil);
        let id = String::from_redis_value(next()).map_err(|error| unreadable(&error))?;
        let parsed = Id::parse(&id).ok_or_else(|| unreadable(&format!("an entry with the id {id}")))?;
        let unfit = |subject: &[u8], bytes, reason| Unfit {
            place: format!("`redis-cli XRANGE '{}' {id} {id}`", self.stream),
            subject: shortened(&String::from_utf8_lossy(subject)),
            bytes,
            reason,
        };
        let message = match next() {
            Value::Array(_) if self.topics.is_empty() => return Err(unreadable(&"entries that nobody asked for")),
            fields @ Value::Array(_) => {
                let fields = Vec::<Field>::from_redis_value(fields).map_err(|error| unreadable(&error))?;
                let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
                let topic = fields.iter().find(|(name, _)| name == b"topic").map(|(_, topic)| topic.clone());
                let read = plain::entry(fields, &self.topics);
                read.map_err(|reason| unfit(&topic.unwrap_or_default(), bytes, reason))
            }
            topic => {
                let topic = Vec::<u8>::from_redis_value(topic).unwrap_or_default();
                let bytes = usize::from_redis_value(next()).map_err(|error| unreadable(&error))?;
                Err(unfit(&topic, bytes, format!("it has {bytes} bytes, at most {ENTRY_BYTES_MAX} are allowed")))
            }
        };
        Ok((parsed, message))
    }
}

/// Returns when there is an entry after this one, or after a while.
async fn blocked(
    server: Server,
    connection: Option<MultiplexedConnection>,
    stream: String,
    after: Id,
) -> Result<MultiplexedConnection, LogError> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => server.connection().await?,
    };
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(1).arg("BLOCK").arg(BLOCK_MS).arg("STREAMS").arg(&stream).arg(after.to_string());
    command.query_async::<Value>(&mut connection).await.map_err(Failure::from)?;
    Ok(connection)
}

impl Arrivals for Arriving {
    fn next(&mut self) -> BoxFuture<'_, Result<Arrived, LogError>> {
        Box::pin(self.next())
    }
}

fn unreadable(reason: &dyn std::fmt::Display) -> LogError {
    LogError::Unavailable { reason: format!("the server answered something else: {reason}") }
}
