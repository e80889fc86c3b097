//! Why the host refused something. Each says in words what was refused and what is allowed.

use std::fmt;

/// Why a message was not staged for publishing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// Topic, key, id, headers or delay are not of the allowed form.
    Invalid(String),
    /// The handler's settings do not grant the topic.
    NotGranted(String),
    /// The message is larger than any may be.
    TooLarge(String),
    /// The run asks for more effects than one run may have.
    TooMany(String),
    /// The payload could not be written as JSON.
    Encode(String),
    /// Anything else.
    Other(String),
}

/// Why state could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateError {
    /// The host refused: no key, or a limit.
    Refused(String),
    /// The entry is not JSON of the expected type.
    Decode { entry: String, reason: String },
    /// The value could not be written as JSON.
    Encode { entry: String, reason: String },
}

/// Why an increment was not staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CountError {
    /// The name is not `[a-z][a-z0-9_]{0,62}`.
    InvalidName(String),
    /// The run counts under too many names.
    TooMany(String),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Invalid(reason)
        | Self::NotGranted(reason)
        | Self::TooLarge(reason)
        | Self::TooMany(reason)
        | Self::Encode(reason)
        | Self::Other(reason)) = self;
        write!(f, "cannot publish: {reason}")
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "state refused: {reason}"),
            Self::Decode { entry, reason } => write!(f, "state entry `{entry}` is not of the expected type: {reason}"),
            Self::Encode { entry, reason } => write!(f, "state entry `{entry}` cannot be written as JSON: {reason}"),
        }
    }
}

impl fmt::Display for CountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::InvalidName(reason) | Self::TooMany(reason)) = self;
        write!(f, "cannot count: {reason}")
    }
}

impl std::error::Error for PublishError {}
impl std::error::Error for StateError {}
impl std::error::Error for CountError {}
