//! Snapshots: all that the entries up to a place add up to, kept by the engine, so that a host that starts reads only what
//! came since, and so that older entries can go.

use super::engine::Engine;
use super::entry::{read_record, read_routings, write_record};
use super::replica::{Imported, ImportedEntry, Indexed, KeptKeys, Latest, Replica, Shard};
use super::shared::{Shared, unreadable};
use crate::error::LogError;
use crate::frame::{FrameError, Reader, Writer, read_key, read_letter, read_shard, write_letter, write_shard};
use crate::routings;
use bytes::Bytes;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{LogId, Term};
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Offset;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The first one said nothing of the keys that the engine has state of.
const VERSION: u8 = 2;
/// Of a log that was brought along from another place.
const VERSION_OF_IMPORTED: u8 = 3;

/// Begins to take one when enough came since the last.
pub(super) fn take_when_due<E: Engine>(shared: &Arc<Shared<E>>) {
    if shared.since_snapshot.load(Ordering::Relaxed) < shared.bounds.snapshot_bytes {
        return;
    }
    let Ok(one) = shared.housekeeping.clone().try_lock_owned() else { return };
    let shared = shared.clone();
    tokio::spawn(async move {
        let _one = one;
        if let Err(error) = take(&shared).await {
            tracing::warn!(%error, "a snapshot is taken later");
        }
    });
}

/// Writes a snapshot of what is applied now, unless a newer one is there.
pub(super) async fn take<E: Engine>(shared: &Shared<E>) -> Result<(), LogError> {
    // What is in it is shared with this copy until it changes: whoever applies entries waits for no more than that.
    let replica = shared.replica().clone();
    let sequence = replica.applied;
    shared.since_snapshot.store(0, Ordering::Relaxed);
    let encoded = tokio::task::spawn_blocking(move || encode(&replica)).await;
    let encoded = encoded.map_err(|error| LogError::Unavailable { reason: format!("a snapshot failed: {error}") })?;
    let newest = shared.engine.put_snapshot(sequence, encoded).await?;
    shared.snapshot_at.fetch_max(newest, Ordering::Relaxed);
    Ok(())
}

/// The newest snapshot, or nothing where there is none.
pub(super) async fn newest<E: Engine>(engine: &E) -> Result<Replica, LogError> {
    match engine.newest_snapshot().await? {
        Some(snapshot) => decode(snapshot).map_err(unreadable),
        None => Ok(Replica::default()),
    }
}

fn encode(replica: &Replica) -> Bytes {
    let mut writer = Writer::default();
    let imported = &replica.imported;
    writer.byte(if imported.begun > 0 { VERSION_OF_IMPORTED } else { VERSION });
    writer.wide(replica.id.unwrap_or_default().0);
    let numbers = [replica.applied, replica.end.0, replica.trimmed.0, replica.state_sequence];
    numbers.into_iter().for_each(|number| writer.number(number));
    writer.count(replica.shards.len());
    for (id, shard) in &replica.shards {
        write_shard(&mut writer, id);
        writer.number(shard.record.term.0);
        writer.number(shard.last);
        write_record(&mut writer, &shard.record.record());
    }
    writer.count(replica.dead.len());
    for (handler, dead) in &replica.dead {
        writer.text(handler.as_str());
        writer.count(dead.letters().len());
        for (number, indexed) in dead.letters() {
            writer.number(*number);
            writer.count(indexed.bytes);
            write_letter(&mut writer, &indexed.letter);
        }
    }
    writer.number(replica.routings.version);
    writer.text(&routings::encode(&replica.routings.routings));
    writer.count(replica.ends.len());
    for (handler, ends) in &replica.ends {
        writer.text(handler.as_str());
        writer.list(ends.iter(), |writer, end| writer.number(*end));
    }
    writer.list(replica.trims.iter(), |writer, (upto, gone)| {
        writer.number(upto.0);
        writer.number(*gone);
    });
    writer.count(replica.written.forgotten().len());
    for (handler, at) in replica.written.forgotten() {
        writer.text(handler.as_str());
        writer.number(*at);
    }
    writer.count(replica.written.all().count());
    for (handler, key, entry, latest) in replica.written.all() {
        writer.text(handler.as_str());
        writer.text(key.as_str());
        writer.text(entry);
        writer.number(latest.version);
        writer.option(latest.value.as_ref(), |writer, value| writer.bytes(value));
    }
    for pairs in [replica.parts.first.iter().map(|(at, first)| (*at, *first)).collect::<Vec<_>>(), {
        replica.parts.loose.iter().map(|(at, time)| (*at, time.0)).collect()
    }] {
        writer.list(pairs.iter(), |writer, (first, second)| {
            writer.number(*first);
            writer.number(*second);
        });
    }
    writer.option(replica.written.kept().parts(), |writer, parts| {
        let parts: Vec<_> = parts.collect();
        writer.list(parts.iter(), |writer, (keys, bits)| {
            writer.count(*keys);
            writer.bytes(bits);
        });
    });
    if imported.begun > 0 {
        let Imported { begun, done, after, gone, upto, shift, entries } = imported;
        [*begun, *done, after.0, *gone, *upto, *shift].into_iter().for_each(|number| writer.number(number));
        writer.list(entries.iter(), |writer, ImportedEntry { first, time, sequence }| {
            [first.0, time.0, *sequence].into_iter().for_each(|number| writer.number(number));
        });
    }
    writer.finish()
}

