//! The spans of a message's way: publish, run, commit. Where a message bears a trace they name it, so whatever layer the
//! subscriber has can join them; what a guest writes to the diagnostics is inside its run.
//!
//! They are of level `debug`: while nobody listens to that, none is made and none of their fields is computed.

use crate::commit::ShardCommit;
use crate::handler::ShardId;
use crate::invoke::Call;
use crate::message::{NewMessage, Offset};
use crate::trace::Trace;
use tracing::Span;

/// A message is being appended.
pub fn publish(message: &NewMessage) -> Span {
    tracing::debug_span!("publish", topic = %message.topic, trace = Trace::of(&message.headers).map(display))
}

/// It was, and is durable.
pub fn published(offset: Option<Offset>) {
    tracing::debug!(offset = offset.map(|offset| offset.0), "published");
}

/// A handler runs for a message.
pub fn run(shard: &ShardId, call: &Call) -> Span {
    tracing::debug_span!(
        "run",
        %shard,
        offset = call.message.offset.0,
        attempt = call.attempt,
        trace = Trace::of(&call.message.headers).map(display)
    )
}

/// The outcomes of a shard are being written: of many messages, so of no one trace.
pub fn commit(commit: &ShardCommit) -> Span {
    tracing::debug_span!("commit", shard = %commit.shard, number = commit.number, outputs = commit.outputs.len())
}
