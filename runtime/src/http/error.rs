//! What a client is told when a request fails: a status, a reason as JSON, and when to try again.

use super::named::{CheckError, UnknownName};
use crate::delays::NoDelay;
use crate::log::LogError;
use crate::message::MessageError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use std::fmt::Display;

/// A full log needs someone, or `retain`, to make room.
const RETRY_AFTER_FULL_SECONDS: u64 = 10;
const RETRY_AFTER_SECONDS: u64 = 1;

/// A failed request.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) error: String,
    retry_after_seconds: Option<u64>,
    /// What else a program wants to know.
    more: Map<String, Value>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Display) -> Self {
        Self { status, error: error.to_string(), retry_after_seconds: None, more: Map::new() }
    }

    pub(super) fn bad_request(error: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn too_large(error: impl Display) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    }

    /// The host cannot do it now.
    pub(super) fn unavailable(error: impl Display) -> Self {
        Self { retry_after_seconds: Some(RETRY_AFTER_SECONDS), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, error) }
    }

    /// Adds a field to the answer.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.into(), value.into());
        self
    }

    /// Adds fields to the answer.
    pub(super) fn with_all(mut self, more: Map<String, Value>) -> Self {
        self.more.extend(more);
        self
    }
}

impl From<MessageError> for ApiError {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::BodyTooLarge { .. }
            | MessageError::HeadersTooLarge { .. }
            | MessageError::TooManyHeaders { .. } => Self::too_large(error),
            MessageError::KeyTooLong { .. } | MessageError::IdTooLong { .. } | MessageError::EmptyId => {
                Self::bad_request(error)
            }
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Message(error) => error.into(),
            LogError::Full { .. } => {
                Self { retry_after_seconds: Some(RETRY_AFTER_FULL_SECONDS), ..Self::unavailable(error) }
            }
            LogError::Unavailable { .. } | LogError::Unknown { .. } | LogError::Fenced { .. } => {
                Self::unavailable(error)
            }
            LogError::Conflict | LogError::Refused { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }
}

impl From<NoDelay> for ApiError {
    fn from(error: NoDelay) -> Self {
        match error {
            // Somebody published too much of it; the host takes everything else.
            NoDelay::Full { .. } => Self {
                retry_after_seconds: Some(RETRY_AFTER_FULL_SECONDS),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, error)
            },
            NoDelay::NotNow { .. } => Self::unavailable(error),
        }
    }
}

impl From<UnknownName> for ApiError {
    fn from(error: UnknownName) -> Self {
        let status = if error.may_exist { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
        Self::new(status, &error).with("known", error.known)
    }
}

impl From<CheckError> for ApiError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Unknown(unknown) => unknown.into(),
            CheckError::Log(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut answer = Map::from_iter([("error".to_owned(), Value::String(self.error))]);
        answer.extend(self.more);
        let mut response = (self.status, Json(answer)).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: LogError, status: u16, retry_after: Option<&str>) {
        let response = ApiError::from(error).into_response();
        assert_eq!(response.status().as_u16(), status);
        let found = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
        assert_eq!(found, retry_after);
    }

    #[test]
    fn a_client_is_told_to_come_back_only_when_that_can_help() {
        let reason = || "for this reason".to_owned();
        check(LogError::Full { reason: reason() }, 503, Some("10"));
        check(LogError::Unavailable { reason: reason() }, 503, Some("1"));
        check(LogError::Refused { reason: reason() }, 500, None);
        check(LogError::Message(MessageError::BodyTooLarge { bytes: 1 }), 413, None);
        check(LogError::Message(MessageError::IdTooLong { bytes: 1 }), 400, None);
    }
}
