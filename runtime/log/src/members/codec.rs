//! Heartbeats as bytes.
//!
//! After the beginning come fields: a number that says which, and a length. A host skips the fields that it does not know, and
//! what follows the ones that it knows inside them, so hosts of several versions understand each other while they are
//! updated one after the other. The version rises only when an older host could misread a field; it then ignores the
//! heartbeat and says so.

use super::{Heartbeat, HostId, Runs, ShardSet};
use crate::frame::{FrameError, Reader, Writer};
use bytes::Bytes;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::HandlerName;

/// Neither text nor JSON nor a frame begins with it.
const MAGIC: u8 = 0xF6;
const VERSION: u8 = 1;
/// Of each text.
const TEXT_BYTES_MAX: usize = 512;

const HOST: u64 = 1;
const NAME: u64 = 2;
const ADDRESS: u64 = 3;
const PROGRAM: u64 = 4;
const FEATURES: u64 = 5;
const STARTED: u64 = 6;
const RUNS: u64 = 7;
const LEAVING: u64 = 8;
const SEQUENCE: u64 = 9;
const JOINING: u64 = 10;

/// Its bytes. Texts are cut at their limit.
pub fn encode(beat: &Heartbeat) -> Bytes {
    let Heartbeat { host, name, address, version, features, started, runs, joining, leaving, sequence } = beat;
    let mut writer = Writer::default();
    writer.byte(MAGIC);
    writer.byte(VERSION);
    field(&mut writer, HOST, |writer| writer.number(host.0));
    for (tag, text) in [(NAME, name), (ADDRESS, address), (PROGRAM, version)] {
        field(&mut writer, tag, |writer| writer.raw(cut(text).as_bytes()));
    }
    field(&mut writer, FEATURES, |writer| writer.number(u64::from(*features)));
    field(&mut writer, STARTED, |writer| writer.number(started.0));
    for runs in runs {
        field(&mut writer, RUNS, |writer| {
            writer.text(runs.handler.as_str());
            writer.number(u64::from(runs.shards));
            writer.bytes(runs.held.as_bytes());
        });
    }
    for (tag, is_set) in [(JOINING, joining), (LEAVING, leaving)] {
        if *is_set {
            field(&mut writer, tag, |_| {});
        }
    }
    field(&mut writer, SEQUENCE, |writer| writer.number(*sequence));
    writer.finish()
}

/// Any bytes are an error at worst, and take memory in proportion to their number.
pub fn decode(bytes: Bytes) -> Result<Heartbeat, FrameError> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != MAGIC {
        return Err(FrameError::NotAFrame);
    }
    match reader.byte()? {
        VERSION => {}
        version => return Err(FrameError::Version { version }),
    }
    let (mut host, mut sequence) = (None, None);
    let mut beat = Heartbeat {
        host: HostId(0),
        name: String::new(),
        address: String::new(),
        version: String::new(),
        features: 0,
        started: Timestamp(0),
        runs: vec![],
        joining: false,
        leaving: false,
        sequence: 0,
    };
    while reader.end().is_err() {
        let tag = reader.number()?;
        let value = reader.bytes()?;
        let mut inside = Reader::new(value.clone());
        match tag {
            HOST => host = Some(HostId(inside.number()?)),
            NAME => beat.name = text(&value)?,
            ADDRESS => beat.address = text(&value)?,
            PROGRAM => beat.version = text(&value)?,
            FEATURES => beat.features = u32::try_from(inside.number()?).unwrap_or(u32::MAX),
            STARTED => beat.started = Timestamp(inside.number()?),
            RUNS => beat.runs.push(runs(&mut inside)?),
            LEAVING => beat.leaving = true,
            JOINING => beat.joining = true,
            SEQUENCE => sequence = Some(inside.number()?),
            _ => {}
        }
    }
    beat.host = host.ok_or(FrameError::Invalid("a heartbeat of nobody"))?;
    beat.sequence = sequence.ok_or(FrameError::Invalid("a heartbeat without a number"))?;
    Ok(beat)
}

