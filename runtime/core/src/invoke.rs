//! The seam between a shard and the code of a handler: in production a sandbox, in the simulation a native stub.

use crate::effects::{Effects, Entries};
use crate::handler::Digest;
use crate::message::{Key, Message};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// One try to handle one message.
#[derive(Clone, Debug)]
pub struct Call {
    pub message: Arc<Message>,
    /// The key it is handled under, which owns the state; `None` for a handler without keys.
    pub key: Option<Key>,
    /// 1 for the first try.
    pub attempt: u32,
    /// The state of the key as this run may see it; empty when the handler does not use state.
    pub state: Entries,
    /// What it may publish with a delay.
    pub delayed_room: DelayedRoom,
}

/// Room for messages that are held back until they are due: of a handler's bound, what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayedRoom {
    pub messages: usize,
    pub bytes: usize,
}

impl DelayedRoom {
    /// No bound at all.
    pub const ANY: Self = Self { messages: usize::MAX, bytes: usize::MAX };

    /// What is left beside a message of so many bytes; `None`: it does not fit.
    pub fn without(self, bytes: usize) -> Option<Self> {
        Some(Self { messages: self.messages.checked_sub(1)?, bytes: self.bytes.checked_sub(bytes)? })
    }
}

/// Why a run did not succeed. Its effects are dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The handler asked to be tried again, perhaps not before `after`.
    #[error("{reason}")]
    Retry { reason: String, after: Option<Duration> },
    /// The handler says that no retry can help.
    #[error("{reason}")]
    Reject { reason: String },
    #[error("stopped at its deadline of {limit:?}")]
    Timeout { limit: Duration },
    /// A trap, a panic in the guest, or a memory fault.
    #[error("trapped: {reason}")]
    Trap { reason: String },
    /// The guest asked for more memory than its limit and could not go on without.
    #[error("ran out of memory at its limit of {limit_bytes} bytes: {reason}")]
    Memory { limit_bytes: u64, reason: String },
    /// A message that it published with a delay found no room, and it did not go on without: as much is delayed as may
    /// be. It is no attempt.
    #[error("{reason}")]
    Full { reason: String },
    /// The host could not run it: no sandbox could be made. It is no attempt, and says nothing about the message.
    #[error("the host could not run it: {reason}")]
    Host { reason: String },
}

impl Failure {
    /// The kind of the failure as metrics and dead letters name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::Retry { .. } => "retry",
            Failure::Reject { .. } => "reject",
            Failure::Timeout { .. } => "timeout",
            Failure::Trap { .. } => "trap",
            Failure::Memory { .. } => "memory",
            Failure::Full { .. } => "full",
            Failure::Host { .. } => "host",
        }
    }
}

/// Runs the current version of one handler. Shared by all shards of the handler.
pub trait Invoke: Send + Sync + 'static {
    /// Runs the handler once. Deadline and limits are the implementation's: the run ends within the deadline, which begins
    /// when there is room for it.
    /// Dropping the future drops the sandbox.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Effects, Failure>>;

    /// Whether the handler can see state at all; when not, none is loaded.
    fn uses_state(&self) -> bool;

    /// The module in force; `None` for native code.
    fn digest(&self) -> Option<Digest>;
}
