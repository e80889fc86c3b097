//! Publishes to plain NATS clients. Where a stream of the user's has the subject, its answer is waited for; elsewhere,
//! until it is known that the server passed the message on.
//!
//! What the login may not publish is told beside what is published, and not answered; it counts as published nowhere. That
//! may begin and end while the host runs, as a server reads its settings anew.

use super::stream;
use super::wire::{ANSWER, Passed, Wire};
use crate::edges::{Sink, SinkError};
use crate::error::LogError;
use crate::nats::names::Names;
use crate::nats::options::Options;
use crate::nats::permissions::{self, STREAM_NAMES};
use crate::nats::refusal::Refusal;
use async_nats::client::{PublishErrorKind, Request, RequestErrorKind};
use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use sluicebox_core::clock;
use sluicebox_core::message::Message;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as AsyncMutex;

/// How long it is believed that a subject has a stream, or none, or may not be published to.
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
    options: Options,
    /// The one in use; it is replaced by one at a time.
    wire: AsyncMutex<(Arc<Wire>, Failed)>,
    subjects: Mutex<HashMap<String, (Subject, Instant)>>,
    /// One asks the server at a time: the others find its answer.
    asks: AsyncMutex<Failed>,
}

/// Why one failed, and when: for those who waited meanwhile.
#[derive(Default)]
struct Failed(Option<(SinkError, Instant)>);

impl Failed {
    fn since(&self, begun: Instant) -> Result<(), SinkError> {
        match &self.0 {
            Some((error, at)) if *at >= begun => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn note<T>(&mut self, done: Result<T, SinkError>) -> Result<T, SinkError> {
        done.inspect_err(|error| self.0 = Some((error.clone(), clock::instant())))
    }
}

/// What is known of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    OfStream,
    Plain,
    Denied,
}

impl NatsSink {
    /// Connects, and asks whether the login may publish to the subjects of `egress`.
    pub async fn open(options: &Options) -> Result<Self, LogError> {
        let wire = Wire::open(options).await?;
        let names = Names::new(&options.namespace);
        let asked = async {
            permissions::ask_for_streams_of(&wire.client, &names).await;
            Ok(())
        };
        permissions::permitted(wire.denied(), options, asked).await?;
        let denied = wire.first_denied(&names, &options.egress).await;
        if let Some(pattern) = denied.map_err(|error| LogError::Unavailable { reason: error.to_string() })? {
            let advice = permissions::advice(options);
            let reason = format!("the server does not permit to publish to `{pattern}` of `egress`: {advice}");
            return Err(LogError::Refused { reason });
        }
        let (subjects, asks) = Default::default();
        let wire = AsyncMutex::new((Arc::new(wire), Failed::default()));
        Ok(Self(Arc::new(Inner { options: options.clone(), wire, subjects, asks })))
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
        let headers = headers(message, &self.options.namespace)?;
        let subject = message.topic.as_str();
        if self.believed(subject) == Some(Subject::Denied) {
            return Err(denied(subject));
        }
        let wire = self.wire().await?;
        if self.has_stream(&wire, subject).await? {
            let place = wire.place();
            let request = Request::new().headers(headers.clone()).payload(message.body.clone()).timeout(Some(ANSWER));
            let answer = tokio::select! {
                // Safe to cancel, both: without an answer it is published again.
                answer = wire.client.send_request(subject.to_owned(), request) => answer,
                () = wire.refused(subject, place) => {
                    self.believe(subject, Subject::Denied);
                    return Err(denied(subject));
                }
            };
            match answer {
                Ok(answer) => return answered(&answer.payload),
                // Nobody got it: the stream is gone, or has no leader.
                Err(error) if error.kind() == RequestErrorKind::NoResponders => self.forget(subject),
                Err(error) => return Err(SinkError::Refused(format!("{subject}: {error}"))),
            }
            if self.has_stream(&wire, subject).await? {
                return Err(SinkError::Refused(format!("the stream that has {subject} does not answer")));
            }
        }
        let place = wire.place();
        let sent = wire.client.publish_with_headers(subject.to_owned(), headers, message.body.clone());
        sent.await.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                SinkError::Refused(format!("the server takes smaller messages: raise its `max_payload` ({error})"))
            }
            _ => away(error),
        })?;
        match wire.passed(subject, place).await? {
            Passed::Yes => Ok(()),
            Passed::Refused => {
                // Not tried for a while: the server writes down each try.
                self.believe(subject, Subject::Denied);
                Err(denied(subject))
            }
            Passed::Unsure => Err(SinkError::Refused("the server refused so much that this may be among it".into())),
        }
    }

    /// The connection in use.
    async fn wire(&self) -> Result<Arc<Wire>, SinkError> {
        let begun = clock::instant();
        let mut wire = self.wire.lock().await;
        let (wire, failed) = &mut *wire;
        if !wire.is_connected() {
            return Err(away("there is no connection to its servers now"));
        }
        if wire.is_left() {
            failed.since(begun)?;
            *wire = Arc::new(failed.note(Wire::open(&self.options).await.map_err(away))?);
        }
        Ok(wire.clone())
    }

    async fn has_stream(&self, wire: &Wire, subject: &str) -> Result<bool, SinkError> {
        if let Some(known) = self.believed(subject) {
            return Ok(known == Subject::OfStream);
        }
        let begun = clock::instant();
        let mut failed = self.asks.lock().await;
        if let Some(known) = self.believed(subject) {
            return Ok(known == Subject::OfStream);
        }
        failed.since(begun)?;
        let place = wire.place();
        let found = tokio::select! {
            // Safe to cancel, both: a question changes nothing.
            found = stream::has(&wire.context, subject) => found.map_err(|reason| {
                // Whoever may not hear answers hears them over another connection, once that is permitted.
                wire.leave();
                away(reason)
            }),
            () = wire.refused(STREAM_NAMES, place) => {
                Err(away(format!("the server does not permit this login to publish to `{STREAM_NAMES}`: permit it")))
            }
        };
        let found = failed.note(found)?;
        self.believe(subject, if found { Subject::OfStream } else { Subject::Plain });
        Ok(found)
    }

    fn believed(&self, subject: &str) -> Option<Subject> {
        let found = self.subjects().get(subject).copied();
        let now = clock::instant();
        found.filter(|(_, since)| now.saturating_duration_since(*since) < BELIEVED).map(|(found, _)| found)
    }

    fn believe(&self, subject: &str, found: Subject) {
        let mut subjects = self.subjects();
        if subjects.len() >= SUBJECTS_MAX {
            subjects.clear();
        }
        subjects.insert(subject.to_owned(), (found, clock::instant()));
    }

    fn forget(&self, subject: &str) {
        self.subjects().remove(subject);
    }

    fn subjects(&self) -> MutexGuard<'_, HashMap<String, (Subject, Instant)>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
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
        error: Option<Refusal>,
    }
    // Any other answer is of a client that got it too, and the stream has it as it has what is published without a wish
    // for an answer.
    match serde_json::from_slice(answer) {
        Ok(Answer { error: Some(refusal) }) if refusal.err_code == TOO_LARGE => {
            Err(SinkError::Impossible(refusal.to_string()))
        }
        Ok(Answer { error: Some(refusal) }) if refusal.err_code > 0 => Err(SinkError::Refused(refusal.to_string())),
        _ => Ok(()),
    }
}

fn denied(subject: &str) -> SinkError {
    SinkError::Refused(format!("the server does not permit this login to publish to `{subject}`: permit it"))
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
