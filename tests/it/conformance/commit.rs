//! Commits: fenced, atomic per shard, answered per shard; and the state they write.

use super::commit_at_once;
use crate::harness::everything;
use crate::harness::logs::{commit, key, message, shard};
use bytes::Bytes;
use sluicebox::clock::Timestamp;
use sluicebox::commit::{CommitError, Committed, KeyWrites, Mark, ShardCommit};
use sluicebox::effects::{ENTRY_NAME_BYTES_MAX, StateWrite, VALUE_BYTES_MAX};
use sluicebox::handler::ShardId;
use sluicebox::log::Log;
use sluicebox::message::{BODY_BYTES_MAX, IdHash, Offset};

fn write(key_text: &str, entry: &str, value: Option<&str>) -> KeyWrites {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    KeyWrites { key: key(key_text), writes: vec![StateWrite { entry: entry.into(), value }] }
}

/// A commit that leaves a trace everywhere.
fn traces(mut commit: ShardCommit, text: &str) -> ShardCommit {
    commit.read = Offset(commit.number);
    commit.outputs = vec![message("out", text.to_owned()), message("out", format!("{text}, again"))];
    commit.state = vec![write(text, "entry", Some(text))];
    commit.marks = vec![Mark { id: IdHash::of(None, text), time: Timestamp(1) }];
    commit
}

/// Whether all traces of this text are there, or none; anything between fails.
async fn is_whole(log: &dyn Log, shard: &ShardId, text: &str) -> bool {
    let again = format!("{text}, again");
    let outputs = everything(log).await.iter().filter(|m| m.body == text || m.body == again).count();
    let state = log.load(shard.clone(), vec![key(text)]).await.unwrap();
    let record = log.claim(shard.clone(), Offset::START).await.unwrap().record;
    let mark = record.marks.iter().filter(|mark| mark.id == IdHash::of(None, text)).count();
    match (outputs, state[0].len(), mark) {
        (2, 1, 1) => true,
        (0, 0, 0) => false,
        parts => panic!("the commit `{text}` is in parts: {parts:?} outputs, entries, marks"),
    }
}

