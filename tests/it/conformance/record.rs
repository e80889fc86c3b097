//! The record: what `claim` returns is what the commits wrote.

use crate::harness::logs::{commit, key, message, shard};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{
    Committed, Control, DeadFilter, Delayed, Head, HeadScope, KeyWrites, Mark, Over, Pin, Record, ShardCommit,
};
use sluicebox::control::Command;
use sluicebox::effects::{Entries, StateWrite};
use sluicebox::handler::{Digest, ShardId};
use sluicebox::log::Log;
use sluicebox::message::{Headers, IdHash, Key, NewMessage, Offset};
use sluicebox::topic::Pattern;
use std::collections::BTreeMap;

fn any_key() -> impl Strategy<Value = Key> {
    // Few short ones, so that commits meet each other's; some long or odd.
    prop_oneof!["[ab]", ".{1,60}".prop_filter("not empty", |text| !text.is_empty())].prop_map(|text| key(&text))
}

pub(super) fn any_message() -> impl Strategy<Value = NewMessage> {
    let headers = vec(("[a-zA-Z-]{1,9}", ".{0,9}"), 0..3).prop_map(Headers::new);
    (option::of(any_key()), option::of(".{1,20}"), headers, vec(any::<u8>(), 0..40), any::<u8>()).prop_map(
        |(key, id, headers, body, hops)| NewMessage {
            key,
            id: id.map(Into::into),
            headers,
            hops,
            ..message("a.b", body)
        },
    )
}

fn any_head() -> impl Strategy<Value = Head> {
    let scope = prop_oneof![Just(HeadScope::Lane), Just(HeadScope::After), Just(HeadScope::Message)];
    let failed = (any::<u32>(), any::<u64>(), ".{0,30}", option::of(any::<[u8; 32]>()));
    (1..30u64, option::of(any_key()), failed, scope).prop_map(|(offset, key, (attempt, due, error, digest), scope)| {
        Head {
            offset: Offset(offset),
            key,
            attempt,
            due: Timestamp(due),
            error: error.into(),
            digest: digest.map(Digest),
            scope,
        }
    })
}

fn any_state() -> impl Strategy<Value = KeyWrites> {
    let write = ("[ab]{0,1}", option::of(vec(any::<u8>(), 0..20)));
    let write = write.prop_map(|(entry, value)| StateWrite { entry: entry.into(), value: value.map(Into::into) });
    (any_key(), vec(write, 1..4)).prop_map(|(key, writes)| KeyWrites { key, writes })
}

fn any_control() -> impl Strategy<Value = Control> {
    let filter = DeadFilter { topic: Some(Pattern::parse("a.>").unwrap()), upto: Some(7), ..DeadFilter::default() };
    let digest = any::<[u8; 32]>().prop_map(Digest);
    let command = prop_oneof![
        Just(Command::Pause),
        Just(Command::Trip),
        any_key().prop_map(|key| Command::PauseKey { key }),
        Just(Command::RetryDead { filter, to: None }),
        (digest.clone(), option::of(digest)).prop_map(|(digest, file)| {
            let over = file.map_or(Over::AnyFile, Over::File);
            Command::Rollback { pin: Pin { digest, over } }
        }),
    ];
    vec(command, 0..4).prop_map(|commands| {
        let mut control = Control::default();
        commands.into_iter().for_each(|command| drop(control.apply(Offset(3), command)));
        control
    })
}

/// Everything of a commit but its shard, term and number.
pub(super) fn any_commit() -> impl Strategy<Value = ShardCommit> {
    let mark = (any::<u128>(), any::<u64>()).prop_map(|(id, time)| Mark { id: IdHash(id), time: Timestamp(time) });
    let delayed = (0..9u64, any::<u64>(), any_message()).prop_map(|(number, due, message)| Delayed {
        number,
        due: Timestamp(due),
        message,
    });
    let drops = (vec((1..30u64).prop_map(Offset), 0..4), vec(0..9u64, 0..3));
    let puts = (vec(any_head(), 0..4), vec(mark, 0..4), vec(any_state(), 0..4), vec(delayed, 0..3));
    let control = (0..9u64, option::of(any_control()));
    (0..9u64, drops, puts, vec(any_message(), 0..3), control).prop_map(|(read, drops, puts, outputs, control)| {
        let (open_drop, delayed_drop) = drops;
        let (open_put, marks, state, delayed_put) = puts;
        let (read, (controlled, control)) = (Offset(read), control);
        let controlled = Offset(controlled);
        let empty = commit(&shard("h", 0), Default::default(), 0);
        let record = ShardCommit { read, open_put, open_drop, marks, controlled, control, ..empty };
        ShardCommit { state, outputs, delayed_put, delayed_drop, ..record }
    })
}

/// What the commits of one shard add up to, kept the simplest way.
#[derive(Default)]
struct Model {
    record: Record,
    state: BTreeMap<Key, Entries>,
}

