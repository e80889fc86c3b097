//! What a line of NDJSON is: the body of a message, or a whole one with its key, id, headers and delay.

use super::envelope::Envelope;
use crate::delays;
use crate::message::{BODY_BYTES_MAX, HEADERS_BYTES_MAX, Key};
use axum::body::Bytes;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    /// Each line is the body of a message.
    Body,
    /// Each line is a message as a tail shows it. Where it goes is said by the request.
    Message,
}

impl LineKind {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "bodies" => Ok(Self::Body),
            "messages" => Ok(Self::Message),
            _ => Err(format!("`{text}` is neither bodies nor messages")),
        }
    }

    /// Most bytes of a line.
    pub(super) const fn bytes_max(self) -> usize {
        match self {
            Self::Body => BODY_BYTES_MAX,
            // JSON writes some bytes as six.
            Self::Message => 6 * (BODY_BYTES_MAX + HEADERS_BYTES_MAX) + 16 * 1024,
        }
    }
}

/// A message as a tail shows it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineMessage<'l> {
    key: Option<String>,
    id: Option<String>,
    #[serde(default)]
    headers: LineHeaders,
    /// A text is the body itself; any other value is the body as it is written.
    #[serde(borrow)]
    body: Option<&'l RawValue>,
    body_base64: Option<String>,
    /// A text such as `30s`; anything else is refused with words of our own.
    delay: Option<Value>,
    // Of where it was, which says nothing of where it goes.
    #[serde(rename = "offset")]
    _offset: Option<IgnoredAny>,
    #[serde(rename = "topic")]
    _topic: Option<IgnoredAny>,
    #[serde(rename = "time")]
    _time: Option<IgnoredAny>,
    #[serde(rename = "hops")]
    _hops: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum LineHeaders {
    Pairs(Vec<(String, String)>),
    Names(BTreeMap<String, String>),
}

impl Default for LineHeaders {
    fn default() -> Self {
        Self::Pairs(vec![])
    }
}

/// The parser's words about one line of many: it takes each for the first.
pub(super) fn within_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// The body of the message, and what else is said of it on top of what `envelope` says of all.
pub(super) fn message(mut envelope: Envelope, text: &[u8]) -> Result<(Envelope, Bytes), String> {
    let line: LineMessage<'_> =
        serde_json::from_slice(text).map_err(|error| format!("not a message: {}", within_line(&error)))?;
    if let Some(key) = line.key {
        envelope.key = Key::parse(&key).map_err(|error| error.to_string())?.or(envelope.key);
    }
    envelope.id = line.id.filter(|id| !id.is_empty()).map(Into::into);
    if let Some(delay) = line.delay {
        let text =
            delay.as_str().ok_or_else(|| format!("`delay` is {delay}: write a text with a unit, such as \"30s\""))?;
        envelope.delay = Some(delays::parse(text).map_err(|error| format!("`delay`: {error}"))?);
    }
    let headers = match line.headers {
        LineHeaders::Pairs(pairs) => pairs,
        LineHeaders::Names(names) => names.into_iter().collect(),
    };
    envelope.headers.extend(headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)));
    let body = match (line.body, line.body_base64) {
        (None, None) => Bytes::new(),
        (Some(body), None) => match serde_json::from_str::<String>(body.get()) {
            Ok(text) => text.into(),
            Err(_) => Bytes::copy_from_slice(body.get().as_bytes()),
        },
        (None, Some(encoded)) => {
            BASE64_STANDARD.decode(encoded).map_err(|error| format!("`body_base64`: {error}"))?.into()
        }
        (Some(_), Some(_)) => return Err("it has both `body` and `body_base64`".into()),
    };
    Ok((envelope, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_not_said_to_be_the_first() {
        let error = serde_json::from_str::<LineMessage<'_>>("{\"boddy\":1}").err().unwrap();
        let words = within_line(&error);
        assert!(words.starts_with("unknown field `boddy`") && words.ends_with(" at column 8"), "{words}");
    }
}
