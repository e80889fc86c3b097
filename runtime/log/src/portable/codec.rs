//! Pieces as bytes: the codec of frames where it has what a piece holds. Any bytes are an error at worst.

use super::{About, Counts, End, Module, Piece, ShardPart};
use crate::contract::Routings;
use crate::frame::{
    FrameError, Reader, Writer, read_control, read_delayed, read_head, read_key, read_letter, read_mark, read_shard,
    read_stored, write_control, write_delayed, write_head, write_letter, write_mark, write_shard, write_stored,
};
use crate::routings;
use bytes::Bytes;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{KeyWrites, NumberedDeadLetter, Record, Term};
use sluicebox_core::effects::StateWrite;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Offset;
use std::sync::Arc;

/// The least that one of each takes, without which a length means nothing.
const HEAD_BYTES_MIN: usize = 7;
const MARK_BYTES_MIN: usize = 17;
const DELAYED_BYTES_MIN: usize = 9;
const KEY_BYTES_MIN: usize = 3;
const ENTRY_BYTES_MIN: usize = 2;
const LETTER_BYTES_MIN: usize = 21;
const MESSAGE_BYTES_MIN: usize = 9;

pub(crate) fn encode(writer: &mut Writer, piece: &Piece) {
    match piece {
        Piece::About(About { kind, after, gone }) => {
            writer.byte(1);
            writer.text(kind);
            writer.number(after.0);
            writer.number(*gone);
        }
        Piece::Routings(Routings { version, routings }) => {
            writer.byte(2);
            writer.number(*version);
            writer.text(&routings::encode(routings));
        }
        Piece::Module(Module { handler, time, bytes }) => {
            writer.byte(3);
            writer.text(handler.as_str());
            writer.number(time.0);
            writer.bytes(bytes);
        }
        Piece::Shard(part) => {
            writer.byte(4);
            write_part(writer, part);
        }
        Piece::State { handler, keys } => {
            writer.byte(5);
            writer.text(handler.as_str());
            writer.list(keys.iter(), |writer, KeyWrites { key, writes }| {
                writer.text(key.as_str());
                writer.list(writes.iter(), |writer, StateWrite { entry, value }| {
                    writer.text(entry);
                    writer.bytes(value.as_deref().unwrap_or_default());
                });
            });
        }
        Piece::Letters(letters) => {
            writer.byte(6);
            writer.list(letters.iter(), |writer, NumberedDeadLetter { number, letter }| {
                writer.number(*number);
                write_letter(writer, letter);
            });
        }
        Piece::Messages(messages) => {
            writer.byte(7);
            writer.list(messages.iter(), |writer, message| write_stored(writer, message));
        }
        Piece::End(End { end, time, letters_upto, counts }) => {
            writer.byte(8);
            let numbers = [end.0, time.0, *letters_upto].into_iter().chain(counts.numbers());
            numbers.for_each(|number| writer.number(number));
        }
    }
}

fn write_part(writer: &mut Writer, part: &ShardPart) {
    let ShardPart { shard, term, record } = part;
    let Record { commit_number, read, open, marks, delayed, controlled, control } = record;
    write_shard(writer, shard);
    [term.0, *commit_number, read.0, controlled.0].into_iter().for_each(|number| writer.number(number));
    write_control(writer, control);
    writer.list(open.iter(), write_head);
    writer.list(marks.iter(), write_mark);
    writer.list(delayed.iter(), write_delayed);
}

pub(crate) fn decode(bytes: Bytes) -> Result<Piece, FrameError> {
    let mut reader = Reader::new(bytes);
    let piece = read(&mut reader)?;
    reader.end()?;
    Ok(piece)
}

pub(crate) fn read(reader: &mut Reader) -> Result<Piece, FrameError> {
    Ok(match reader.byte()? {
        1 => Piece::About(About {
            kind: reader.text(|text| Some(text.to_owned()))?,
            after: Offset(reader.number()?),
            gone: reader.number()?,
        }),
        2 => Piece::Routings(Routings {
            version: reader.number()?,
            routings: reader.text(|text| routings::decode(text).ok())?,
        }),
        3 => Piece::Module(Module {
            handler: read_handler(reader)?,
            time: Timestamp(reader.number()?),
            bytes: reader.bytes()?,
        }),
        4 => Piece::Shard(read_part(reader)?),
        5 => Piece::State {
            handler: read_handler(reader)?,
            keys: reader.list(KEY_BYTES_MIN, |reader| {
                Ok(KeyWrites { key: read_key(reader)?, writes: reader.list(ENTRY_BYTES_MIN, read_entry)? })
            })?,
        },
        6 => Piece::Letters(reader.list(LETTER_BYTES_MIN, |reader| {
            Ok(NumberedDeadLetter { number: reader.number()?, letter: read_letter(reader)? })
        })?),
        7 => Piece::Messages(reader.list(MESSAGE_BYTES_MIN, read_stored)?),
        8 => {
            let (end, time, letters_upto) = (Offset(reader.number()?), Timestamp(reader.number()?), reader.number()?);
            let mut numbers = [0; 9];
            for number in &mut numbers {
                *number = reader.number()?;
            }
            Piece::End(End { end, time, letters_upto, counts: Counts::from_numbers(numbers) })
        }
        _ => return Err(FrameError::Invalid("a piece of an unknown kind")),
    })
}