fn field(writer: &mut Writer, tag: u64, write: impl FnOnce(&mut Writer)) {
    let mut value = Writer::default();
    write(&mut value);
    writer.number(tag);
    writer.bytes(&value.finish());
}

fn runs(reader: &mut Reader) -> Result<Runs, FrameError> {
    let handler = reader.text(|text| HandlerName::parse(text).ok())?;
    let shards = u16::try_from(reader.number()?).map_err(|_| FrameError::Invalid("a number of shards"))?;
    let held = ShardSet::from_bytes(&reader.bytes()?).ok_or(FrameError::Invalid("a set of shards"))?;
    Ok(Runs { handler, shards, held })
}

fn text(bytes: &Bytes) -> Result<String, FrameError> {
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(FrameError::Invalid("a text that is too long"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| FrameError::Invalid("a text that is not UTF-8"))?;
    Ok(text.to_owned())
}

/// As much of the text as fits.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beats() -> impl Strategy<Value = Heartbeat> {
        let sets = proptest::collection::vec(any::<u16>(), 0..20).prop_map(|set| set.into_iter().collect());
        let handlers = "[a-z][a-z0-9_-]{0,62}".prop_map(|name| HandlerName::parse(&name).unwrap());
        let runs = (handlers, any::<u16>(), sets).prop_map(|(handler, shards, held)| Runs { handler, shards, held });
        let texts = (".{0,40}", ".{0,40}", ".{0,40}");
        let numbers = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>());
        let runs = proptest::collection::vec(runs, 0..5);
        (texts, numbers, runs, any::<[bool; 2]>()).prop_map(|(texts, numbers, runs, flags)| Heartbeat {
            host: HostId(numbers.0),
            name: texts.0,
            address: texts.1,
            version: texts.2,
            features: numbers.1,
            started: Timestamp(numbers.2),
            runs,
            joining: flags[0],
            leaving: flags[1],
            sequence: numbers.3,
        })
    }

    proptest! {
        #[test]
        fn what_was_said_is_what_is_heard(beat in beats()) {
            prop_assert_eq!(decode(encode(&beat)), Ok(beat));
        }

        #[test]
        fn no_bytes_are_more_than_an_error(beat in beats(), cut in any::<prop::sample::Index>(), other in any::<u8>()) {
            let whole = encode(&beat);
            let at = cut.index(whole.len());
            let _ = decode(whole.slice(..at));
            let mut changed = whole.to_vec();
            changed[at] = other;
            if let Ok(heard) = decode(changed.into()) {
                prop_assert!(heard.runs.len() <= whole.len());
            }
        }

        #[test]
        fn random_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode([&[MAGIC, VERSION][..], &bytes].concat().into());
        }

        #[test]
        fn what_a_later_version_adds_is_skipped(beat in beats()) {
            let mut writer = Writer::default();
            writer.raw(&encode(&Heartbeat { runs: vec![], ..beat.clone() }));
            field(&mut writer, 1000, |writer| writer.text("of the future"));
            for runs in &beat.runs {
                field(&mut writer, RUNS, |writer| {
                    writer.text(runs.handler.as_str());
                    writer.number(u64::from(runs.shards));
                    writer.bytes(runs.held.as_bytes());
                    writer.text("and more of it");
                });
            }
            prop_assert_eq!(decode(writer.finish()), Ok(beat));
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters() {
        let beat = super::super::tests::beat(1, 1);
        let heard = decode(encode(&Heartbeat { name: "é".repeat(500), ..beat })).unwrap();
        assert_eq!(heard.name, "é".repeat(256));
    }

    #[test]
    fn a_version_that_could_be_misread_is_named() {
        let mut bytes = encode(&super::super::tests::beat(1, 1)).to_vec();
        bytes[1] = 2;
        assert_eq!(decode(bytes.into()), Err(FrameError::Version { version: 2 }));
    }
}
