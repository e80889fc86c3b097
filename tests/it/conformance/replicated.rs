//! What is particular to the logs whose entries every host applies: what goes from memory into the engine and comes back, and
//! several hosts at once.

use super::dead::letter;
use crate::harness::logs::{commit, key, message, shard};
use crate::harness::servers::fresh_namespace;
use crate::harness::{PATIENCE, everything};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{
    CommitError, Committed, Control, DeadFilter, DeadQuery, Delayed, Head, HeadScope, KeyWrites, Mark, ShardCommit,
};
use sluicebox::effects::{EFFECTS_BYTES_MAX, StateWrite};
use sluicebox::handler::ShardId;
use sluicebox::log::{Log, StateQuery, Trim};
use sluicebox::message::{BODY_BYTES_MAX, IdHash, Key, Offset};
use std::sync::Arc;

/// Runs each claim on every engine.
macro_rules! on_every_engine {
    ($(async fn $claim:ident() $body:block)*) => {$(
        mod $claim {
            mod nats {
                use super::super::*;
                use crate::harness::nats as engine;

                #[tokio::test]
                async fn holds() $body
            }
            mod redis {
                use super::super::*;
                use crate::harness::redis as engine;

                #[tokio::test]
                async fn holds() $body
            }
        }
    )*};
}

fn write(key_text: &str, entry: &str, value: Option<&str>) -> KeyWrites {
    let value = value.map(|value| value.to_owned().into());
    KeyWrites { key: key(key_text), writes: vec![StateWrite { entry: entry.into(), value }] }
}

/// A commit with something in every field of the record.
fn full(id: &ShardId, commit: ShardCommit, offset: Offset) -> ShardCommit {
    let head = Head {
        offset,
        key: Some(key("k")),
        attempt: 2,
        due: Timestamp(5),
        error: "down".into(),
        digest: None,
        scope: HeadScope::Lane,
    };
    ShardCommit {
        read: offset,
        open_put: vec![head],
        marks: vec![Mark { id: IdHash(7), time: Timestamp(1) }],
        state: vec![write("k", "a", Some("1")), write("k", "b", Some("2")), write("gone", "a", Some("3"))],
        outputs: vec![message("out", "x"), message("out", "y")],
        delayed_put: vec![Delayed { number: 3, due: Timestamp(9), message: message("later", "z") }],
        dead: vec![letter(id, "first"), letter(id, "second")],
        control: Some(Control { paused: true, ..Control::default() }),
        ..commit
    }
}

