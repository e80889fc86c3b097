//! The log's stream, read in its order by a consumer that acknowledges nothing.

use super::server::{Server, millis};
use crate::error::LogError;
use crate::replicated::engine::{self, Stored};
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::message::Message as Delivered;
use futures_util::{FutureExt as _, StreamExt as _};
use std::time::Duration;
use tokio::sync::watch;

/// Most entries that come together. Only those that are there already: nobody waits for more.
const TOGETHER_MAX: usize = 256;

/// A server that gives its place as the leader up answers nothing; whoever leads then is asked again.
const MADE: Duration = Duration::from_secs(3);

pub struct Following {
    server: Server,
    delivered: pull::Ordered,
    /// Changes with each connection that is made.
    connections: watch::Receiver<u64>,
    /// Came after entries, and is told after them.
    failed: Option<LogError>,
}

impl Following {
    pub(super) async fn begin(server: &Server, start_sequence: u64) -> Result<Self, LogError> {
        let unavailable = |reason: String| LogError::Unavailable { reason };
        let mut connections = server.connections.clone();
        connections.mark_unchanged();
        let policy = DeliverPolicy::ByStartSequence { start_sequence };
        let config = pull::OrderedConfig { deliver_policy: policy, ..pull::OrderedConfig::default() };
        let consumer = tokio::time::timeout(MADE, server.log.create_consumer(config)).await;
        let consumer = consumer.map_err(|_| unavailable("no server made a consumer".into()))?;
        let consumer = consumer.map_err(|error| unavailable(error.to_string()))?;
        let delivered = consumer.messages().await.map_err(|error| unavailable(error.to_string()))?;
        Ok(Self { server: server.clone(), delivered, connections, failed: None })
    }

    fn entry(&self, message: &Delivered) -> Result<Stored, LogError> {
        let info = message.info().map_err(|error| LogError::Unavailable { reason: error.to_string() })?;
        let (sequence, time) = (info.stream_sequence, millis(info.published));
        let holds = self.server.holds(message.subject.as_str());
        Ok(Stored { sequence, holds, time, payload: message.payload.clone() })
    }
}

impl engine::Following for Following {
    async fn next(&mut self) -> Result<Option<Vec<Stored>>, LogError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut next = tokio::select! {
            // Safe to cancel, both: what was not taken stays where it is.
            next = self.delivered.next() => next,
            // The server may have forgotten the consumer, which shows by itself only after a while.
            _ = self.connections.changed() => return Ok(None),
        };
        if next.is_none() {
            return Err(LogError::Unavailable { reason: "the consumer ended".into() });
        }
        let mut entries = vec![];
        while let Some(message) = next.take() {
            let message = message.map_err(|error| LogError::Unavailable { reason: error.to_string() });
            match message.and_then(|message| self.entry(&message)) {
                Ok(entry) => entries.push(entry),
                Err(error) if entries.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
            if entries.len() < TOGETHER_MAX {
                next = self.delivered.next().now_or_never().flatten();
            }
        }
        Ok(Some(entries))
    }
}
