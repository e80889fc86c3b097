//! A shard's commit in a frame: whose it is, its outputs, and then what only the shard's record needs.

use super::Origin;
use super::message::{self, read_key, read_stored, write_stored};
use super::wire::{FrameError, Reader, Writer};
use bytes::Bytes;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{
    Control, DeadLetter, Deaths, Delayed, Head, HeadScope, KeyWrites, Mark, ShardCommit, Term,
};
use sluicebox_core::effects::{ENTRY_NAME_BYTES_MAX, StateWrite, VALUE_BYTES_MAX};
use sluicebox_core::handler::{Digest, HandlerName, ShardId};
use sluicebox_core::message::{IdHash, Offset};
use std::time::Duration;

/// What surrounds the lists of a commit, a mark with a time of today, and what surrounds texts and values of state.
const AROUND_BYTES: usize = 256;
const MARK_BYTES: usize = 16 + 6;
const WRITE_AROUND_BYTES: usize = 6;
/// The least that one of each takes, without which a length means nothing.
const HEAD_BYTES_MIN: usize = 7;
const MARK_BYTES_MIN: usize = 17;
const KEY_WRITES_BYTES_MIN: usize = 3;
const WRITE_BYTES_MIN: usize = 2;
const DELAYED_BYTES_MIN: usize = 9;
const LETTER_BYTES_MIN: usize = 20;

pub(super) fn write(writer: &mut Writer, commit: &ShardCommit) {
    let ShardCommit {
        shard,
        term,
        number,
        read,
        open_put,
        open_drop,
        marks,
        marks_since,
        marks_max,
        state,
        outputs,
        delayed_put,
        delayed_drop,
        dead,
        dead_window,
        dead_max,
        dead_drop,
        controlled,
        control,
    } = commit;
    write_shard(writer, shard);
    writer.number(term.0);
    writer.number(*number);
    message::write_list(writer, outputs);
    writer.number(read.0);
    writer.list(open_put.iter(), write_head);
    writer.list(open_drop.iter(), |writer, offset| writer.number(offset.0));
    writer.list(marks.iter(), write_mark);
    writer.number(marks_since.0);
    writer.number(*marks_max as u64);
    writer.list(state.iter(), |writer, KeyWrites { key, writes }| {
        writer.text(key.as_str());
        writer.list(writes.iter(), |writer, StateWrite { entry, value }| {
            writer.text(entry);
            writer.option(value.as_ref(), |writer, value| writer.bytes(value));
        });
    });
    writer.list(delayed_put.iter(), write_delayed);
    writer.list(delayed_drop.iter(), |writer, number| writer.number(*number));
    writer.list(dead.iter(), write_letter);
    writer.number(dead_window.as_secs());
    writer.number(dead_window.subsec_nanos().into());
    writer.number(*dead_max);
    writer.list(dead_drop.iter(), |writer, number| writer.number(*number));
    writer.number(controlled.0);
    writer.option(control.as_ref(), write_control);
}

/// Bytes that a commit takes, roughly: what is rare is not counted.
pub(super) fn bytes(commit: &ShardCommit) -> usize {
    let state = commit.state.iter().map(|KeyWrites { key, writes }| {
        let writes = writes
            .iter()
            .map(|write| WRITE_AROUND_BYTES + write.entry.len() + write.value.as_ref().map_or(0, Bytes::len));
        WRITE_AROUND_BYTES + key.as_str().len() + writes.sum::<usize>()
    });
    let outputs = commit.outputs.iter().map(message::bytes);
    AROUND_BYTES + outputs.sum::<usize>() + commit.marks.len() * MARK_BYTES + state.sum::<usize>()
}

pub(super) fn read_origin(reader: &mut Reader) -> Result<Origin, FrameError> {
    let shard = read_shard(reader)?;
    Ok(Origin { shard, term: Term(reader.number()?), number: reader.number()? })
}

pub(super) fn read(reader: &mut Reader) -> Result<ShardCommit, FrameError> {
    let Origin { shard, term, number } = read_origin(reader)?;
    // In the order in which they are written.
    Ok(ShardCommit {
        shard,
        term,
        number,
        outputs: message::read_list(reader)?,
        read: Offset(reader.number()?),
        open_put: reader.list(HEAD_BYTES_MIN, read_head)?,
        open_drop: reader.list(1, |reader| reader.number().map(Offset))?,
        marks: reader.list(MARK_BYTES_MIN, read_mark)?,
        marks_since: Timestamp(reader.number()?),
        marks_max: usize::try_from(reader.number()?).unwrap_or(usize::MAX),
        state: reader.list(KEY_WRITES_BYTES_MIN, |reader| {
            Ok(KeyWrites { key: read_key(reader)?, writes: reader.list(WRITE_BYTES_MIN, read_write)? })
        })?,
        delayed_put: reader.list(DELAYED_BYTES_MIN, read_delayed)?,
        delayed_drop: reader.list(1, Reader::number)?,
        dead: reader.list(LETTER_BYTES_MIN, read_letter)?,
        dead_window: read_duration(reader)?,
        dead_max: reader.number()?,
        dead_drop: reader.list(1, Reader::number)?,
        controlled: Offset(reader.number()?),
        control: reader.option(read_control)?,
    })
}

pub(crate) fn write_shard(writer: &mut Writer, shard: &ShardId) {
    writer.text(shard.handler.as_str());
    writer.number(shard.index.into());
}

pub(crate) fn read_shard(reader: &mut Reader) -> Result<ShardId, FrameError> {
    let handler = reader.text(|text| HandlerName::parse(text).ok())?;
    let index = u16::try_from(reader.number()?).map_err(|_| FrameError::Invalid("the index of a shard"))?;
    Ok(ShardId { handler, index })
}

