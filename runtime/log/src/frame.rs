//! Frames: a commit, or a list of appended messages, as one entry of an engine that has entries and no transactions.
//!
//! An entry is stored whole or not at all, so what is in one frame is atomic by nature. Whoever reads the log unpacks the
//! messages of a frame; their offsets are made of the entry's sequence and the place in the frame ([`Place`]).
//!
//! Bytes that come back from an engine are not trusted: a length is compared with what is left before anything is made of
//! it, text and limits are checked as at the edge, and no bytes can make [`decode`] panic or take memory out of proportion
//! to their number. What comes first in a frame is what readers need, so that they skip what only the shard's record needs.
//!
//! The first byte tells a frame from other bytes, the second is the version of the format, the third says what it holds.
//! Numbers are little-endian base 128 (LEB128), texts and lists begin with their length.

mod commit;
mod message;
mod place;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

pub(crate) use self::commit::{
    read_control, read_delayed, read_head, read_letter, read_mark, read_shard, write_control, write_delayed,
    write_head, write_letter, write_mark, write_shard,
};
pub(crate) use self::message::{read_key, read_stored, write_stored};
pub use self::place::Place;
pub use self::wire::FrameError;
pub(crate) use self::wire::{Reader, Writer};

use bytes::Bytes;
use sluicebox_core::commit::{ShardCommit, Term};
use sluicebox_core::handler::ShardId;
use sluicebox_core::message::NewMessage;

/// No text and no JSON begins with it.
const MAGIC: u8 = 0xF5;
/// Rises when an older host could misread a frame.
const VERSION: u8 = 1;
const MESSAGES: u8 = 1;
const COMMIT: u8 = 2;

/// What a frame holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Appended from outside, in this order.
    Messages(Vec<NewMessage>),
    Commit(Box<ShardCommit>),
}

/// What readers of the log need of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Unpacked {
    /// Whose commit it is; `None`: the messages were appended.
    pub origin: Option<Origin>,
    pub messages: Vec<NewMessage>,
}

/// Which commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub shard: ShardId,
    pub term: Term,
    pub number: u64,
}

/// A frame of appended messages, which fulfil the limits of [`NewMessage::check`].
pub fn encode_messages(messages: &[NewMessage]) -> Bytes {
    let mut writer = Writer::with_room(messages_bytes(messages));
    write_messages(&mut writer, messages);
    writer.finish()
}

/// A frame of a commit that fulfils the limits every log checks.
pub fn encode_commit(commit: &ShardCommit) -> Bytes {
    let mut writer = Writer::with_room(commit::bytes(commit));
    write_commit(&mut writer, commit);
    writer.finish()
}

/// Behind what is written already.
pub(crate) fn write(writer: &mut Writer, frame: &Frame) {
    match frame {
        Frame::Messages(messages) => write_messages(writer, messages),
        Frame::Commit(commit) => write_commit(writer, commit),
    }
}

/// Bytes that a frame takes, roughly.
pub(crate) fn bytes(frame: &Frame) -> usize {
    match frame {
        Frame::Messages(messages) => messages_bytes(messages),
        Frame::Commit(commit) => commit::bytes(commit),
    }
}

fn write_messages(writer: &mut Writer, messages: &[NewMessage]) {
    start(writer, MESSAGES);
    message::write_list(writer, messages);
}

fn write_commit(writer: &mut Writer, commit: &ShardCommit) {
    start(writer, COMMIT);
    commit::write(writer, commit);
}

fn messages_bytes(messages: &[NewMessage]) -> usize {
    16 + messages.iter().map(message::bytes).sum::<usize>()
}

/// All that is in a frame. Bodies share its memory, everything else is copied.
pub fn decode(frame: Bytes) -> Result<Frame, FrameError> {
    let (kind, mut reader) = opened(frame)?;
    let decoded = match kind {
        MESSAGES => Frame::Messages(message::read_list(&mut reader)?),
        _ => Frame::Commit(Box::new(commit::read(&mut reader)?)),
    };
    reader.end()?;
    Ok(decoded)
}

/// The messages of a frame alone.
pub fn unpack(frame: Bytes) -> Result<Unpacked, FrameError> {
    let (kind, mut reader) = opened(frame)?;
    let origin = if kind == COMMIT { Some(commit::read_origin(&mut reader)?) } else { None };
    let messages = message::read_list(&mut reader)?;
    if origin.is_none() {
        reader.end()?;
    }
    Ok(Unpacked { origin, messages })
}

fn start(writer: &mut Writer, kind: u8) {
    [MAGIC, VERSION, kind].into_iter().for_each(|byte| writer.byte(byte));
}

fn opened(frame: Bytes) -> Result<(u8, Reader), FrameError> {
    let mut reader = Reader::new(frame);
    if reader.byte()? != MAGIC {
        return Err(FrameError::NotAFrame);
    }
    match reader.byte()? {
        VERSION => {}
        version => return Err(FrameError::Version { version }),
    }
    match reader.byte()? {
        kind @ (MESSAGES | COMMIT) => Ok((kind, reader)),
        _ => Err(FrameError::Invalid("the kind of the frame")),
    }
}