fn read_part(reader: &mut Reader) -> Result<ShardPart, FrameError> {
    let (shard, term) = (read_shard(reader)?, Term(reader.number()?));
    let (commit_number, read, controlled) = (reader.number()?, Offset(reader.number()?), Offset(reader.number()?));
    let control = read_control(reader)?;
    let open = reader.list(HEAD_BYTES_MIN, read_head)?;
    let marks = reader.list(MARK_BYTES_MIN, read_mark)?;
    let delayed = reader.list(DELAYED_BYTES_MIN, read_delayed)?;
    Ok(ShardPart { shard, term, record: Record { commit_number, read, open, marks, delayed, controlled, control } })
}

/// The value is copied: it stays longer than the piece.
fn read_entry(reader: &mut Reader) -> Result<StateWrite, FrameError> {
    let entry: Arc<str> = reader.text(|text| Some(text.into()))?;
    Ok(StateWrite { entry, value: Some(Bytes::copy_from_slice(&reader.bytes()?)) })
}

fn read_handler(reader: &mut Reader) -> Result<HandlerName, FrameError> {
    reader.text(|text| HandlerName::parse(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::arbitrary::any_commit;
    use crate::frame::tests::{allocated, mutated};
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    use sluicebox_core::commit::ShardCommit;
    use sluicebox_core::message::Message;

    fn encoded(piece: &Piece) -> Bytes {
        let mut writer = Writer::default();
        encode(&mut writer, piece);
        writer.finish()
    }

    /// A piece of each kind, with what is in a commit.
    fn pieces(commit: ShardCommit) -> Vec<Piece> {
        let ShardCommit { shard, term, number, read, open_put: open, marks, mut state, outputs, .. } = commit;
        let (delayed, dead, controlled) = (commit.delayed_put, commit.dead, commit.controlled);
        let control = commit.control.unwrap_or_default();
        // More letters are numbered from there on.
        let number = number / 2;
        let handler = shard.handler.clone();
        let record = Record { commit_number: number, read, open, marks, delayed, controlled, control };
        state.iter_mut().for_each(|key| key.writes.retain(|write| write.value.is_some()));
        let letters = (number..).zip(dead).map(|(number, letter)| NumberedDeadLetter { number, letter });
        let messages = outputs.into_iter().map(|new| Arc::new(Message::from_new(new, read, Timestamp(number))));
        vec![
            Piece::About(About { kind: "embedded".into(), after: read, gone: number }),
            Piece::Routings(Routings { version: number, routings: vec![] }),
            Piece::Module(Module { handler: handler.clone(), time: Timestamp(number), bytes: "module".into() }),
            Piece::Shard(ShardPart { shard, term, record }),
            Piece::State { handler, keys: state },
            Piece::Letters(letters.collect()),
            Piece::Messages(messages.collect()),
            Piece::End(End { end: read, letters_upto: number, ..End::default() }),
        ]
    }

    proptest! {
        #[test]
        fn every_piece_comes_back_as_it_was(commit in any_commit()) {
            for piece in pieces(commit) {
                prop_assert_eq!(decode(encoded(&piece)), Ok(piece));
            }
        }
    }

    #[test]
    fn mutated_pieces_do_no_harm() {
        let mut runner = TestRunner::deterministic();
        let corpus: Vec<Vec<u8>> = (0..8)
            .flat_map(|_| pieces(any_commit().new_tree(&mut runner).unwrap().current()))
            .map(|piece| encoded(&piece).to_vec())
            .collect();
        mutated::survive(&corpus, |bytes| {
            let piece = Bytes::copy_from_slice(bytes);
            let (decoded, most) = allocated::most(|| decode(piece));
            assert!(most <= 4096 + bytes.len() * 100, "{most} bytes of memory for {} bytes", bytes.len());
            if let Ok(piece) = decoded {
                assert_eq!(decode(encoded(&piece)), Ok(piece));
            }
        });
    }
}
