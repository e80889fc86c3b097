//! Messages read from the engine's entries: after an offset, at offsets, and before a time.

use super::engine::{Engine, Holds, Page, Stored};
use super::entry::{self, Unpacked};
use super::replica::number;
use super::shared::{Shared, unreadable};
use crate::contract::{Batch, ReadRequest};
use crate::error::LogError;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::message::{Message, Offset};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Pages of the engine in one read, whatever they yield.
const ROUNDS_MAX: usize = 8;
/// Entries asked for first. A read that ends on its bounds throws away what is left of its page, so it begins with as many
/// as the last one took, and asks for more when they do not suffice.
const PAGE_ENTRIES_MIN: u64 = 4;
/// Entries fetched at once.
const FETCHES_MAX: usize = 32;

pub(super) async fn read<E: Engine>(shared: &Shared<E>, request: ReadRequest) -> Result<Batch, LogError> {
    let (after, upto, first, last) = {
        let replica = shared.replica();
        let (after, upto) = (request.after.max(replica.trimmed), request.upto.min(replica.end).max(request.after));
        (after, upto, replica.sequence_of(after).max(1), replica.sequence_of(upto))
    };
    let mut batch = Batch { messages: vec![], upto };
    let mut bytes = 0;
    let mut sequence = first;
    let mut page_entries = shared.page_entries.load(Ordering::Relaxed).max(PAGE_ENTRIES_MIN);
    for _ in 0..ROUNDS_MAX {
        if after >= upto || sequence > last {
            return Ok(batch);
        }
        let page = shared.engine.read(sequence, last.min(sequence.saturating_add(page_entries - 1)));
        let Page { entries, next } = page.await?;
        page_entries = page_entries.saturating_mul(2);
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
                    shared.page_entries.store(entry.sequence - first + 1, Ordering::Relaxed);
                    return Ok(batch);
                }
            }
        }
        sequence = next;
    }
    shared.page_entries.store(sequence - first, Ordering::Relaxed);
    if sequence <= last {
        batch.upto = shared.replica().last_offset(sequence - 1).clamp(request.after, upto);
    }
    Ok(batch)
}

/// The messages of an entry that count.
async fn messages<E: Engine>(shared: &Shared<E>, entry: &Stored) -> Result<Vec<Arc<Message>>, LogError> {
    if entry.holds == Holds::Part {
        return Ok(vec![]);
    }
    let opened = entry::open(&entry.payload).and_then(|(_, content)| entry::unpack(content));
    let unpacked = match opened {
        // It was passed over when it came.
        Err(error) if error.is_foreign() => return Ok(vec![]),
        unpacked => unpacked.map_err(unreadable)?,
    };
    let unpacked = match unpacked {
        Unpacked::Parts(sequences) => {
            let whole = shared.assemble(&sequences).await?;
            entry::unpack(whole).map_err(unreadable)?
        }
        unpacked => unpacked,
    };
    let replica = shared.replica();
    let imported = &replica.imported;
    let frame = match unpacked {
        Unpacked::Frame(frame) => frame,
        // Of an import that was given up nothing counts.
        Unpacked::Imported { import, messages } if import == imported.begun => return Ok(messages),
        _ => return Ok(vec![]),
    };
    let counts = |origin: &crate::frame::Origin| replica.counts(&origin.shard.handler, origin.term, entry.sequence);
    if imported.voids(entry.sequence) || !frame.origin.as_ref().is_none_or(counts) {
        return Ok(vec![]);
    }
    Ok(number(entry.sequence + imported.shift, entry.time, frame.messages))
}

pub(super) async fn fetch<E: Engine>(
    shared: &Shared<E>,
    offsets: Vec<Offset>,
) -> Result<Vec<Option<Arc<Message>>>, LogError> {
    let mut sequences: Vec<u64> = {
        let replica = shared.replica();
        let is_there = |at: &&Offset| **at > replica.trimmed && **at <= replica.end;
        offsets.iter().filter(is_there).map(|at| replica.sequence_of(*at)).collect()
    };
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
    let (applied, trimmed, end, first, imported) = {
        let replica = shared.replica();
        let first = replica.sequence_of(replica.trimmed).max(1);
        (replica.applied, replica.trimmed, replica.end, first, replica.imported.clone())
    };
    if end <= trimmed {
        return Ok(Offset::START);
    }
    let mut until = shared.engine.first_since(time).await?.unwrap_or(u64::MAX).min(applied + 1);
    if until <= imported.done {
        // The entries of what was brought along are younger than their messages.
        let Some(entry) = imported.before(time) else { return Ok(Offset::START) };
        until = entry + 1;
    }
    // Backwards, since entries without messages may lie between.
    let mut step = 32;
    while until > first {
        let from = until.saturating_sub(step).max(first);
        let (mut at, mut last) = (from, None);
        while at < until {
            let Page { entries, next } = shared.engine.read(at, until - 1).await?;
            for entry in entries {
                let mut found = messages(shared, &entry).await?;
                if entry.sequence <= imported.done {
                    found.retain(|message| message.time < time);
                }
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
