//! What HTTP headers say about a message.

use super::error::ApiError;
use crate::config::nearest;
use crate::delays;
use crate::message::{Headers, Key, MessageError, NewMessage};
use crate::topic::Topic;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::time::Duration;

/// What every header of ours begins with.
const PREFIX: &str = "sluicebox-";
const HEADER_PREFIX: &str = "sluicebox-header-";
/// Kept as they are: they tie a message to the trace of its publisher.
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// What the HTTP headers say about the message, or about each message.
#[derive(Clone, Debug, Default)]
pub(super) struct Envelope {
    pub(super) key: Option<Key>,
    pub(super) id: Option<Arc<str>>,
    pub(super) headers: Vec<(String, String)>,
    /// It appears this long after the log took it.
    pub(super) delay: Option<Duration>,
}

impl Envelope {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut envelope = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "sluicebox-key" => envelope.key = Key::parse(text(name.as_str(), value)?)?,
                "sluicebox-id" => envelope.id = Some(text(name.as_str(), value)?.into()),
                "sluicebox-delay" => {
                    let delay = delays::parse(text(name.as_str(), value)?);
                    envelope.delay =
                        Some(delay.map_err(|error| ApiError::bad_request(format!("`Sluicebox-Delay`: {error}")))?);
                }
                name if TRACE_HEADERS.contains(&name) => {
                    envelope.headers.push((name.to_owned(), text(name, value)?.to_owned()));
                }
                name => match name.strip_prefix(HEADER_PREFIX) {
                    Some("") => return Err(ApiError::bad_request("`Sluicebox-Header-` needs a name after it")),
                    Some(own) => envelope.headers.push((own.to_owned(), text(name, value)?.to_owned())),
                    None if name.starts_with(PREFIX) => return Err(unknown(name)),
                    None => {}
                },
            }
        }
        // An empty id is no id.
        envelope.id = envelope.id.filter(|id| !id.is_empty());
        Ok(envelope)
    }

    /// The delay, if there is any.
    pub(super) fn delay(&self) -> Option<Duration> {
        self.delay.filter(|delay| !delay.is_zero())
    }

    pub(super) fn message(self, topic: Topic, body: Bytes) -> Result<NewMessage, MessageError> {
        let headers = Headers::new(self.headers);
        let message = NewMessage { key: self.key, id: self.id, headers, ..NewMessage::new(topic, body) };
        message.check().map(|()| message)
    }
}

/// A header that looks like one of ours: without it the message would not be what its publisher meant.
fn unknown(name: &str) -> ApiError {
    let shown: String = name.chars().take(100).collect();
    let own = shown.trim_start_matches(PREFIX);
    let meant = match nearest(own, &["key", "id", "delay"]) {
        Some("key") => "did you mean `Sluicebox-Key`?".to_owned(),
        Some("id") => "did you mean `Sluicebox-Id`?".to_owned(),
        Some("delay") => "did you mean `Sluicebox-Delay`?".to_owned(),
        _ => format!("for a header `{own}` of the message send `Sluicebox-Header-{own}`"),
    };
    ApiError::bad_request(format!("unknown header `{shown}`: {meant}"))
}

/// A header's value as UTF-8.
pub(super) fn text<'v>(name: &str, value: &'v HeaderValue) -> Result<&'v str, ApiError> {
    let bad = |_| ApiError::bad_request(format!("the header `{name}` is not UTF-8"));
    std::str::from_utf8(value.as_bytes()).map_err(bad)
}
