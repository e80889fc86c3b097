//! Commits with anything in them that the limits allow.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{
    Control, DeadAction, DeadFilter, DeadJob, DeadLetter, Deaths, Delayed, Head, HeadScope, KeyWrites, Mark, Over, Pin,
    ShardCommit, Term,
};
use sluicebox_core::effects::StateWrite;
use sluicebox_core::handler::{Digest, HandlerName, ShardId};
use sluicebox_core::message::{Headers, IdHash, Key, Message, NewMessage, Offset};
use sluicebox_core::topic::Topic;
use std::sync::Arc;
use std::time::Duration;

/// Numbers of every length.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..300u64, any::<u64>(), Just(u64::MAX)]
}

fn offset() -> impl Strategy<Value = Offset> {
    number().prop_map(Offset)
}

fn time() -> impl Strategy<Value = Timestamp> {
    number().prop_map(Timestamp)
}

fn key() -> impl Strategy<Value = Key> {
    ".{1,60}".prop_filter_map("not empty", |text| Key::parse(&text).ok().flatten())
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn shard() -> impl Strategy<Value = ShardId> {
    ("[a-z][a-z0-9_-]{0,20}", any::<u16>())
        .prop_map(|(name, index)| ShardId { handler: HandlerName::parse(&name).unwrap(), index })
}

pub(crate) fn any_message() -> impl Strategy<Value = NewMessage> {
    let headers = vec(("[a-zA-Z-]{0,9}", ".{0,9}"), 0..3).prop_map(Headers::new);
    let topic = "[A-Za-z0-9_-]{1,9}(\\.[A-Za-z0-9_-]{1,9}){0,2}".prop_map(|text| Topic::parse(&text).unwrap());
    let texts = (topic, option::of(key()), option::of(".{1,20}"));
    (texts, headers, bytes(), any::<u8>()).prop_map(|((topic, key, id), headers, body, hops)| NewMessage {
        topic,
        key,
        id: id.map(Into::into),
        headers,
        body,
        hops,
    })
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn head() -> impl Strategy<Value = Head> {
    let scope = prop_oneof![Just(HeadScope::Lane), Just(HeadScope::After), Just(HeadScope::Message)];
    let failed = (any::<u32>(), time(), ".{0,30}", option::of(digest()));
    (offset(), option::of(key()), failed, scope).prop_map(|(offset, key, (attempt, due, error, digest), scope)| Head {
        offset,
        key,
        attempt,
        due,
        error: error.into(),
        digest,
        scope,
    })
}

fn deaths() -> impl Strategy<Value = Deaths> {
    let made = |(count, first_offset, first_time, returns)| Deaths { count, first_offset, first_time, returns };
    (any::<u32>(), offset(), time(), any::<u32>()).prop_map(made)
}

fn letter() -> impl Strategy<Value = DeadLetter> {
    let message = (any_message(), offset(), time())
        .prop_map(|(message, offset, time)| Arc::new(Message::from_new(message, offset, time)));
    let why = (any::<u32>(), "[a-z-]{0,9}", ".{0,30}", option::of(digest()));
    let identity = option::of(any::<u128>().prop_map(IdHash));
    (shard(), message, option::of(key()), why, (time(), identity, deaths())).prop_map(
        |(shard, message, key, (attempts, kind, error, digest), (time, identity, deaths))| DeadLetter {
            shard,
            message,
            key,
            attempts,
            kind,
            error,
            digest,
            time,
            identity,
            deaths,
        },
    )
}

fn control() -> impl Strategy<Value = Control> {
    let over = option::of(digest()).prop_map(|file| file.map_or(Over::AnyFile, Over::File));
    let pin = (digest(), over).prop_map(|(digest, over)| Pin { digest, over });
    let job = (any::<u64>(), option::of(key()), option::of(any::<u64>())).prop_map(|(command, key, upto)| DeadJob {
        command,
        action: DeadAction::Retry,
        filter: DeadFilter { key, upto, ..DeadFilter::default() },
        to: None,
    });
    let keys = proptest::collection::btree_set(key(), 0..3);
    (any::<(bool, bool)>(), keys, option::of(pin), any::<u64>(), vec(job, 0..2)).prop_map(
        |((paused, tripped), paused_keys, pin, pin_command, jobs)| Control {
            paused,
            paused_keys,
            tripped,
            pin,
            pin_command,
            jobs,
        },
    )
}

fn state() -> impl Strategy<Value = KeyWrites> {
    let write = (".{0,9}", option::of(bytes())).prop_map(|(entry, value)| StateWrite { entry: entry.into(), value });
    (key(), vec(write, 0..4)).prop_map(|(key, writes)| KeyWrites { key, writes })
}

fn delayed() -> impl Strategy<Value = Delayed> {
    (number(), time(), any_message()).prop_map(|(number, due, message)| Delayed { number, due, message })
}

pub(crate) fn any_commit() -> impl Strategy<Value = ShardCommit> {
    let mark = (any::<u128>(), time()).prop_map(|(id, time)| Mark { id: IdHash(id), time });
    let whose = (shard(), number().prop_map(Term), number());
    let open = (offset(), vec(head(), 0..4), vec(offset(), 0..4));
    let marks = (vec(mark, 0..5), time(), any::<usize>());
    let written = (vec(state(), 0..4), vec(any_message(), 0..4), vec(delayed(), 0..3), vec(number(), 0..3));
    let window = (any::<u64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos));
    let dead = (vec(letter(), 0..3), window, number(), vec(number(), 0..3));
    (whose, open, marks, written, dead, (offset(), option::of(control()))).prop_map(
        |(whose, open, marks, written, dead, controlled)| {
            let (shard, term, number) = whose;
            let (read, open_put, open_drop) = open;
            let (marks, marks_since, marks_max) = marks;
            let (state, outputs, delayed_put, delayed_drop) = written;
            let (dead, dead_window, dead_max, dead_drop) = dead;
            let (controlled, control) = controlled;
            ShardCommit {
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
            }
        },
    )
}
