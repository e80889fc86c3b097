//! What is asked of the server: publish behind a fence, get entries, and the streams they are in.

use super::names::Names;
use super::options::{Connection, Options, PAYLOAD_BYTES_MIN};
use super::refusal::Refusal;
use super::{permissions, setup};
use crate::error::LogError;
use crate::replicated::engine::{PublishError, Room};
use async_nats::client::{Client, Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{self, Stream};
use async_nats::{HeaderMap, StatusCode, jetstream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use sluicebox_core::clock::{self, Timestamp};
use sluicebox_core::handler::HandlerName;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the server may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two connections that are made only to hear what the server takes now.
const ANEW: Duration = Duration::from_secs(5);
/// Room for headers and what else is around a payload.
const AROUND_BYTES: usize = 4 * 1024;
/// More than the default of a server makes readers wait for one entry, and writers for one another.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Wrong last sequence: the fence.
const STALE: u64 = 10071;
/// A write on this subject is under way.
const UNDER_WAY: u64 = 10164;
/// Out of room: on the disk, or by a bound of stream or account.
const FULL: [u64; 5] = [10002, 10023, 10028, 10047, 10077];
/// How often a write that met another one under way is tried.
const TRIES: u32 = 50;
/// An answer that did not come so long after the connection was made again went to the one before.
const AFTER_RECONNECT: Duration = Duration::from_secs(1);
/// What makes room.
const MAKE_ROOM: &str = "raise `max_bytes` of the stream, or the limits of its account or server";

/// An entry of a stream.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) subject: String,
    pub(super) time: Timestamp,
    pub(super) payload: Bytes,
}

/// What a get of many answered.
#[derive(Debug, Default)]
pub(super) struct Many {
    pub(super) entries: Vec<Stored>,
    /// The end of the stream as whoever answered knew it, where the last entries of subjects were asked for.
    pub(super) upto: Option<u64>,
    /// There is more that fits the question.
    pub(super) more: bool,
    /// Nothing is here, since too many entries fit.
    pub(super) too_many: bool,
}

/// A connection and the streams of a namespace.
#[derive(Clone)]
pub struct Server {
    pub(super) client: Client,
    /// Changes with each connection that is made.
    pub(super) connections: watch::Receiver<u64>,
    connection: Connection,
    /// What is in the way of which stream, as it was asked last.
    in_the_way: Arc<Mutex<BTreeMap<String, String>>>,
    /// When it was connected anew to hear whether the server takes larger messages.
    asked_anew: Arc<Mutex<Option<Instant>>>,
    pub(super) names: Names,
    pub(super) log: Stream,
    pub(super) state: Stream,
}

impl Server {
    /// Connects, checks what the server offers and permits, and makes the streams if they are not there.
    pub(super) async fn connect(options: &Options) -> Result<Self, LogError> {
        let connection = options.connect().await?;
        let denied = connection.told.denied.clone();
        let prepared = Box::pin(Self::prepare(connection, Names::new(&options.namespace), options));
        permissions::permitted(denied, options, prepared).await
    }

    async fn prepare(connection: Connection, names: Names, options: &Options) -> Result<Self, LogError> {
        let (client, connections) = (connection.client.clone(), connection.told.made.clone());
        let context = jetstream::new(client.clone());
        let (log, state) = setup::streams(&context, &names, options.replicas).await?;
        let (in_the_way, asked_anew) = (Arc::default(), Arc::default());
        let server = Self { log, state, client, connections, connection, in_the_way, asked_anew, names };
        match server.publish(server.names.always(), Bytes::new(), Some(0)).await {
            // It is there already.
            Ok(_) | Err(PublishError::Stale) => {}
            // A full log is opened as well: somebody must look at it and make room.
            Err(PublishError::Full(_)) if server.last(&server.state, &server.names.always()).await?.is_some() => {}
            Err(error) => return Err(error.into()),
        }
        server.ask_for_all().await?;
        Ok(server)
    }

    /// Asks once for whatever a host asks for later, in a way that changes nothing, so that what is not permitted shows now.
    async fn ask_for_all(&self) -> Result<(), LogError> {
        for subject in self.names.samples() {
            // No entry has this sequence, so nothing is written.
            match self.publish(subject, Bytes::new(), Some(u64::MAX >> 1)).await {
                Ok(_) | Err(PublishError::Stale | PublishError::Full(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for stream in [&self.log, &self.state] {
            let name = &stream.cached_info().config.name;
            self.get_many(name, r#"{"seq":1,"batch":1,"max_bytes":1}"#).await?;
            permissions::ask_for_stream(&self.client, &self.names, name).await;
        }
        permissions::ask_for_readers(&self.client, &self.names.log_stream()).await;
        permissions::ask_for_account(&self.client).await;
        // Hosts hear each other so. Without the right to it nothing comes back.
        let unavailable = |error: &dyn std::fmt::Display| LogError::Unavailable { reason: error.to_string() };
        let echo = self.names.echo(rand::random());
        let mut back = self.client.subscribe(echo.clone()).await.map_err(|error| unavailable(&error))?;
        self.client.publish(echo, Bytes::new()).await.map_err(|error| unavailable(&error))?;
        match tokio::time::timeout(ANSWER, back.next()).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(unavailable(&"the server does not answer")),
        }
    }

    /// An error while there is no connection: what is sent then waits for one, and nobody knows how long.
    pub(super) fn reachable(&self) -> Result<(), LogError> {
        match self.client.connection_state() {
            State::Connected => match self.in_the_way().values().next().cloned().or_else(|| self.too_small()) {
                None => Ok(()),
                Some(reason) => Err(LogError::Unavailable { reason }),
            },
            State::Pending | State::Disconnected => {
                Err(LogError::Unavailable { reason: "there is no connection to its servers now".into() })
            }
        }
    }

    /// Somebody lowered what the server takes while this host runs: then not even the parts of an entry fit.
    fn too_small(&self) -> Option<String> {
        let max = self.client.server_info().max_payload;
        let reason =
            || format!("the server takes messages of {max} bytes, {PAYLOAD_BYTES_MIN} are needed: raise `max_payload`");
        (max < PAYLOAD_BYTES_MIN).then(reason)
    }

    /// Now and then: whoever waits for an answer meanwhile gets none.
    fn may_ask_anew(&self) -> bool {
        let mut asked = self.asked_anew.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = asked.is_none_or(|at| clock::instant().saturating_duration_since(at) >= ANEW);
        if is_due {
            *asked = Some(clock::instant());
        }
        is_due
    }

    /// Most bytes of a payload.
    pub(super) fn payload_bytes_max(&self) -> usize {
        self.client.server_info().max_payload.min(PAYLOAD_BYTES_MAX).saturating_sub(AROUND_BYTES)
    }

    /// The sequence that the entry has. With `expected`: only if this is the sequence of the last entry on the subject.
    pub(super) async fn publish(
        &self,
        subject: String,
        payload: Bytes,
        expected: Option<u64>,
    ) -> Result<u64, PublishError> {
        self.publish_for(subject, payload, expected, None).await
    }

    /// As `publish`; the server lets the entry go after so long.
    pub(super) async fn publish_for(
        &self,
        subject: String,
        payload: Bytes,
        expected: Option<u64>,
        lives: Option<Duration>,
    ) -> Result<u64, PublishError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            seq: u64,
            error: Option<Refusal>,
        }
        if let Some(reason) = self.too_small() {
            return Err(PublishError::Unavailable(reason));
        }
        for _ in 0..TRIES {
            let mut request = Request::new().payload(payload.clone()).timeout(Some(ANSWER));
            let mut headers = HeaderMap::new();
            if let Some(expected) = expected {
                headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
            }
            if let Some(lives) = lives {
                headers.insert("Nats-TTL", lives.as_secs().to_string());
            }
            if !headers.is_empty() {
                request = request.headers(headers);
            }
            let mut connections = self.connections.clone();
            connections.mark_unchanged();
            let answer = tokio::select! {
                // Safe to cancel: whoever asked hears that its fate is unknown.
                answer = self.client.send_request(subject.clone(), request) => answer,
                () = answer_lost(connections) => {
                    return Err(PublishError::Unknown(format!("publishing to {subject}: the connection was lost meanwhile")));
                }
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    let denied = self
                        .connection
                        .told
                        .denied
                        .borrow()
                        .as_ref()
                        .map_or(String::new(), |denied| format!(": {denied}"));
                    let reason = format!("publishing to {subject}: {error}{denied}");
                    return Err(match error.kind() {
                        RequestErrorKind::NoResponders | RequestErrorKind::MaxPayloadExceeded => {
                            PublishError::Unavailable(reason)
                        }
                        _ => PublishError::Unknown(reason),
                    });
                }
            };
            let answer: Answer = serde_json::from_slice(&answer.payload)
                .map_err(|error| PublishError::Unknown(format!("the server answered {subject} with {error}")))?;
            let Some(refusal) = answer.error else { return Ok(answer.seq) };
            match refusal.err_code {
                STALE => return Err(PublishError::Stale),
                // Nothing was written, so the same may be sent again.
                UNDER_WAY => tokio::time::sleep(Duration::from_millis(2)).await,
                code if FULL.contains(&code) => {
                    return Err(PublishError::Full(format!("{refusal}: {MAKE_ROOM}")));
                }
                _ => return Err(PublishError::Unavailable(format!("{subject}: {refusal}"))),
            }
        }
        Err(PublishError::Unavailable(format!("{subject}: another write is under way")))
    }

    /// What fits the question, from whichever server of the stream answers: it may not have all that the leader has.
    pub(super) async fn get_many(&self, stream: &str, question: &str) -> Result<Many, LogError> {
        let unavailable = |reason: String| LogError::Unavailable { reason };
        let inbox = self.client.new_inbox();
        let mut connections = self.connections.clone();
        connections.mark_unchanged();
        let mut lost = std::pin::pin!(answer_lost(connections));
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|e| unavailable(e.to_string()))?;
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let asked = self.client.publish_with_reply(subject, inbox, question.to_owned().into()).await;
        asked.map_err(|error| unavailable(error.to_string()))?;
        let mut many = Many::default();
        loop {
            let answer = tokio::select! {
                // Safe to cancel, both: whoever asked asks again.
                answer = tokio::time::timeout(ANSWER, answers.next()) => answer,
                () = &mut lost => Ok(None),
            };
            let Ok(Some(answer)) = answer else {
                return Err(unavailable(format!("stream {stream} does not answer")));
            };
            let headers = answer.headers.unwrap_or_default();
            let number = |name: &str| headers.get(name).and_then(|value| value.as_str().parse::<u64>().ok());
            if let Some(status) = answer.status {
                return match status.as_u16() {
                    204 => {
                        many.upto = number("Nats-UpTo-Sequence");
                        many.more = number("Nats-Num-Pending").unwrap_or(0) > 0;
                        Ok(many)
                    }
                    404 => Ok(many),
                    413 => {
                        many.too_many = true;
                        Ok(many)
                    }
                    503 if status == StatusCode::NO_RESPONDERS => {
                        Err(unavailable(format!("stream {stream} is not there, or has no leader now")))
                    }
                    code => {
                        let reason = answer.description.unwrap_or_default();
                        Err(unavailable(format!("stream {stream} answered {code}: {reason}")))
                    }
                };
            }
            let time = headers.get("Nats-Time-Stamp").and_then(|time| time.as_str().parse::<jiff::Timestamp>().ok());
            let (Some(sequence), Some(subject), Some(time)) =
                (number("Nats-Sequence"), headers.get("Nats-Subject"), time)
            else {
                return Err(unavailable(format!("stream {stream} answered with something unknown")));
            };
            let time = Timestamp(u64::try_from(time.as_millisecond()).unwrap_or(0));
            let subject = subject.as_str().to_owned();
            many.entries.push(Stored { sequence, subject, time, payload: answer.payload });
        }
    }

    /// The entry with this sequence as its leader knows it: `None` only when it is certainly not there.
    pub(super) async fn get(&self, stream: &Stream, sequence: u64) -> Result<Option<Stored>, LogError> {
        let name = &stream.cached_info().config.name;
        let near = self.get_many(name, &format!(r#"{{"seq":{sequence},"batch":1}}"#)).await?;
        if let Some(found) = near.entries.into_iter().find(|found| found.sequence == sequence) {
            return Ok(Some(found));
        }
        match stream.get_raw_message(sequence).await {
            Ok(found) => Ok(Some(stored(found))),
            Err(error) => match error.kind() {
                stream::LastRawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(LogError::Unavailable { reason: error.to_string() }),
            },
        }
    }

    /// The last entry on a subject, as the leader knows it.
    pub(super) async fn last(&self, stream: &Stream, subject: &str) -> Result<Option<Stored>, LogError> {
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(found) => Ok(Some(stored(found))),
            Err(error) => match error.kind() {
                stream::LastRawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(LogError::Unavailable { reason: error.to_string() }),
            },
        }
    }

    /// Subjects of a stream that fit a pattern and have an entry.
    pub(super) async fn subjects(&self, stream: &Stream, pattern: &str) -> Result<Vec<String>, LogError> {
        let unavailable = |reason: String| LogError::Unavailable { reason };
        let mut found = stream.info_with_subjects(pattern).await.map_err(|error| unavailable(error.to_string()))?;
        let mut subjects = vec![];
        while let Some(subject) = found.next().await {
            subjects.push(subject.map_err(|error| unavailable(error.to_string()))?.0);
        }
        Ok(subjects)
    }

    /// Every entry before this one goes.
    pub(super) async fn purge_before(&self, sequence: u64) -> Result<(), LogError> {
        let purged = self.log.purge().sequence(sequence).await;
        purged.map(drop).map_err(|error| LogError::Unavailable { reason: error.to_string() })
    }

    /// Entries of the stream of state on subjects that fit go.
    pub(super) async fn purge_state(&self, pattern: &str) -> Result<(), LogError> {
        let purged = self.state.purge().filter(pattern).await;
        purged.map(drop).map_err(|error| LogError::Unavailable { reason: error.to_string() })
    }

    /// State of a handler that was written down before this sequence of the stream of state goes.
    pub(super) async fn purge_values(&self, handler: &HandlerName, before: u64) -> Result<(), LogError> {
        let purged = self.state.purge().filter(self.names.all_values(handler)).sequence(before).await;
        purged.map(drop).map_err(|error| LogError::Unavailable { reason: error.to_string() })
    }

    /// First and last sequence of a stream; an error if it is not the stream that this host began with.
    pub(super) async fn ends(&self, stream: &Stream) -> Result<(u64, u64), LogError> {
        if self.too_small().is_some() && self.may_ask_anew() {
            // Only another connection hears that it was raised again.
            drop(self.client.force_reconnect().await);
        }
        let mut connections = self.connections.clone();
        connections.mark_unchanged();
        let asked = stream.get_info().await;
        let known = stream.cached_info();
        let name = &known.config.name;
        let restore = "restore it with `nats stream restore`, or begin anew without any of it by removing it";
        let asked = match asked {
            Ok(info) if info.created != known.created => Err(LogError::Refused {
                reason: format!("stream {name} was removed and made again: what was acknowledged is lost: {restore}"),
            }),
            Ok(info) if info.state.deleted_count.unwrap_or(0) > 0 && *name == self.names.log_stream() => {
                Err(LogError::Refused {
                    reason: format!("entries were deleted out of the middle of stream {name}: {restore}"),
                })
            }
            Ok(info) => Ok((info.state.first_sequence, info.state.last_sequence)),
            Err(error) if is_gone(&error) => {
                Err(LogError::Unavailable { reason: format!("stream {name} was removed: {restore}") })
            }
            Err(error) => Err(LogError::Unavailable { reason: format!("stream {name}: {error}") }),
        };
        let is_lost = self.client.connection_state() != State::Connected || connections.has_changed().unwrap_or(true);
        match &asked {
            Ok(_) => drop(self.in_the_way().remove(name)),
            // It says nothing about the stream.
            Err(LogError::Unavailable { .. }) if is_lost => {}
            Err(error) => drop(self.in_the_way().insert(name.clone(), error.to_string())),
        }
        asked
    }

    /// What the clock of the server says that leads the stream of entries, as it dates them.
    pub(super) async fn time(&self) -> Result<Timestamp, LogError> {
        #[derive(Deserialize)]
        struct Answer {
            ts: Option<String>,
        }
        let unavailable = |error: &dyn std::fmt::Display| LogError::Unavailable { reason: error.to_string() };
        let subject = format!("$JS.API.STREAM.INFO.{}", self.names.log_stream());
        let answer = self.client.request(subject, Bytes::new()).await.map_err(|error| unavailable(&error))?;
        let Answer { ts } = serde_json::from_slice(&answer.payload).map_err(|error| unavailable(&error))?;
        let time = ts.and_then(|ts| ts.parse::<jiff::Timestamp>().ok());
        let time = time.ok_or_else(|| unavailable(&"the server does not say what time it is"))?;
        Ok(Timestamp(u64::try_from(time.as_millisecond()).unwrap_or(0)))
    }

    /// How full the stream of entries is, or the account, whichever is nearer to its bound. What a server may store in all it
    /// tells nobody.
    pub(super) async fn room(&self) -> Result<Option<Room>, LogError> {
        let unavailable = |error: &dyn std::fmt::Display| LogError::Unavailable { reason: error.to_string() };
        let info = self.log.get_info().await.map_err(|error| unavailable(&error))?;
        // Nobody answers while the servers choose who leads them all; the stream goes on meanwhile.
        let account = jetstream::new(self.client.clone()).query_account().await.ok();
        let copies = info.config.num_replicas.max(1) as u64;
        let (storage, storage_max) = account.map_or((0, None), |account| {
            let tier = account.tiers.get(&format!("R{copies}"));
            tier.map_or((account.storage, account.limits.max_storage), |tier| (tier.storage, tier.limits.max_storage))
        });
        let of = |bytes, max: i64, copies| {
            let bytes_max = u64::try_from(max).ok().filter(|max| *max > 0)?;
            Some(Room { bytes, bytes_max, upto: info.state.last_sequence, copies, advice: MAKE_ROOM })
        };
        let rooms = [of(info.state.bytes, info.config.max_bytes, 1), of(storage, storage_max.unwrap_or(-1), copies)];
        Ok(rooms.into_iter().flatten().min_by_key(|room| room.bytes_max.saturating_sub(room.bytes)))
    }

    fn in_the_way(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.in_the_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a request failed because the stream is not there.
fn is_gone(error: &stream::InfoError) -> bool {
    let answer = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    answer.is_some_and(|answer| answer.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Returns once no answer comes any more to what was asked before the connection was lost.
async fn answer_lost(mut connections: watch::Receiver<u64>) {
    if connections.changed().await.is_err() {
        return std::future::pending().await;
    }
    tokio::time::sleep(AFTER_RECONNECT).await;
}

fn stored(found: jetstream::message::StreamMessage) -> Stored {
    let time = millis(found.time);
    Stored { sequence: found.sequence, subject: found.subject.to_string(), time, payload: found.payload }
}

pub(super) fn millis(time: async_nats::datetime::DateTime) -> Timestamp {
    Timestamp(u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0))
}
