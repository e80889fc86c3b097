//! The one task that reads the log's stream in order: it applies every entry, announces the messages to the tails, and tells
//! whoever waits for an entry what came of it.

use super::entry::{self, Entry, Nonce};
use super::server::millis;
use super::shared::{Shared, unreadable};
use super::{snapshot, state};
use crate::contract::Batch;
use crate::error::LogError;
use crate::frame::FrameError;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::message::Message as Delivered;
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use sluicebox_core::clock::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two tries to read on.
const AGAIN: Duration = Duration::from_millis(500);
/// Most entries that are announced together. Only those that are there already: nobody waits for more.
const TOGETHER_MAX: usize = 256;

/// Follows until the log is dropped or cannot go on.
pub(super) async fn follow(shared: Arc<Shared>) {
    loop {
        match read_on(&shared).await {
            Ok(()) => continue,
            Err(error @ LogError::Refused { .. }) => return shared.fail(error.to_string()),
            Err(error) => tracing::warn!(%error, "the log is read on in a moment"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn read_on(shared: &Arc<Shared>) -> Result<(), LogError> {
    let unavailable = |reason: String| LogError::Unavailable { reason };
    let mut connections = shared.server.connections.clone();
    connections.mark_unchanged();
    let start_sequence = shared.replica().applied + 1;
    let policy = DeliverPolicy::ByStartSequence { start_sequence };
    let config = pull::OrderedConfig { deliver_policy: policy, ..pull::OrderedConfig::default() };
    let consumer = shared.server.log.create_consumer(config).await.map_err(|error| unavailable(error.to_string()))?;
    let mut delivered = consumer.messages().await.map_err(|error| unavailable(error.to_string()))?;
    loop {
        let mut next = tokio::select! {
            // Safe to cancel, both: what was not taken stays where it is.
            next = delivered.next() => next,
            // The server may have forgotten the consumer, which shows by itself only after a while.
            _ = connections.changed() => return Ok(()),
            () = shared.stalled.notified() => return Ok(()),
        };
        if next.is_none() {
            return Err(unavailable("the consumer ended".into()));
        }
        let mut batch = Batch::default();
        let mut answers = vec![];
        let mut failed = None;
        let mut together = 0;
        while let Some(message) = next.take() {
            let applied = match message.map_err(|error| unavailable(error.to_string())) {
                Ok(message) => apply(shared, &message, &mut batch).await,
                Err(error) => Err(error),
            };
            match applied {
                Ok(answer) => answers.extend(answer),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            together += 1;
            if together < TOGETHER_MAX {
                next = ready(&mut delivered);
            }
        }
        if let Some(last) = batch.messages.last() {
            batch.upto = last.offset;
            shared.live.announce(batch);
        }
        shared.applied.send_replace(shared.replica().applied);
        for (waiting, outcome) in answers {
            // Whoever asked may be gone.
            let _ = waiting.send(outcome);
        }
        failed.map_or(Ok(()), Err)?;
        state::flush_when_due(shared);
        snapshot::take_when_due(shared);
    }
}

fn ready<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    stream.next().now_or_never().flatten()
}

fn read_entry(payload: &Bytes) -> Result<(Nonce, Entry), FrameError> {
    let (nonce, content) = entry::open(payload)?;
    Ok((nonce, entry::decode(content)?))
}

type Answer = (tokio::sync::oneshot::Sender<super::replica::Outcome>, super::replica::Outcome);

async fn apply(shared: &Shared, message: &Delivered, batch: &mut Batch) -> Result<Option<Answer>, LogError> {
    let unavailable = |reason: String| LogError::Unavailable { reason };
    let info = message.info().map_err(|error| unavailable(error.to_string()))?;
    let (sequence, time): (u64, Timestamp) = (info.stream_sequence, millis(info.published));
    let next = shared.replica().applied + 1;
    if sequence < next {
        return Ok(None);
    }
    if sequence > next {
        // Entries only ever go from the front, and only those that a snapshot holds.
        return Err(LogError::Refused {
            reason: format!(
                "entries {next} to {} are gone: this host was away for too long, start it again",
                sequence - 1
            ),
        });
    }
    if message.subject.as_str() == shared.server.names.part() {
        let mut replica = shared.replica();
        replica.applied = sequence;
        replica.parts.came(sequence, time);
        return Ok(None);
    }
    let (nonce, entry) = match read_entry(&message.payload) {
        Ok(read) => read,
        // Whoever may publish here could end all hosts for ever otherwise. What a host wrote and this one cannot read is never
        // acknowledged, since its writer passes over it too.
        Err(error) if error.is_foreign() => {
            tracing::error!(
                sequence,
                subject = %message.subject,
                %error,
                "passed over an entry that no host wrote: see who else may publish below `sb.`"
            );
            shared.replica().applied = sequence;
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    let entry = match entry {
        Entry::Parts(sequences) => {
            let whole = shared.assemble(&sequences).await?;
            shared.replica().parts.joined(sequence, &sequences);
            entry::decode(whole).map_err(unreadable)?
        }
        entry => entry,
    };
    shared.since_snapshot.fetch_add(message.payload.len() as u64, Ordering::Relaxed);
    let waiting = shared.take_waiting(nonce);
    let (messages, outcome) = shared.replica().apply(sequence, time, entry, waiting.is_some());
    batch.messages.extend(messages);
    Ok(waiting.map(|waiting| (waiting, outcome)))
}