pub(crate) fn write_head(writer: &mut Writer, head: &Head) {
    let Head { offset, key, attempt, due, error, digest, scope } = head;
    writer.number(offset.0);
    writer.option(key.as_ref(), |writer, key| writer.text(key.as_str()));
    writer.number((*attempt).into());
    writer.number(due.0);
    writer.text(error);
    writer.option(digest.as_ref(), |writer, digest| writer.raw(&digest.0));
    writer.byte(match scope {
        HeadScope::Lane => 0,
        HeadScope::After => 1,
        HeadScope::Message => 2,
    });
}

pub(crate) fn read_head(reader: &mut Reader) -> Result<Head, FrameError> {
    Ok(Head {
        offset: Offset(reader.number()?),
        key: reader.option(read_key)?,
        attempt: read_u32(reader)?,
        due: Timestamp(reader.number()?),
        error: reader.text(|text| Some(text.into()))?,
        digest: reader.option(|reader| reader.array().map(Digest))?,
        scope: match reader.byte()? {
            0 => HeadScope::Lane,
            1 => HeadScope::After,
            2 => HeadScope::Message,
            _ => return Err(FrameError::Invalid("the scope of a head")),
        },
    })
}

pub(crate) fn write_mark(writer: &mut Writer, mark: &Mark) {
    writer.wide(mark.id.0);
    writer.number(mark.time.0);
}

pub(crate) fn read_mark(reader: &mut Reader) -> Result<Mark, FrameError> {
    Ok(Mark { id: IdHash(reader.wide()?), time: Timestamp(reader.number()?) })
}

/// The value is copied: it stays longer than the frame.
fn read_write(reader: &mut Reader) -> Result<StateWrite, FrameError> {
    let entry = reader.text(|text| (text.len() <= ENTRY_NAME_BYTES_MAX).then(|| text.into()))?;
    let value = reader.option(|reader| {
        let value = reader.bytes()?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(FrameError::Invalid("a state value beyond the limit"));
        }
        Ok(Bytes::copy_from_slice(&value))
    })?;
    Ok(StateWrite { entry, value })
}

pub(crate) fn write_delayed(writer: &mut Writer, delayed: &Delayed) {
    writer.number(delayed.number);
    writer.number(delayed.due.0);
    message::write(writer, &delayed.message);
}

/// The body is copied: it stays longer than the frame.
pub(crate) fn read_delayed(reader: &mut Reader) -> Result<Delayed, FrameError> {
    let (number, due) = (reader.number()?, Timestamp(reader.number()?));
    let mut message = message::read(reader)?;
    message.body = Bytes::copy_from_slice(&message.body);
    Ok(Delayed { number, due, message })
}

pub(crate) fn write_letter(writer: &mut Writer, letter: &DeadLetter) {
    let DeadLetter { shard, message, key, attempts, kind, error, digest, time, identity, deaths } = letter;
    write_shard(writer, shard);
    write_stored(writer, message);
    writer.option(key.as_ref(), |writer, key| writer.text(key.as_str()));
    writer.number((*attempts).into());
    writer.text(kind);
    writer.text(error);
    writer.option(digest.as_ref(), |writer, digest| writer.raw(&digest.0));
    writer.number(time.0);
    writer.option(identity.as_ref(), |writer, identity| writer.wide(identity.0));
    write_deaths(writer, deaths);
}

pub(crate) fn read_letter(reader: &mut Reader) -> Result<DeadLetter, FrameError> {
    Ok(DeadLetter {
        shard: read_shard(reader)?,
        message: read_stored(reader)?,
        key: reader.option(read_key)?,
        attempts: read_u32(reader)?,
        kind: reader.text(|text| Some(text.to_owned()))?,
        error: reader.text(|text| Some(text.to_owned()))?,
        digest: reader.option(|reader| reader.array().map(Digest))?,
        time: Timestamp(reader.number()?),
        identity: reader.option(|reader| reader.wide().map(IdHash))?,
        deaths: read_deaths(reader)?,
    })
}

fn write_deaths(writer: &mut Writer, deaths: &Deaths) {
    writer.number(deaths.count.into());
    writer.number(deaths.first_offset.0);
    writer.number(deaths.first_time.0);
    writer.number(deaths.returns.into());
}

fn read_deaths(reader: &mut Reader) -> Result<Deaths, FrameError> {
    Ok(Deaths {
        count: read_u32(reader)?,
        first_offset: Offset(reader.number()?),
        first_time: Timestamp(reader.number()?),
        returns: read_u32(reader)?,
    })
}

pub(crate) fn write_control(writer: &mut Writer, control: &Control) {
    writer.bytes(&serde_json::to_vec(control).expect("text, numbers and lists can always be written as JSON"));
}

pub(crate) fn read_control(reader: &mut Reader) -> Result<Control, FrameError> {
    serde_json::from_slice(&reader.bytes()?).map_err(|_| FrameError::Invalid("what operators asked for"))
}

fn read_duration(reader: &mut Reader) -> Result<Duration, FrameError> {
    let (seconds, nanos) = (reader.number()?, read_u32(reader)?);
    if nanos >= 1_000_000_000 {
        return Err(FrameError::Invalid("a length of time"));
    }
    Ok(Duration::new(seconds, nanos))
}

fn read_u32(reader: &mut Reader) -> Result<u32, FrameError> {
    u32::try_from(reader.number()?).map_err(|_| FrameError::Invalid("a number that is too large"))
}
