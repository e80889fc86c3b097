//! `POST /v1/topics/{topic}`: one message, a CloudEvent, or many lines.

use super::body::whole;
use super::error::ApiError;
use super::parameters::PathText;
use super::routes::answer;
use super::{Face, cloudevents, ndjson};
use crate::message::{BODY_BYTES_MAX, Headers, Key, MessageError, NewMessage};
use crate::topic::Topic;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;
use std::sync::Arc;

const HEADER_PREFIX: &str = "sluicebox-header-";
/// Kept as they are: they tie a message to the trace of its publisher.
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// What the HTTP headers say about the message, or about each message.
#[derive(Clone, Debug, Default)]
pub(super) struct Envelope {
    pub(super) key: Option<Key>,
    pub(super) id: Option<Arc<str>>,
    pub(super) headers: Vec<(String, String)>,
}

impl Envelope {
    pub(super) fn message(self, topic: Topic, body: Bytes) -> Result<NewMessage, MessageError> {
        let headers = Headers::new(self.headers);
        let message = NewMessage { key: self.key, id: self.id, headers, ..NewMessage::new(topic, body) };
        message.check().map(|()| message)
    }
}

pub(super) async fn publish(
    State(face): State<Arc<Face>>,
    PathText(topic): PathText,
    request: Request,
) -> Result<Response, ApiError> {
    let topic = Topic::parse_public(&topic).map_err(ApiError::bad_request)?;
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let envelope = envelope(&headers)?;
    let message = match media_type(&headers).as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            return ndjson::publish(&face, topic, envelope, body).await;
        }
        "application/cloudevents+json" => {
            let body = whole(&face, &headers, body, cloudevents::STRUCTURED_BYTES_MAX).await?;
            cloudevents::structured(topic, envelope, &body)?
        }
        "application/cloudevents-batch+json" => {
            let error = "batches of CloudEvents are not taken: send one event a request, or NDJSON";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        }
        _ => {
            let body = whole(&face, &headers, body, BODY_BYTES_MAX).await?;
            match cloudevents::is_binary(&headers) {
                true => cloudevents::binary(topic, envelope, &headers, body)?,
                false => envelope.message(topic, body)?,
            }
        }
    };
    let offsets = face.log.append(vec![message]).await?;
    face.counts.appended.inc();
    Ok(answer(&json!({ "offset": offsets.first().map(|offset| offset.0) })))
}

/// The type of the body without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn envelope(headers: &HeaderMap) -> Result<Envelope, ApiError> {
    let mut envelope = Envelope::default();
    for (name, value) in headers {
        match name.as_str() {
            "sluicebox-key" => envelope.key = Key::parse(text(name.as_str(), value)?)?,
            "sluicebox-id" => envelope.id = Some(text(name.as_str(), value)?.into()),
            name if TRACE_HEADERS.contains(&name) => {
                envelope.headers.push((name.to_owned(), text(name, value)?.to_owned()));
            }
            name => match name.strip_prefix(HEADER_PREFIX) {
                Some("") => return Err(ApiError::bad_request("`Sluicebox-Header-` needs a name after it")),
                Some(own) => envelope.headers.push((own.to_owned(), text(name, value)?.to_owned())),
                None => {}
            },
        }
    }
    // An empty id is no id.
    envelope.id = envelope.id.filter(|id| !id.is_empty());
    Ok(envelope)
}

/// A header's value as UTF-8.
pub(super) fn text<'v>(name: &str, value: &'v HeaderValue) -> Result<&'v str, ApiError> {
    let bad = |_| ApiError::bad_request(format!("the header `{name}` is not UTF-8"));
    std::str::from_utf8(value.as_bytes()).map_err(bad)
}
