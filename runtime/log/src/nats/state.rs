//! State of keys: what commits wrote goes from memory into the stream of state now and then, and is read from both.
//!
//! Each entry of a key is a subject of its own, whose last message is its value and the sequence of the commit that wrote
//! it. Of two values the one with the higher sequence is right, so it does not matter who writes one down, how often, or when:
//! a host that was asleep meanwhile finds the newer one there and leaves it. Only once all are there does an entry of the log
//! say so, and then hosts let what they have in memory go.

use super::entry::Entry;
use super::replica::Latest;
use super::server::{PublishError, Stored};
use super::shared::{Shared, unreadable};
use crate::error::LogError;
use crate::frame::{FrameError, Reader, Writer, read_key};
use crate::inspect::{Smallest, StateKey, StateQuery};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sluicebox_core::clock;
use sluicebox_core::effects::Entries;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Key;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Keys and entries asked for, and values written, at once.
const KEYS_MAX: usize = 64;
const TOGETHER_MAX: usize = 128;
/// Above this many bytes beyond those at which it is written down, nothing more is committed until it is (256 MiB).
pub(super) const BEHIND_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A deleted entry is remembered for so long (a day), so that whoever still has an older value to write down finds the newer
/// word there; then the server lets it go. Nobody writes down what is in hand for as long as that.
const DELETED: Duration = Duration::from_secs(24 * 3600);
/// A host that wakes from a sleep after this long writes nothing down of what it had in hand.
const IN_HAND_MAX: Duration = Duration::from_secs(3600);
/// How often, and how long after the last time, a copy is asked again that is behind.
const BEHIND_MAX: usize = 1000;
const BEHIND_WAIT: Duration = Duration::from_millis(10);
/// How often a value is written that somebody else writes at the same time.
const TRIES: usize = 8;
/// Not the whole of a stream at once.
const SCAN_BYTES: u64 = 4 * 1024 * 1024;

/// Of each entry of a key, since when it is so and how large its value is; `None`: it was deleted.
type Sizes = BTreeMap<Arc<str>, (u64, Option<u64>)>;

/// The value of an entry in the stream of state.
struct Value {
    version: u64,
    key: Key,
    entry: Arc<str>,
    value: Option<Bytes>,
}

fn encode(version: u64, key: &Key, entry: &str, value: Option<&Bytes>) -> Bytes {
    let mut writer = Writer::default();
    writer.byte(1);
    writer.number(version);
    writer.text(key.as_str());
    writer.text(entry);
    writer.option(value, |writer, value| writer.bytes(value));
    writer.finish()
}

fn decode(stored: Bytes) -> Result<Value, FrameError> {
    let mut reader = Reader::new(stored);
    match reader.byte()? {
        1 => {}
        version => return Err(FrameError::Version { version }),
    }
    Ok(Value {
        version: reader.number()?,
        key: read_key(&mut reader)?,
        entry: reader.text(|text| Some(text.into()))?,
        value: reader.option(Reader::bytes)?,
    })
}

pub(super) async fn load(shared: &Shared, handler: &HandlerName, keys: Vec<Key>) -> Result<Vec<Entries>, LogError> {
    // First what is in memory: what is no longer there a moment later is in the stream by then.
    let (mut loaded, forgotten, needed) = {
        let replica = shared.replica();
        let written = |key: &Key| replica.written.of(handler, key).cloned().unwrap_or_default();
        let loaded: HashMap<Key, BTreeMap<Arc<str>, Latest>> =
            keys.iter().map(|key| (key.clone(), written(key))).collect();
        (loaded, replica.forgotten_before(handler), replica.state_sequence)
    };
    let names = &shared.server.names;
    let wanted: Vec<Key> = loaded.keys().cloned().collect();
    for keys in wanted.chunks(KEYS_MAX) {
        let subjects = keys.iter().map(|key| names.values(handler, key)).collect();
        for found in last_of(shared, subjects, needed).await? {
            let Value { version, key, entry, value } = decode(found.payload).map_err(unreadable)?;
            let Some(entries) = loaded.get_mut(&key).filter(|_| version > forgotten) else { continue };
            if entries.get(&entry).is_none_or(|latest| latest.version < version) {
                entries.insert(entry, Latest { version, value });
            }
        }
    }
    let entries = |key: &Key| -> Entries {
        let entries = loaded.get(key).into_iter().flatten();
        entries.filter_map(|(entry, latest)| Some((entry.clone(), latest.value.clone()?))).collect()
    };
    Ok(keys.iter().map(entries).collect())
}

