//! Building a message to publish.

use crate::Context;
use crate::errors::PublishError;
use crate::host::Outgoing;
use serde::Serialize;
use std::time::Duration;

/// A message being built; one of `json`, `text` or `bytes` stages it.
#[must_use = "nothing is published until `.json(…)`, `.text(…)` or `.bytes(…)` is called"]
pub struct Publish<'cx> {
    cx: &'cx Context,
    outgoing: Outgoing,
}

impl<'cx> Publish<'cx> {
    pub(crate) fn new(cx: &'cx Context, topic: String) -> Self {
        Self { cx, outgoing: Outgoing { topic, ..Outgoing::default() } }
    }

    /// The message's key: what a subscriber may order and keep state by.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.outgoing.key = Some(key.into());
        self
    }

    /// The identity for dedup. Without it the host derives one that is the same at every try.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.outgoing.id = Some(id.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.outgoing.headers.push((name.into(), value.into()));
        self
    }

    /// Appends the message this long after the commit (whole milliseconds) instead of with it.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.outgoing.delay_ms = Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Stages it with a JSON payload.
    pub fn json<T: Serialize + ?Sized>(self, payload: &T) -> Result<(), PublishError> {
        let body = serde_json::to_vec(payload).map_err(|error| PublishError::Encode(error.to_string()))?;
        self.bytes(body)
    }

    /// Stages it with a text payload.
    pub fn text(self, payload: impl Into<String>) -> Result<(), PublishError> {
        self.bytes(payload.into())
    }

    /// Stages it with these bytes as payload.
    pub fn bytes(mut self, payload: impl Into<Vec<u8>>) -> Result<(), PublishError> {
        self.outgoing.body = payload.into();
        self.cx.host.publish(self.outgoing)
    }
}