on_every_kind! {
    async fn a_claim_raises_the_term_and_keeps_the_record(log) {
        let (a, b) = (shard("a", 0), shard("a", 1));
        let first = log.claim(a.clone(), Offset(7)).await.unwrap();
        assert_eq!((first.record.read, first.record.commit_number), (Offset(7), 0));
        let second = log.claim(a.clone(), Offset(9)).await.unwrap();
        assert!(second.term > first.term);
        assert_eq!(second.record.read, Offset(7), "a start is for shards the log does not know");
        log.claim(b, Offset(9)).await.unwrap();
        assert_eq!(log.commit(ShardCommit { read: Offset(8), ..commit(&a, second.term, 1) }).await, Ok(Committed::default()));
        let third = log.claim(a, Offset(9)).await.unwrap();
        assert_eq!((third.record.read, third.record.commit_number), (Offset(8), 1));
    }

    async fn a_fenced_commit_writes_nothing(log) {
        let id = shard("h", 0);
        let fenced = Err(CommitError::Fenced { shard: id.clone() });
        let nobody = commit(&id, Default::default(), 1);
        assert_eq!(log.commit(traces(nobody, "unclaimed")).await, fenced);
        let old = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let new = log.claim(id.clone(), Offset::START).await.unwrap().term;
        assert_eq!(log.commit(traces(commit(&id, old, 1), "old term")).await, fenced);
        assert_eq!(log.commit(traces(commit(&id, new, 2), "a number too high")).await, fenced);
        assert_eq!(log.commit(traces(commit(&id, new, 1), "good")).await, Ok(Committed::default()));
        assert_eq!(log.commit(traces(commit(&id, new, 1), "number again")).await, fenced);
        for text in ["unclaimed", "old term", "a number too high", "number again"] {
            assert!(!is_whole(&*log, &id, text).await, "{text}");
        }
        assert!(is_whole(&*log, &id, "good").await);
    }

    async fn each_shard_is_answered_for_itself(log) {
        let ids: Vec<ShardId> = (0..6).map(|index| shard("h", index)).collect();
        let mut terms = vec![];
        for id in &ids {
            terms.push(log.claim(id.clone(), Offset::START).await.unwrap().term);
        }
        log.claim(ids[1].clone(), Offset::START).await.unwrap();
        let text = |at: usize| format!("shard {at}");
        let mut commits: Vec<ShardCommit> =
            (0..6).map(|at| traces(commit(&ids[at], terms[at], 1), &text(at))).collect();
        commits[3].outputs.push(message("out", vec![0; BODY_BYTES_MAX + 1]));
        commits[4].state[0].writes.push(StateWrite { entry: "e".into(), value: Some(vec![0; VALUE_BYTES_MAX + 1].into()) });
        let answers = commit_at_once(&*log, commits).await;
        for at in [0, 2, 5] {
            assert_eq!(answers[at], Ok(Committed::default()));
        }
        assert_eq!(answers[1], Err(CommitError::Fenced { shard: ids[1].clone() }));
        for at in [3, 4] {
            assert!(matches!(&answers[at], Err(CommitError::Refused { shard, .. }) if *shard == ids[at]), "{answers:?}");
        }
        for (at, id) in ids.iter().enumerate() {
            assert_eq!(is_whole(&*log, id, &text(at)).await, [0, 2, 5].contains(&at), "shard {at}");
        }
    }

    async fn what_cannot_be_written_is_refused_each_time_and_the_shard_goes_on(log) {
        let id = shard("h", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let good = ShardCommit { read: Offset(5), controlled: Offset(5), ..commit(&id, term, 1) };
        assert_eq!(log.commit(good).await, Ok(Committed::default()));
        let long_name = StateWrite { entry: "x".repeat(ENTRY_NAME_BYTES_MAX + 1).into(), value: None };
        let bad = [
            ShardCommit { read: Offset(4), ..commit(&id, term, 2) },
            ShardCommit { read: Offset(6), controlled: Offset(4), ..commit(&id, term, 2) },
            ShardCommit { read: Offset(6), state: vec![KeyWrites { key: key("k"), writes: vec![long_name] }], ..commit(&id, term, 2) },
        ];
        for bad in bad {
            for _ in 0..2 {
                let answer = log.commit(bad.clone()).await;
                assert!(matches!(answer, Err(CommitError::Refused { .. })), "{answer:?}");
            }
        }
        let good = ShardCommit { read: Offset(6), ..commit(&id, term, 2) };
        assert_eq!(log.commit(good).await, Ok(Committed::default()));
    }

    async fn commits_of_one_shard_at_once_follow_each_other(log) {
        let id = shard("h", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let commits = [1, 2, 2, 3].map(|number| traces(commit(&id, term, number), &format!("n{number}")));
        let answers = commit_at_once(&*log, commits.to_vec()).await;
        let fenced = Err(CommitError::Fenced { shard: id.clone() });
        assert_eq!(answers, [Ok(Committed::default()), Ok(Committed::default()), fenced, Ok(Committed::default())]);
        assert_eq!(log.claim(id, Offset::START).await.unwrap().record.commit_number, 3);
    }

    async fn outputs_of_a_commit_are_adjacent_also_among_appends(log) {
        let ids: Vec<ShardId> = (0..4).map(|index| shard("h", index)).collect();
        let mut tasks = vec![];
        for (who, id) in ids.into_iter().enumerate() {
            let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
            let log = log.clone();
            tasks.push(tokio::spawn(async move {
                for number in 1..=25 {
                    log.append(vec![message("foreign", "")]).await.unwrap();
                    let outputs = (0..3u8).map(|at| message("out", vec![who as u8, number as u8, at])).collect();
                    assert_eq!(log.commit(ShardCommit { outputs, ..commit(&id, term, number) }).await, Ok(Committed::default()));
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let all = everything(&*log).await;
        let mut commits = 0;
        for (at, first) in all.iter().enumerate().filter(|(_, m)| m.topic.as_str() == "out" && m.body[2] == 0) {
            for next in 1..3 {
                assert_eq!(all[at + next].body[..], [first.body[0], first.body[1], next as u8]);
            }
            commits += 1;
        }
        assert_eq!(commits, 100);
    }

    async fn state_is_read_back_as_last_committed(log) {
        let (id, other) = (shard("h", 0), shard("other", 0));
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let other_term = log.claim(other.clone(), Offset::START).await.unwrap().term;
        for number in 1..=20u64 {
            let text = number.to_string();
            let mut commits = vec![commit(&id, term, number), commit(&other, other_term, number)];
            commits[0].state = vec![write("k", "total", Some(&text)), write(&format!("k{number}"), "e", Some("v"))];
            commits[1].state = vec![write("k", "total", Some("other"))];
            if number == 20 {
                commits[0].state.push(write("k7", "e", None));
                commits[0].state.push(write("k8", "never there", None));
            }
            assert_eq!(commit_at_once(&*log, commits).await, [Ok(Committed::default()), Ok(Committed::default())]);
            let keys = vec![key("absent"), key("k"), key("k7")];
            let state = log.load(id.clone(), keys).await.unwrap();
            assert_eq!(state[0].len(), 0);
            assert_eq!(state[1].get("total").unwrap(), &text);
            assert_eq!(state[1].len(), 1);
            assert_eq!(state[2].get("e").is_some(), (7..20).contains(&number));
        }
        let state = log.load(other.clone(), vec![key("k"), key("k1")]).await.unwrap();
        assert_eq!((state[0].get("total").unwrap(), state[1].len()), (&Bytes::from("other"), 0));
    }

    async fn a_load_is_never_older_than_the_last_answered_commit(log) {
        let tasks = (0..4u16).map(|index| {
            let log = log.clone();
            tokio::spawn(async move {
                let id = shard("h", index);
                let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
                let text = format!("k{index}");
                for number in 1..=40 {
                    let state = vec![write(&text, "n", Some(&number.to_string()))];
                    assert_eq!(log.commit(ShardCommit { state, ..commit(&id, term, number) }).await, Ok(Committed::default()));
                    let loaded = log.load(id.clone(), vec![key(&text)]).await.unwrap();
                    assert_eq!(loaded[0].get("n").unwrap(), &number.to_string());
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
}
