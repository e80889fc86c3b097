//! What an entry of the log holds: a frame, or what only a log of entries has.
//!
//! Each entry begins with a number that its writer drew, by which it knows its own entry again when it comes back.

use crate::frame::{self, Frame, FrameError, Reader, Writer};
use crate::frame::{read_control, read_delayed, read_head, read_mark, read_shard};
use crate::frame::{write_control, write_delayed, write_head, write_mark, write_shard};
use crate::portable::{self, About, Piece};
use crate::rerouting::{MovedLetter, Rerouting};
use crate::routings;
use bytes::Bytes;
use sluicebox_core::commit::{LogId, Record, Term};
use sluicebox_core::handler::{HandlerName, ShardId};
use sluicebox_core::message::{IdHash, Message, Offset};
use sluicebox_core::routing::Routing;
use std::sync::Arc;

/// Tells the entries of this file from frames, and says their format.
const MAGIC: u8 = 0xF6;
const VERSION: u8 = 1;
/// Of entries that hosts of before do not know: to pass them over would lose what they hold.
const VERSION_OF_IMPORTS: u8 = 2;

/// Drawn by the writer of an entry.
pub(super) type Nonce = u64;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Frame(Frame),
    /// It is too large for one entry of the engine: the entry is what these entries hold together.
    Parts(Vec<u64>),
    /// The first entry.
    Begin(LogId),
    /// A host takes a shard over: the sequence of this entry is the term. `start` and `controlled` are for a shard that is not
    /// known.
    Claim {
        shard: ShardId,
        start: Offset,
        controlled: Offset,
    },
    Routings {
        version: u64,
        routings: Vec<Routing>,
    },
    Reroute(Box<Rerouting>),
    /// Unless something of the handler came after `upto`, or the routings have another version: then it is in use.
    Forget {
        handler: HandlerName,
        upto: u64,
        version: u64,
    },
    /// So many messages, after `from` and up to `upto`, are let go.
    Trim {
        from: Offset,
        upto: Offset,
        messages: u64,
    },
    /// State as of this entry is in the engine, up to this place there.
    Flushed {
        upto: u64,
        state_sequence: u64,
    },
    Import(Import),
}

/// A log that is brought along from another place, piece by piece: nothing of it counts before the last entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Import {
    /// Into an empty log, or in place of an import that was given up. The sequence of this entry names the import.
    Begin(About),
    Piece {
        import: u64,
        piece: Box<Piece>,
    },
    /// In force from here on: the log's end, and what is higher than every offset and number of a letter.
    Done {
        import: u64,
        end: Offset,
        upto: u64,
    },
}

pub(super) fn encode(nonce: Nonce, entry: &Entry) -> Bytes {
    let mut writer = match entry {
        Entry::Frame(frame) => Writer::with_room(size_of::<Nonce>() + frame::bytes(frame)),
        _ => Writer::default(),
    };
    writer.raw(&nonce.to_le_bytes());
    write(&mut writer, entry);
    writer.finish()
}

fn write(writer: &mut Writer, entry: &Entry) {
    let version = if matches!(entry, Entry::Import(_)) { VERSION_OF_IMPORTS } else { VERSION };
    let mut kind = |kind: u8| [MAGIC, version, kind].into_iter().for_each(|byte| writer.byte(byte));
    match entry {
        Entry::Frame(frame) => frame::write(writer, frame),
        Entry::Parts(sequences) => {
            kind(1);
            writer.list(sequences.iter(), |writer, sequence| writer.number(*sequence));
        }
        Entry::Begin(id) => {
            kind(2);
            writer.wide(id.0);
        }
        Entry::Claim { shard, start, controlled } => {
            kind(3);
            write_shard(writer, shard);
            writer.number(start.0);
            writer.number(controlled.0);
        }
        Entry::Routings { version, routings } => {
            kind(4);
            writer.number(*version);
            writer.text(&routings::encode(routings));
        }
        Entry::Reroute(rerouting) => {
            kind(5);
            let Rerouting { version, routing, from, records, letters } = &**rerouting;
            writer.number(*version);
            writer.text(&routings::encode(std::slice::from_ref(routing)));
            writer.list(from.iter(), |writer, (term, number)| {
                writer.number(term.0);
                writer.number(*number);
            });
            writer.list(records.iter(), write_record);
            writer.list(letters.iter(), |writer, MovedLetter { number, shard, identity }| {
                writer.number(*number);
                writer.number((*shard).into());
                writer.option(identity.as_ref(), |writer, identity| writer.wide(identity.0));
            });
        }
        Entry::Forget { handler, upto, version } => {
            kind(6);
            writer.text(handler.as_str());
            [*upto, *version].into_iter().for_each(|number| writer.number(number));
        }
        Entry::Trim { from, upto, messages } => {
            kind(7);
            [from.0, upto.0, *messages].into_iter().for_each(|number| writer.number(number));
        }
        Entry::Flushed { upto, state_sequence } => {
            kind(8);
            [*upto, *state_sequence].into_iter().for_each(|number| writer.number(number));
        }
        Entry::Import(Import::Begin(about)) => {
            kind(9);
            portable::encode(writer, &Piece::About(about.clone()));
        }
        Entry::Import(Import::Piece { import, piece }) => {
            kind(10);
            writer.number(*import);
            portable::encode(writer, piece);
        }
        Entry::Import(Import::Done { import, end, upto }) => {
            kind(11);
            [*import, end.0, *upto].into_iter().for_each(|number| writer.number(number));
        }
    }
}

