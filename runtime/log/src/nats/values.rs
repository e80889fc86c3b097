//! State of keys in the stream of state: each entry of a key is a subject of its own, whose last message is its value and
//! the sequence of the commit that wrote it.

use super::server::{Server, Stored};
use crate::error::LogError;
use crate::frame::{FrameError, Reader, Writer, read_key};
use crate::replicated::engine::{PublishError, Value, ValueSize};
use crate::replicated::unreadable;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sluicebox_core::clock;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Key;
use std::collections::HashMap;
use std::time::Duration;

/// Values written at once.
const TOGETHER_MAX: usize = 128;
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

fn encode(value: &Value) -> Bytes {
    let Value { version, key, entry, value } = value;
    let mut writer = Writer::default();
    writer.byte(1);
    writer.number(*version);
    writer.text(key.as_str());
    writer.text(entry);
    writer.option(value.as_ref(), |writer, value| writer.bytes(value));
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

/// All values of these keys, by someone who has at least the stream's messages up to `place`.
pub(super) async fn of_keys(
    server: &Server,
    handler: &HandlerName,
    keys: &[Key],
    place: u64,
) -> Result<Vec<Value>, LogError> {
    let subjects = keys.iter().map(|key| server.names.values(handler, key)).collect();
    let found = last_of(server, subjects, place).await?;
    found.into_iter().map(|found| decode(found.payload).map_err(unreadable)).collect()
}

/// The last message of each subject, by someone who has at least the stream's messages up to `needed`.
async fn last_of(server: &Server, subjects: Vec<String>, needed: u64) -> Result<Vec<Stored>, LogError> {
    let (stream, always) = (server.names.state_stream(), server.names.always());
    let mut found = vec![];
    let mut behind = 0;
    // Halved where more entries fit than the server answers with.
    let mut asked = vec![subjects];
    while let Some(mut subjects) = asked.pop() {
        subjects.push(always.clone());
        let question = serde_json::json!({ "multi_last": subjects, "batch": 1024 }).to_string();
        let many = server.get_many(&stream, &question).await?;
        subjects.pop();
        if many.too_many && subjects.len() > 1 {
            let (first, second) = subjects.split_at(subjects.len() / 2);
            asked.extend([first.to_vec(), second.to_vec()]);
        } else if many.too_many {
            found.extend(each_of(server, &subjects).await?);
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
async fn each_of(server: &Server, subjects: &[String]) -> Result<Vec<Stored>, LogError> {
    let mut found = vec![];
    for subject in subjects {
        let mut sequence = 1;
        loop {
            let question = serde_json::json!({ "seq": sequence, "next_by_subj": subject, "batch": 1024 }).to_string();
            let many = server.get_many(&server.names.state_stream(), &question).await?;
            let Some(last) = many.entries.last() else { break };
            sequence = last.sequence + 1;
            found.extend(many.entries);
        }
    }
    Ok(found)
}

/// Writes each value unless a newer one is there; the sequence at which the last of these, or those, is.
pub(super) async fn write(
    server: &Server,
    values: &[(HandlerName, Value)],
    in_hand_since: Duration,
) -> Result<u64, LogError> {
    let subjects: Vec<String> =
        values.iter().map(|(handler, value)| server.names.value(handler, &value.key, &value.entry)).collect();
    let there = last_of(server, subjects.clone(), 0).await?;
    let there: HashMap<String, Stored> = there.into_iter().map(|found| (found.subject.clone(), found)).collect();
    // After that look: what was deleted meanwhile, and forgotten, is not there.
    if clock::since_boot().saturating_sub(in_hand_since) > IN_HAND_MAX {
        return Err(LogError::Unavailable { reason: "writing state down took too long".into() });
    }
    let mut writes = vec![];
    for ((_, value), subject) in values.iter().zip(subjects) {
        let there = there.get(&subject).cloned();
        writes.push(write_down(server, subject, there, value));
    }
    let sequences: Vec<u64> = stream::iter(writes).buffer_unordered(TOGETHER_MAX).try_collect().await?;
    Ok(sequences.into_iter().max().unwrap_or(0))
}

/// Writes a value unless a newer one is there; the sequence in the stream of state at which it, or that, is.
async fn write_down(
    server: &Server,
    subject: String,
    mut there: Option<Stored>,
    value: &Value,
) -> Result<u64, LogError> {
    let payload = encode(value);
    let lives = value.value.is_none().then_some(DELETED);
    for _ in 0..TRIES {
        let sequence = match there {
            Some(found) => {
                if decode(found.payload).map_err(unreadable)?.version >= value.version {
                    return Ok(found.sequence);
                }
                found.sequence
            }
            None => 0,
        };
        match server.publish_for(subject.clone(), payload.clone(), Some(sequence), lives).await {
            Ok(sequence) => return Ok(sequence),
            // What was looked at is not the last one, or another host was faster.
            Err(PublishError::Stale) => there = server.last(&server.state, &subject).await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(LogError::Unavailable { reason: format!("others write {subject} down all the time") })
}

/// The sizes of all values of a handler.
pub(super) async fn sizes(
    server: &Server,
    handler: &HandlerName,
    take: &mut (dyn FnMut(ValueSize) + Send),
) -> Result<(), LogError> {
    let name = server.names.state_stream();
    let subjects = server.names.all_values(handler);
    let mut sequence = 1;
    loop {
        let question = serde_json::json!({
            "seq": sequence, "next_by_subj": subjects, "batch": 1024, "max_bytes": SCAN_BYTES
        });
        let many = server.get_many(&name, &question.to_string()).await?;
        let Some(last) = many.entries.last() else { return Ok(()) };
        sequence = last.sequence + 1;
        for stored in many.entries {
            let Value { version, key, entry, value } = decode(stored.payload).map_err(unreadable)?;
            take(ValueSize { version, key, entry, bytes: value.map(|value| value.len() as u64) });
        }
    }
}
