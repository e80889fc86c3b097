//! What a handler can ask for while it handles one message.

use crate::errors::{CountError, StateError};
use crate::host::Host;
use crate::message::Message;
use crate::publish::Publish;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The message being handled and everything that may be done about it.
///
/// Publishing, state and counters are staged: they happen when the handler returns `Ok`, all together, or not at all.
/// State is that of the message's key, and a run reads its own writes.
pub struct Context {
    message: Message,
    pub(crate) host: Host,
}

impl Context {
    pub(crate) fn new(message: Message, host: Host) -> Self {
        Self { message, host }
    }

    pub fn message(&self) -> &Message {
        &self.message
    }

    pub fn topic(&self) -> &str {
        &self.message.topic
    }

    /// The key the message is handled under, which owns the state; `None` for a handler without keys.
    pub fn key(&self) -> Option<&str> {
        self.message.key.as_deref()
    }

    pub fn id(&self) -> Option<&str> {
        self.message.id.as_deref()
    }

    /// 1 for the first try.
    pub fn attempt(&self) -> u32 {
        self.message.attempt
    }

    /// Reads a state entry written by [`set_state`](Self::set_state); `None` when there is none.
    pub fn state<T: DeserializeOwned>(&self, entry: &str) -> Result<Option<T>, StateError> {
        let Some(value) = self.state_bytes(entry)? else { return Ok(None) };
        serde_json::from_slice(&value)
            .map(Some)
            .map_err(|error| StateError::Decode { entry: entry.to_owned(), reason: error.to_string() })
    }

    /// Writes a state entry as JSON.
    pub fn set_state<T: Serialize + ?Sized>(&self, entry: &str, value: &T) -> Result<(), StateError> {
        let value = serde_json::to_vec(value)
            .map_err(|error| StateError::Encode { entry: entry.to_owned(), reason: error.to_string() })?;
        self.set_state_bytes(entry, &value)
    }

    /// Removes a state entry if it is there.
    pub fn delete_state(&self, entry: &str) -> Result<(), StateError> {
        self.host.delete(entry)
    }

    /// Reads a state entry as it is stored.
    pub fn state_bytes(&self, entry: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.host.get(entry)
    }

    /// Writes a state entry as it is.
    pub fn set_state_bytes(&self, entry: &str, value: &[u8]) -> Result<(), StateError> {
        self.host.set(entry, value)
    }

    /// The names of the key's state entries, ascending.
    pub fn state_names(&self) -> Result<Vec<String>, StateError> {
        self.host.names()
    }

    /// Begins a message to publish; `.json(…)`, `.text(…)` or `.bytes(…)` stages it.
    pub fn publish(&self, topic: impl Into<String>) -> Publish<'_> {
        Publish::new(self, topic.into())
    }

    /// Adds to a counter, which the host's metrics show as
    /// `sluicebox_guest_count_total{handler="…",name="…"}`. Like all metrics it begins at 0 when the host starts.
    pub fn count(&self, name: &str, by: u64) -> Result<(), CountError> {
        self.host.count(name, by)
    }

    /// The value of a setting in the handler's `config` table.
    pub fn config(&self, name: &str) -> Option<String> {
        self.host.config(name)
    }
}
