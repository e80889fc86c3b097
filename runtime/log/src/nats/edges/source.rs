//! Reads the stream that plain clients publish to, by sequence: nothing is acknowledged, the position that a commit has is
//! the truth.
//!
//! What lies in the stream was sent by anybody. The client cannot read a message whose headers are not text: it hangs up,
//! and would again after it connected. One that looks like a word of the server is not delivered. So the first messages after
//! a position are asked for one by one, and read here; each time the stream is read anew it is so much further at least.

use super::plain;
use super::stream;
use crate::edges::{Arrivals, Arrived, Position, Source, Unfit};
use crate::error::LogError;
use crate::nats::names::Names;
use crate::nats::options::{Connection, Options};
use crate::nats::permissions;
use crate::nats::refusal::Refusal;
use async_nats::client::Client;
use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::stream::Stream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use sluicebox_core::clock::{self, Timestamp};
use sluicebox_core::message::NewMessage;
use std::time::Duration;
use tokio::sync::watch;

/// Messages of one commit, and bytes of them: with one more of any size they are one entry of the log.
const MESSAGES_MAX: usize = 1000;
const BYTES_MAX: usize = 400 * 1024;
/// So many are asked for one by one when reading begins.
const ASKED_MAX: usize = 64;
/// Most messages under way to the client: each may be as large as the server takes them.
const UNDERWAY_MAX: i64 = 128;
/// When nothing comes for so long, it is looked whether there is something all the same.
const SILENCE: Duration = Duration::from_secs(5);
/// How long messages stay in the stream after they were taken up: for people who look for one that was no message.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// No message has this sequence.
const NOT_FOUND: u64 = 10037;

/// The stream that plain NATS clients publish to.
pub struct NatsSource {
    connection: Connection,
    client: Client,
    name: String,
    options: Options,
    kept: Duration,
}

impl NatsSource {
    /// Connects, and makes or checks the stream of the subjects of `ingress`.
    pub async fn open(options: &Options) -> Result<Self, LogError> {
        let connection = options.connect().await?;
        let (client, denied) = (connection.client.clone(), connection.told.denied.clone());
        let names = Names::new(&options.namespace);
        let name = names.ingress_stream();
        let source = Self { connection, client, name, options: options.clone(), kept: KEPT };
        let prepare = async {
            source.stream().await?;
            permissions::ask_for_stream(&source.client, &names, &source.name).await;
            permissions::ask_for_readers(&source.client, &source.name).await;
            permissions::ask_for_streams_of(&source.client, &names).await;
            Ok(())
        };
        permissions::permitted(denied, options, prepare).await?;
        Ok(source)
    }

    /// As [`NatsSource::open`]; what was taken up stays this long.
    pub async fn open_keeping(options: &Options, kept: Duration) -> Result<Self, LogError> {
        Ok(Self { kept, ..Self::open(options).await? })
    }

    /// What the server ceased to permit is said instead of a silence.
    async fn permitted<T>(&self, work: impl Future<Output = Result<T, LogError>>) -> Result<T, LogError> {
        let mut denied = self.connection.told.denied.clone();
        denied.mark_unchanged();
        permissions::permitted(denied, &self.options, work).await
    }

    /// The stream as it is now: somebody may have changed or removed it.
    async fn stream(&self) -> Result<Stream, LogError> {
        let context = jetstream::new(self.client.clone());
        stream::opened(&context, &self.name, &self.options.ingress, self.options.replicas).await
    }

