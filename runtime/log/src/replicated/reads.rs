//! Messages read from the engine's entries: after an offset, at offsets, and before a time.

use super::engine::{Engine, Holds, Page, Stored};
use super::entry::{self, Unpacked};
use super::replica::number;
use super::shared::{Shared, unreadable};
use crate::contract::{Batch, ReadRequest};
use crate::error::LogError;
use crate::frame::Place;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::message::{Message, Offset};
use std::collections::HashMap;
use std::sync::Arc;

/// Pages of the engine in one read, whatever they yield.
const ROUNDS_MAX: usize = 8;
/// Entries fetched at once.
const FETCHES_MAX: usize = 32;

pub(super) async fn read<E: Engine>(shared: &Shared<E>, request: ReadRequest) -> Result<Batch, LogError> {
    let (end, trimmed) = {
        let replica = shared.replica();
        (replica.end, replica.trimmed)
    };
    let upto = request.upto.min(end).max(request.after);
    let mut batch = Batch { messages: vec![], upto };
    let mut bytes = 0;
    let after = request.after.max(trimmed);
    let last = Place::of(upto).sequence;
    let mut sequence = Place::of(after).sequence.max(1);
    for _ in 0..ROUNDS_MAX {
        if after >= upto || sequence > last {
            return Ok(batch);
        }
        let Page { entries, next } = shared.engine.read(sequence, last).await?;
        for entry in entries {
            for message in messages(shared, &entry).await? {
                if message.offset <= after || message.offset > upto {
                    continue;
                }
                let patterns = &request.patterns;
                if !patterns.is_empty() && !patterns.iter().any(|pattern| pattern.matches(&message.topic)) {
                    continue;
                }
                bytes += message.bytes();
                let offset = message.offset;
                batch.messages.push(message);
                if batch.messages.len() >= request.messages_max || bytes >= request.bytes_max {
                    batch.upto = offset;
                    return Ok(batch);
                }
            }
        }
        sequence = next;
    }
    if sequence <= last {
        batch.upto = Place::last_of(sequence - 1).offset().clamp(request.after, upto);
    }
    Ok(batch)
}

/// The messages of an entry that count.
async fn messages<E: Engine>(shared: &Shared<E>, entry: &Stored) -> Result<Vec<Arc<Message>>, LogError> {
    if entry.holds == Holds::Part {
        return Ok(vec![]);
    }
    let (_, content) = entry::open(&entry.payload).map_err(unreadable)?;
    let unpacked = match entry::unpack(content).map_err(unreadable)? {
        Unpacked::Parts(sequences) => {
            let whole = shared.assemble(&sequences).await?;
            entry::unpack(whole).map_err(unreadable)?
        }
        unpacked => unpacked,
    };
    let Unpacked::Frame(frame) = unpacked else { return Ok(vec![]) };
    let counts =
        |origin: &crate::frame::Origin| shared.replica().counts(&origin.shard.handler, origin.term, entry.sequence);
    if !frame.origin.as_ref().is_none_or(counts) {
        return Ok(vec![]);
    }
    Ok(number(entry.sequence, entry.time, frame.messages))
}

pub(super) async fn fetch<E: Engine>(
    shared: &Shared<E>,
    offsets: Vec<Offset>,
) -> Result<Vec<Option<Arc<Message>>>, LogError> {
    let (end, trimmed) = {
        let replica = shared.replica();
        (replica.end, replica.trimmed)
    };
    let mut sequences: Vec<u64> =
        offsets.iter().filter(|at| **at > trimmed && **at <= end).map(|at| Place::of(*at).sequence).collect();
    sequences.sort_unstable();
    sequences.dedup();
    let wanted: std::collections::HashSet<Offset> = offsets.iter().copied().collect();
    let fetched = stream::iter(sequences).map(async |sequence| {
        let Some(entry) = shared.engine.get(sequence).await? else { return Ok(vec![]) };
        let mut found = messages(shared, &entry).await?;
        found.retain(|message| wanted.contains(&message.offset));
        Ok::<_, LogError>(found)
    });
    let fetched: Vec<Vec<Arc<Message>>> = fetched.buffer_unordered(FETCHES_MAX).try_collect().await?;
    let found: HashMap<Offset, Arc<Message>> =
        fetched.into_iter().flatten().map(|message| (message.offset, message)).collect();
    Ok(offsets.iter().map(|offset| found.get(offset).cloned()).collect())
}

/// The last message older than `time`.
pub(super) async fn offset_before<E: Engine>(shared: &Shared<E>, time: Timestamp) -> Result<Offset, LogError> {
    let (applied, trimmed, end) = {
        let replica = shared.replica();
        (replica.applied, replica.trimmed, replica.end)
    };
    if end <= trimmed {
        return Ok(Offset::START);
    }
    let mut until = shared.engine.first_since(time).await?.unwrap_or(u64::MAX).min(applied + 1);
    let first = Place::of(trimmed).sequence.max(1);
    // Backwards, since entries without messages may lie between.
    let mut step = 32;
    while until > first {
        let from = until.saturating_sub(step).max(first);
        let (mut at, mut last) = (from, None);
        while at < until {
            let Page { entries, next } = shared.engine.read(at, until - 1).await?;
            for entry in entries {
                let found = messages(shared, &entry).await?;
                last = found.last().map(|message| message.offset).filter(|offset| *offset > trimmed).or(last);
            }
            at = next;
        }
        if let Some(last) = last {
            return Ok(last);
        }
        (until, step) = (from, (step * 4).min(4096));
    }
    Ok(Offset::START)
}
