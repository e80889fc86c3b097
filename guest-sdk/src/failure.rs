//! How a handler says that it did not handle a message.

use crate::errors::{CountError, PublishError, StateError};
use std::fmt;
use std::time::Duration;

/// Why the message was not handled. Everything the run asked for is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A later try may succeed; not before `after`, or when the handler's backoff says.
    Retry { reason: String, after: Option<Duration> },
    /// No try can succeed: the message becomes a dead letter.
    Reject { reason: String },
}

impl Failure {
    /// Try again when the handler's backoff says.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::Retry { reason: reason.to_string(), after: None }
    }

    /// Try again, but not before `after` has passed.
    pub fn retry_after(reason: impl fmt::Display, after: Duration) -> Self {
        Self::Retry { reason: reason.to_string(), after: Some(after) }
    }

    /// Give the message up: it can never be handled.
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self::Reject { reason: reason.to_string() }
    }

    /// What went wrong, for people.
    pub fn reason(&self) -> &str {
        match self {
            Self::Retry { reason, .. } | Self::Reject { reason } => reason,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Failure {}

// A refused effect is a fault of the handler or of its settings, not of the message: rejecting would make dead letters
// of every message until somebody looks. A retry keeps them, and lets the host's breaker hold the rest back.
impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        Self::retry(error)
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::retry(error)
    }
}

impl From<CountError> for Failure {
    fn from(error: CountError) -> Self {
        Self::retry(error)
    }
}