    async fn read_after(&self, position: Option<Position>) -> Result<Box<dyn Arrivals>, LogError> {
        let mut connections = self.connection.told.made.clone();
        connections.mark_unchanged();
        let stream = self.stream().await?;
        let info = stream.cached_info();
        let made = info.created.unix_timestamp_nanos();
        let last = info.state.last_sequence;
        let after = match position.map(|position| At::parse(&position)) {
            None => 0,
            // A log that was moved here brings along how far it was in the stream that it had there.
            Some(Err(error)) => {
                tracing::warn!(stream = self.name, %error, "everything in the stream is taken up");
                0
            }
            Some(Ok(at)) if at.made != made => {
                tracing::warn!(stream = self.name, "the stream was made anew: everything in it is taken up");
                0
            }
            Some(Ok(at)) if at.sequence > last => {
                tracing::warn!(
                    stream = self.name,
                    taken = at.sequence,
                    last,
                    "the server lost messages of the stream that were taken up: what comes now is new"
                );
                last
            }
            Some(Ok(at)) => at.sequence,
        };
        let (mut first, mut at, mut bytes) = (vec![], after, 0);
        while first.len() < ASKED_MAX && bytes < BYTES_MAX {
            let Some(asked) = first_after(&self.client, &self.name, at).await? else { break };
            bytes += asked.message.as_ref().map_or(0, NewMessage::bytes);
            at = asked.sequence;
            first.push(asked.message);
        }
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: at + 1 },
            max_batch: UNDERWAY_MAX,
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|error| unavailable(&error))?;
        let delivered = consumer.messages().await.map_err(|error| unavailable(&error))?;
        let (client, name) = (self.client.clone(), self.name.clone());
        Ok(Box::new(Delivered { client, name, made, first, at, last, delivered, connections }))
    }

    async fn taken(&self, position: &Position) -> Result<(), LogError> {
        let At { made, sequence: upto } = At::parse(position)?;
        let stream = self.stream().await?;
        let info = stream.cached_info();
        if info.created.unix_timestamp_nanos() != made {
            // The place is one in a stream that is gone, and what is in this one was not taken up.
            return Ok(());
        }
        let old = clock::steady().before(self.kept);
        // By the server's times: the first message that is not old stays, and all after it.
        let (first, mut from, mut keep) = (info.state.first_sequence, info.state.first_sequence, upto + 1);
        let mut looked_at = first;
        while from < keep {
            match first_after(&self.client, &self.name, looked_at.saturating_sub(1)).await? {
                Some(found) if found.sequence <= upto && found.time < old => from = found.sequence + 1,
                _ => keep = looked_at,
            }
            looked_at = from + keep.saturating_sub(from) / 2;
        }
        if keep > first {
            stream.purge().sequence(keep).await.map_err(|error| unavailable(&error))?;
        }
        Ok(())
    }
}

impl Source for NatsSource {
    fn name(&self) -> String {
        format!("stream {}", self.name)
    }

    fn read_after(&self, position: Option<Position>) -> BoxFuture<'_, Result<Box<dyn Arrivals>, LogError>> {
        Box::pin(self.permitted(Box::pin(self.read_after(position))))
    }

    fn taken(&self, position: Position) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.permitted(Box::pin(self.taken(&position))).await })
    }
}

/// A place in a stream, which a stream that is made anew has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At {
    /// When the stream was made.
    made: i128,
    sequence: u64,
}

impl At {
    fn parse(position: &Position) -> Result<Self, LogError> {
        let parsed = position
            .0
            .split_once(' ')
            .and_then(|(made, sequence)| Some(Self { made: made.parse().ok()?, sequence: sequence.parse().ok()? }));
        let refused = || LogError::Refused { reason: format!("`{}` is no place in a stream", position.0) };
        parsed.ok_or_else(refused)
    }

    fn position(self) -> Position {
        Position(format!("{} {}", self.made, self.sequence))
    }
}

struct Delivered {
    client: Client,
    name: String,
    made: i128,
    /// What was asked for one by one, up to `at`.
    first: Vec<Result<NewMessage, Unfit>>,
    /// The last one that was handed out, or is about to be.
    at: u64,
    /// The last one that was there when reading began.
    last: u64,
    delivered: Ordered,
    connections: watch::Receiver<u64>,
}

