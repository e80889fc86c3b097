//! Bodies of requests: bounded in size and in the time a client may take to send them.
//!
//! The timeout asks for a minimum rate, unlike that of `tower-http`, which every byte resets; and bodies have a bound on the
//! memory of all of them together.

use super::error::ApiError;
use super::face::Face;
use crate::clock;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// Most bytes of an operator's command (64 KiB): a filter with a thousand numbers fits.
const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// A client has to send as much as this, or the rest, within each body timeout (16 KiB): a byte now and then would hold
/// a connection for ever. Slower than a modem.
const RATE_BYTES_MIN: usize = 16 * 1024;

/// A body up to this (16 KiB) waits for nobody's room.
const SMALL_BYTES_MAX: usize = 16 * 1024;

/// The parts of a body as they arrive.
pub(super) struct BodyReader {
    stream: BodyDataStream,
    timeout: Duration,
    /// When the client has to be further than now.
    deadline: Instant,
    /// Received since the deadline was set.
    received_bytes: usize,
    room: Option<OwnedSemaphorePermit>,
}

impl BodyReader {
    /// A body of which at most `held_bytes` are in memory at a time; waits until there is room for them.
    pub(super) async fn new(face: &Face, body: Body, held_bytes: usize) -> Result<Self, ApiError> {
        let timeout = face.limits.body_timeout;
        let room = match held_bytes {
            // There are as many of them as connections, which is not much.
            ..=SMALL_BYTES_MAX => None,
            _ => {
                // One client alone always finds room.
                let room_kib = held_bytes.div_ceil(1024).min(face.limits.bodies_kib_max);
                let room = face.bodies_kib.clone().acquire_many_owned(u32::try_from(room_kib).unwrap_or(u32::MAX));
                match tokio::time::timeout(timeout, room).await {
                    Ok(Ok(room)) => Some(room),
                    Ok(Err(_)) | Err(_) => {
                        return Err(ApiError::unavailable("too many clients send large bodies at once: try again"));
                    }
                }
            }
        };
        let deadline = clock::instant() + timeout;
        Ok(Self { stream: body.into_data_stream(), timeout, deadline, received_bytes: 0, room })
    }

    /// The next part; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        match tokio::time::timeout_at(self.deadline.into(), self.stream.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(part))) => {
                self.received_bytes += part.len();
                if self.received_bytes >= RATE_BYTES_MIN {
                    self.reset_deadline();
                }
                Ok(Some(part))
            }
            Ok(Some(Err(error))) => Err(ApiError::bad_request(format!("the body broke off: {error}"))),
            Err(_) => {
                let error = format!(
                    "the body comes too slowly: {} bytes in {:?}, at least {RATE_BYTES_MIN} are expected",
                    self.received_bytes, self.timeout
                );
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, error))
            }
        }
    }

    /// The time that passed so far was not the client's: it starts anew.
    pub(super) fn reset_deadline(&mut self) {
        self.deadline = clock::instant() + self.timeout;
        self.received_bytes = 0;
    }
}

/// Room for a body in memory, until it is dropped.
pub(super) struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

/// The whole body, at most `bytes_max` of it.
pub(super) async fn whole(face: &Face, headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    Ok(whole_with_room(face, headers, body, bytes_max).await?.0)
}

/// As `whole`, for who keeps it for long: the room is to be held for as long.
pub(super) async fn whole_with_room(
    face: &Face,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<(Bytes, Room), ApiError> {
    let too_large = || ApiError::too_large(format!("the body is larger than {bytes_max} bytes"));
    // Refused before it is sent, where the client says how large it is.
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large());
    }
    let held_bytes = announced.map_or(bytes_max, |length| usize::try_from(length).unwrap_or(bytes_max));
    let mut parts = BodyReader::new(face, body, held_bytes).await?;
    let Some(mut whole) = parts.next().await? else { return Ok((Bytes::new(), Room { _permit: None })) };
    let mut gathered = vec![];
    while let Some(part) = parts.next().await? {
        if gathered.is_empty() {
            // As large as it will become: growing would take twice the room.
            gathered.reserve_exact(held_bytes.max(whole.len()));
            gathered.extend_from_slice(&whole);
        }
        gathered.extend_from_slice(&part);
        if gathered.len() > bytes_max {
            return Err(too_large());
        }
    }
    if !gathered.is_empty() {
        whole = gathered.into();
    }
    if whole.len() > bytes_max { Err(too_large()) } else { Ok((whole, Room { _permit: parts.room })) }
}

/// A command's body as JSON; an empty body is an empty object.
pub(super) async fn command<T: DeserializeOwned>(face: &Face, headers: &HeaderMap, body: Body) -> Result<T, ApiError> {
    let bytes = whole(face, headers, body, COMMAND_BYTES_MAX).await?;
    let text = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes[..] };
    serde_json::from_slice(text).map_err(|error| ApiError::bad_request(format!("the body cannot be read: {error}")))
}

/// Nothing here unpacks a body, so none can grow; and a message must not be stored packed without anybody knowing.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let encodings = headers.get_all(header::CONTENT_ENCODING);
    match encodings.iter().find(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        None => Ok(()),
        Some(encoding) => {
            let shown: String = String::from_utf8_lossy(encoding.as_bytes()).chars().take(100).collect();
            let error = format!("a body with Content-Encoding `{shown}` is not taken: send it as it is");
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
        }
    }
}