/// The nonce of an entry, and what else is in it.
pub(super) fn open(payload: &Bytes) -> Result<(Nonce, Bytes), FrameError> {
    let nonce = payload.first_chunk::<8>().ok_or(FrameError::Truncated)?;
    Ok((u64::from_le_bytes(*nonce), payload.slice(8..)))
}

pub(super) fn decode(content: Bytes) -> Result<Entry, FrameError> {
    if content.first() != Some(&MAGIC) {
        return frame::decode(content).map(Entry::Frame);
    }
    let (kind, mut reader) = started(content)?;
    let entry = read(kind, &mut reader)?;
    reader.end()?;
    Ok(entry)
}

/// What a reader of messages wants of an entry.
#[derive(Debug)]
pub(super) enum Unpacked {
    Frame(frame::Unpacked),
    Parts(Vec<u64>),
    /// Messages that were brought along, with the offsets and times that they had.
    Imported {
        import: u64,
        messages: Vec<Arc<Message>>,
    },
    /// No messages.
    Other,
}

pub(super) fn unpack(content: Bytes) -> Result<Unpacked, FrameError> {
    if content.first() != Some(&MAGIC) {
        return frame::unpack(content).map(Unpacked::Frame);
    }
    let (kind, mut reader) = started(content)?;
    match kind {
        1 => Ok(Unpacked::Parts(reader.list(1, Reader::number)?)),
        10 => match read(10, &mut reader)? {
            Entry::Import(Import::Piece { import, piece }) => Ok(match *piece {
                Piece::Messages(messages) => Unpacked::Imported { import, messages },
                _ => Unpacked::Other,
            }),
            _ => Ok(Unpacked::Other),
        },
        _ => Ok(Unpacked::Other),
    }
}

fn started(content: Bytes) -> Result<(u8, Reader), FrameError> {
    let mut reader = Reader::new(content);
    reader.byte()?;
    match reader.byte()? {
        VERSION | VERSION_OF_IMPORTS => Ok((reader.byte()?, reader)),
        version => Err(FrameError::Version { version }),
    }
}

fn read(kind: u8, reader: &mut Reader) -> Result<Entry, FrameError> {
    Ok(match kind {
        1 => Entry::Parts(reader.list(1, Reader::number)?),
        2 => Entry::Begin(LogId(reader.wide()?)),
        3 => Entry::Claim {
            shard: read_shard(reader)?,
            start: Offset(reader.number()?),
            controlled: Offset(reader.number()?),
        },
        4 => Entry::Routings { version: reader.number()?, routings: read_routings(reader)? },
        5 => Entry::Reroute(Box::new(read_rerouting(reader)?)),
        6 => Entry::Forget {
            handler: reader.text(|text| HandlerName::parse(text).ok())?,
            upto: reader.number()?,
            version: reader.number()?,
        },
        7 => Entry::Trim { from: Offset(reader.number()?), upto: Offset(reader.number()?), messages: reader.number()? },
        8 => Entry::Flushed { upto: reader.number()?, state_sequence: reader.number()? },
        9 => match portable::read(reader)? {
            Piece::About(about) => Entry::Import(Import::Begin(about)),
            _ => return Err(FrameError::Invalid("an import that begins with another piece")),
        },
        10 => Entry::Import(Import::Piece { import: reader.number()?, piece: Box::new(portable::read(reader)?) }),
        11 => Entry::Import(Import::Done {
            import: reader.number()?,
            end: Offset(reader.number()?),
            upto: reader.number()?,
        }),
        _ => return Err(FrameError::Invalid("an entry of an unknown kind")),
    })
}

pub(super) fn read_routings(reader: &mut Reader) -> Result<Vec<Routing>, FrameError> {
    reader.text(|text| routings::decode(text).ok())
}

fn read_rerouting(reader: &mut Reader) -> Result<Rerouting, FrameError> {
    Ok(Rerouting {
        version: reader.number()?,
        routing: read_routings(reader)?.pop().ok_or(FrameError::Invalid("no routing"))?,
        from: reader.list(2, |reader| Ok((Term(reader.number()?), reader.number()?)))?,
        records: reader.list(8, read_record)?,
        letters: reader.list(3, |reader| {
            Ok(MovedLetter {
                number: reader.number()?,
                shard: read_index(reader)?,
                identity: reader.option(|reader| reader.wide().map(IdHash))?,
            })
        })?,
    })
}

fn read_index(reader: &mut Reader) -> Result<u16, FrameError> {
    u16::try_from(reader.number()?).map_err(|_| FrameError::Invalid("the index of a shard"))
}

