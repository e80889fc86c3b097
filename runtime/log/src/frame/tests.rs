//! Any commit comes back as it was, and no bytes do harm.

pub(crate) mod allocated;
pub(crate) mod arbitrary;
pub(crate) mod mutated;

use super::*;
use arbitrary::{any_commit, any_message};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use sluicebox_core::message::Offset;

/// Memory taken for a byte that is read, at most: headers without a letter are the worst, two texts for two bytes.
const BYTES_PER_BYTE_MAX: usize = 100;

/// Whatever comes out, it took no more memory than in proportion.
fn decode_counted(bytes: &[u8]) -> Result<Frame, FrameError> {
    let frame = Bytes::copy_from_slice(bytes);
    let (decoded, most) = allocated::most(|| decode(frame.clone()));
    let allowed = 1024 + bytes.len() * BYTES_PER_BYTE_MAX;
    assert!(most <= allowed, "{most} bytes of memory for {} bytes", bytes.len());
    let (unpacked, most) = allocated::most(|| unpack(frame));
    assert!(most <= allowed && (unpacked.is_ok() || decoded.is_err()), "{most} bytes of memory, {unpacked:?}");
    decoded
}

proptest! {
    #[test]
    fn a_commit_comes_back_as_it_was(commit in any_commit()) {
        let frame = encode_commit(&commit);
        prop_assert_eq!(decode_counted(&frame), Ok(Frame::Commit(Box::new(commit.clone()))));
        let ShardCommit { shard, term, number, outputs, .. } = commit;
        let unpacked = Unpacked { origin: Some(Origin { shard, term, number }), messages: outputs };
        prop_assert_eq!(unpack(frame), Ok(unpacked));
    }

    #[test]
    fn messages_come_back_as_they_were(messages in vec(any_message(), 0..5)) {
        let frame = encode_messages(&messages);
        prop_assert!(frame.len() <= messages_bytes(&messages), "it had to grow to {} bytes", frame.len());
        prop_assert_eq!(decode_counted(&frame), Ok(Frame::Messages(messages.clone())));
        prop_assert_eq!(unpack(frame), Ok(Unpacked { origin: None, messages }));
    }

    #[test]
    fn a_frame_that_was_cut_is_an_error_wherever_it_was_cut(commit in any_commit()) {
        let frame = encode_commit(&commit);
        for end in 0..frame.len() {
            prop_assert!(decode_counted(&frame[..end]).is_err(), "{end} of {} bytes", frame.len());
        }
        let longer = [&frame[..], &[0]].concat();
        prop_assert_eq!(decode(longer.into()), Err(FrameError::TooLong));
    }

    #[test]
    fn a_frame_with_changed_bytes_does_no_harm(commit in any_commit(), changes in vec(any::<(usize, u8)>(), 1..9)) {
        let mut frame = encode_commit(&commit).to_vec();
        for (at, byte) in changes {
            let at = at % frame.len();
            frame[at] = byte;
        }
        // What still is a frame is written as it was read.
        if let Ok(Frame::Commit(commit)) = decode_counted(&frame) && commit.control.is_none() {
            prop_assert_eq!(encode_commit(&commit), frame);
        }
    }

    #[test]
    fn any_bytes_do_no_harm(kind in 1..3u8, bytes in vec(prop_oneof![Just(0), 0..4u8, any::<u8>()], 0..2000)) {
        prop_assert!(decode_counted(&bytes).is_err());
        let started = [&[MAGIC, VERSION, kind], &bytes[..]].concat();
        drop(decode_counted(&started));
    }

    #[test]
    fn places_are_ordered_as_their_offsets(a: (u32, u16), b: (u32, u16)) {
        let [a, b] = [a, b].map(|(sequence, index)| Place { sequence: sequence.into(), index });
        prop_assert_eq!(a.cmp(&b), a.offset().cmp(&b.offset()));
        prop_assert_eq!(Place::of(a.offset()), a);
        prop_assert!(a <= Place::last_of(a.sequence));
    }
}

#[test]
fn mutated_frames_do_no_harm() {
    let mut corpus: Vec<Vec<u8>> = vec![];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..20 {
        let commit = any_commit().new_tree(&mut runner).unwrap().current();
        corpus.push(encode_commit(&commit).to_vec());
        let messages = vec(any_message(), 0..5).new_tree(&mut runner).unwrap().current();
        corpus.push(encode_messages(&messages).to_vec());
    }
    mutated::survive(&corpus, |bytes| match decode_counted(bytes) {
        // What still is a frame can be written and read again.
        Ok(Frame::Commit(commit)) => assert_eq!(decode(encode_commit(&commit)), Ok(Frame::Commit(commit))),
        Ok(Frame::Messages(messages)) => assert_eq!(decode(encode_messages(&messages)), Ok(Frame::Messages(messages))),
        Err(_) => {}
    });
}

#[test]
fn lengths_that_promise_more_than_there_is_take_no_memory() {
    let endless = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for kind in [MESSAGES, COMMIT] {
        for filled in 0..60 {
            let bytes = [&[MAGIC, VERSION, kind, 1, b'a', 0, 0, 0][..], &vec![0; filled], &endless].concat();
            let (decoded, most) = allocated::most(|| decode(bytes.into()));
            assert!(decoded.is_err() && most < 8192, "{most} bytes for {decoded:?}");
        }
    }
}

#[test]
fn a_frame_of_a_later_version_says_what_to_do() {
    let error = decode(Bytes::from_static(&[MAGIC, VERSION + 1, COMMIT])).unwrap_err();
    assert!(error.to_string().contains("use a newer sluicebox"), "{error}");
    for other in [&b"{\"a\":1}"[..], b"", &[MAGIC, VERSION, 9]] {
        assert!(decode(Bytes::from_static(other)).is_err());
    }
}

#[test]
fn offsets_begin_after_the_start_and_are_whole_numbers_in_json() {
    let first = Place { sequence: 1, index: 0 };
    assert!(first.offset() > Offset::START);
    let late = Place { sequence: (1 << 37) - 1, index: u16::MAX };
    assert!(late.offset().0 < 1 << 53);
    assert_eq!(Place { sequence: u64::MAX, index: 0 }.offset().max(Offset::END), Offset::END);
}