impl Delivered {
    async fn next(&mut self) -> Result<Arrived, LogError> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Ok(self.arrived(first, self.at, self.last.saturating_sub(self.at)));
        }
        let first = loop {
            tokio::select! {
                // What came before the connection was cut counts first.
                biased;
                // Safe to cancel, all: what was not taken stays where it is.
                next = self.delivered.next() => break next,
                _ = self.connections.changed() => return Err(unavailable(&"the connection was made anew")),
                () = tokio::time::sleep(SILENCE) => {
                    if first_after(&self.client, &self.name, self.at).await?.is_some() {
                        return Err(unavailable(&"the server does not deliver what there is"));
                    }
                }
            }
        };
        let (mut messages, mut bytes, mut waiting) = (vec![], 0, 0);
        let mut next = Some(first);
        while let Some(delivered) = next {
            let delivered = match delivered {
                Some(Ok(delivered)) => delivered,
                // Those before it were delivered.
                _ if !messages.is_empty() => break,
                Some(Err(error)) => return Err(unavailable(&error)),
                None => return Err(unavailable(&"the consumer ended")),
            };
            let info = delivered.info().map_err(|error| unavailable(&error))?;
            (self.at, waiting) = (info.stream_sequence, info.pending);
            let headers = delivered.headers.iter().flat_map(|headers| headers.iter());
            let mut headers: Vec<(String, String)> = headers
                .flat_map(|(name, values)| values.iter().map(|value| (name.to_string(), value.to_string())))
                .collect();
            // The client hands them out in any order.
            headers.sort();
            let message = read(&self.name, self.at, &delivered.subject, Ok(headers), delivered.payload.clone());
            bytes += message.as_ref().map_or(0, NewMessage::bytes);
            messages.push(message);
            let is_full = messages.len() >= MESSAGES_MAX || bytes >= BYTES_MAX;
            next = if is_full { None } else { self.delivered.next().now_or_never() };
        }
        Ok(self.arrived(messages, self.at, waiting))
    }

    fn arrived(&self, messages: Vec<Result<NewMessage, Unfit>>, sequence: u64, waiting: u64) -> Arrived {
        Arrived { messages, upto: At { made: self.made, sequence }.position(), waiting }
    }
}

impl Arrivals for Delivered {
    fn next(&mut self) -> BoxFuture<'_, Result<Arrived, LogError>> {
        Box::pin(self.next())
    }
}

fn read(
    stream: &str,
    sequence: u64,
    subject: &str,
    headers: Result<Vec<(String, String)>, String>,
    body: Bytes,
) -> Result<NewMessage, Unfit> {
    let bytes = body.len();
    headers.and_then(|headers| plain::message(subject, headers, body)).map_err(|reason| Unfit {
        place: format!("`nats stream get {stream} {sequence}`"),
        subject: subject.chars().take(200).collect(),
        bytes,
        reason,
    })
}

/// A message that was asked for by itself.
struct Asked {
    sequence: u64,
    time: Timestamp,
    message: Result<NewMessage, Unfit>,
}

/// The first message after a sequence, as the leader of the stream knows it. Its headers are read here, whatever they are.
async fn first_after(client: &Client, stream: &str, sequence: u64) -> Result<Option<Asked>, LogError> {
    #[derive(Deserialize)]
    struct Answer {
        message: Option<Stored>,
        error: Option<Refusal>,
    }
    #[derive(Deserialize)]
    struct Stored {
        subject: String,
        seq: u64,
        #[serde(default)]
        hdrs: String,
        #[serde(default)]
        data: String,
        time: String,
    }
    let subject = format!("$JS.API.STREAM.MSG.GET.{stream}");
    let question = format!(r#"{{"seq":{},"next_by_subj":">"}}"#, sequence + 1);
    let answer = client.request(subject, question.into()).await.map_err(|error| unavailable(&error))?;
    let answer: Answer = serde_json::from_slice(&answer.payload).map_err(|error| unavailable(&error))?;
    let stored = match answer {
        Answer { message: Some(stored), .. } => stored,
        Answer { error: Some(Refusal { err_code: NOT_FOUND, .. }), .. } => return Ok(None),
        Answer { error, .. } => {
            let reason = error.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
            return Err(unavailable(&format!("stream {stream}: {reason}")));
        }
    };
    let bytes = |text: &str| STANDARD.decode(text).map_err(|error| unavailable(&error));
    let time: jiff::Timestamp = stored.time.parse().map_err(|error| unavailable(&error))?;
    let headers = match stored.hdrs.as_str() {
        "" => Ok(vec![]),
        block => plain::headers(&bytes(block)?),
    };
    let message = read(stream, stored.seq, &stored.subject, headers, bytes(&stored.data)?.into());
    let time = Timestamp(u64::try_from(time.as_millisecond()).unwrap_or(0));
    Ok(Some(Asked { sequence: stored.seq, time, message }))
}

fn unavailable(reason: &dyn std::fmt::Display) -> LogError {
    LogError::Unavailable { reason: reason.to_string() }
}