pub(super) fn write_record(writer: &mut Writer, record: &Record) {
    let Record { commit_number, read, open, marks, delayed, controlled, control } = record;
    writer.number(*commit_number);
    writer.number(read.0);
    writer.list(open.iter(), write_head);
    writer.list(marks.iter(), write_mark);
    writer.list(delayed.iter(), write_delayed);
    writer.number(controlled.0);
    write_control(writer, control);
}

pub(super) fn read_record(reader: &mut Reader) -> Result<Record, FrameError> {
    Ok(Record {
        commit_number: reader.number()?,
        read: Offset(reader.number()?),
        open: reader.list(7, read_head)?,
        marks: reader.list(17, read_mark)?,
        delayed: reader.list(9, read_delayed)?,
        controlled: Offset(reader.number()?),
        control: read_control(reader)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Routings;
    use crate::frame::tests::{allocated, mutated};
    use sluicebox_core::clock::Timestamp;
    use sluicebox_core::commit::{Control, Delayed, Mark};
    use sluicebox_core::message::NewMessage;
    use sluicebox_core::routing::{IdFrom, KeyFrom, Since, Span};
    use sluicebox_core::topic::{Pattern, Topic};

    fn entries() -> Vec<Entry> {
        let handler = HandlerName::parse("order").unwrap();
        let message = NewMessage::new(Topic::parse("a.b").unwrap(), "body");
        let routing = Routing {
            handler: handler.clone(),
            key: KeyFrom::All,
            id: IdFrom::Message,
            shards: 8,
            recorded: Offset(3),
            identity: Since::default(),
            spans: vec![Span { after: Offset(2), subscribe: vec![Pattern::parse("a.>").unwrap()] }],
        };
        let record = Record {
            commit_number: 9,
            read: Offset(70_000),
            open: vec![],
            marks: vec![Mark { id: IdHash(u128::MAX), time: Timestamp(5) }],
            delayed: vec![Delayed { number: 4, due: Timestamp(6), message: message.clone() }],
            controlled: Offset(1),
            control: Control { paused: true, ..Control::default() },
        };
        let rerouting = Rerouting {
            version: 3,
            routing: routing.clone(),
            from: vec![(Term(300), 1), (Term(2), 0)],
            records: vec![record.clone(), record],
            letters: vec![MovedLetter { number: 1 << 40, shard: 7, identity: Some(IdHash(1)) }],
        };
        vec![
            Entry::Frame(Frame::Messages(vec![message])),
            Entry::Parts(vec![1, 300, u64::MAX]),
            Entry::Begin(LogId(7)),
            Entry::Claim {
                shard: ShardId { handler: handler.clone(), index: 300 },
                start: Offset(1),
                controlled: Offset::END,
            },
            Entry::Routings { version: 1, routings: vec![routing] },
            Entry::Reroute(Box::new(rerouting)),
            Entry::Forget { handler, upto: 5, version: 6 },
            Entry::Trim { from: Offset(1), upto: Offset(1 << 20), messages: 3 },
            Entry::Flushed { upto: 1000, state_sequence: 2000 },
            Entry::Import(Import::Begin(About { kind: "embedded".into(), after: Offset(7), gone: 3 })),
            Entry::Import(Import::Piece { import: 300, piece: Box::new(Piece::Routings(Routings::default())) }),
            Entry::Import(Import::Done { import: 300, end: Offset(9), upto: 1 << 40 }),
        ]
    }

    #[test]
    fn every_entry_comes_back_as_it_was_and_is_an_error_when_it_was_cut() {
        for entry in entries() {
            let encoded = encode(42, &entry);
            let (nonce, content) = open(&encoded).unwrap();
            assert_eq!((nonce, decode(content.clone())), (42, Ok(entry.clone())));
            for end in 0..content.len() {
                assert!(decode(content.slice(..end)).is_err(), "{entry:?} cut to {end} bytes");
            }
            let has_messages = matches!(unpack(content).unwrap(), Unpacked::Frame(_));
            assert_eq!(has_messages, matches!(entry, Entry::Frame(_)));
        }
        assert!(open(&Bytes::from_static(b"short")).is_err());
    }

    #[test]
    fn mutated_entries_do_no_harm() {
        let corpus: Vec<Vec<u8>> = entries().iter().map(|entry| encode(42, entry).to_vec()).collect();
        mutated::survive(&corpus, |bytes| {
            let payload = Bytes::copy_from_slice(bytes);
            let allowed = 1024 + bytes.len() * 100;
            let (read, most) = allocated::most(|| open(&payload).and_then(|(_, content)| decode(content)));
            assert!(most <= allowed, "{most} bytes of memory for {} bytes", bytes.len());
            let (unpacked, most) = allocated::most(|| open(&payload).and_then(|(_, content)| unpack(content)));
            assert!(most <= allowed && (unpacked.is_ok() || read.is_err()), "{most} bytes of memory, {unpacked:?}");
            // What still is an entry can be written and read again.
            if let Ok(entry) = read {
                let (nonce, content) = open(&encode(7, &entry)).unwrap();
                assert_eq!((nonce, decode(content)), (7, Ok(entry)));
            }
        });
    }
}
