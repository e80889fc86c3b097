//! CloudEvents 1.0 over HTTP, binary and structured (<https://github.com/cloudevents/spec>, HTTP protocol binding 1.0.2).
//!
//! Either way the message's body is the event's data, and its headers are the attributes as `ce-NAME`, plus
//! `content-type` for `datacontenttype`. Its `source` and `id` together become the message's id, since an id is unique only
//! within its source, and the extension `partitionkey` its key, unless `Sluicebox-Id` or `Sluicebox-Key` say otherwise.

use super::envelope::{Envelope, text};
use super::error::ApiError;
use crate::message::{BODY_BYTES_MAX, HEADERS_BYTES_MAX, ID_BYTES_MAX, Key, NewMessage};
use crate::topic::Topic;
use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// A structured event around the largest body: base64 makes it a third larger.
pub(super) const STRUCTURED_BYTES_MAX: usize = BODY_BYTES_MAX / 3 * 4 + HEADERS_BYTES_MAX + 16 * 1024;
const PREFIX: &str = "ce-";
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// Whether the headers are those of an event in binary mode.
pub(super) fn is_binary(headers: &HeaderMap) -> bool {
    headers.contains_key("ce-specversion")
}

/// An event whose attributes are HTTP headers.
pub(super) fn binary(
    topic: Topic,
    envelope: Envelope,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<NewMessage, ApiError> {
    let mut attributes = BTreeMap::new();
    for (name, value) in headers {
        if let Some(attribute) = name.as_str().strip_prefix(PREFIX) {
            let encoded = text(name.as_str(), value)?;
            let decoded = percent_decode_str(encoded).decode_utf8();
            let decoded =
                decoded.map_err(|_| ApiError::bad_request(format!("the header `{name}` is not UTF-8 when decoded")))?;
            attributes.insert(attribute.to_owned(), decoded.into_owned());
        }
    }
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| text("content-type", value)).transpose()?;
    message(topic, envelope, attributes, content_type, body)
}

/// An event that is one JSON object.
pub(super) fn structured(topic: Topic, envelope: Envelope, body: &Bytes) -> Result<NewMessage, ApiError> {
    let bad = |reason: String| ApiError::bad_request(format!("this is not a CloudEvent: {reason}"));
    // Data stays as it was written: numbers that fit no float, the order of names, spaces.
    let mut fields: BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    let data = fields.remove("data");
    let data_base64 = fields.remove("data_base64");
    let mut attributes = BTreeMap::new();
    for (name, value) in fields {
        let value = match serde_json::from_str(value.get()).map_err(|error| bad(error.to_string()))? {
            Value::String(text) => text,
            value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
            Value::Null => continue,
            Value::Array(_) | Value::Object(_) => return Err(bad(format!("attribute `{name}` is not a simple value"))),
        };
        attributes.insert(name, value);
    }
    let content_type = attributes.remove("datacontenttype").unwrap_or_else(|| "application/json".into());
    let body = match (data, data_base64) {
        (None, None) => Bytes::new(),
        (Some(data), None) => match (is_json(&content_type), serde_json::from_str::<String>(data.get())) {
            (false, Ok(text)) => text.into(),
            _ => Bytes::copy_from_slice(data.get().as_bytes()),
        },
        (None, Some(encoded)) => {
            let encoded: String = serde_json::from_str(encoded.get()).map_err(|error| bad(error.to_string()))?;
            BASE64_STANDARD.decode(encoded).map_err(|error| bad(format!("`data_base64`: {error}")))?.into()
        }
        (Some(_), Some(_)) => return Err(bad("it has both `data` and `data_base64`".into())),
    };
    message(topic, envelope, attributes, Some(&content_type), body)
}

fn message(
    topic: Topic,
    mut envelope: Envelope,
    attributes: BTreeMap<String, String>,
    content_type: Option<&str>,
    body: Bytes,
) -> Result<NewMessage, ApiError> {
    for name in REQUIRED {
        if attributes.get(name).is_none_or(String::is_empty) {
            return Err(ApiError::bad_request(format!("this is not a CloudEvent: `{name}` is missing or empty")));
        }
    }
    if let Some(version) = attributes.get("specversion").filter(|version| *version != "1.0") {
        let shown: String = version.chars().take(20).collect();
        return Err(ApiError::bad_request(format!("CloudEvents {shown} is not taken, only 1.0")));
    }
    if envelope.id.is_none() {
        let attribute = |name| attributes.get(name).map(String::as_str).unwrap_or_default();
        envelope.id = Some(identity(attribute("source"), attribute("id")).into());
    }
    if envelope.key.is_none()
        && let Some(key) = attributes.get("partitionkey")
    {
        envelope.key = Key::parse(key)?;
    }
    if let Some(content_type) = content_type {
        envelope.headers.push(("content-type".into(), content_type.into()));
    }
    envelope.headers.extend(attributes.into_iter().map(|(name, value)| (format!("{PREFIX}{name}"), value)));
    Ok(envelope.message(topic, body)?)
}

/// What no event but a resend of this one has: `SOURCE ID` as it is where that is an id and can be taken apart (a source
/// that keeps to the specification has no space), else a hash of both.
fn identity(source: &str, id: &str) -> String {
    let plain = format!("{source} {id}");
    if plain.len() <= ID_BYTES_MAX && !source.contains(' ') {
        return plain;
    }
    // The length says where one ends and the other begins.
    let parts = [&(source.len() as u64).to_be_bytes(), source.as_bytes(), id.as_bytes()].concat();
    // One word, so that it is not what any source and id look like in plain.
    format!("sha256:{}", Sha256::digest(parts).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.ends_with("/json") || media.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_events_share_an_identity_and_each_fits() {
        let long = "x".repeat(ID_BYTES_MAX);
        let events = [
            ("/shop", "1"),
            ("/shop", "2"),
            ("/store", "1"),
            ("/a b", "c"),
            ("/a", "b c"),
            (&long, "1"),
            (&long, "2"),
            ("1", &long),
            (&long[1..], "x1"),
        ];
        let mut found: Vec<String> = events.iter().map(|(source, id)| identity(source, id)).collect();
        assert_eq!(found[0], "/shop 1");
        assert!(found.iter().all(|identity| identity.len() <= ID_BYTES_MAX), "{found:?}");
        found.sort();
        found.dedup();
        assert_eq!(found.len(), events.len());
    }
}