async fn value(log: &dyn Log, id: &ShardId, lane: &str, entry: &str) -> Option<String> {
    let state = log.load(id.clone(), vec![key(lane)]).await.unwrap().remove(0);
    state.get(entry).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

async fn letters(log: &dyn Log) -> Vec<String> {
    let found = log.dead(DeadQuery::newest(DeadFilter::default(), 100)).await.unwrap();
    found.into_iter().map(|dead| dead.letter.error).collect()
}

/// Lets everything go that no shard needs, until nothing more does.
async fn trim_all(log: &dyn Log) {
    let older_than = Some(Timestamp(u64::MAX));
    let trim = Trim { older_than, bytes_max: None, holders: vec![], messages_max: 1000 };
    while log.trim(trim.clone()).await.unwrap().more {}
}

on_every_engine! {
    async fn a_host_that_starts_finds_all_in_the_snapshot_and_what_came_since() {
        let namespace = fresh_namespace();
        let id = shard("h", 3);
        let log = engine::open_own(engine::options(&namespace)).unwrap();
        let offset = log.append(vec![message("a", "1")]).await.unwrap()[0];
        let claim = log.claim(id.clone(), Offset::START).await.unwrap();
        assert_eq!(log.commit(full(&id, commit(&id, claim.term, 1), offset)).await, Ok(Committed::default()));
        log.settle().await.unwrap();
        // Behind the snapshot: on top of it, and against it.
        let state = vec![write("k", "a", Some("after")), write("gone", "a", None)];
        let after = ShardCommit { state, read: offset, ..commit(&id, claim.term, 2) };
        assert_eq!(log.commit(after).await, Ok(Committed::default()));
        let (expected, status) = (everything(&*log).await, log.status().await.unwrap());
        drop(log);

        let log = engine::open_own(engine::options(&namespace)).unwrap();
        assert_eq!(everything(&*log).await, expected);
        assert_eq!(log.status().await.unwrap(), status);
        assert_eq!(log.end().await.unwrap(), expected.last().unwrap().offset);
        assert_eq!(letters(&*log).await, ["second", "first"]);
        assert_eq!(value(&*log, &id, "k", "a").await.unwrap(), "after");
        assert_eq!(value(&*log, &id, "k", "b").await.unwrap(), "2");
        assert_eq!(value(&*log, &id, "gone", "a").await, None);
        let again = log.claim(id.clone(), Offset::START).await.unwrap();
        assert_eq!(again.log, claim.log);
        let record = again.record;
        assert_eq!((record.commit_number, record.open.len(), record.marks.len(), record.delayed.len()), (2, 1, 1, 1));
        assert!(record.control.paused);
    }

    async fn entries_leave_the_engine_and_dead_letters_state_and_records_stay() {
        let namespace = fresh_namespace();
        let id = shard("h", 0);
        let log = engine::open_own(engine::options(&namespace)).unwrap();
        let claim = log.claim(id.clone(), Offset::START).await.unwrap();
        assert_eq!(log.commit(full(&id, commit(&id, claim.term, 1), Offset(1))).await, Ok(Committed::default()));
        // An entry each.
        for _ in 0..600 {
            log.append(vec![message("a", "x")]).await.unwrap();
        }
        let mut last = log.append(vec![message("a", "last")]).await.unwrap()[0];
        trim_all(&*log).await;
        assert_eq!(everything(&*log).await, []);
        let entries = log.entries_kept().await.unwrap();
        assert!(entries < 300, "{entries} of 600 entries are still there");
        for is_new in [false, true] {
            let log = if is_new { engine::open_own(engine::options(&namespace)).unwrap() } else { log.clone() };
            assert_eq!(letters(&*log).await, ["second", "first"]);
            assert_eq!(value(&*log, &id, "k", "a").await.unwrap(), "1");
            assert_eq!(log.end().await.unwrap(), last);
            assert_eq!(log.claim(id.clone(), Offset::START).await.unwrap().record.commit_number, 1);
            assert_eq!(log.gone_after(Offset::START).await.unwrap(), 603);
            let next = log.append(vec![message("a", "next")]).await.unwrap()[0];
            assert!(next > last);
            last = next;
        }
    }

    async fn an_effect_that_is_larger_than_an_entry_of_the_engine_is_committed_whole() {
        let namespace = fresh_namespace();
        let log = engine::open_own(engine::options(&namespace)).unwrap();
        let id = shard("h", 0);
        let claim = log.claim(id.clone(), Offset::START).await.unwrap();
        let mut tail = log.tail().await.unwrap();
        let outputs: Vec<_> =
            (0..EFFECTS_BYTES_MAX / BODY_BYTES_MAX).map(|at| message("out", vec![at as u8; BODY_BYTES_MAX])).collect();
        let large = ShardCommit { outputs: outputs.clone(), ..commit(&id, claim.term, 1) };
        assert_eq!(log.commit(large).await, Ok(Committed::default()));
        let bodies = |messages: &[Arc<sluicebox::message::Message>]| {
            messages.iter().map(|message| message.body.clone()).collect::<Vec<_>>()
        };
        let expected: Vec<_> = outputs.iter().map(|output| output.body.clone()).collect();
        assert_eq!(bodies(&tail.next().await.unwrap().unwrap().messages), expected);
        for log in [log.clone(), engine::open_own(engine::options(&namespace)).unwrap()] {
            let all = everything(&*log).await;
            assert_eq!(bodies(&all), expected);
            let offsets = all.iter().rev().map(|message| message.offset).collect();
            let found = log.fetch(offsets).await.unwrap();
            assert_eq!(found.into_iter().rev().map(Option::unwrap).collect::<Vec<_>>(), all);
        }
    }

    async fn a_host_that_lost_its_shard_to_another_is_fenced_and_both_see_the_same() {
        let namespace = fresh_namespace();
        let (first, second) = (engine::open_own(engine::options(&namespace)).unwrap(), engine::open_own(engine::options(&namespace)).unwrap());
        let id = shard("h", 0);
        let old = first.claim(id.clone(), Offset::START).await.unwrap();
        let state = vec![write("k", "n", Some("1"))];
        assert!(first.commit(ShardCommit { state, ..commit(&id, old.term, 1) }).await.is_ok());
        let new = second.claim(id.clone(), Offset::START).await.unwrap();
        assert_eq!((new.record.commit_number, new.log), (1, old.log));
        assert!(new.term > old.term);
        let state = vec![write("k", "n", Some("late"))];
        let late = ShardCommit { state, outputs: vec![message("out", "late")], ..commit(&id, old.term, 2) };
        assert_eq!(first.commit(late).await, Err(CommitError::Fenced { shard: id.clone() }));
        let state = vec![write("k", "n", Some("2"))];
        assert!(second.commit(ShardCommit { state, ..commit(&id, new.term, 2) }).await.is_ok());
        // The one that lost it writes down what it knows, also after the other one did.
        second.settle().await.unwrap();
        first.settle().await.unwrap();
        assert_eq!(value(&*second, &id, "k", "n").await.unwrap(), "2");
        assert_eq!(value(&*engine::open_own(engine::options(&namespace)).unwrap(), &id, "k", "n").await.unwrap(), "2");
        assert_eq!(everything(&*second).await, []);
    }

    async fn commits_race_with_claims_of_another_host_and_each_number_is_written_once() {
        let namespace = fresh_namespace();
        let id = shard("h", 0);
        let mut hosts = vec![];
        for host in 0..3u8 {
            let (log, id) = (engine::open_own(engine::options(&namespace)).unwrap(), id.clone());
            hosts.push(tokio::spawn(async move {
                let mut written = 0;
                while written < 20 {
                    let Ok(claim) = log.claim(id.clone(), Offset::START).await else { continue };
                    let mut number = claim.record.commit_number;
                    for _ in 0..3 {
                        number += 1;
                        let outputs = vec![message("out", vec![host, number as u8])];
                        match log.commit(ShardCommit { outputs, ..commit(&id, claim.term, number) }).await {
                            Ok(_) => written += 1,
                            Err(CommitError::Fenced { .. }) => break,
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
                written
            }));
        }
        let mut written = 0u64;
        for host in hosts {
            written += tokio::time::timeout(PATIENCE, host).await.expect("it hangs").unwrap();
        }
        let log = engine::open_own(engine::options(&namespace)).unwrap();
        let numbers: Vec<u8> = everything(&*log).await.iter().map(|message| message.body[1]).collect();
        assert_eq!(numbers, (1..=written as u8).collect::<Vec<_>>());
        assert_eq!(log.status().await.unwrap()[0].commit_number, written);
    }

    async fn many_keys_are_loaded_from_both_places_at_once() {
        let namespace = fresh_namespace();
        let log = engine::open_own(engine::options(&namespace)).unwrap();
        let id = shard("h", 0);
        let claim = log.claim(id.clone(), Offset::START).await.unwrap();
        let keys: Vec<Key> = (0..500).map(|number| key(&format!("k{number}"))).collect();
        let writes = |from: usize, step: usize, entry: &str, text: &str| -> Vec<KeyWrites> {
            keys.iter().skip(from).step_by(step).map(|key| write(key.as_str(), entry, Some(text))).collect()
        };
        let stored = ShardCommit { state: writes(0, 1, "a", "old"), ..commit(&id, claim.term, 1) };
        assert!(log.commit(stored).await.is_ok());
        // More entries of one key than a server may look up at once for all that are asked for together.
        let many = (0..200).map(|at| StateWrite { entry: format!("e{at}").into(), value: Some("v".into()) });
        let state = keys.iter().take(10).map(|key| KeyWrites { key: key.clone(), writes: many.clone().collect() });
        assert!(log.commit(ShardCommit { state: state.collect(), ..commit(&id, claim.term, 2) }).await.is_ok());
        log.settle().await.unwrap();
        let newer = ShardCommit { state: writes(1, 2, "a", "new"), ..commit(&id, claim.term, 3) };
        assert!(log.commit(newer).await.is_ok());
        let loaded = log.load(id.clone(), keys.clone()).await.unwrap();
        for (at, entries) in loaded.iter().enumerate() {
            assert_eq!(entries.get("a").unwrap(), if at % 2 == 1 { "new" } else { "old" });
            assert_eq!(entries.len(), if at < 10 { 201 } else { 1 });
        }
        let query = StateQuery { handler: id.handler.clone(), prefix: "k".into(), after: None, keys_max: 3 };
        let found = log.state_keys(query).await.unwrap();
        let found: Vec<(&str, u64)> = found.iter().map(|found| (found.key.as_str(), found.entries)).collect();
        assert_eq!(found, [("k0", 201), ("k1", 201), ("k10", 1)]);
    }

    async fn a_key_whose_entries_come_and_go_is_loaded_however_many_there_were() {
        let log = engine::open_own(engine::options(&fresh_namespace())).unwrap();
        let id = shard("h", 0);
        let claim = log.claim(id.clone(), Offset::START).await.unwrap();
        for number in 1..=6u64 {
            let entry = |at: u64| format!("e{at}");
            let added = (0..250).map(|at| write("k", &entry(number * 250 + at), Some("v")));
            let dropped = (0..250).map(|at| write("k", &entry((number - 1) * 250 + at), None));
            let state = added.chain(dropped).collect();
            assert!(log.commit(ShardCommit { state, ..commit(&id, claim.term, number) }).await.is_ok());
            log.settle().await.unwrap();
            let loaded = log.load(id.clone(), vec![key("other"), key("k")]).await.unwrap();
            assert_eq!((loaded[0].len(), loaded[1].len()), (0, 250));
            assert_eq!(loaded[1].get(&entry(number * 250)).unwrap(), "v");
        }
    }

    async fn the_state_of_a_key_that_has_none_or_was_just_written_is_known_without_asking_the_server() {
        let mut server = engine::OwnServer::start();
        let log = engine::open_own(engine::Options::new(server.url(), "t")).unwrap();
        let id = shard("h", 0);
        let claim = log.claim(id.clone(), Offset::START).await.unwrap();
        let state = vec![write("settled", "n", Some("1"))];
        assert!(log.commit(ShardCommit { state, ..commit(&id, claim.term, 1) }).await.is_ok());
        log.settle().await.unwrap();
        let state = vec![write("k", "n", Some("2"))];
        assert!(log.commit(ShardCommit { state, ..commit(&id, claim.term, 2) }).await.is_ok());
        // One host has it from the entries, the other from the snapshot.
        let hosts = [engine::open_own(engine::Options::new(server.url(), "t")).unwrap(), log];
        for log in &hosts {
            assert_eq!(value(&**log, &id, "settled", "n").await.unwrap(), "1");
        }
        server.kill();
        for log in hosts {
            let loaded = log.load(id.clone(), vec![key("new"), key("k")]);
            let loaded = tokio::time::timeout(PATIENCE, loaded).await.expect("it waits").unwrap();
            assert_eq!((loaded[0].len(), loaded[1].get("n").unwrap()), (0, &"2".into()));
        }
    }

    async fn appends_that_come_while_others_are_under_way_share_entries_and_each_has_its_own_offsets() {
        let log = engine::open_own(engine::options(&fresh_namespace())).unwrap();
        let before = log.entries_kept().await.unwrap();
        let appends = (0..200u8).map(|number| {
            let messages = (0..=number % 3).map(|_| message("a", vec![number])).collect();
            log.append(messages)
        });
        let appended = futures_util::future::try_join_all(appends).await.unwrap();
        let entries = log.entries_kept().await.unwrap() - before;
        assert!(entries < 20, "{entries} entries");
        for (number, offsets) in (0u8..).zip(&appended) {
            assert_eq!(offsets.len(), usize::from(number % 3) + 1);
            let found = log.fetch(offsets.clone()).await.unwrap();
            assert!(found.into_iter().all(|message| message.unwrap().body[..] == [number]), "{number}");
        }
        assert_eq!(everything(&*log).await.len(), appended.iter().map(Vec::len).sum::<usize>());
    }

    async fn an_append_whose_caller_goes_away_holds_no_other_up() {
        let log = engine::open_own(engine::options(&fresh_namespace())).unwrap();
        let mut appends: Vec<_> = (0..20u8).map(|number| log.append(vec![message("a", vec![number])])).collect();
        for append in &mut appends {
            assert!(futures_util::poll!(append).is_pending());
        }
        // The first ones are under way, the others wait for them.
        let others = appends.split_off(10);
        drop(appends);
        let others = futures_util::future::try_join_all(others);
        tokio::time::timeout(PATIENCE, others).await.expect("they hang").unwrap();
        let found = everything(&*log).await;
        assert!(found.iter().filter(|message| message.body[0] >= 10).count() == 10);
    }

    async fn a_log_goes_on_when_its_server_was_killed_and_came_back_and_loses_nothing_acknowledged() {
        let mut server = engine::OwnServer::start();
        let log = engine::open_own(engine::Options::new(server.url(), "t")).unwrap();
        let id = shard("h", 0);
        let mut tail = log.tail().await.unwrap();
        let mut acknowledged = vec![];
        let mut term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        for round in 0..3u8 {
            let committed = async {
                loop {
                    // What is known of the shard is asked for again whenever it may be something else.
                    let Ok(claim) = log.claim(id.clone(), Offset::START).await else { continue };
                    assert!(claim.term > term);
                    term = claim.term;
                    let outputs = vec![message("out", vec![round])];
                    let number = claim.record.commit_number + 1;
                    if log.commit(ShardCommit { outputs, ..commit(&id, term, number) }).await.is_ok() {
                        return;
                    }
                }
            };
            tokio::time::timeout(PATIENCE, committed).await.expect("it does not go on");
            acknowledged.push(round);
            server.kill();
            server.start_again();
        }
        let append = async { while log.append(vec![message("out", vec![3])]).await.is_err() {} };
        tokio::time::timeout(PATIENCE, append).await.expect("it does not go on");
        let found: Vec<u8> = everything(&*log).await.iter().map(|message| message.body[0]).collect();
        // What was not acknowledged may be there, and may have been tried again.
        let mut once = found.clone();
        once.dedup();
        assert_eq!(once, [acknowledged, vec![3]].concat());
        let mut told = vec![];
        while told.len() < found.len() {
            told.extend(tail.next().await.unwrap().unwrap().messages.iter().map(|message| message.body[0]));
        }
        assert_eq!(told, found);
    }
}