/// The last message of each subject, by someone who has at least the stream's messages up to `needed`.
async fn last_of(shared: &Shared, subjects: Vec<String>, needed: u64) -> Result<Vec<Stored>, LogError> {
    let (stream, always) = (shared.server.names.state_stream(), shared.server.names.always());
    let mut found = vec![];
    let mut behind = 0;
    // Halved where more entries fit than the server answers with.
    let mut asked = vec![subjects];
    while let Some(mut subjects) = asked.pop() {
        subjects.push(always.clone());
        let question = serde_json::json!({ "multi_last": subjects, "batch": 1024 }).to_string();
        let many = shared.server.get_many(&stream, &question).await?;
        subjects.pop();
        if many.too_many && subjects.len() > 1 {
            let (first, second) = subjects.split_at(subjects.len() / 2);
            asked.extend([first.to_vec(), second.to_vec()]);
        } else if many.too_many {
            found.extend(each_of(shared, &subjects).await?);
        } else if many.upto.is_none_or(|upto| upto < needed) {
            // A copy that is behind. The next question may go to another one.
            behind += 1;
            if behind > BEHIND_MAX {
                return Err(LogError::Unavailable { reason: format!("the copies of stream {stream} are behind") });
            }
            tokio::time::sleep(BEHIND_WAIT).await;
            asked.push(subjects);
        } else {
            found.extend(many.entries.into_iter().filter(|found| found.subject != always));
        }
    }
    Ok(found)
}

/// The last message of each subject that fits, of one key whose entries, deleted ones included, are too many for one answer.
async fn each_of(shared: &Shared, subjects: &[String]) -> Result<Vec<Stored>, LogError> {
    let mut found = vec![];
    for subject in subjects {
        let mut sequence = 1;
        loop {
            let question = serde_json::json!({ "seq": sequence, "next_by_subj": subject, "batch": 1024 }).to_string();
            let many = shared.server.get_many(&shared.server.names.state_stream(), &question).await?;
            let Some(last) = many.entries.last() else { break };
            sequence = last.sequence + 1;
            found.extend(many.entries);
        }
    }
    Ok(found)
}

/// Begins to write state down, when there is enough of it in memory.
pub(super) fn flush_when_due(shared: &Arc<Shared>) {
    if shared.replica().written.bytes() < shared.options.flush_bytes {
        return;
    }
    let Ok(one) = shared.housekeeping.clone().try_lock_owned() else { return };
    let shared = shared.clone();
    tokio::spawn(async move {
        let _one = one;
        if let Err(error) = flush(&shared).await {
            tracing::warn!(%error, "state is written down later");
        }
    });
}

/// Writes all state that is in memory now into the stream of state.
pub(super) async fn flush(shared: &Shared) -> Result<(), LogError> {
    let (upto, written) = {
        let replica = shared.replica();
        let copy = |(handler, key, entry, latest): (&HandlerName, &Key, &Arc<str>, &Latest)| {
            (handler.clone(), key.clone(), entry.clone(), latest.clone())
        };
        (replica.applied, replica.written.all().map(copy).collect::<Vec<_>>())
    };
    if written.is_empty() {
        return Ok(());
    }
    let begun = clock::since_boot();
    let mut state_sequence = 0;
    for chunk in written.chunks(TOGETHER_MAX) {
        let subjects: Vec<String> =
            chunk.iter().map(|(handler, key, entry, _)| shared.server.names.value(handler, key, entry)).collect();
        let there = last_of(shared, subjects.clone(), 0).await?;
        let there: HashMap<String, Stored> = there.into_iter().map(|found| (found.subject.clone(), found)).collect();
        if clock::since_boot().saturating_sub(begun) > IN_HAND_MAX {
            return Err(LogError::Unavailable { reason: "writing state down took too long".into() });
        }
        let mut writes = vec![];
        for ((_, key, entry, latest), subject) in chunk.iter().zip(subjects) {
            let there = there.get(&subject).cloned();
            writes.push(write_down(shared, subject, there, key, entry, latest));
        }
        let sequences: Vec<u64> = stream::iter(writes).buffer_unordered(TOGETHER_MAX).try_collect().await?;
        state_sequence = sequences.into_iter().fold(state_sequence, u64::max);
    }
    shared.write(shared.server.names.control(), &Entry::Flushed { upto, state_sequence }, None).await?;
    Ok(())
}