fn decode(bytes: Bytes) -> Result<Replica, FrameError> {
    let mut reader = Reader::new(bytes);
    let reader = &mut reader;
    let version = reader.byte()?;
    if !(1..=VERSION_OF_IMPORTED).contains(&version) {
        return Err(FrameError::Version { version });
    }
    let mut replica = Replica { id: Some(LogId(reader.wide()?)), applied: reader.number()?, ..Replica::default() };
    (replica.end, replica.trimmed) = (Offset(reader.number()?), Offset(reader.number()?));
    replica.state_sequence = reader.number()?;
    let shards = reader.list(8, |reader| {
        let (id, term, last) = (read_shard(reader)?, Term(reader.number()?), reader.number()?);
        Ok((id, Arc::new(Shard::new(term, last, read_record(reader)?))))
    })?;
    replica.shards = shards.into_iter().collect();
    for _ in 0..reader.count(2)? {
        let dead = Arc::make_mut(replica.dead.entry(read_handler(reader)?).or_default());
        for _ in 0..reader.count(8)? {
            let (number, bytes) = (reader.number()?, reader.number()?);
            let bytes = usize::try_from(bytes).map_err(|_| FrameError::Invalid("the bytes of a letter"))?;
            dead.insert(number, Indexed { letter: read_letter(reader)?, bytes });
        }
    }
    replica.routings.version = reader.number()?;
    replica.routings.routings = read_routings(reader)?;
    let ends = reader.list(2, |reader| Ok((read_handler(reader)?, reader.list(1, Reader::number)?)))?;
    replica.ends = ends.into_iter().collect();
    replica.trims = reader.list(2, |reader| Ok((Offset(reader.number()?), reader.number()?)))?.into();
    let forgotten = reader.list(2, |reader| Ok((read_handler(reader)?, reader.number()?)))?;
    let written = reader.list(5, |reader| {
        let (handler, key) = (read_handler(reader)?, read_key(reader)?);
        let entry: Arc<str> = reader.text(|text| Some(text.into()))?;
        let version = reader.number()?;
        let value = reader.option(|reader| reader.bytes().map(|value| Bytes::copy_from_slice(&value)))?;
        Ok((handler, key, entry, Latest { version, value }))
    })?;
    replica.parts.first = reader.list(2, |reader| Ok((reader.number()?, reader.number()?)))?.into_iter().collect();
    let loose = reader.list(2, |reader| Ok((reader.number()?, Timestamp(reader.number()?))))?;
    replica.parts.loose = loose.into_iter().collect();
    let kept = match version {
        1 => KeptKeys::unknown(),
        _ => read_kept_keys(reader)?,
    };
    replica.written.restore(forgotten.into_iter().collect::<HashMap<_, _>>(), written, kept);
    if version == VERSION_OF_IMPORTED {
        replica.imported = read_imported(reader)?;
    }
    reader.end()?;
    Ok(replica)
}

fn read_imported(reader: &mut Reader) -> Result<Imported, FrameError> {
    Ok(Imported {
        begun: reader.number()?,
        done: reader.number()?,
        after: Offset(reader.number()?),
        gone: reader.number()?,
        upto: reader.number()?,
        shift: reader.number()?,
        entries: reader.list(3, |reader| {
            let (first, time) = (Offset(reader.number()?), Timestamp(reader.number()?));
            Ok(ImportedEntry { first, time, sequence: reader.number()? })
        })?,
    })
}

fn read_handler(reader: &mut Reader) -> Result<HandlerName, FrameError> {
    reader.text(|text| HandlerName::parse(text).ok())
}

fn read_kept_keys(reader: &mut Reader) -> Result<KeptKeys, FrameError> {
    let parts = reader.option(|reader| {
        reader.list(2, |reader| {
            let keys = usize::try_from(reader.number()?).map_err(|_| FrameError::Invalid("the number of keys"))?;
            Ok((keys, reader.bytes()?))
        })
    })?;
    KeptKeys::from_parts(parts).ok_or(FrameError::Invalid("the keys that have state"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_core::message::Key;

    #[test]
    fn with_a_snapshot_of_the_first_version_every_key_may_have_state() {
        let may_have_state = |snapshot: Vec<u8>| {
            let key = Key::parse("k").unwrap().unwrap();
            decode(snapshot.into()).unwrap().written.may_be_kept(&HandlerName::parse("h").unwrap(), &key)
        };
        let newest = encode(&Replica::default()).to_vec();
        assert!(!may_have_state(newest.clone()));
        // It ended before what says that there are none.
        let first = [&[1], &newest[1..newest.len() - 2]].concat();
        assert!(may_have_state(first.clone()));
        // And the next snapshot still does not know better.
        assert!(may_have_state(encode(&decode(first.into()).unwrap()).to_vec()));
    }
}
