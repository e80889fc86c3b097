//! Publishes to plain NATS clients. Where a stream of the user's has the subject, its answer is waited for; elsewhere,
//! until the server has passed the message on.

use super::stream;
use crate::edges::{Sink, SinkError};
use crate::error::LogError;
use crate::nats::options::Options;
use async_nats::client::{Client, Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use sluicebox_core::clock;
use sluicebox_core::message::Message;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as AsyncMutex;

/// How long the server may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it is believed that a subject has a stream, or none.
const BELIEVED: Duration = Duration::from_secs(10);
/// Subjects of which that is remembered.
const SUBJECTS_MAX: usize = 10_000;
/// The message is larger than the stream takes them.
const TOO_LARGE: u64 = 10054;
/// Headers of these are the server's and the host's.
const RESERVED: [&str; 2] = ["nats-", "sluicebox-"];

/// The subjects of a NATS server.
pub struct NatsSink(Arc<Inner>);

struct Inner {
    client: Client,
    context: Context,
    namespace: String,
    streams: Mutex<HashMap<String, (bool, Instant)>>,
    /// One asks the server at a time: the others find its answer.
    asks: AsyncMutex<()>,
    passed: Passed,
}

impl NatsSink {
    pub async fn open(options: &Options) -> Result<Self, LogError> {
        let client = options.connect().await?.client;
        let context = jetstream::new(client.clone());
        let (streams, asks, passed) = (Mutex::default(), AsyncMutex::default(), Passed::default());
        let namespace = options.namespace.clone();
        Ok(Self(Arc::new(Inner { client, context, namespace, streams, asks, passed })))
    }
}

impl Sink for NatsSink {
    fn publish(&self, message: Arc<Message>) -> BoxFuture<'static, Result<(), SinkError>> {
        let inner = self.0.clone();
        Box::pin(async move { inner.publish(&message).await })
    }
}

impl Inner {
    async fn publish(&self, message: &Message) -> Result<(), SinkError> {
        let headers = headers(message, &self.namespace)?;
        let subject = message.topic.as_str();
        if self.client.connection_state() != State::Connected {
            return Err(away("there is no connection to its servers now"));
        }
        if self.has_stream(subject).await? {
            let request = Request::new().headers(headers.clone()).payload(message.body.clone()).timeout(Some(ANSWER));
            match self.client.send_request(subject.to_owned(), request).await {
                Ok(answer) => return answered(&answer.payload),
                // Nobody got it: the stream is gone, or has no leader.
                Err(error) if error.kind() == RequestErrorKind::NoResponders => self.forget(subject),
                Err(error) => return Err(SinkError::Refused(format!("{subject}: {error}"))),
            }
            if self.has_stream(subject).await? {
                return Err(SinkError::Refused(format!("the stream that has {subject} does not answer")));
            }
        }
        let on = connection(&self.client);
        let sent = self.client.publish_with_headers(subject.to_owned(), headers, message.body.clone());
        sent.await.map_err(away)?;
        self.passed.wait(&self.client, &on).await
    }

    async fn has_stream(&self, subject: &str) -> Result<bool, SinkError> {
        if let Some(known) = self.believed(subject) {
            return Ok(known);
        }
        let _one = self.asks.lock().await;
        if let Some(known) = self.believed(subject) {
            return Ok(known);
        }
        let found = stream::has(&self.context, subject).await.map_err(away)?;
        let mut streams = self.streams();
        if streams.len() >= SUBJECTS_MAX {
            streams.clear();
        }
        streams.insert(subject.to_owned(), (found, clock::instant()));
        Ok(found)
    }

    fn believed(&self, subject: &str) -> Option<bool> {
        let found = self.streams().get(subject).copied();
        let now = clock::instant();
        found.filter(|(_, since)| now.saturating_duration_since(*since) < BELIEVED).map(|(found, _)| found)
    }

