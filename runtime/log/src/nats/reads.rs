//! Messages read from the log's stream: after an offset, at offsets, and before a time.

use super::entry::{self, Unpacked};
use super::replica::number;
use super::server::Stored;
use super::shared::{Shared, unreadable};
use crate::contract::{Batch, ReadRequest};
use crate::error::LogError;
use crate::frame::Place;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::message::{Message, Offset};
use std::collections::HashMap;
use std::sync::Arc;

/// Entries and bytes asked for at once.
const ENTRIES_MAX: u64 = 512;
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Rounds of these in one read, whatever they yield.
const ROUNDS_MAX: usize = 8;
/// Entries fetched at once.
const FETCHES_MAX: usize = 32;
/// The latest time that a server understands: the end of the year 9999.
const TIME_MAX: Timestamp = Timestamp(253_402_300_799_000);

pub(super) async fn read(shared: &Shared, request: ReadRequest) -> Result<Batch, LogError> {
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
        let (entries, next) = entries(shared, sequence, last).await?;
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

/// Entries from this sequence on, as many as come at once, and where to go on; beyond `last` when there is no more.
async fn entries(shared: &Shared, from: u64, last: u64) -> Result<(Vec<Stored>, u64), LogError> {
    let name = shared.server.names.log_stream();
    let batch = ENTRIES_MAX.min(last - from + 1);
    let question = format!(r#"{{"seq":{from},"batch":{batch},"max_bytes":{BYTES_MAX}}}"#);
    let found = shared.server.get_many(&name, &question).await?;
    if let Some(next) = found.entries.last().map(|end| end.sequence + 1) {
        let mut entries = found.entries;
        entries.retain(|entry| entry.sequence <= last);
        return Ok((entries, next));
    }
    // Whoever answered may not have it yet, where the stream has more than one copy: the leader knows.
    match shared.server.get(&shared.server.log, from).await? {
        Some(entry) => Ok((vec![entry], from + 1)),
        None => {
            let (first, _) = shared.server.ends(&shared.server.log).await?;
            Ok((vec![], first.max(from + 1)))
        }
    }
}

/// The messages of an entry that count.
async fn messages(shared: &Shared, entry: &Stored) -> Result<Vec<Arc<Message>>, LogError> {
    let names = &shared.server.names;
    if entry.subject == names.part() || entry.subject == names.control() {
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
    let Unpacked::Frame(frame) = unpacked else { return Ok(vec![]) };
    let counts =
        |origin: &crate::frame::Origin| shared.replica().counts(&origin.shard.handler, origin.term, entry.sequence);
    if !frame.origin.as_ref().is_none_or(counts) {
        return Ok(vec![]);
    }
    Ok(number(entry.sequence, entry.time, frame.messages))
}

pub(super) async fn fetch(shared: &Shared, offsets: Vec<Offset>) -> Result<Vec<Option<Arc<Message>>>, LogError> {
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
        let Some(entry) = shared.server.get(&shared.server.log, sequence).await? else { return Ok(vec![]) };
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
pub(super) async fn offset_before(shared: &Shared, time: Timestamp) -> Result<Offset, LogError> {
    let (applied, trimmed, end) = {
        let replica = shared.replica();
        (replica.applied, replica.trimmed, replica.end)
    };
    if end <= trimmed {
        return Ok(Offset::START);
    }
    let mut until = applied + 1;
    if time < TIME_MAX {
        let question = format!(r#"{{"start_time":"{time}","batch":1}}"#);
        let found = shared.server.get_many(&shared.server.names.log_stream(), &question).await?;
        until = found.entries.first().map_or(until, |entry| entry.sequence.min(until));
    }
    let first = Place::of(trimmed).sequence.max(1);
    // Backwards, since entries without messages may lie between.
    let mut step = 32;
    while until > first {
        let from = until.saturating_sub(step).max(first);
        let (mut at, mut last) = (from, None);
        while at < until {
            let (entries, next) = entries(shared, at, until - 1).await?;
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