/// Writes a value unless a newer one is there; the sequence in the stream of state at which it, or that, is.
async fn write_down(
    shared: &Shared,
    subject: String,
    mut there: Option<Stored>,
    key: &Key,
    entry: &str,
    latest: &Latest,
) -> Result<u64, LogError> {
    let payload = encode(latest.version, key, entry, latest.value.as_ref());
    let lives = latest.value.is_none().then_some(DELETED);
    for _ in 0..TRIES {
        let sequence = match there {
            Some(found) => {
                if decode(found.payload).map_err(unreadable)?.version >= latest.version {
                    return Ok(found.sequence);
                }
                found.sequence
            }
            None => 0,
        };
        match shared.server.publish_for(subject.clone(), payload.clone(), Some(sequence), lives).await {
            Ok(sequence) => return Ok(sequence),
            // What was looked at is not the last one, or another host was faster.
            Err(PublishError::Stale) => there = shared.server.last(&shared.server.state, &subject).await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(LogError::Unavailable { reason: format!("others write {subject} down all the time") })
}

/// Keys with state, by looking at all values of the handler.
pub(super) async fn keys(shared: &Shared, query: StateQuery) -> Result<Vec<StateKey>, LogError> {
    let StateQuery { handler, prefix, after, keys_max } = query;
    // Those of memory are looked at first, for the same reason as in a load.
    let is_wanted = |key: &Key| key.as_str().starts_with(&prefix) && after.as_ref().is_none_or(|after| key > after);
    let (mut found, forgotten) = {
        let replica = shared.replica();
        let mut found: BTreeMap<Key, Sizes> = BTreeMap::new();
        for (key, entries) in replica.written.keys(&handler).filter(|(key, _)| is_wanted(key)) {
            let sizes = entries.iter().map(|(entry, latest)| {
                (entry.clone(), (latest.version, latest.value.as_ref().map(|value| value.len() as u64)))
            });
            found.insert(key.clone(), sizes.collect());
        }
        (found, replica.forgotten_before(&handler))
    };
    // Only a key that is in memory can turn out to have nothing, so more keys than these are never needed.
    let keys_held_max = keys_max.saturating_add(found.len());
    let name = shared.server.names.state_stream();
    let subjects = shared.server.names.all_values(&handler);
    let mut sequence = 1;
    loop {
        let question = serde_json::json!({
            "seq": sequence, "next_by_subj": subjects, "batch": 1024, "max_bytes": SCAN_BYTES
        });
        let many = shared.server.get_many(&name, &question.to_string()).await?;
        let Some(last) = many.entries.last() else { break };
        sequence = last.sequence + 1;
        for stored in many.entries {
            let Value { version, key, entry, value } = decode(stored.payload).map_err(unreadable)?;
            let is_known = found.contains_key(&key);
            if version <= forgotten || !is_wanted(&key) || (value.is_none() && !is_known) {
                continue;
            }
            let entries = found.entry(key).or_default();
            if entries.get(&entry).is_none_or(|(there, _)| *there < version) {
                entries.insert(entry, (version, value.map(|value| value.len() as u64)));
            }
        }
        while found.len() > keys_held_max {
            found.pop_last();
        }
    }
    let mut first = Smallest::new(keys_max);
    for (key, entries) in &found {
        let sizes: Vec<u64> =
            entries.iter().filter_map(|(entry, (_, size))| Some(entry.len() as u64 + (*size)?)).collect();
        if !sizes.is_empty() && first.wants(key) {
            let (entries, bytes) = (sizes.len() as u64, sizes.iter().sum());
            first.add(key, StateKey { key: key.clone(), entries, bytes });
        }
    }
    Ok(first.in_order())
}