    fn forget(&self, subject: &str) {
        self.streams().remove(subject);
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, HashMap<String, (bool, Instant)>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server has passed on what was published to it. It takes what comes over a connection in order, so once a
/// message to ourselves came back, all before it was passed on; one of them answers for all who wait.
#[derive(Default)]
struct Passed {
    asked: AtomicU64,
    last: AsyncMutex<Last>,
}

#[derive(Default)]
struct Last {
    /// Who asked up to here was answered.
    upto: u64,
    on: Option<Connection>,
}

/// Another one after each time that a connection is made.
type Connection = (String, u64);

fn connection(client: &Client) -> Connection {
    let info = client.server_info();
    (info.server_id, info.client_id)
}

impl Passed {
    /// What was published before, when this connection was there.
    async fn wait(&self, client: &Client, on: &Connection) -> Result<(), SinkError> {
        let asked = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut last = self.last.lock().await;
        if last.upto < asked {
            let upto = self.asked.load(Ordering::Acquire);
            let (before, inbox) = (connection(client), client.new_inbox());
            let echo = async {
                let mut back = client.subscribe(inbox.clone()).await.map_err(away)?;
                client.publish(inbox, Bytes::new()).await.map_err(away)?;
                back.next().await.map(drop).ok_or_else(|| away("the connection ended"))
            };
            tokio::time::timeout(ANSWER, echo).await.map_err(|_| away("the server does not answer"))??;
            if connection(client) != before {
                return Err(away("the connection was cut, and what was sent may be lost"));
            }
            (last.upto, last.on) = (upto, Some(before));
        }
        match last.on.as_ref() == Some(on) {
            true => Ok(()),
            false => Err(away("the connection was cut, and what was sent may be lost")),
        }
    }
}

/// What a plain client sees beside the body.
fn headers(message: &Message, namespace: &str) -> Result<HeaderMap, SinkError> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let impossible = |reason: String| SinkError::Impossible(format!("header `{name}` cannot be sent: {reason}"));
        let parsed: HeaderName = name.parse().map_err(|error| impossible(format!("{error}")))?;
        let value: HeaderValue = value.parse().map_err(|error| impossible(format!("{error}")))?;
        headers.append(parsed, value);
        Ok(())
    };
    // The place in the log, so that whoever gets it twice can tell, as a stream can by itself.
    add("Nats-Msg-Id", &format!("{namespace}.{}", message.offset))?;
    add("Sluicebox-Offset", &message.offset.to_string())?;
    if let Some(key) = &message.key {
        add("Sluicebox-Key", key.as_str())?;
    }
    if let Some(id) = &message.id {
        add("Sluicebox-Id", id)?;
    }
    for (name, value) in message.headers.iter() {
        let lower = name.to_ascii_lowercase();
        if !RESERVED.iter().any(|reserved| lower.starts_with(reserved)) {
            add(name, value)?;
        }
    }
    Ok(headers)
}

/// What the stream says.
fn answered(answer: &[u8]) -> Result<(), SinkError> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        err_code: u64,
        #[serde(default)]
        description: String,
    }
    // Any other answer is of a client that got it too, and the stream has it as it has what is published without a wish
    // for an answer.
    match serde_json::from_slice(answer) {
        Ok(Answer { error: Some(Problem { err_code, description }) }) if err_code > 0 => {
            let reason = format!("{description} ({err_code})");
            Err(if err_code == TOO_LARGE { SinkError::Impossible(reason) } else { SinkError::Refused(reason) })
        }
        _ => Ok(()),
    }
}

fn away(reason: impl std::fmt::Display) -> SinkError {
    SinkError::Away(reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_core::clock::Timestamp;
    use sluicebox_core::message::{Headers, Key, NewMessage, Offset};
    use sluicebox_core::topic::Topic;

    fn message(pairs: &[(&str, &str)]) -> Message {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let new = NewMessage {
            key: Key::parse("ada").unwrap(),
            id: Some("i".into()),
            headers: Headers::new(pairs),
            ..NewMessage::new(Topic::parse("a").unwrap(), "")
        };
        Message::from_new(new, Offset(7), Timestamp(0))
    }

    #[test]
    fn a_plain_client_sees_place_key_and_id_and_no_handler_steers_its_server() {
        let sent = headers(&message(&[("traceparent", "t"), ("Nats-Rollup", "all"), ("sluicebox-key", "eve")]), "shop");
        let mut seen: Vec<(String, String)> =
            sent.unwrap().iter().map(|(name, values)| (name.to_string(), values[0].to_string())).collect();
        seen.sort();
        let seen: Vec<(&str, &str)> = seen.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("Nats-Msg-Id", "shop.7"),
                ("Sluicebox-Id", "i"),
                ("Sluicebox-Key", "ada"),
                ("Sluicebox-Offset", "7"),
                ("traceparent", "t"),
            ]
        );
        assert!(matches!(headers(&message(&[("a", "b\r\nc")]), "shop"), Err(SinkError::Impossible(_))));
    }

    #[test]
    fn an_answer_says_whether_to_wait_or_to_give_up() {
        assert_eq!(answered(br#"{"stream":"S","seq":1,"duplicate":true}"#), Ok(()));
        assert_eq!(answered(b"hello"), Ok(()));
        let told = |code: u64| answered(format!(r#"{{"error":{{"code":1,"err_code":{code}}}}}"#).as_bytes());
        assert!(matches!(told(10077), Err(SinkError::Refused(_))));
        assert!(matches!(told(10054), Err(SinkError::Impossible(_))));
    }
}
