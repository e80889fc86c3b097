//! Messages in a frame.

use super::wire::{FrameError, Reader, Writer};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::message::{HEADERS_MAX, Headers, Key, Message, NewMessage, Offset};
use sluicebox_core::topic::Topic;
use std::sync::Arc;

/// A topic of one letter, and no more than the lengths of the rest.
const BYTES_MIN: usize = 7;
/// Of a name and a value.
const HEADER_BYTES_MIN: usize = 2;
/// Of a length, as a rule.
const LENGTH_BYTES: usize = 3;
/// The lengths of topic, key, id and body, how many headers, and single bytes.
const AROUND_BYTES: usize = 5 * LENGTH_BYTES + 3;
/// The host's own headers come on top of those that a publisher may have.
const HEADERS_READ_MAX: usize = HEADERS_MAX + 16;

pub(super) fn write_list(writer: &mut Writer, messages: &[NewMessage]) {
    writer.list(messages.iter(), write);
}

pub(super) fn read_list(reader: &mut Reader) -> Result<Vec<NewMessage>, FrameError> {
    let mut topic = None;
    reader.list(BYTES_MIN, |reader| read_after(reader, &mut topic))
}

/// Bytes that a message takes, and a few more.
pub(super) fn bytes(message: &NewMessage) -> usize {
    let NewMessage { topic, key, id, headers, body, .. } = message;
    let texts = key.as_ref().map_or(0, |key| key.as_str().len()) + id.as_ref().map_or(0, |id| id.len());
    AROUND_BYTES
        + topic.as_str().len()
        + texts
        + headers.bytes()
        + 2 * LENGTH_BYTES * headers.iter().count()
        + body.len()
}

pub(super) fn write(writer: &mut Writer, message: &NewMessage) {
    let NewMessage { topic, key, id, headers, body, hops } = message;
    write_parts(writer, topic, key.as_ref(), id.as_deref(), headers, *hops);
    writer.bytes(body);
}

/// A message that fulfils the limits.
pub(super) fn read(reader: &mut Reader) -> Result<NewMessage, FrameError> {
    read_after(reader, &mut None)
}

/// One that shares the topic of the message before, where it is the same: in a frame it is, as a rule.
fn read_after(reader: &mut Reader, topic: &mut Option<Topic>) -> Result<NewMessage, FrameError> {
    let message = read_unchecked(reader, topic)?;
    message.check().map_err(|_| FrameError::Invalid("a message beyond the limits"))?;
    Ok(message)
}

/// A message with its place and time: a dead letter has it by value, and may have one that is beyond the limits.
pub(crate) fn write_stored(writer: &mut Writer, message: &Message) {
    let Message { offset, topic, key, id, headers, body, time, hops } = message;
    write_parts(writer, topic, key.as_ref(), id.as_deref(), headers, *hops);
    writer.bytes(body);
    writer.number(offset.0);
    writer.number(time.0);
}

pub(crate) fn read_stored(reader: &mut Reader) -> Result<Arc<Message>, FrameError> {
    let message = read_unchecked(reader, &mut None)?;
    let (offset, time) = (Offset(reader.number()?), Timestamp(reader.number()?));
    Ok(Arc::new(Message::from_new(message, offset, time)))
}

fn write_parts(writer: &mut Writer, topic: &Topic, key: Option<&Key>, id: Option<&str>, headers: &Headers, hops: u8) {
    writer.text(topic.as_str());
    writer.option(key, |writer, key| writer.text(key.as_str()));
    writer.option(id, Writer::text);
    writer.count(headers.iter().count());
    for (name, value) in headers.iter() {
        writer.text(name);
        writer.text(value);
    }
    writer.byte(hops);
}

fn read_unchecked(reader: &mut Reader, before: &mut Option<Topic>) -> Result<NewMessage, FrameError> {
    let topic = reader.text(|text| match before {
        Some(topic) if topic.as_str() == text => Some(topic.clone()),
        _ => Topic::parse(text).ok().inspect(|topic| *before = Some(topic.clone())),
    })?;
    let key = reader.option(read_key)?;
    let id = reader.option(|reader| reader.text(|text| (!text.is_empty()).then(|| Arc::from(text))))?;
    let headers = reader.count(HEADER_BYTES_MIN)?;
    if headers > HEADERS_READ_MAX {
        return Err(FrameError::Invalid("more headers than a message may have"));
    }
    let headers = reader.items(headers, |reader| {
        let mut text = || reader.text(|text| Some(text.to_owned()));
        Ok((text()?, text()?))
    })?;
    let (headers, hops) = (Headers::new(headers), reader.byte()?);
    Ok(NewMessage { topic, key, id, headers, body: reader.bytes()?, hops })
}

pub(crate) fn read_key(reader: &mut Reader) -> Result<Key, FrameError> {
    reader.text(|text| Key::parse(text).ok().flatten())
}
