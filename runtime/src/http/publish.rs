//! `POST /v1/topics/{topic}`: one message, a CloudEvent, or many lines.

use super::body::whole;
use super::envelope::Envelope;
use super::error::ApiError;
use super::face::Face;
use super::line::LineKind;
use super::parameters::{Parameters, PathText};
use super::{cloudevents, ndjson};
use crate::message::{BODY_BYTES_MAX, Offset};
use crate::telemetry::spans;
use crate::topic::Topic;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument as _;

pub(super) async fn publish(
    State(face): State<Arc<Face>>,
    PathText(topic): PathText,
    mut parameters: Parameters,
    request: Request,
) -> Result<Response, ApiError> {
    let topic = Topic::parse_public(&topic).map_err(ApiError::bad_request)?;
    // What is said of a message stands in headers; whoever writes it here would miss it later.
    for (name, header) in [("key", "Sluicebox-Key"), ("id", "Sluicebox-Id"), ("delay", "Sluicebox-Delay")] {
        if parameters.is_given(name) {
            let error = format!("`{name}` of a message is no parameter but a header: send `{header}`");
            return Err(ApiError::bad_request(error));
        }
    }
    let lines = parameters.parsed("lines", LineKind::parse)?;
    parameters.finish()?;
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let envelope = Envelope::of(&headers)?;
    let delay = envelope.delay();
    let message = match media_type(&headers).as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            return ndjson::publish(&face, topic, envelope, lines.unwrap_or(LineKind::Body), body).await;
        }
        _ if lines.is_some() => {
            let error = "`lines` is about NDJSON: send `Content-Type: application/x-ndjson`";
            return Err(ApiError::bad_request(error));
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
    let span = spans::publish(&message);
    let append = async {
        let (message, room) = match delay {
            None => (message, None),
            Some(delay) => face.delayed(message, delay).await.map(|(message, room)| (message, Some(room)))?,
        };
        let offset = face.append(vec![message], room.into_iter().collect()).await?.first().copied();
        spans::published(offset);
        Ok::<_, ApiError>(offset)
    };
    let offset = append.instrument(span).await?;
    face.counts.appended.inc();
    let mut answer = json!({ "offset": offset.map(|offset| offset.0) });
    if let (Some(delay), Some(offset)) = (delay, offset) {
        answer["due"] = due(&face, offset, delay).await.into();
    }
    Ok(Json(answer).into_response())
}

/// When the message at this offset will appear. `None`: it is accepted, but the log does not say when it was.
async fn due(face: &Face, offset: Offset, delay: Duration) -> Option<String> {
    let taken = face.log.fetch(vec![offset]).await.ok()?.pop()??;
    Some(taken.time.after(delay).to_string())
}

/// The type of the body without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