impl Model {
    fn apply(&mut self, commit: &ShardCommit) {
        let record = &mut self.record;
        record.commit_number = commit.number;
        record.read = commit.read;
        record.controlled = commit.controlled;
        if let Some(control) = &commit.control {
            record.control = control.clone();
        }
        record.open.retain(|head| !commit.open_drop.contains(&head.offset));
        for head in &commit.open_put {
            record.open.retain(|other| other.offset != head.offset);
            record.open.push(head.clone());
        }
        record.open.sort_by_key(|head| head.offset);
        record.marks.extend(&commit.marks);
        record.delayed.retain(|delayed| !commit.delayed_drop.contains(&delayed.number));
        for delayed in &commit.delayed_put {
            record.delayed.retain(|other| other.number != delayed.number);
            record.delayed.push(delayed.clone());
        }
        record.delayed.sort_by_key(|delayed| delayed.number);
        for KeyWrites { key, writes } in &commit.state {
            let entries = self.state.entry(key.clone()).or_default();
            writes.iter().for_each(|write| entries.apply(write));
        }
    }
}

async fn check_round_trip(log: &dyn Log, shard: ShardId, commits: Vec<ShardCommit>) {
    let mut model = Model::default();
    for mut commit in commits {
        let claim = log.claim(shard.clone(), Offset::START).await.unwrap();
        commit.shard = shard.clone();
        commit.term = claim.term;
        commit.number = claim.record.commit_number + 1;
        commit.read = commit.read.max(claim.record.read);
        commit.controlled = commit.controlled.max(claim.record.controlled);
        model.apply(&commit);
        assert_eq!(log.commit(commit).await, Ok(Committed::default()));
        let mut record = log.claim(shard.clone(), Offset::START).await.unwrap().record;
        record.delayed.sort_by_key(|delayed| delayed.number);
        assert_eq!(record, model.record);
    }
    let keys: Vec<Key> = model.state.keys().cloned().collect();
    let state = log.load(shard.clone(), keys).await.unwrap();
    assert_eq!(state, model.state.into_values().collect::<Vec<_>>());
}

fn mark(text: &str, time: u64) -> Mark {
    Mark { id: IdHash::of(None, text), time: Timestamp(time) }
}

on_every_kind! {
    async fn a_claim_returns_what_commits_wrote_in_every_field(log) {
        tokio::task::block_in_place(|| {
            let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
            let fresh = std::cell::Cell::new(0);
            let run = runner.run(&vec(any_commit(), 1..5), |commits| {
                // A handler of its own each time, so that its state is fresh too.
                fresh.set(fresh.get() + 1);
                let shard = shard(&format!("h{}", fresh.get()), fresh.get());
                tokio::runtime::Handle::current().block_on(check_round_trip(&*log, shard, commits));
                Ok(())
            });
            run.unwrap();
        });
    }

    async fn a_shard_the_log_does_not_know_has_no_command_to_apply(log) {
        let offsets = log.append(vec![message("a", ""), message("_control.h", "{}")]).await.unwrap();
        let first = log.claim(shard("h", 0), Offset::START).await.unwrap().record;
        assert_eq!((first.controlled, first.control), (offsets[1], Control::default()));
        log.append(vec![message("_control.h", "{}")]).await.unwrap();
        let second = log.claim(shard("h", 0), Offset::START).await.unwrap().record;
        assert_eq!(second.controlled, offsets[1], "what came after the first claim is for the shard");
    }

    async fn no_mark_within_the_window_and_the_maximum_is_lost(log) {
        let id = shard("h", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let mut written = vec![];
        for number in 1..=100u64 {
            let marks: Vec<Mark> = (0..5).map(|at| mark(&format!("{number}/{at}"), number)).collect();
            written.extend(marks.clone());
            let marks_since = Timestamp(number.saturating_sub(20));
            let trimmed = ShardCommit { marks, marks_since, marks_max: 32, ..commit(&id, term, number) };
            assert_eq!(log.commit(trimmed).await, Ok(Committed::default()));
        }
        let kept = log.claim(id.clone(), Offset::START).await.unwrap().record.marks;
        assert!(written.ends_with(&kept), "what is kept is the end of what was written, in order");
        assert!(kept.len() >= 32, "{} marks are fewer than the maximum", kept.len());
        assert!(kept.len() < 250, "{} marks: none was ever let go of", kept.len());
    }

    async fn marks_older_than_the_window_go(log) {
        let id = shard("h", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        for number in 1..=60u64 {
            let marks = vec![mark(&number.to_string(), number)];
            assert_eq!(log.commit(ShardCommit { marks, ..commit(&id, term, number) }).await, Ok(Committed::default()));
        }
        // Small steps are allowed, for ever is not.
        for number in 61..=90u64 {
            let trimming = ShardCommit { marks_since: Timestamp(31), ..commit(&id, term, number) };
            assert_eq!(log.commit(trimming).await, Ok(Committed::default()));
        }
        let kept = log.claim(id, Offset::START).await.unwrap().record.marks;
        assert_eq!(kept.iter().map(|mark| mark.time.0).collect::<Vec<_>>(), (31..=60).collect::<Vec<_>>());
    }
}
