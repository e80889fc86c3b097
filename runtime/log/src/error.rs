//! Why a log did not do what was asked, told apart by what the caller does next.

use sluicebox_core::handler::ShardId;
use sluicebox_core::message::MessageError;

/// Why the log did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Out of room: nothing was written.
    #[error("the log is full: {reason}")]
    Full { reason: String },
    /// Compare and set lost.
    #[error("the routing was changed by someone else meanwhile: read it again")]
    Conflict,
    /// Another process holds it, it is of a newer format, it is not a log, …
    #[error("{reason}")]
    Refused { reason: String },
    /// Another host has taken the shard over.
    #[error("shard {shard} was taken over: its term is over")]
    Fenced { shard: ShardId },
    /// What was to be written may or may not be durable. Asking again may do it twice, unless ids are given.
    #[error("it is not known whether the log took it: {reason}")]
    Unknown { reason: String },
    /// It does not answer now, or stopped after a failed write. Nothing was written.
    #[error("the log is unavailable: {reason}")]
    Unavailable { reason: String },
}
